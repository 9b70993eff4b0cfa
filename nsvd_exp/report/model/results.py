"""All that is stored, in one table: every model, setting, method, ratio and k1."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.entries import Average, Entries, Entry
from nsvd_exp.report.model.measurements import Contents
from nsvd_exp.report.model.methods import ShownMethod
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.report.model.protocol import dataset_titles, is_papers
from nsvd_exp.report.model.settings import Setting, settings_of

NEAR = 1.01  # times the lowest: what is beyond does not read like it in three digits


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
    def is_of_paper(self) -> bool:
        """Whether it is a method of the paper, in the paper's form: two factors, the same ratio in
        each layer, and the fields of `conf/method`."""
        # Of another form the row's name has more than the method's.
        return self.row.method in (DENSE.method, *paper.METHODS)

    @property
    def is_complete(self) -> bool:
        """Whether every place holds a number."""
        return all(entry.state == "done" for entry in self.entries.values())

    @property
    def is_stored(self) -> bool:
        """Whether anything is stored of it, be it that it failed."""
        return any(entry.state != "missing" for entry in self.entries.values())

    @property
    def has_papers(self) -> bool:
        """Whether one of the paper's numbers belongs to it."""
        return any(entry.printed is not None for entry in self.entries.values())


@dataclass(frozen=True)
class Group:
    """All that is stored of one model under one setting.

    Attributes:
        title: the model's.
        model: what the model is called: its title, and a hash where another one has that too.
        lines: one per stored row, by ratio and in the order of the methods.
        datasets: titles of the columns, by name.
        place: 0 for the model's main setting; 1, 2, ... for its others.
        differences: where this setting differs from the main one, in words.
    """

    title: str
    model: str
    setting: Setting
    lines: list[Line]
    datasets: dict[str, str]
    place: int
    differences: list[str]

    @property
    def ratios(self) -> list[float]:
        """The stored ratios, in ascending order."""
        return sorted({line.row.ratio for line in self.lines if line.row.ratio is not None})

    @property
    def calibrated_on(self) -> list[str]:
        """Titles of the datasets that the averages leave out."""
        names = self.setting.calibrated_on
        return [self.datasets.get(name) or dataset_titles().get(name, name) for name in names]

    def entries(self) -> Entries:
        """Computes further rows of this setting."""
        return Entries(self.setting, list(self.datasets))


def build(contents: dict[str, Contents]) -> list[Group]:
    """The groups of each model: its main setting first.

    Args:
        contents: what is stored of each model, by its label.
    """
    groups = []
    for label, own in contents.items():
        settings = settings_of(own.cells, own.measurements)
        ordered = sorted(settings, key=_is_papers_setting, reverse=True)
        groups += [
            _group(label, setting, place, setting.differences(ordered[0]) if place else [])
            for place, setting in enumerate(ordered)
        ]
    return groups


def columns_of(groups: Iterable[Group]) -> dict[str, str]:
    """The titles of all their datasets, by name: the paper's in its order, then the others."""
    found = {name: title for group in groups for name, title in group.datasets.items()}
    return {name: found[name] for name in dataset_titles() if name in found} | found


def _is_papers_setting(setting: Setting) -> bool:
    return any(map(is_papers, setting.measurements))


def _group(model: str, setting: Setting, place: int, differences: list[str]) -> Group:
    known, stored = dataset_titles(), setting.dataset_titles
    datasets = {name: known[name] for name in known if name in stored} | stored
    # A model of which every cell has failed shows so in the paper's columns.
    shown = datasets or known
    entries = Entries(setting, list(shown))
    lines = [line_of(row, setting.methods[row.method], entries) for row in setting.rows]
    title = setting.cells[0]["model"]
    # A cell that was measured under another protocol has nothing to show here.
    kept = mark_best(line for line in lines if line.is_stored)
    return Group(title, model, setting, kept, shown, place, differences)


def line_of(row: Row, method: ShownMethod, entries: Entries) -> Line:
    """The line of a row, with what is computed of it."""
    found = entries.entries(row)
    return Line(row, method, found, entries.average(row, found))


def mark_best(lines: Iterable[Line]) -> list[Line]:
    """Mark the lowest perplexity of each ratio and column, where there are two to choose from.

    What reads like the lowest, in the digits that are shown, is marked as well.
    """
    lines = list(lines)
    found: dict[tuple[float, str], list[float]] = {}
    for line in lines:
        for name, entry in line.entries.items():
            if entry.perplexity is not None and line.row.ratio is not None:
                found.setdefault((line.row.ratio, name), []).append(entry.perplexity)
    best = {place: min(values) for place, values in found.items() if len(values) > 1}
    return [dataclasses.replace(line, entries=_marked(line, best)) for line in lines]


def _marked(line: Line, best: dict[tuple[float, str], float]) -> dict[str, Entry]:
    def is_best(name: str, entry: Entry) -> bool:
        value, lowest = entry.perplexity, best.get((line.row.ratio or 0.0, name))
        if value is None or lowest is None or value > NEAR * lowest:
            return False
        return format_perplexity(value) == format_perplexity(lowest)

    return {
        name: entry if entry.best == is_best(name, entry)
        else dataclasses.replace(entry, best=is_best(name, entry))
        for name, entry in line.entries.items()
    }  # fmt: skip
