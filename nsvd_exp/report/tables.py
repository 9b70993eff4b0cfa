"""The paper's tables with stored numbers in them, ready to be written in any format.

A table has one `Block` a model and setting (see `nsvd_exp.report.numbers`); its lines are the
paper's rows, and the rows beyond them that are stored.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable

import numpy as np

from nsvd_exp.experiment.improvement import (
    IN_DOMAIN,
    REFERENCE_METHOD,
    average_improvement,
    improvement,
)
from nsvd_exp.report import paper
from nsvd_exp.report.entries import (
    METHOD_TITLES,
    Average,
    Block,
    Entry,
    Interval,
    Line,
)
from nsvd_exp.report.intervals import Samples, interval, log_perplexities
from nsvd_exp.report.numbers import Contents, Number, Setting, settings_of
from nsvd_exp.report.paper import AVERAGE, PaperTable, Row
from nsvd_exp.report.protocol import dataset_titles, is_papers

PERPLEXITY_TABLES = tuple(paper.tables())

# What the paper compares with: it prints no improvement for them.
BASELINES = ("dense", "svd", "asvd_0", "asvd_i", "asvd_ii")


def build(
    contents: Contents, numbers: Iterable[int] = PERPLEXITY_TABLES, model: str | None = None
) -> dict[int, list[Block]]:
    """The blocks of the tables with these numbers (1, 3, 4, 5, 6): stored models, then the paper's.

    Args:
        model: the title of the one to show; None: all.
    """
    settings = {
        title: settings_of(
            (cell for cell in contents.cells if cell["model"] == title),
            (number for number in contents.numbers if number.cell["model"] == title),
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
        # Not again where a stored model's block shows all of them beside its own.
        shown = {ln.row for b in blocks if b.paper_model == title for ln in b.lines}
        if model in (None, title) and not shown >= set(table.rows[title]):
            blocks.append(_block(table, title, None, 0, []))
    return blocks


def _is_papers_setting(setting: Setting) -> bool:
    return any(is_papers(number) for number in setting.numbers)


def _block(
    table: PaperTable, model: str, setting: Setting | None, place: int, differences: list[str]
) -> Block:
    paper_model = model if model in table.models else None
    if paper_model is None and len(table.models) == 1:
        paper_model = table.models[0]
    rows = _rows(table, model, setting)
    known = dataset_titles()
    stored = setting.dataset_titles if setting else known
    datasets = {name: known[name] for name in known if name in stored} | stored
    lines = _Filler(table, paper_model, setting, list(datasets)).lines(rows)
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
        unstarted=_unstarted(table, rows),
    )


def _unstarted(table: PaperTable, rows: list[Row]) -> list[float]:
    if len(table.ratios) == 1 or not rows:
        return []
    shown = {row.ratio for row in rows}
    return [ratio for ratio in table.ratios if ratio not in shown]


def _rows(table: PaperTable, model: str, setting: Setting | None) -> list[Row]:
    """The paper's rows at the ratios that are shown, and the stored ones that no table has."""
    if setting is None:
        return list(table.rows[model])
    methods = {method for method, _ in table.variants} - {"dense"}
    stored = [row for row in setting.rows if row.method in methods and row.ratio is not None]
    if len(table.ratios) > 1:
        ratios = {row.ratio for row in setting.rows if row.ratio is not None}
        if model in table.models:
            ratios |= set(table.ratios)
    elif model in table.models:
        ratios = set(table.ratios)
    else:
        ratios = {_fullest_ratio(table, stored)} if stored else set()
    rows = [Row("dense", None, None)] if ("dense", None) in table.variants else []
    for ratio in sorted(filter(None, ratios)):
        own = [Row(method, ratio, k1) for method, k1 in table.variants if method != "dense"]
        rows += own + _beyond(table, setting, ratio, own)
    return rows if any(row in setting.rows for row in rows) else []


def _fullest_ratio(table: PaperTable, stored: list[Row]) -> float:
    """The ratio at which most of the table's rows are stored; of several, the paper's, or else
    the smallest."""
    variants = set(table.variants)
    counts = {
        ratio: sum((row.method, row.k1) in variants for row in stored if row.ratio == ratio)
        for ratio in {row.ratio for row in stored if row.ratio is not None}
    }
    return min(counts, key=lambda r: (-counts[r], r not in table.ratios, r))


def _beyond(table: PaperTable, setting: Setting, ratio: float, own: list[Row]) -> list[Row]:
    """Stored rows that the paper does not have: in Table 1, but for another k1 of a method whose
    k1 is varied in a table of its own."""
    others = [row for row in setting.rows if row.ratio == ratio and row not in own]
    varied = {n: {m for m, k1 in paper.tables()[n].variants if k1 is not None} for n in (3, 4)}
    if table.number in varied:
        others = [row for row in others if row.method in varied[table.number]]
    elif table.number == 1:
        others = [row for row in others if row.method not in varied[3] | varied[4]]
    else:
        others = []
    return sorted(others, key=lambda row: (_place_of(row.method), -(row.k1 or 0)))


def _place_of(method: str) -> tuple[int, str]:
    known = list(METHOD_TITLES)
    return (known.index(method), "") if method in known else (len(known), method)


