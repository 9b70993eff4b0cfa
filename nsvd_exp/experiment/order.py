"""What the cells of a grid share, and the order that lets them share it. Imports no torch.

Cells share the model, the calibration and, for each metric M of stage one, the eigenvectors of
W M Wᵀ (`nsvd_exp.experiment.bases`). What is shared stays in memory while the next cell wants it,
so a grid goes through its models one by one, inside a model through its calibrations, and inside a
calibration through its metrics.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from nsvd_exp.config.schema import Config, MethodConfig
from nsvd_exp.experiment.plan import STAGE_VERSIONS, Resolved, calibration_title
from nsvd_exp.storage.keys import digest

# The metric of each whitening of `nsvd_exp.methods.base`: those with the same have the same basis.
METRICS = {
    "identity": "identity",
    "scalar": "identity",
    "abs_mean": "abs_mean",
    "cholesky": "gram",
    "eigen": "gram",
    "spectral": "gram squared",
}
UNCALIBRATED = "identity"
# What the bases on disk hold and how; raise it when that changes.
FORMAT = 1


@dataclass(frozen=True)
class BasisGroup:
    """The bases of all layers of a model under one metric.

    Attributes:
        model, calibration: what they were made from, as keys; `calibration` is that of the cell,
            which its losses need, whether or not the metric looks at it.
        key: what they are kept under.
        about: for people.
    """

    model: str
    calibration: str | None
    key: str
    about: dict[str, str]


def metric_identity(method: MethodConfig) -> dict[str, Any]:
    """What defines the metric of stage one.

    A whitening of the user's own, under which another class may stand tomorrow, is known by its
    dotted path and the version that its method has.
    """
    metric = METRICS.get(str(method.whitening))
    if metric is not None:
        return {"metric": metric}
    return {"whitening": method.whitening, "version": method.version}


def basis_group(plan: Resolved) -> BasisGroup:
    """The group of bases that a cell of this plan uses; its method compresses."""
    metric = metric_identity(plan.config.method)
    calibration = None if plan.calibration is None else plan.calibration.identity
    model = _model(plan)
    of_metric = None if metric == {"metric": UNCALIBRATED} else calibration
    version = {"decompose": STAGE_VERSIONS["decompose"], "format": FORMAT}
    identity = {**model, **metric, "calibration": of_metric, "version": version}
    about = {
        "model": plan.config.model.title,
        "dtype": plan.dtype,
        "metric": str(metric.get("metric", metric.get("whitening"))),
    }
    if of_metric is not None:
        about["calibration"] = calibration_title(plan.config.calibration)
    known = None if calibration is None else digest(calibration)
    return BasisGroup(model_identity(plan), known, digest(identity)[:32], about)


def model_identity(plan: Resolved) -> str:
    """The key of the model that bases are of, as `BasisGroup.model`."""
    return digest(_model(plan))


def _model(plan: Resolved) -> dict[str, Any]:
    return {"model": plan.model.identity, "dtype": plan.dtype}


def grid_order(configs: Sequence[Config]) -> list[int]:
    """The indices of the jobs of a grid, in the order they are best run.

    By model, dtype, calibration, metric, method, ratio, k1, each in the order in which its values
    come up first; among calibrations and metrics, what looks at no activations goes first.
    """
    keys = [_sharing_key(config) for config in configs]
    ranks = [_ranks([key[level] for key in keys]) for level in range(len(keys[0]))] if keys else []
    return sorted(range(len(keys)), key=lambda index: [rank[index] for rank in ranks])


def _sharing_key(config: Config) -> tuple[Hashable, ...]:
    """What a job shares with others, from what is made first and stays longest."""
    method = config.method
    calibrated = method.calibrated or config.measure == "similarity"
    calibration = _text(config.calibration, config.data_dir) if calibrated else None
    metric = metric_identity(method) if method.compresses else None
    looks_at_none = metric in (None, {"metric": UNCALIBRATED})
    return (
        (_text(config.model), config.device),
        config.dtype,
        calibration,
        config.measure,
        None if looks_at_none else _text(metric),
        method.name,
        config.ratio,
        config.k1,
    )


def _text(*values: Any) -> str:
    plain = [dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for v in values]  # type: ignore[arg-type]
    return json.dumps(plain, sort_keys=True)


def _ranks(values: Sequence[Hashable]) -> list[int]:
    """The place of each value among the different ones, as they come up; None comes first."""
    order: dict[Hashable, int] = {None: 0}
    for value in values:
        order.setdefault(value, len(order))
    return [order[value] for value in values]
