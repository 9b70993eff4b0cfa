"""One W&B run for each cell: its perplexities, its layers, its summary, and if asked its progress.

A run has its cell's key: its id is the end of the name of the cell's folder. W&B never fails a
cell: what it raises is said once, and the runs are kept on disk for `wandb sync`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nsvd_exp.config.files import expand_path
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.improvement import average_improvement, calibration_sets
from nsvd_exp.experiment.plan import CellPlan, dense_of, plan_cell, reference_of
from nsvd_exp.experiment.resolve import public_config
from nsvd_exp.experiment.wording import label_of
from nsvd_exp.experiment.zeroshot import ZeroshotPlan
from nsvd_exp.progress import Observer, Progress
from nsvd_exp.storage.results import Result
from nsvd_exp.tracking.session import Run, WandbSession, under_agent

SECONDS_BETWEEN_POINTS = 1.0

LONGEST_TAG = 64  # W&B refuses longer ones

# What the charts of many runs are about: the names in a summary begin with one of these.
RESULTS = ("perplexity/", "times_dense/", "average_", "accuracy/", "accuracy_over_dense/")

LAYER_CURVES = ("activation_loss", "weight_loss", "discarded_energy")


class CellTracker(Observer):
    """The run of one cell. A cell that is skipped has none, unless an agent waits for it.

    Args:
        preset: the experiment that the cell belongs to, if any.
        session: opens the run; all cells of a process have it in common.
        clock: seconds that never go back; it spaces the points of progress.
    """

    def __init__(
        self,
        plan: CellPlan | ZeroshotPlan,
        preset: str | None,
        session: WandbSession,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._preset = plan, preset
        self._session, self._clock = session, clock
        self._run: Run | None = None

    def skipped(self, result: Mapping[str, Any]) -> None:
        if under_agent():
            self.started()
            self.finished(result)

    def started(self) -> None:
        if self._session.claim():
            tracking = self._plan.config.tracking
            directory = Path(expand_path(tracking.dir))
            self._run = self._session.open(tracking.mode, directory, **self._options())

    def progress(self, stage: str) -> Progress | None:
        """Logs the fraction that is done, at most once a second, where `tracking.progress` asks."""
        if self._run is None or not self._plan.config.tracking.progress:
            return None
        logged = -SECONDS_BETWEEN_POINTS

        def update(done: int, total: int) -> None:
            nonlocal logged
            now = self._clock()
            if done == total or now - logged >= SECONDS_BETWEEN_POINTS:
                logged = now
                self._tell(lambda run: run.log({f"progress/{stage}": done / total}))

        return update

    def measured(self, number: Mapping[str, Any]) -> None:
        point = {f"perplexity/{number['dataset']}": number["perplexity"]}
        self._tell(lambda run: run.log(point))

    def finished(self, result: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        summary = self._summary(result)
        self._tell(lambda run: _log_layers(run, result.get("layers", [])))
        self._tell(lambda run: run.log(_point(result, summary)))
        self._tell(lambda run: run.summary.update(summary))
        self._end(exit_code=int(result["status"] != "done"))

    def _summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the run's summary says of a result."""
        assert isinstance(self._plan, CellPlan)
        summary = summary_of(result) | _beside_dense(self._plan, result)
        improvement = _average_improvement(self._plan, dict(result))
        return summary if improvement is None else summary | {"average_improvement": improvement}

    def close(self) -> None:
        self._end(exit_code=1)

    def _end(self, exit_code: int) -> None:
        self._tell(lambda run: run.finish(exit_code=exit_code))
        self._run = None

    def _tell(self, action: Callable[[Run], object]) -> None:
        """Do this with the run, and give the run up at its first error."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._session.lost_run(self._run, error)
            self._run = None

    def _options(self) -> dict[str, Any]:
        """Name, tags, group and configuration of the run, as `wandb.init` takes them."""
        config, file = self._plan.config, self._plan.file
        model, method, ratio, k1 = label_of(config)
        tags = [model, method, f"ratio={ratio}" if ratio else "", f"k1={k1}" if k1 else ""]
        own = {
            "id": file.key[:16],
            "project": config.tracking.project,
            "entity": config.tracking.entity,
        }
        return {
            **({} if under_agent() else own),  # an agent's run has them already
            "name": " ".join(filter(None, (model, method, ratio, k1))),
            "tags": [tag[:LONGEST_TAG] for tag in tags if tag],
            "group": config.tracking.group or self._preset or model,
            "job_type": "cell",
            "config": {
                "key": file.key,
                "cell": file.folder.name,
                "model": model,
                "method": method,
                "ratio": config.ratio if config.compresses else None,
                "k1": config.method.get("k1"),
                "resolved": public_config(self._plan),
            },
        }


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """A stored result by the flat names of a run's summary; what is missing has no name."""
    seconds = result["seconds"]
    datasets = result.get("datasets", {})  # scores at tasks have none
    groups = {
        "perplexity": {name: n["perplexity"] for name, n in datasets.items()},
        "achieved_ratio": result["achieved_ratio"] or {},
        "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
        "peak_memory": result["peak_memory"] or {},
    }
    summary = {
        f"{group}/{name}": value
        for group, values in groups.items()
        for name, value in values.items()
        if value is not None
    }
    summary |= {"key": result["key"], "status": result["status"]}
    if result["error"]:
        summary["error"] = result["error"]["message"]
    return summary


