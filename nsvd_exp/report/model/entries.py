"""What stands at one place of a table, and how it is computed from the stored measurements."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nsvd_exp.experiment.improvement import (
    IN_DOMAIN,
    REFERENCE_METHOD,
    average_improvement,
    improvement,
)
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.intervals import Interval, Samples, interval, log_perplexities
from nsvd_exp.report.model.measurements import Measurement
from nsvd_exp.report.model.paper import AVERAGE, PaperTable, Row
from nsvd_exp.report.model.protocol import is_papers
from nsvd_exp.report.model.settings import Setting


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        state: `done`, `failed`, `partial` (it runs, or was interrupted) or `missing`.
        measurements: one per calibration seed.
        perplexity: their mean; None where there is none.
        deviation: sample standard deviation over the seeds; None for fewer than two.
        interval: of the perplexity, 95%; None for more than one seed.
        improvement: over ASVD-I, as a fraction.
        improvement_interval: its paired 95% interval.
        printed: the paper's perplexity.
        printed_improvement: the improvement that the paper's perplexities give.
        comparable: whether model and protocol are the paper's.
        best: whether it is the lowest of its column among the compressed models at this ratio.
        note: what is wrong with the number that the paper prints.
        message: why the cell failed.
    """

    state: str
    measurements: tuple[Measurement, ...] = ()
    perplexity: float | None = None
    deviation: float | None = None
    interval: Interval | None = None
    improvement: float | None = None
    improvement_interval: Interval | None = None
    printed: float | None = None
    printed_improvement: float | None = None
    comparable: bool = False
    best: bool = False
    note: str | None = None
    message: str = ""

    @property
    def difference(self) -> float | None:
        """(ours - the paper's) / the paper's; None where the two may not be compared."""
        if self.perplexity is None or self.printed is None or not self.comparable:
            return None
        return self.perplexity / self.printed - 1


@dataclass(frozen=True)
class Average:
    """The average improvement of a line: ours with its 95% interval, and the paper's."""

    value: float | None = None
    interval: Interval | None = None
    printed: float | None = None
    note: str | None = None


class Entries:
    """Computes the entries of one block.

    Args:
        paper_model: the title of the model whose printed numbers stand beside; None for none.
        setting: what is stored; None for the paper's numbers alone.
        datasets: names of the columns.
    """

    def __init__(
        self,
        table: PaperTable,
        paper_model: str | None,
        setting: Setting | None,
        datasets: Sequence[str],
    ) -> None:
        self._table, self._paper_model, self._setting = table, paper_model, setting
        self._datasets = datasets
        self._samples = log_perplexities(setting.measurements) if setting else {}

    def entries(self, row: Row) -> dict[str, Entry]:
        """The entries of a row, by dataset."""
        return {name: self._entry(row, name) for name in self._datasets}

    def average(self, row: Row) -> Average:
        """The average improvement of a row over the datasets other than WikiText-2."""
        printed, note = None, None
        if self._paper_model and (self._paper_model, row) in self._table.averages:
            printed = self._table.average(self._paper_model, row)
            note = self._table.footnotes.get((self._paper_model, row, AVERAGE))
        if self._setting is None:
            return Average(printed=printed, note=note)
        ours, theirs, samples = {}, {}, []
        for name in self._datasets:
            if pairs := self._pairs(row, name):
                ours[name], theirs[name] = _means(pairs)
                if name != IN_DOMAIN:
                    samples.append(self._improvement_samples(pairs))
        value = average_improvement(ours, theirs, self._datasets)
        known = [s for s in samples if s is not None]
        if value is None or not known or len(known) < len(samples):
            return Average(value, printed=printed, note=note)
        return Average(value, interval(np.mean(known, axis=0)), printed, note)

    def _entry(self, row: Row, dataset: str) -> Entry:
        """Ours, with what the paper prints at the same place."""
        entry = self._ours(row, dataset)
        model = self._paper_model
        printed = self._table.printed.get((model, row, dataset)) if model else None
        if model is None or printed is None:
            return entry
        value = None
        reference = self._table.perplexities(model, Row(REFERENCE_METHOD, row.ratio, None))
        if row.method not in paper.baselines() and dataset in reference:
            value = improvement(printed.perplexity, reference[dataset])
        return dataclasses.replace(
            entry,
            printed=printed.perplexity,
            printed_improvement=value,
            note=self._table.footnotes.get((model, row, dataset)),
        )

    def _ours(self, row: Row, dataset: str) -> Entry:
        found = self._setting.at(row, dataset) if self._setting else []
        if not found:
            state, message = _state_without_measurement(self._setting, row)
            return Entry(state, message=message)
        perplexities = [m.perplexity for m in found]
        pairs = self._pairs(row, dataset)
        samples = self._improvement_samples(pairs)
        return Entry(
            "done",
            tuple(found),
            statistics.fmean(perplexities),
            statistics.stdev(perplexities) if len(perplexities) > 1 else None,
            interval=self._perplexity_interval(found),
            improvement=improvement(*_means(pairs)) if pairs else None,
            improvement_interval=None if samples is None else interval(samples),
            comparable=self._paper_model == found[0].cell["model"] and all(map(is_papers, found)),
        )

    def _pairs(self, row: Row, dataset: str) -> list[tuple[Measurement, Measurement]]:
        """The measurements of a place, each with ASVD-I's of the same calibration seed.

        A method without a seed is compared with every one. The methods that the paper compares
        its own with have no pairs.
        """
        if self._setting is None or row.method in paper.baselines():
            return []
        reference = self._setting.at(Row(REFERENCE_METHOD, row.ratio, None), dataset)
        return [
            (measurement, theirs)
            for measurement in self._setting.at(row, dataset)
            for theirs in reference
            if measurement.seed in (None, theirs.seed)
        ]

    def _perplexity_interval(self, found: Sequence[Measurement]) -> Interval | None:
        samples = self._samples.get(found[0].id)
        if len(found) > 1 or samples is None:
            return None
        low, high = interval(samples)
        return float(np.exp(low)), float(np.exp(high))

    def _improvement_samples(
        self, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Samples | None:
        """The improvement in every resample of the windows; None unless there is just one pair."""
        if len(pairs) != 1:
            return None
        ours, theirs = (self._samples.get(measurement.id) for measurement in pairs[0])
        return None if ours is None or theirs is None else 1 - np.exp(ours - theirs)


def _means(pairs: Sequence[tuple[Measurement, Measurement]]) -> tuple[float, float]:
    """The mean perplexity of the first of each pair, and that of the second."""
    ours, theirs = ([m.perplexity for m in side] for side in zip(*pairs, strict=True))
    return statistics.fmean(ours), statistics.fmean(theirs)


def _state_without_measurement(setting: Setting | None, row: Row) -> tuple[str, str]:
    """The state of a place that has no measurement, and why its cell failed."""
    for cell in setting.cells_at(row) if setting else []:
        if cell["status"] == "failed":
            return "failed", cell["error"]["message"]
        if cell["status"] == "partial":
            return "partial", ""
    return "missing", ""
