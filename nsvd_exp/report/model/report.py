"""What one report says: the tables, similarities and gaps of a `results_dir`."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nsvd_exp.config.checks import shown
from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.report.model import (
    accuracies,
    continuations,
    equal_size,
    gaps,
    profiles,
    results,
    similarities,
    tables,
)
from nsvd_exp.report.model.accuracies import AccuracyBlock
from nsvd_exp.report.model.continuations import ContinuationGroup
from nsvd_exp.report.model.equal_size import EqualSizeBlock
from nsvd_exp.report.model.gaps import Gap
from nsvd_exp.report.model.measurements import Contents, read_contents
from nsvd_exp.report.model.paper import LAYOUTS
from nsvd_exp.report.model.profiles import ProfileGroup
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
        equal_size: the rows of each ratio that has one beyond the paper, by group and ratio.
        tables: the blocks laid out like Tables 1, 3, 4, 5 and 6, by number; only those that are
            asked for and have a block.
        profiles: size and speed of compressed models, by model and machine.
        similarities: laid out like Table 2, and Figure 1; empty where they are not asked for.
        accuracies: at tasks, by model and setting.
        continuations: what the models made of the fixed prompts, by model.
        gaps: what is missing, and the commands that fill it.
        problems: one message for each file that could not be read.
    """

    source: str
    groups: list[Group]
    equal_size: list[EqualSizeBlock]
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock]
    profiles: list[ProfileGroup]
    accuracies: list[AccuracyBlock]
    continuations: list[ContinuationGroup]
    gaps: list[Gap]
    problems: list[str]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the tables that it has."""
        return sorted([*self.tables, *([SIMILARITY_TABLE] if self.similarities else [])])

    @property
    def models(self) -> list[str]:
        """What its models are called."""
        measured = (self.groups, self.similarities, self.profiles, self.accuracies)
        parts = (*measured, self.continuations)
        return list(dict.fromkeys(one.model for part in parts for one in part))


def contents_of(results_dir: str) -> Contents:
    """Read what a `results_dir` holds.

    Raises:
        NsvdError: there is no such folder, or nothing in it that can be read.
    """
    folder = _folder(results_dir)
    contents = read_contents(folder)
    if contents.labels or contents.profiles or contents.continuations:
        return contents
    if contents.problems:
        raise NsvdError("\n".join([f"no result in {results_dir} is usable:", *contents.problems]))
    raise NsvdError(f"{results_dir} holds no results yet: {_how_to_make(results_dir)}")


def _folder(results_dir: str) -> Path:
    if not results_dir:
        raise NsvdError("the name of the folder of results is empty: give a results_dir")
    try:
        folder = Path(expand_path(results_dir))
        mode = folder.stat().st_mode
    except FileNotFoundError:
        raise NsvdError(f"there is no {results_dir}: {_how_to_make(results_dir)}") from None
    except OSError as error:
        raise NsvdError(f"{results_dir} cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise NsvdError(f"{results_dir} is no folder: give a results_dir, which holds cells/")
    return folder


def _how_to_make(results_dir: str) -> str:
    command = ["python", "-m", "nsvd_exp", "experiment=table1", "model=tiny"]
    return f"to make some results, {shlex.join([*command, f'results_dir={results_dir}'])}"


def gather(results_dir: str, numbers: Collection[int] = TABLES, model: str | None = None) -> Report:
    """Read the store and arrange it as tables.

    Args:
        numbers: of the paper's tables to lay results out like.
        model: the model to show, by its title or by what `Contents.labels` calls it; None for all.

    Raises:
        NsvdError: there is no result, or none of that model.
    """
    contents = contents_of(results_dir)
    by_model, profiled = contents.by_model(), profiles.build(contents)
    written = continuations.build(contents)
    if model is not None:
        of_title = {
            contents.labels[key] for key, title in contents.titles.items() if title == shown(model)
        }
        asked = of_title | {model, shown(model)}
        others = {group.model for group in profiled} | {group.model for group in written}
        known = {*by_model, *contents.titles.values(), *others}
        by_model = {label: own for label, own in by_model.items() if label in asked}
        profiled = [group for group in profiled if group.model in asked]
        written = [group for group in written if group.model in asked]
        if not by_model and not profiled and not written:
            raise unknown_name("model", model, known)
    groups = results.build({name: own for name, own in by_model.items() if own.cells})
    built = tables.build(groups, [number for number in numbers if number != SIMILARITY_TABLE])
    layouts = {number: blocks for number, blocks in built.items() if blocks}
    alike = similarities.build(by_model) if SIMILARITY_TABLE in numbers else []
    missing = gaps.gaps_of((block for blocks in layouts.values() for block in blocks), results_dir)
    missing += gaps.similarity_gaps(alike, results_dir)
    scored = accuracies.build({name: own.scores for name, own in by_model.items()})
    return Report(
        results_dir,
        groups,
        equal_size.build(groups),
        layouts,
        alike,
        profiled,
        scored,
        written,
        missing,
        contents.problems,
    )
