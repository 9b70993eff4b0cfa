"""What stored results say: the fields of a cell's and of a similarity record's `result.json`.

`docs/stored-files.md` says what each field means. Imports no torch by itself.
"""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from nsvd_exp.experiment.plan import CellPlan, SimilarityPlan, similarity_config
from nsvd_exp.experiment.provenance import peak_memory
from nsvd_exp.experiment.resolve import PlannedMeasurement, Resolved, public_config, public_name
from nsvd_exp.experiment.zeroshot import ZeroshotPlan
from nsvd_exp.models.devices import gpus_of
from nsvd_exp.storage.results import Result, ResultFile


class Identified(TypedDict):
    """What every result says of itself."""

    version: int
    key: str
    identity: dict[str, Any]
    model: str
    model_source: dict[str, Any]
    dtype: str
    config: dict[str, Any]


class Ended(TypedDict):
    """How the work on a result has ended."""

    status: str
    error: dict[str, str] | None
    seconds: dict[str, float]
    peak_memory: dict[str, int | None]
    updated: str


class Measurement(TypedDict):
    """One perplexity: of a dataset at one state, under one protocol."""

    dataset: str
    key: str
    identity: dict[str, Any]
    perplexity: float
    nll: float
    tokens: int
    bytes: int | None
    words: int | None
    bits_per_byte: float | None
    word_perplexity: float | None
    windows: int
    length: int
    max_windows: int | None
    dtype: str
    bos: bool
    token_sha256: str
    window_nll: list[float]
    seconds: float
    measured: str
    environment: dict[str, Any]


def identified(plan: Resolved, file: ResultFile, config: dict[str, Any]) -> Identified:
    """The fields that say what a result is of.

    Args:
        config: the public one.
    """
    return {
        "version": file.kind.version,
        "key": file.key,
        "identity": file.identity,
        "model": plan.config.model.title,
        "model_source": {"name": public_name(plan.model), **plan.model.identity},
        "dtype": plan.dtype,
        "config": config,
    }


def started_cell(plan: CellPlan, previous: Result | None) -> Result:
    """A cell's result before the work: all that is known; keeps what an earlier run measured."""
    return _started(plan, plan.file, previous, {"layers": [], "datasets": {}})


def started_scores(plan: ZeroshotPlan, previous: Result | None) -> Result:
    """A cell's scores before the work: all that is known; keeps what an earlier run made."""
    return _started(plan, plan.file, previous, {"tasks": {}})


def _started(
    plan: Resolved, file: ResultFile, previous: Result | None, own: Mapping[str, Any]
) -> Result:
    config = plan.config
    kept: dict[str, Any] = {
        "status": "partial",
        "created": now(),
        "achieved_ratio": None,
        "calibration": None,
        **own,
        "earlier": [],
    }
    if previous is not None:
        # What is done stays so while a wider run adds to it.
        kept = {name: previous[name] for name in kept}
        kept["status"] = "done" if previous["status"] == "done" else "partial"
    return {
        **identified(plan, file, public_config(plan)),
        "method": config.method["name"],
        "ratio": config.ratio if config.compresses else None,
        "k1": config.method.get("k1"),
        "solver": config.solver if config.compresses else None,
        "environment": None,
        "updated": now(),
        "seconds": {},
        "peak_memory": None,
        "error": None,
        **kept,
    }


def started_similarity(
    plan: SimilarityPlan, measurement: PlannedMeasurement, file: ResultFile, previous: Result | None
) -> Result:
    """A similarity record before the work: all that is known; keeps what an earlier run made."""
    dataset = measurement.dataset
    kept: dict[str, Any] = {
        "created": now(),
        "environment": None,
        "calibration": None,
        "dataset": {"name": dataset.name, "title": dataset.title},
        "statistics": [],
        "layers": [],
    }
    if previous is not None:
        kept = {name: previous[name] for name in kept}
    return {**identified(plan, file, similarity_config(plan)), **kept}


def ended(plan: Resolved, error: dict[str, str] | None, seconds: dict[str, float]) -> Ended:
    """The fields that say how the work on a result ended; `error` is None or from `describe`."""
    return {
        "status": "done" if error is None else "failed",
        "error": error,
        "seconds": seconds,
        "peak_memory": peak_memory(plan.device),
        "updated": now(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(error: Exception) -> dict[str, str]:
    """An exception as a result keeps it; called inside its handler."""
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": traceback.format_exc(),
    }


class Stopwatch:
    """Seconds of each stage, summed under its name; a GPU is waited for before the clock is read.

    A stage inside another one is not counted as part of it.
    """

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._gpus = gpus_of(device)
        self._inside = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start, beside, self._inside = time.perf_counter(), self._inside, 0.0
        try:
            yield
        finally:
            self._wait()
            elapsed = time.perf_counter() - start
            own = elapsed - self._inside
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + own, 3)
            self._inside = beside + elapsed

    def _wait(self) -> None:
        cuda = sys.modules["torch"].cuda if self._gpus and "torch" in sys.modules else None
        if cuda is not None and cuda.is_initialized():
            for gpu in self._gpus:
                cuda.synchronize(gpu)


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
    """One value per layer; a layer whose mean is 0 has no direction to compare, and no value."""
    return [row[statistic] for row in layers if row[statistic] is not None]


def spread(layers: Sequence[Mapping[str, Any]], statistic: str) -> Spread | None:
    """The similarities of a record's `layers` by one statistic; None where no layer has any."""
    values = layer_values(layers, statistic)
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.pstdev(values), len(values))
