"""What a similarity record is: its identity, whether it is done, what it says. Imports no torch.

A record compares the activations of the dense model on one evaluation set with those on the
calibration set: (model, dtype, skipped layers, calibration, dataset with its window length and
cap). Method, ratio, k1 and solver are no part of it, and neither is `evaluation.dtype`: both sides
are passes of the model in its own dtype.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.plan import (
    STAGE_VERSIONS,
    PlannedCalibration,
    PlannedNumber,
    Resolved,
    public_config,
    resolve,
)
from nsvd_exp.storage.results import Cell, Result, similarity_record


@dataclass(frozen=True)
class SimilarityPlan(Resolved):
    """Similarity records to be made.

    Attributes:
        records: one for each of `numbers`.
    """

    calibration: PlannedCalibration
    records: list[Cell]

    def is_done(self, result: Result | None) -> bool:
        """Whether the stored record has the statistic that this plan asks for.

        It may have it and have failed all the same, when it was asked for another one.
        """
        return result is not None and self.config.similarity.statistic in result["statistics"]


def plan_similarity(config: Config) -> SimilarityPlan:
    """The records that the user asked for. Reads files and may ask the hub; changes nothing.

    Raises:
        NsvdError: as `nsvd_exp.experiment.plan.resolve`.
    """
    evaluation = dataclasses.replace(config.evaluation, dtype=None)
    resolved = resolve(dataclasses.replace(config, evaluation=evaluation), calibrated=True)
    records = [
        similarity_record(resolved.results_dir, number.dataset.name, _identity(resolved, number))
        for number in resolved.numbers
    ]
    return SimilarityPlan(**vars(resolved), records=records)


def _identity(resolved: Resolved, number: PlannedNumber) -> dict[str, Any]:
    assert resolved.calibration is not None
    return {
        "model": resolved.model.identity,
        "dtype": resolved.dtype,
        "skip": sorted(resolved.config.model.skip),
        "calibration": resolved.calibration.identity["tokens"],
        "dataset": {name: number.identity[name] for name in ("source", "length", "max_windows")},
        "version": STAGE_VERSIONS["similarity"],
    }


def record_config(plan: SimilarityPlan) -> dict[str, Any]:
    """The configuration as it goes into a record: without what it does not depend on."""
    config = public_config(plan)
    for name in ("method", "ratio", "k1", "solver"):
        del config[name]
    return config


@dataclass(frozen=True)
class Spread:
    """Similarities over the layers of a model.

    Attributes:
        mean: over the layers that have one.
        std: standard deviation of the population, not of a sample: these are all layers.
        layers: how many have one.
    """

    mean: float
    std: float
    layers: int


def layer_values(layers: Sequence[Mapping[str, Any]], statistic: str) -> list[float]:
    """One a layer; a layer whose mean is 0 has no direction to compare, and so none."""
    return [row[statistic] for row in layers if row[statistic] is not None]


def spread(layers: Sequence[Mapping[str, Any]], statistic: str) -> Spread | None:
    """The similarities of a record's `layers` by one statistic; None where no layer has any."""
    values = layer_values(layers, statistic)
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.pstdev(values), len(values))
