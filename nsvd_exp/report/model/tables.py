"""The paper's tables with stored measurements in them, ready to be written in any format.

A table has one `Block` per model and setting. The lines of a block are the paper's rows, and the
stored rows that the paper does not have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.entries import Average, Entries, Entry
from nsvd_exp.report.model.measurements import Contents
from nsvd_exp.report.model.methods import ShownMethod, shown_method
from nsvd_exp.report.model.paper import PaperTable, Row
from nsvd_exp.report.model.protocol import dataset_titles, is_papers
from nsvd_exp.report.model.rows import rows_of, unstarted_ratios
from nsvd_exp.report.model.settings import Setting, settings_of

PERPLEXITY_TABLES = tuple(paper.tables())


@dataclass(frozen=True)
class Line:
    """One row of a table with its entries by dataset."""

    row: Row
    method: ShownMethod
    entries: dict[str, Entry]
    average: Average

    @property
    def title(self) -> str:
        """The method, as the paper writes it."""
        return self.method.title

    @property
    def is_complete(self) -> bool:
        """Whether every place holds a number."""
        return all(entry.state == "done" for entry in self.entries.values())

    @property
    def has_papers(self) -> bool:
        """Whether one of the paper's numbers belongs to it."""
        return any(entry.printed is not None for entry in self.entries.values())


@dataclass(frozen=True)
class Block:
    """One model under one setting in one of the paper's tables.

    Attributes:
        datasets: titles of its columns, by name.
        paper_model: the model whose printed numbers stand beside; None where none belong there.
        setting: what is stored; None where nothing is.
        place: 0 for the model's main setting; 1, 2, ... for its others.
        differences: where this setting differs from the main one, in words.
        unmeasured: titles of the paper's datasets of which nothing is stored.
        unstarted: the paper's ratios of which nothing is stored, in a table of several ratios.
    """

    table: int
    model: str
    lines: list[Line]
    datasets: dict[str, str]
    paper_model: str | None
    setting: Setting | None
    place: int
    differences: list[str]
    unmeasured: list[str]
    unstarted: list[float]

    @property
    def ratios(self) -> list[float | None]:
        """The ratios of its lines, in order."""
        return list(dict.fromkeys(line.row.ratio for line in self.lines))

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


def build(
    contents: Contents, numbers: Iterable[int] = PERPLEXITY_TABLES, model: str | None = None
) -> dict[int, list[Block]]:
    """The blocks of each table: those of stored models, then those that only the paper has.

    Args:
        numbers: of the tables, out of 1, 3, 4, 5 and 6.
        model: the title of the model to show; None for all.
    """
    settings = {
        title: settings_of(
            (cell for cell in contents.cells if cell["model"] == title),
            (m for m in contents.measurements if m.cell["model"] == title),
        )
        for title in sorted({cell["model"] for cell in contents.cells})
        if model in (None, title)
    }
    return {number: _blocks(paper.tables()[number], settings, model) for number in numbers}


def _blocks(
    table: PaperTable, settings: dict[str, list[Setting]], model: str | None
) -> list[Block]:
    blocks = []
    for title in settings:
        main, *others = sorted(settings[title], key=_is_papers_setting, reverse=True)
        of_model = [_block(table, title, main, 0, [])]
        of_model += [
            _block(table, title, other, place, other.differences(main))
            for place, other in enumerate(others, start=1)
        ]
        blocks += [block for block in of_model if block.lines]
    for title in table.models:
        # Not again where a stored model's block shows all of the paper's rows beside its own.
        shown = {ln.row for b in blocks if b.paper_model == title for ln in b.lines}
        if model in (None, title) and not shown >= set(table.rows[title]):
            blocks.append(_block(table, title, None, 0, []))
    return blocks


def _is_papers_setting(setting: Setting) -> bool:
    return any(map(is_papers, setting.measurements))


def _block(
    table: PaperTable, model: str, setting: Setting | None, place: int, differences: list[str]
) -> Block:
    paper_model = model if model in table.models else None
    if paper_model is None and len(table.models) == 1:
        paper_model = table.models[0]
    known = dataset_titles()
    stored = setting.dataset_titles if setting else known
    datasets = {name: known[name] for name in known if name in stored} | stored
    rows = rows_of(table, model, setting)
    entries = Entries(table, paper_model, setting, list(datasets))
    lines = [
        Line(row, _method(row, setting), entries.entries(row), entries.average(row)) for row in rows
    ]
    _mark_best(lines)
    return Block(
        table=table.number,
        model=model,
        lines=lines,
        datasets=datasets or known,
        paper_model=paper_model,
        setting=setting,
        place=place,
        differences=differences,
        unmeasured=[title for name, title in known.items() if name not in (datasets or known)],
        unstarted=unstarted_ratios(table, rows),
    )


def _method(row: Row, setting: Setting | None) -> ShownMethod:
    stored = setting.methods if setting else {}
    return stored.get(row.method) or shown_method(row.method)


def _mark_best(lines: list[Line]) -> None:
    """Mark the lowest perplexity of each ratio and column, where there are two to choose from."""
    found: dict[tuple[float | None, str], list[float]] = {}
    for line in lines:
        for name, entry in line.entries.items():
            if entry.perplexity is not None and line.row.ratio is not None:
                found.setdefault((line.row.ratio, name), []).append(entry.perplexity)
    best = {place: min(values) for place, values in found.items() if len(values) > 1}
    for line in lines:
        for name, entry in line.entries.items():
            if entry.perplexity == best.get((line.row.ratio, name), math.nan):
                line.entries[name] = dataclasses.replace(entry, best=True)