def _point(result: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, float]:
    """The cell as one point, which plots its numbers against ratio or k1 over many runs."""
    axes = {name: result[name] for name in ("ratio", "k1") if result[name] is not None}
    numbers = {k: v for k, v in summary.items() if k.startswith(RESULTS)}
    return {**axes, **numbers}


def _beside_dense(plan: CellPlan, result: Mapping[str, Any]) -> dict[str, float]:
    """The dense model's perplexities and this cell's as multiples of them, where they are stored.

    Of those sets alone that both have under the protocol of this plan.
    """
    if not plan.config.compresses:
        return {}
    dense = _stored_perplexities(dense_of(plan.config))
    own = _perplexities(plan, dict(result))
    both = [name for name in own if name in dense]
    return {
        **{f"dense_perplexity/{name}": dense[name] for name in both},
        **{f"times_dense/{name}": own[name] / dense[name] for name in both},
    }


def _perplexities(plan: CellPlan, result: Result | None) -> dict[str, float]:
    """By dataset, of the measurements that the plan asks for."""
    return {name: measured["perplexity"] for name, measured in plan.found(result).items()}


def _stored_perplexities(config: Config) -> dict[str, float]:
    """Those of another cell; none where it is not stored or cannot be read."""
    try:
        plan = plan_cell(config)
        return _perplexities(plan, plan.file.read())
    except (NsvdError, OSError):
        return {}


def _average_improvement(plan: CellPlan, result: Result) -> float | None:
    """Over the stored ASVD-I cell that differs in the method alone; None where there is none."""
    if not plan.config.compresses:
        return None
    reference = _stored_perplexities(reference_of(plan.config))
    names = [m.dataset.name for m in plan.measurements]
    calibrated_on = calibration_sets(dataclasses.asdict(plan.config.calibration))
    return average_improvement(_perplexities(plan, result), reference, names, calibrated_on)


def _log_layers(run: Run, layers: Sequence[Mapping[str, Any]]) -> None:
    """Log a curve of each loss over the layers, in the model's order."""
    # A table would be clearer, but W&B asks the server for it and waits, for as long as it takes.
    run.define_metric("layer/index", hidden=True, summary="none")
    run.define_metric("layer/*", step_metric="layer/index", summary="none")
    for index, row in enumerate(layers):
        losses = {f"layer/{name}": row[name] for name in LAYER_CURVES if row.get(name) is not None}
        run.log({"layer/index": index, "layer/name": row["name"], **losses})
