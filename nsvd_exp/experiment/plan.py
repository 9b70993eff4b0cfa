"""What a cell and a similarity record are: identity, file, what is missing. Imports no torch.

A cell is (model, dtype, method, ratio, allocation, storage, solver, calibration), less what its
method does not have: `dense` has model and dtype alone, `svd` no calibration. The datasets are not
part of it: each measurement inside the cell has a key of its own.

A similarity record compares the activations of the dense model on one evaluation set with those on
the calibration set: (model, dtype, skipped layers, calibration, dataset with its window length and
cap). Method, ratio, k1 and solver are no part of it, and neither is `evaluation.dtype`: both sides
are passes of the model in its own dtype.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nsvd_exp.config.files import method_files
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.calibration_plan import STAGE_VERSIONS, PlannedCalibration
from nsvd_exp.experiment.improvement import REFERENCE_METHOD
from nsvd_exp.experiment.resolve import (
    PlannedMeasurement,
    Resolved,
    class_identity,
    public_config,
    resolve,
)
from nsvd_exp.storage.kept import MEASUREMENTS
from nsvd_exp.storage.keys import decimal_text
from nsvd_exp.storage.results import (
    Result,
    ResultFile,
    cell_file,
    similarity_file,
)


@dataclass(frozen=True)
class CellPlan(Resolved):
    """A cell to be done."""

    file: ResultFile

    def found(self, result: Result | None) -> dict[str, Result]:
        """The stored measurements that this plan asks for, by dataset."""
        found = {
            m.dataset.name: MEASUREMENTS.find(result, m.dataset.name, m.key)
            for m in self.measurements
        }
        return {name: measured for name, measured in found.items() if measured is not None}

    def missing(self, result: Result | None) -> list[PlannedMeasurement]:
        """The measurements that the stored result does not have."""
        found = self.found(result)
        return [m for m in self.measurements if m.dataset.name not in found]

    def is_done(self, result: Result | None) -> bool:
        """Whether every measurement that this plan asks for is there.

        A cell may hold them and have failed all the same, at a dataset that another run asked for.
        """
        return result is not None and result["status"] != "partial" and not self.missing(result)


def plan_cell(config: Config, is_measured: bool = True) -> CellPlan:
    """The cell that the user asked for. Reads files and may ask the hub; changes nothing.

    Args:
        is_measured: whether its datasets are to be there; else it has no measurements.

    Raises:
        NsvdError: as `resolve`.
    """
    resolved = resolve(config, is_measured=is_measured)
    file = cell_file(resolved.results_dir, config.method["name"], _cell_identity(resolved))
    return CellPlan(**vars(resolved), file=file)


def _cell_identity(resolved: Resolved) -> dict[str, Any]:
    config, choices = resolved.config, resolved.choices
    identity: dict[str, Any] = {
        "model": resolved.model.identity,
        "dtype": resolved.dtype,
        "method": None,
    }
    if choices.method is not None:
        identity |= {
            "method": class_identity(choices.method),
            "allocation": class_identity(choices.allocation),
            "storage": class_identity(choices.storage),
            "ratio": decimal_text(config.ratio),
            "solver": config.solver,
            "skip": sorted(config.model.skip),
            "version": STAGE_VERSIONS["decompose"],
        }
    if resolved.calibration is not None:
        identity["calibration"] = resolved.calibration.identity["tokens"]
    if resolved.gradients is not None:
        identity["gradients"] = resolved.gradients.about
    return identity


def dense_of(config: Config) -> Config:
    """The configuration with `method=dense`: what a compressed model is compared with."""
    return dataclasses.replace(config, method=method_files()["dense"])


def reference_of(config: Config) -> Config:
    """The configuration with `method=asvd_i`, over which the improvement of a method is taken."""
    return dataclasses.replace(config, method=method_files()[REFERENCE_METHOD])


@dataclass(frozen=True)
class SimilarityPlan(Resolved):
    """Similarity records to be made.

    Attributes:
        files: of the records, one for each of `measurements`.
    """

    calibration: PlannedCalibration
    files: list[ResultFile]

    def is_done(self, result: Result | None) -> bool:
        """Whether the stored record has the statistic that this plan asks for.

        It may have it and have failed all the same, when it was asked for another one.
        """
        return result is not None and self.config.similarity.statistic in result["statistics"]


def plan_similarity(config: Config) -> SimilarityPlan:
    """The records that the user asked for. Reads files and may ask the hub; changes nothing.

    Raises:
        NsvdError: as `resolve`.
    """
    if config.calibration.mix:
        raise NsvdError("measure=similarity compares with one calibration set: leave out the mix")
    evaluation = dataclasses.replace(config.evaluation, dtype=None)
    resolved = resolve(dataclasses.replace(config, evaluation=evaluation), calibrated=True)
    files = [
        similarity_file(resolved.results_dir, m.dataset.name, _similarity_identity(resolved, m))
        for m in resolved.measurements
    ]
    return SimilarityPlan(**vars(resolved), files=files)


def _similarity_identity(resolved: Resolved, measurement: PlannedMeasurement) -> dict[str, Any]:
    assert resolved.calibration is not None
    protocol = ("source", "length", "max_windows", "bos")
    return {
        "model": resolved.model.identity,
        "dtype": resolved.dtype,
        "skip": sorted(resolved.config.model.skip),
        "calibration": resolved.calibration.identity["tokens"],
        "dataset": {
            name: value for name, value in measurement.identity.items() if name in protocol
        },
        "version": STAGE_VERSIONS["similarity"],
    }


def similarity_config(plan: SimilarityPlan) -> dict[str, Any]:
    """The configuration as it goes into a record: without what it does not depend on."""
    config = public_config(plan)
    for name in ("method", "allocation", "storage", "ratio", "k1", "solver"):
        del config[name]
    return config
