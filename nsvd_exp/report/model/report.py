"""What one report says: the tables, similarities and gaps of a `results_dir`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.report.model import accuracies, gaps, results, similarities, tables
from nsvd_exp.report.model.accuracies import AccuracyBlock
from nsvd_exp.report.model.gaps import Gap
from nsvd_exp.report.model.measurements import Contents, read_contents
from nsvd_exp.report.model.paper import LAYOUTS
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block

TABLES = tuple(LAYOUTS)
SIMILARITY_TABLE = 2


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        source: the `results_dir`, as the user wrote it.
        groups: all that is stored, by model and setting.
        tables: the blocks laid out like Tables 1, 3, 4, 5 and 6, by number; only those that are
            asked for and have a block.
        similarities: laid out like Table 2, and Figure 1; empty where they are not asked for.
        accuracies: at tasks, by model and setting.
        gaps: what is missing, and the commands that fill it.
        problems: one message for each file that could not be read.
    """

    source: str
    groups: list[Group]
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock]
    accuracies: list[AccuracyBlock]
    gaps: list[Gap]
    problems: list[str]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the tables that it has."""
        return sorted([*self.tables, *([SIMILARITY_TABLE] if self.similarities else [])])

    @property
    def models(self) -> list[str]:
        """What its models are called."""
        shown = [*(group.model for group in self.groups), *(b.model for b in self.similarities)]
        shown += [block.model for block in self.accuracies]
        return list(dict.fromkeys(shown))


def contents_of(results_dir: str) -> Contents:
    """Read what a `results_dir` holds.

    Raises:
        NsvdError: there is nothing that can be read.
    """
    contents = read_contents(Path(expand_path(results_dir)))
    if contents.labels:
        return contents
    if contents.problems:
        raise NsvdError("\n".join([f"no result in {results_dir} is usable:", *contents.problems]))
    raise NsvdError(
        f"{results_dir} holds no results yet: to make some, python -m nsvd_exp experiment=table1 "
        f"model=tiny results_dir={results_dir}"
    )


def gather(results_dir: str, numbers: Collection[int] = TABLES, model: str | None = None) -> Report:
    """Read the store and arrange it as tables.

    Args:
        numbers: of the paper's tables to lay results out like.
        model: the model to show, by its title or by what `Contents.labels` calls it; None for all.

    Raises:
        NsvdError: there is no result, or none of that model.
    """
    contents = contents_of(results_dir)
    by_model = contents.by_model()
    if model is not None:
        of_title = {
            contents.labels[key] for key, title in contents.titles.items() if title == model
        }
        asked = {label: own for label, own in by_model.items() if label in of_title | {model}}
        if not asked:
            raise unknown_name("model", model, {*by_model, *contents.titles.values()})
        by_model = asked
    groups = results.build({name: own for name, own in by_model.items() if own.cells})
    built = tables.build(groups, [number for number in numbers if number != SIMILARITY_TABLE])
    shown = {number: blocks for number, blocks in built.items() if blocks}
    alike = similarities.build(by_model) if SIMILARITY_TABLE in numbers else []
    scored = accuracies.build({name: own.scores for name, own in by_model.items()})
    missing = gaps.gaps_of((block for blocks in shown.values() for block in blocks), results_dir)
    missing += gaps.similarity_gaps(alike, results_dir)
    return Report(results_dir, groups, shown, alike, scored, missing, contents.problems)
