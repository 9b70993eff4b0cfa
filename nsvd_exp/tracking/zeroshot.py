"""What the run of a cell is told of its scores at tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import dense_of
from nsvd_exp.experiment.zeroshot import (
    MEAN,
    Accuracy,
    ZeroshotPlan,
    accuracy_of,
    difference,
    mean,
    plan_zeroshot,
)
from nsvd_exp.storage.results import Result
from nsvd_exp.tracking.cell import CellTracker, summary_of


class ScoresTracker(CellTracker):
    """The run of a cell goes on with its scores: the same run, by its id, as for perplexity."""

    def measured(self, score: Mapping[str, Any]) -> None:
        point = {f"accuracy/{score['task']}": score["accuracy"]}
        self._tell(lambda run: run.log(point))

    def _summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        assert isinstance(self._plan, ZeroshotPlan)
        own = self._plan.found(dict(result))
        dense = _scores_of_dense(self._plan)
        less = {name: difference(own[name], dense[name]) for name in own if name in dense}
        accuracies = {name: accuracy_of(score) for name, score in own.items()}
        return {
            **summary_of(result),
            **_named("accuracy", accuracies, len(own)),
            **_named("accuracy_over_dense", less, len(own)),
        }


def _scores_of_dense(plan: ZeroshotPlan) -> dict[str, Result]:
    """Those of the dense model; none where they are not stored or cannot be read."""
    if not plan.config.compresses:
        return {}
    try:
        dense = plan_zeroshot(dense_of(plan.config))
        return dense.found(dense.file.read())
    except (NsvdError, OSError):
        return {}


def _named(group: str, parts: Mapping[str, Accuracy], total: int) -> dict[str, float]:
    """Values and standard errors by flat names; their mean where all tasks have one."""
    whole = mean(parts.values()) if len(parts) == total else None
    both = {**parts, MEAN: whole} if whole is not None else dict(parts)
    values = {f"{group}/{name}": part.value for name, part in both.items() if part}
    errors = {
        f"{group}_stderr/{name}": part.stderr
        for name, part in both.items()
        if part is not None and part.stderr is not None
    }
    return values | errors
