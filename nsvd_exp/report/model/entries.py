"""What stands at one place of a table, and how it is computed from the stored measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsvd_exp.config.checks import shown
from nsvd_exp.experiment.improvement import (
    REFERENCE_METHOD,
    average_improvement,
    average_sets,
)
from nsvd_exp.report.model.contrasts import (
    Contrast,
    evenly,
    exp,
    improvement_interval,
    nats_interval,
)
from nsvd_exp.report.model.intervals import Interval, Spread, interval, spread_of_mean
from nsvd_exp.report.model.measurements import LONGEST_MESSAGE, Measurement
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.report.model.protocol import is_papers
from nsvd_exp.report.model.settings import Setting

RUINED = 10  # times the dense model's perplexity; a model beyond says nothing of use

Pair = tuple[Measurement, Measurement]
"""Two measurements on the same windows."""


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        state: `done`, `failed`, `partial` (it runs, or was interrupted) or `missing`.
        measurements: one per calibration seed.
        perplexity: their mean; None where there is none.
        deviation: sample standard deviation over the seeds; None for fewer than two.
        interval: of the perplexity, 95%; None for more than one seed or too few windows.
        over_reference: against ASVD-I at the same ratio; None for ASVD-I itself.
        over_dense: against the dense model; None for the dense model itself.
        best: whether it is the lowest of its column among the compressed models at this ratio, or
            reads like it in the digits that are shown.
        message: why the cell failed.
        printed: the paper's perplexity.
        printed_improvement: the improvement that the paper's perplexities give.
        comparable: whether model and protocol are the paper's.
        note: what is wrong with the number that the paper prints.
    """

    state: str
    measurements: tuple[Measurement, ...] = ()
    perplexity: float | None = None
    deviation: float | None = None
    interval: Interval | None = None
    over_reference: Contrast | None = None
    over_dense: Contrast | None = None
    best: bool = False
    message: str = ""
    printed: float | None = None
    printed_improvement: float | None = None
    comparable: bool = False
    note: str | None = None

    @property
    def improvement(self) -> float | None:
        """Over ASVD-I, as a fraction."""
        return None if self.over_reference is None else self.over_reference.improvement

    @property
    def times_dense(self) -> float | None:
        """The perplexity over the dense model's."""
        return None if self.over_dense is None else self.over_dense.times

    @property
    def difference(self) -> float | None:
        """(ours - the paper's) / the paper's; None where the two may not be compared."""
        if self.perplexity is None or self.printed is None or not self.comparable:
            return None
        return self.perplexity / self.printed - 1


@dataclass(frozen=True)
class Average:
    """What a line says of its datasets together.

    Attributes:
        sets: those that are averaged, the ones that calibration took nothing from.
        improvement: the mean improvement over ASVD-I, with its 95% interval.
        nats: the mean of log perplexity minus the dense model's, in nats per token, with its 95%
            interval. One ruined set cannot dominate it.
        better, worse: in how many of `sets` the perplexity is below, and above, ASVD-I's.
        is_short: whether one of `sets` has too few windows for an interval.
        is_reference: whether this is ASVD-I itself, which has no improvement.
        printed: the mean improvement that the paper's perplexities give over the same sets.
        note: what is wrong with the average that the paper prints.
    """

    sets: tuple[str, ...] = ()
    improvement: float | None = None
    improvement_interval: Interval | None = None
    nats: float | None = None
    nats_interval: Interval | None = None
    better: int = 0
    worse: int = 0
    is_short: bool = False
    is_reference: bool = False
    printed: float | None = None
    note: str | None = None

    @property
    def times_dense(self) -> float | None:
        """The geometric mean of the perplexities over the dense model's."""
        return None if self.nats is None else exp(self.nats)

    @property
    def is_ruined(self) -> bool:
        """Whether the model is beyond use: more than RUINED times the dense perplexity."""
        return self.times_dense is not None and self.times_dense > RUINED


