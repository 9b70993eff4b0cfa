"""Table 2 and Figure 1: the stored similarities, beside the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nsvd_exp.config.checks import shown
from nsvd_exp.config.sections import SIMILARITY_STATISTICS
from nsvd_exp.experiment.record import Spread, layer_values, spread
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.agreement import (
    Agreement,
    agrees,
    differences,
    merged,
    similarity_agreement,
)
from nsvd_exp.report.model.measurements import Contents
from nsvd_exp.report.model.protocol import dataset_titles, is_papers_similarity
from nsvd_exp.storage.results import Result


@dataclass(frozen=True)
class SimilarityBlock:
    """The similarities of one model under one setting.

    Attributes:
        spreads: over the compressed layers, by statistic and dataset; only what is stored.
        datasets: titles, by name.
        records: the stored record of each dataset.
        place: 0 for the model's main setting; 1, 2, ... for its others.
        differences: where this setting differs from the main one, in words.
        comparable: whether model, calibration and text are the paper's.
    """

    model: str
    spreads: dict[str, dict[str, Spread]]
    datasets: dict[str, str]
    records: dict[str, Result]
    place: int
    differences: list[str]
    comparable: bool

    @property
    def statistics(self) -> list[str]:
        """The statistics of which anything is stored."""
        return [name for name, by_dataset in self.spreads.items() if by_dataset]

    def values(self, statistic: str, dataset: str) -> list[float]:
        """One similarity per compressed layer; a layer without one is left out."""
        return layer_values(self.records[dataset]["layers"], statistic)

    def distance(self, statistic: str) -> float | None:
        """Root mean square difference of the eight means from those of the paper's Table 2.

        None unless all eight are stored.
        """
        ours, papers = self.spreads[statistic], paper.similarities()
        if not ours.keys() >= papers.keys():
            return None
        gaps = [ours[name].mean - papers[name][0] for name in papers]
        return statistics.fmean(gap**2 for gap in gaps) ** 0.5

    @property
    def nearest(self) -> str | None:
        """The statistic nearest to the paper's Table 2, where the two may be compared."""
        distances = {name: self.distance(name) for name in self.statistics}
        known = {name: d for name, d in distances.items() if d is not None}
        return min(known, key=known.__getitem__) if known and self.comparable else None

    @property
    def shown(self) -> str:
        """The statistic that the figure shows: the nearest to the paper's, or else the first."""
        return self.nearest or self.statistics[0]


def build(contents: Mapping[str, Contents]) -> list[SimilarityBlock]:
    """One block per model and setting; of a model, the setting with most datasets comes first.

    Args:
        contents: what is stored of each model, by its label.
    """
    return [
        block
        for label, own in contents.items()
        if own.similarities
        for block in _of_model(label, own.similarities)
    ]


def _of_model(label: str, records: Sequence[Result]) -> list[SimilarityBlock]:
    own = [(similarity_agreement(record), record) for record in records]
    groups = [
        (agreement, [record for of_record, record in own if agrees(of_record, agreement)])
        for agreement in merged(of_record for of_record, _ in own)
    ]
    groups.sort(key=lambda g: (len(g[1]), max(r["updated"] for r in g[1])), reverse=True)
    main = groups[0][0]
    return [
        _block(label, place, agreement, main, group)
        for place, (agreement, group) in enumerate(groups)
    ]


def _block(
    model: str, place: int, agreement: Agreement, main: Agreement, records: Sequence[Result]
) -> SimilarityBlock:
    by_dataset = {record["dataset"]["name"]: record for record in records}
    known = dataset_titles()
    names = [n for n in known if n in by_dataset] + [n for n in by_dataset if n not in known]
    spreads: dict[str, dict[str, Spread]] = {}
    for statistic in SIMILARITY_STATISTICS:
        found = {name: spread(by_dataset[name]["layers"], statistic) for name in names}
        spreads[statistic] = {name: value for name, value in found.items() if value is not None}
    return SimilarityBlock(
        model,
        spreads,
        {name: shown(by_dataset[name]["dataset"]["title"]) for name in names},
        by_dataset,
        place,
        differences(agreement, main),
        records[0]["model"] == paper.SIMILARITY_MODEL and all(map(is_papers_similarity, records)),
    )