class _Filler:
    """Fills the lines of one block."""

    def __init__(
        self,
        table: PaperTable,
        paper_model: str | None,
        setting: Setting | None,
        datasets: list[str],
    ) -> None:
        self.table, self.paper_model, self.setting = table, paper_model, setting
        self.datasets = datasets
        self.samples = log_perplexities(setting.numbers) if setting else {}

    def lines(self, rows: list[Row]) -> list[Line]:
        """One a row, with the best of each column marked."""
        lines = [self._line(row) for row in rows]
        best = _best(lines)
        for line in lines:
            for name, entry in line.entries.items():
                if entry.perplexity == best.get((line.row.ratio, name), math.nan):
                    line.entries[name] = dataclasses.replace(entry, best=True)
        return lines

    def _line(self, row: Row) -> Line:
        return Line(row, {n: self._entry(row, n) for n in self.datasets}, self._average(row))

    def _pairs(self, row: Row, dataset: str) -> list[tuple[Number, Number]]:
        """The numbers of a place with ASVD-I's of the same seed; nothing for what the paper
        compares with. A method without a seed is compared with every one."""
        if self.setting is None or row.method in BASELINES:
            return []
        reference = self.setting.at(Row(REFERENCE_METHOD, row.ratio, None), dataset)
        return [
            (number, theirs)
            for number in self.setting.at(row, dataset)
            for theirs in reference
            if number.seed in (None, theirs.seed)
        ]

    def _entry(self, row: Row, dataset: str) -> Entry:
        entry = self._ours(row, dataset)
        model = self.paper_model
        printed = self.table.printed.get((model, row, dataset)) if model else None
        if model is None or printed is None:
            return entry
        value = None
        reference = self.table.perplexities(model, Row(REFERENCE_METHOD, row.ratio, None))
        if row.method not in BASELINES and dataset in reference:
            value = improvement(printed.perplexity, reference[dataset])
        return dataclasses.replace(
            entry,
            printed=printed.perplexity,
            printed_improvement=value,
            note=self.table.footnotes.get((model, row, dataset)),
        )

    def _ours(self, row: Row, dataset: str) -> Entry:
        numbers = self.setting.at(row, dataset) if self.setting else []
        if not numbers:
            state, message = _state_without_number(self.setting, row)
            return Entry(state, message=message)
        mean, deviation = _mean_and_deviation([n.perplexity for n in numbers])
        pairs = self._pairs(row, dataset)
        samples = self._improvement_samples(pairs)
        return Entry(
            "done",
            tuple(numbers),
            mean,
            deviation,
            interval=self._interval(numbers),
            improvement=improvement(*_means(pairs)) if pairs else None,
            improvement_interval=None if samples is None else interval(samples),
            comparable=self._is_comparable(numbers),
        )

    def _is_comparable(self, numbers: list[Number]) -> bool:
        return self.paper_model == numbers[0].cell["model"] and all(map(is_papers, numbers))

    def _interval(self, numbers: list[Number]) -> Interval | None:
        samples = self.samples.get(numbers[0].id)
        if len(numbers) > 1 or samples is None:
            return None
        low, high = interval(samples)
        return float(np.exp(low)), float(np.exp(high))

    def _improvement_samples(self, pairs: list[tuple[Number, Number]]) -> Samples | None:
        """The improvement in every resample of the windows, where there is one pair."""
        if len(pairs) != 1:
            return None
        ours, theirs = (self.samples.get(number.id) for number in pairs[0])
        return None if ours is None or theirs is None else 1 - np.exp(ours - theirs)

    def _average(self, row: Row) -> Average:
        printed, note = None, None
        if self.paper_model and (self.paper_model, row) in self.table.averages:
            printed = self.table.average(self.paper_model, row)
            note = self.table.footnotes.get((self.paper_model, row, AVERAGE))
        if self.setting is None:
            return Average(printed=printed, note=note)
        ours, theirs, samples = {}, {}, []
        for name in self.datasets:
            if pairs := self._pairs(row, name):
                ours[name], theirs[name] = _means(pairs)
                if name != IN_DOMAIN:
                    samples.append(self._improvement_samples(pairs))
        value = average_improvement(ours, theirs, self.datasets)
        known = [s for s in samples if s is not None]
        if value is None or not known or len(known) < len(samples):
            return Average(value, printed=printed, note=note)
        return Average(value, interval(np.mean(known, axis=0)), printed, note)


def _mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _means(pairs: list[tuple[Number, Number]]) -> tuple[float, float]:
    """The mean perplexity of the first of each pair, and of the second."""
    ours, theirs = ([number.perplexity for number in side] for side in zip(*pairs, strict=True))
    return statistics.fmean(ours), statistics.fmean(theirs)


def _state_without_number(setting: Setting | None, row: Row) -> tuple[str, str]:
    """`missing`, or what became of the cell, and why."""
    for cell in setting.cells_at(row) if setting else []:
        if cell["status"] == "failed":
            return "failed", cell["error"]["message"]
        if cell["status"] == "partial":
            return "partial", ""
    return "missing", ""


def _best(lines: list[Line]) -> dict[tuple[float | None, str], float]:
    """The lowest perplexity of each ratio and column, where there are two to choose from."""
    found: dict[tuple[float | None, str], list[float]] = {}
    for line in lines:
        for name, entry in line.entries.items():
            if entry.perplexity is not None and line.row.ratio is not None:
                found.setdefault((line.row.ratio, name), []).append(entry.perplexity)
    return {place: min(values) for place, values in found.items() if len(values) > 1}