class Entries:
    """Computes what stands in the rows of one setting.

    Args:
        datasets: names of the columns.
    """

    def __init__(self, setting: Setting, datasets: Sequence[str]) -> None:
        self._setting, self._datasets = setting, datasets
        self._losses: dict[tuple[str, str], NDArray[np.float64]] = {}

    def entries(self, row: Row) -> dict[str, Entry]:
        """The entries of a row, by dataset."""
        return {name: self._entry(row, name) for name in self._datasets}

    def average(self, row: Row, entries: dict[str, Entry]) -> Average:
        """What the entries of a row say together."""
        sets = average_sets(self._datasets, self._setting.calibrated_on)
        versus = [c for name in sets if (c := entries[name].over_reference)]
        over_dense = [c for name in sets if (c := entries[name].over_dense)]
        known = [*versus, *over_dense]
        value, nats = self._improvement(row), _mean(over_dense, len(sets))
        return Average(
            sets=tuple(sets),
            improvement=value,
            improvement_interval=None
            if value is None
            else improvement_interval(value, evenly(versus)),
            nats=nats,
            nats_interval=None if nats is None else nats_interval(nats, evenly(over_dense)),
            better=sum(c.log_ratio < 0 for c in versus),
            worse=sum(c.log_ratio > 0 for c in versus),
            is_short=bool(known) and any(c.spread is None for c in known),
            is_reference=row.method == REFERENCE_METHOD,
        )

    def contrast(self, row: Row, other: Row, dataset: str) -> Contrast | None:
        """How a row compares with another one; None where they share no measurement."""
        pairs = self._pairs(row, other, dataset)
        if not pairs:
            return None
        ours, theirs = _means(pairs)
        return Contrast(math.log(ours / theirs), self._spread(pairs))

    def _improvement(self, row: Row) -> float | None:
        """The average improvement, of the perplexities at the seeds that the methods share."""
        ours, theirs = {}, {}
        for name in self._datasets:
            if pairs := self._pairs(row, _reference(row), name):
                ours[name], theirs[name] = _means(pairs)
        return average_improvement(ours, theirs, self._datasets, self._setting.calibrated_on)

    def _entry(self, row: Row, dataset: str) -> Entry:
        found = self._setting.at(row, dataset)
        if not found:
            state, message = _state_without_measurement(self._setting, row)
            return Entry(state, message=message)
        perplexities = [m.perplexity for m in found]
        return Entry(
            "done",
            tuple(found),
            statistics.fmean(perplexities),
            statistics.stdev(perplexities) if len(perplexities) > 1 else None,
            interval=self._perplexity_interval(found),
            over_reference=self.contrast(row, _reference(row), dataset),
            over_dense=self.contrast(row, DENSE, dataset),
            comparable=all(map(is_papers, found)),
        )

    def _pairs(self, row: Row, other: Row, dataset: str) -> list[Pair]:
        """The measurements of a place, each with the other row's of the same calibration seed.

        A method without a seed is compared with every one.
        """
        if row == other:
            return []
        return [
            (measurement, theirs)
            for measurement in self._setting.at(row, dataset)
            for theirs in self._setting.at(other, dataset)
            if None in (measurement.seed, theirs.seed) or measurement.seed == theirs.seed
        ]

    def _spread(self, pairs: Sequence[Pair]) -> Spread | None:
        """Of the mean difference in loss, over all pairs at once: they share their windows."""
        first, *others = [self._loss(ours) - self._loss(theirs) for ours, theirs in pairs]
        return spread_of_mean(sum(others, first) / len(pairs))

    def _perplexity_interval(self, found: Sequence[Measurement]) -> Interval | None:
        spread = spread_of_mean(self._loss(found[0]))
        if len(found) > 1 or spread is None:
            return None
        low, high = interval(math.log(found[0].perplexity), spread)
        return exp(low), exp(high)

    def _loss(self, measurement: Measurement) -> NDArray[np.float64]:
        """The loss of every window in nats per token: (windows,)."""
        if measurement.id not in self._losses:
            stored = measurement.stored
            per_window = stored["tokens"] / stored["windows"]
            self._losses[measurement.id] = np.array(stored["window_nll"]) / per_window
        return self._losses[measurement.id]


def _reference(row: Row) -> Row:
    """ASVD-I at the same ratio."""
    return Row(REFERENCE_METHOD, row.ratio, None)


def _mean(contrasts: Sequence[Contrast], sets: int) -> float | None:
    """The mean difference of log perplexity; None unless all `sets` are there."""
    if not contrasts or len(contrasts) < sets:
        return None
    return statistics.fmean(contrast.log_ratio for contrast in contrasts)


def _means(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The mean perplexity of the first of each pair, and that of the second."""
    ours, theirs = ([m.perplexity for m in side] for side in zip(*pairs, strict=True))
    return statistics.fmean(ours), statistics.fmean(theirs)


def _state_without_measurement(setting: Setting, row: Row) -> tuple[str, str]:
    """The state of a place that has no measurement, and why its cell failed."""
    for cell in setting.cells_at(row):
        if cell["status"] == "failed":
            return "failed", shown(cell["error"]["message"], LONGEST_MESSAGE)
        if cell["status"] == "partial":
            return "partial", ""
    return "missing", ""
