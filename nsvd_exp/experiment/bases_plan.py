"""Which output bases a job shares with others, and what they are kept under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nsvd_exp.experiment.calibration_plan import STAGE_VERSIONS, calibration_title
from nsvd_exp.experiment.order import metric_of
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.methods import Method
from nsvd_exp.methods.svd import IDENTITY
from nsvd_exp.methods.truncation import has_gram_metric
from nsvd_exp.storage.keys import digest


@dataclass(frozen=True)
class BasesOf:
    """What the bases of all layers of a model were made from.

    Attributes:
        model: key of the model.
        calibration: key of the cell's calibration, under which its losses are measured, whether or
            not the metric looks at it; None without one.
        key: of model and metric, which the bases are kept under on disk.
        is_gram: whether the metric is the Gram matrix of the inputs.
        about: for people: `model`, `dtype`, `metric`, `calibration`.
    """

    model: str
    calibration: str | None
    key: str
    is_gram: bool
    about: dict[str, str] = field(compare=False)


def bases_of(plan: Resolved, method: Method) -> BasesOf:
    """What the bases of a cell of this plan are made from."""
    metric = metric_of(method)
    calibration = None if plan.calibration is None else plan.calibration.identity
    of_metric = None if metric == IDENTITY else calibration
    version = STAGE_VERSIONS["decompose"]
    more = {}
    if method.reads_gradients and plan.gradients is not None:
        more["gradients"] = plan.gradients.about
    key = model_key(plan, metric=metric, calibration=of_metric, version=version, **more)
    about = {
        "model": plan.config.model.title,
        "dtype": plan.dtype,
        "metric": metric if isinstance(metric, str) else metric["class"],
    }
    if of_metric is not None:
        about["calibration"] = calibration_title(plan.config.calibration)
    return BasesOf(
        model=model_key(plan),
        calibration=None if calibration is None else digest(calibration),
        key=key[:32],
        is_gram=has_gram_metric(method),
        about=about,
    )


def model_key(plan: Resolved, **more: Any) -> str:
    """A key of the plan's model in its dtype, and of what else is named."""
    return digest({"model": plan.model.identity, "dtype": plan.dtype, **more})
