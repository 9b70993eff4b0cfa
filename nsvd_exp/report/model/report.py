"""What one report says: the tables, similarities and gaps of a `results_dir`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.report.model import gaps, paper, similarities, tables
from nsvd_exp.report.model.gaps import Gap
from nsvd_exp.report.model.measurements import Contents, read_contents
from nsvd_exp.report.model.paper import CAPTIONS
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block

TABLES = tuple(CAPTIONS)
SIMILARITY_TABLE = 2


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        source: the `results_dir`, as the user wrote it.
        numbers: of its tables, in order.
        tables: the blocks of Tables 1, 3, 4, 5 and 6, by number.
        similarities: Table 2 and Figure 1; empty where they are not asked for.
        gaps: what is missing, and the commands that fill it.
        problems: one message for each file that could not be read.
    """

    source: str
    numbers: list[int]
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock]
    gaps: list[Gap]
    problems: list[str]


def contents_of(results_dir: str) -> Contents:
    """Read what a `results_dir` holds.

    Raises:
        NsvdError: there is nothing that can be read.
    """
    contents = read_contents(Path(expand_path(results_dir)))
    if contents.models:
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
        numbers: of the tables to show.
        model: the title of the model to show; None for all.

    Raises:
        NsvdError: there is no result, or neither the store nor the paper has that model.
    """
    contents = contents_of(results_dir)
    papers = [title for table in paper.tables().values() for title in table.models]
    known = {*contents.models, *papers}
    if model is not None and model not in known:
        raise unknown_name("model", model, known)
    wanted = [number for number in numbers if number != SIMILARITY_TABLE]
    built = tables.build(contents, wanted, model)
    missing = gaps.gaps_of((block for blocks in built.values() for block in blocks), results_dir)
    alike: list[SimilarityBlock] = []
    if SIMILARITY_TABLE in numbers:
        alike = similarities.build(contents, model)
        missing += gaps.similarity_gaps(contents, alike, model, results_dir)
    return Report(results_dir, sorted(numbers), built, alike, missing, contents.problems)
