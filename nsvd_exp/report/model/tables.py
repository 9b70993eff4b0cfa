"""The stored results, laid out like the paper's tables, with the paper's numbers beside them.

A table has one `Block` per stored model and setting of which it shows a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from nsvd_exp.experiment.improvement import REFERENCE_METHOD, improvement
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.entries import Average, Entry
from nsvd_exp.report.model.methods import shown_method
from nsvd_exp.report.model.paper import AVERAGE, PaperTable, Row
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.results import Group, Line, line_of, mark_best
from nsvd_exp.report.model.rows import rows_of, unstarted_ratios

PERPLEXITY_TABLES = tuple(paper.tables())


@dataclass(frozen=True)
class Block:
    """One model under one setting in the layout of one of the paper's tables.

    Attributes:
        group: what is stored.
        paper_model: the model whose printed numbers stand beside; None where none belong there.
        unmeasured: titles of the paper's datasets of which nothing is stored.
        unstarted: the paper's ratios of which nothing is stored, in a table of several ratios.
    """

    table: int
    group: Group
    lines: list[Line]
    paper_model: str | None
    unmeasured: list[str]
    unstarted: list[float]

    @property
    def ratios(self) -> list[float | None]:
        """The ratios of its lines, in order."""
        return list(dict.fromkeys(line.row.ratio for line in self.lines))

    @property
    def is_papers_model(self) -> bool:
        """Whether the paper's numbers beside it are of the same model."""
        return self.paper_model == self.group.title

    @property
    def notes(self) -> list[str]:
        """Its distinct footnotes, in reading order."""
        notes = [
            note
            for line in self.lines
            for note in (*(e.note for e in line.entries.values()), line.average.note)
            if note
        ]
        return list(dict.fromkeys(notes))

    @property
    def incomplete(self) -> list[Line]:
        """The lines with a place that holds no number."""
        return [line for line in self.lines if not line.is_complete]


def build(groups: Iterable[Group], numbers: Iterable[int]) -> dict[int, list[Block]]:
    """The blocks of each table, by its number.

    Args:
        numbers: of the tables, out of 1, 3, 4, 5 and 6.
    """
    groups, layouts = list(groups), paper.tables()
    return {
        number: [block for group in groups if (block := _block(layouts[number], group)).lines]
        for number in numbers
    }


def _block(table: PaperTable, group: Group) -> Block:
    paper_model = group.title if group.title in table.models else None
    if paper_model is None and len(table.models) == 1:
        paper_model = table.models[0]
    rows = rows_of(table, group)
    stored = {line.row: line for line in group.lines}
    entries = group.entries()
    lines = [
        stored.get(row) or line_of(row, shown_method(row.method, group.setting.cells), entries)
        for row in rows
    ]
    beside = [_beside_papers(line, table, paper_model, group) for line in mark_best(lines)]
    known = dataset_titles()
    return Block(
        table=table.number,
        group=group,
        lines=beside,
        paper_model=paper_model,
        unmeasured=[title for name, title in known.items() if name not in group.datasets],
        unstarted=unstarted_ratios(table, rows),
    )


def _beside_papers(line: Line, table: PaperTable, model: str | None, group: Group) -> Line:
    """The line with the paper's numbers of the same row."""
    if model is None or line.row not in table.rows[model]:
        return line
    reference = table.perplexities(model, Row(REFERENCE_METHOD, line.row.ratio, None))
    of_same_model = model == group.title
    entries = {
        name: _with_printed(entry, name, line.row, table, model, reference, of_same_model)
        for name, entry in line.entries.items()
    }
    average = _with_printed_average(line.average, line.row, table, model)
    return dataclasses.replace(line, entries=entries, average=average)


def _with_printed(
    entry: Entry,
    dataset: str,
    row: Row,
    table: PaperTable,
    model: str,
    reference: dict[str, float],
    of_same_model: bool,
) -> Entry:
    printed = table.printed.get((model, row, dataset))
    if printed is None:
        return entry
    is_compared = row.method != REFERENCE_METHOD and dataset in reference
    return dataclasses.replace(
        entry,
        printed=printed.perplexity,
        printed_improvement=(
            improvement(printed.perplexity, reference[dataset]) if is_compared else None
        ),
        comparable=entry.comparable and of_same_model,
        note=table.footnotes.get((model, row, dataset)),
    )


def _with_printed_average(average: Average, row: Row, table: PaperTable, model: str) -> Average:
    """With the paper's average over the same sets; a footnote only where it is of all its sets."""
    if row.method == REFERENCE_METHOD or row.ratio is None:
        return average
    own = [name for name in paper.datasets() if name not in paper.CALIBRATED_ON]
    return dataclasses.replace(
        average,
        printed=table.average(model, row, average.sets),
        note=table.footnotes.get((model, row, AVERAGE)) if set(average.sets) == set(own) else None,
    )
