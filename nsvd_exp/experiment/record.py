"""What cells and similarity records say of themselves alike: of what, how it ended, how long."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch

from nsvd_exp.experiment.plan import Resolved, public_name
from nsvd_exp.experiment.provenance import peak_memory
from nsvd_exp.models.devices import gpus_of
from nsvd_exp.storage.results import Cell, Result


class Stopwatch:
    """Seconds a stage, summed under its name; a GPU is waited for before the clock is read.

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
            for gpu in self._gpus if torch.cuda.is_initialized() else []:
                torch.cuda.synchronize(gpu)
            elapsed = time.perf_counter() - start
            own = elapsed - self._inside
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + own, 3)
            self._inside = beside + elapsed


def identified(plan: Resolved, cell: Cell, config: dict[str, Any]) -> Result:
    """The fields that say what a result is of.

    Args:
        config: the public one.
    """
    return {
        "version": cell.kind.version,
        "key": cell.key,
        "identity": cell.identity,
        "model": plan.config.model.title,
        "model_source": {"name": public_name(plan.model), **plan.model.identity},
        "dtype": plan.dtype,
        "config": config,
    }


def ended(plan: Resolved, error: dict[str, str] | None, seconds: dict[str, float]) -> Result:
    """The fields that say how the work on a result ended; `error` is None or from `describe`."""
    return {
        "status": "done" if error is None else "failed",
        "error": error,
        "seconds": seconds,
        "peak_memory": peak_memory(plan.device),
        "updated": now(),
    }


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe(error: Exception) -> dict[str, str]:
    """An exception as a result keeps it; called inside its handler."""
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": traceback.format_exc(),
    }
