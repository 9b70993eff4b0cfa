"""Table 2 and Figure 1: the similarities that are stored, beside the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nsvd_exp.report import paper
from nsvd_exp.report.entries import dataset_titles
from nsvd_exp.report.numbers import (
    Agreement,
    Contents,
    agreements,
    agrees,
    differences,
    similarity_agreement,
)
from nsvd_exp.report.protocol import is_papers_similarity
from nsvd_exp.store import Result

STATISTICS = ("mean", "abs_mean", "gram")


@dataclass(frozen=True)
class SimilarityBlock:
    """One model under one setting.

    Attributes:
        values: one a compressed layer, by statistic and dataset; only what is stored.
        datasets: titles, by name.
        records: the stored record of each dataset.
        differences: what this setting has otherwise than the model's main one.
        comparable: whether model, calibration and text are the paper's.
    """

    model: str
    values: dict[str, dict[str, list[float]]]
    datasets: dict[str, str]
    records: dict[str, Result]
    place: int
    differences: list[str]
    comparable: bool

    @property
    def statistics(self) -> list[str]:
        """Those of which anything is stored."""
        return [name for name in STATISTICS if self.values.get(name)]

    def mean(self, statistic: str, dataset: str) -> tuple[float, float] | None:
        """Mean and population standard deviation over the layers; None where nothing is stored."""
        values = self.values.get(statistic, {}).get(dataset)
        return (statistics.fmean(values), statistics.pstdev(values)) if values else None

    def distance(self, statistic: str) -> float | None:
        """Root mean square difference of the means to the paper's Table 2; None unless all eight
        are there."""
        ours = {name: self.mean(statistic, name) for name in paper.similarities()}
        gaps = [mean[0] - paper.similarities()[name][0] for name, mean in ours.items() if mean]
        if len(gaps) < len(ours):
            return None
        return statistics.fmean(gap**2 for gap in gaps) ** 0.5

    @property
    def nearest(self) -> str | None:
        """The statistic nearest to the paper's Table 2, where the two may be compared."""
        distances = {name: self.distance(name) for name in self.statistics}
        known = {name: d for name, d in distances.items() if d is not None}
        return min(known, key=known.__getitem__) if known and self.comparable else None

    @property
    def shown(self) -> str:
        """The statistic that the figure takes: the nearest to the paper's, or else the first."""
        return self.nearest or self.statistics[0]


def build(contents: Contents, model: str | None = None) -> list[SimilarityBlock]:
    """A block a model and setting; of a model, the one with most datasets first."""
    blocks = []
    for title in contents.models:
        records = [r for r in contents.similarities if r["model"] == title]
        if records and model in (None, title):
            blocks += _of_model(title, records)
    return blocks


def _of_model(title: str, records: Sequence[Result]) -> list[SimilarityBlock]:
    own = [(similarity_agreement(record), record) for record in records]
    groups = [
        (agreement, [record for of_record, record in own if agrees(of_record, agreement)])
        for agreement in agreements(of_record for of_record, _ in own)
    ]
    groups.sort(key=lambda g: (len(g[1]), max(r["updated"] for r in g[1])), reverse=True)
    main = groups[0][0]
    return [
        _block(title, place, agreement, main, group)
        for place, (agreement, group) in enumerate(groups)
    ]


def _block(
    model: str, place: int, agreement: Agreement, main: Agreement, records: Sequence[Result]
) -> SimilarityBlock:
    by_dataset = {record["dataset"]["name"]: record for record in records}
    known = dataset_titles()
    names = [n for n in known if n in by_dataset] + [n for n in by_dataset if n not in known]
    values: dict[str, dict[str, list[float]]] = {statistic: {} for statistic in STATISTICS}
    for statistic, by_name in values.items():
        for name in names:
            found = [layer[statistic] for layer in by_dataset[name]["layers"]]
            # A layer whose mean is 0 has no direction to compare.
            known_values = [value for value in found if value is not None]
            if known_values:
                by_name[name] = known_values
    return SimilarityBlock(
        model,
        values,
        {name: by_dataset[name]["dataset"]["title"] for name in names},
        by_dataset,
        place,
        differences(agreement, main),
        model == paper.SIMILARITY_MODEL and all(map(is_papers_similarity, records)),
    )
