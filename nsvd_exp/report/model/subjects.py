"""What claims are checked on: a model of which results are stored, and the paper's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nsvd_exp.experiment.improvement import REFERENCE_METHOD, average_sets, calibration_sets
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.contrasts import (
    Contrast,
    Parts,
    evenly,
    exp,
    improvement_interval,
    nats_interval,
)
from nsvd_exp.report.model.intervals import Interval, Spread
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.model.similarities import SimilarityBlock

PAPERS_MODEL = "llama-7b"
EXACT = Spread(0.0, 1.0)  # of what is printed without windows


@dataclass(frozen=True)
class Estimate:
    """A number with its paired 95% interval; None for an interval that cannot be given."""

    value: float
    bounds: Interval | None


@dataclass(frozen=True)
class Compared:
    """How one row compares with another over several sets.

    Attributes:
        improvement: the mean over the sets of 1 - perplexity / the other's: as the paper averages.
        nats: the mean over the sets of log perplexity minus the other's, per token.
    """

    improvement: Estimate
    nats: Estimate


@dataclass(frozen=True)
class Subject:
    """What claims are checked on.

    Attributes:
        title: of the model.
        own: the sets whose training text ASVD-I was calibrated on, of those that are evaluated.
        others: the sets that calibration took nothing from.
        datasets: titles of the sets, by name.
        rows: of which anything is stored.
        contrast: how a row compares with another on a set; None where one of them is missing.
        similarities: of a set's activations to the calibration set's, the mean over the layers;
            empty where none are stored.
        statistic: which similarity that is.
        is_printed: whether these are the paper's printed numbers, which have no intervals.
    """

    title: str
    own: tuple[str, ...]
    others: tuple[str, ...]
    datasets: Mapping[str, str]
    rows: frozenset[Row]
    contrast: Callable[[Row, Row, str], Contrast | None]
    similarities: Mapping[str, float]
    statistic: str = ""
    is_printed: bool = False

    @property
    def ratios(self) -> list[float]:
        """The stored ratios, in ascending order."""
        return sorted({row.ratio for row in self.rows if row.ratio is not None})

    def k1s(self, method: str, ratio: float) -> list[float]:
        """The stored k1 of a method at a ratio, the largest first."""
        at_ratio = [row for row in self.rows if (row.method, row.ratio) == (method, ratio)]
        return sorted((row.k1 for row in at_ratio if row.k1 is not None), reverse=True)

    def compare(self, row: Row, other: Row, sets: Sequence[str]) -> Compared | None:
        """How a row compares with another over `sets`; None unless both have all of them."""
        found = self._contrasts(row, other, sets)
        if found is None:
            return None
        if len(found) == 1:
            exact = Estimate(found[0].improvement, found[0].improvement_interval)
            return Compared(exact, _of_sum(evenly(found)).nats)
        return _of_sum(evenly(found))

    def compare_gains(
        self, row: Row, other: Row, sets: Sequence[str], than: Sequence[str]
    ) -> Compared | None:
        """By how much `row` gains more over `other` on `sets` than on the sets `than`."""
        here, there = self._contrasts(row, other, sets), self._contrasts(row, other, than)
        if here is None or there is None:
            return None
        return _of_sum([*evenly(here), *((-count, c) for count, c in evenly(there))])

    def times_dense(self, row: Row, sets: Sequence[str]) -> float | None:
        """The geometric mean over `sets` of the perplexities over the dense model's."""
        found = self.compare(row, DENSE, sets)
        return None if found is None else exp(found.nats.value)

    def titles(self, sets: Iterable[str]) -> list[str]:
        """The titles of sets."""
        return [self.datasets[name] for name in sets]

    def _contrasts(self, row: Row, other: Row, sets: Sequence[str]) -> list[Contrast] | None:
        found = [self.contrast(row, other, name) for name in sets]
        known = [contrast for contrast in found if contrast is not None]
        return known if known and len(known) == len(found) else None


def _of_sum(parts: Parts) -> Compared:
    gained = math.fsum(contrast.improvement / count for count, contrast in parts)
    nats = math.fsum(contrast.log_ratio / count for count, contrast in parts)
    return Compared(
        Estimate(gained, improvement_interval(gained, parts)),
        Estimate(nats, nats_interval(nats, parts)),
    )


def subject_of(group: Group, title: str, alike: SimilarityBlock | None = None) -> Subject:
    """What is stored of a model under one setting.

    Args:
        title: what the model is to be called.
        alike: the similarities of the same model, if any are stored.
    """
    own: dict[str, None] = {}
    for row in group.setting.rows:
        if row.method == REFERENCE_METHOD:
            for cell in group.setting.cells_at(row):
                own |= dict.fromkeys(calibration_sets(cell["config"].get("calibration")))
    statistic = alike.shown if alike is not None and alike.statistics else ""
    spreads = {} if alike is None or not statistic else alike.spreads[statistic]
    return Subject(
        title,
        tuple(name for name in group.datasets if name in own),
        tuple(average_sets(group.datasets, group.setting.calibrated_on)),
        group.datasets,
        frozenset(line.row for line in group.lines),
        group.entries().contrast,
        {name: spread.mean for name, spread in spreads.items() if name in group.datasets},
        statistic,
    )


def papers_subject() -> Subject:
    """What the paper prints of the model that it has in most of its tables."""
    printed = paper.perplexities_of(PAPERS_MODEL)

    def contrast(row: Row, other: Row, dataset: str) -> Contrast | None:
        ours = printed.get(row, {}).get(dataset)
        theirs = printed.get(other, {}).get(dataset)
        if ours is None or theirs is None:
            return None
        return Contrast(math.log(ours / theirs), EXACT)

    return Subject(
        PAPERS_MODEL,
        paper.CALIBRATED_ON,
        tuple(average_sets(paper.datasets(), paper.CALIBRATED_ON)),
        dataset_titles(),
        frozenset(printed),
        contrast,
        {name: mean for name, (mean, _) in paper.similarities().items()},
        is_printed=True,
    )
