"""One cell: load, calibrate, decompose, evaluate, keep."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from nsvd_exp.cells import Plan, PlannedNumber, public_config
from nsvd_exp.compress import achieved_ratio, compress, ranks_for
from nsvd_exp.errors import NsvdError
from nsvd_exp.layers import find_linears, parameter_count, replaced
from nsvd_exp.methods import Method, whitening_named
from nsvd_exp.models import check_device, to_dtype
from nsvd_exp.perplexity import perplexity, window_nll
from nsvd_exp.progress import Observer
from nsvd_exp.provenance import environment, reset_peak_memory
from nsvd_exp.stages import (
    LoadedModel,
    Stopwatch,
    bases_of,
    calibration_of,
    describe,
    ended,
    identified,
    load,
    now,
    release_model,
    texts_of,
    windows_of,
)
from nsvd_exp.store import Result, put_number

log = logging.getLogger(__name__)


def run_cell(plan: Plan, observer: Observer | None = None) -> Result:
    """Do what is missing of a cell and return its result, which is stored by then.

    A problem in the work does not raise: the result then has `status` = `failed`, and its `error`
    says why.

    Raises:
        NsvdError: the stored result is damaged or of another version.
        OSError: the store cannot be written.
    """
    with plan.cell.lock(log.warning):
        previous = plan.cell.read()
        observer = observer or Observer()
        if previous is not None and plan.is_done(previous):
            observer.skipped(previous)  # another process did it while this one waited
            return previous
        work = _Work(plan, _started(plan, previous), observer)
        plan.cell.write(work.result)
        observer.started()
        error = None
        try:
            work.do()
        except Exception as caught:
            error = describe(caught)
        if error is not None:  # outside of the handler, whose traceback holds the model
            release_model()
        work.result |= ended(plan, error, work.stopwatch.seconds)
        plan.cell.write(work.result)
    observer.finished(work.result)
    return work.result


def _started(plan: Plan, previous: Result | None) -> Result:
    """A result with all that is known before the work; keeps what an earlier run has measured."""
    config, method = plan.config, plan.config.method
    kept: dict[str, Any] = {
        "status": "partial",
        "created": now(),
        "achieved_ratio": None,
        "calibration": None,
        "layers": [],
        "datasets": {},
        "earlier": [],
    }
    if previous is not None:
        # What is done stays so while a wider run adds to it.
        kept = {name: previous[name] for name in kept}
        kept["status"] = "done" if previous["status"] == "done" else "partial"
    return {
        **identified(plan, plan.cell, public_config(plan)),
        "method": method.name,
        "ratio": config.ratio if method.compresses else None,
        "k1": config.k1 if method.nested else None,
        "solver": config.solver if method.compresses else None,
        "environment": None,
        "updated": now(),
        "seconds": {},
        "peak_memory": None,
        "error": None,
        **kept,
    }


class _Work:
    """The work of one cell, stage by stage; `result` is written after every dataset."""

    def __init__(self, plan: Plan, result: Result, observer: Observer) -> None:
        self.plan, self.result, self.observer = plan, result, observer
        self.stopwatch = Stopwatch(plan.device)

    def do(self) -> None:
        """All stages, if any number is missing."""
        plan = self.plan
        if not plan.missing(self.result):
            return
        check_device(plan.device)
        reset_peak_memory(plan.device)
        self.result["environment"] = environment(plan.device)
        with self.stopwatch("load"):
            # Text before weights: a dataset that is not there should not cost a calibration first.
            texts = texts_of(plan, plan.missing(self.result))
            loaded = load(plan)
        with ExitStack() as stack:
            if plan.config.method.compresses:
                stack.enter_context(self._compressed(loaded))
            if plan.evaluation_dtype != plan.dtype:
                self._cast(loaded.model, stack)
            for number in plan.missing(self.result):
                with self.stopwatch("evaluate"):
                    measured = self._measure(number, loaded, texts)
                put_number(self.result, measured)
                plan.cell.write(self.result)
                self.observer.measured(measured)

    def _cast(self, model: nn.Module, stack: ExitStack) -> None:
        """Cast the model in place for its evaluation; undone where that loses nothing."""
        own = getattr(torch, self.plan.dtype)
        evaluated = getattr(torch, self.plan.evaluation_dtype)
        if torch.finfo(evaluated).bits > torch.finfo(own).bits:
            stack.callback(to_dtype, model, own)
        else:
            stack.callback(release_model)
        to_dtype(model, evaluated)

    @contextmanager
    def _compressed(self, loaded: LoadedModel) -> Iterator[None]:
        """Two-factor layers are in the model inside, and the dense ones again afterwards."""
        plan, config, result = self.plan, self.plan.config, self.result
        layers = find_linears(loaded.model, config.model.skip)
        ranks = ranks_for(layers, config.ratio)
        whitening = whitening_named(str(config.method.whitening))
        method = Method(whitening, config.method.second, config.solver)
        statistics = None
        if plan.calibration is not None:
            with self.stopwatch("calibrate"):
                calibration = calibration_of(plan, plan.calibration, loaded, layers, self.observer)
            statistics, result["calibration"] = calibration.statistics, calibration.record
        with self.stopwatch("decompose"):
            compressed, result["layers"] = compress(
                layers,
                ranks,
                method,
                config.k1,
                statistics,
                getattr(torch, plan.evaluation_dtype),
                self.observer.progress("decompose"),
                None if config.solver == "paper" else bases_of(plan),
            )
        dense_parameters = parameter_count(loaded.model)
        with replaced(loaded.model, compressed):
            result["achieved_ratio"] = achieved_ratio(
                result["layers"], dense_parameters, loaded.model
            )
            yield

    def _measure(
        self, number: PlannedNumber, loaded: LoadedModel, texts: dict[str, str]
    ) -> dict[str, Any]:
        """The perplexity of one dataset, with all that is kept beside it."""
        start = time.perf_counter()
        plan, evaluation, name = self.plan, self.plan.config.evaluation, number.dataset.name
        tokens = windows_of(plan, number, loaded, texts)
        try:
            nll = window_nll(
                loaded.model, tokens.ids, evaluation.batch, self.observer.progress(name)
            )
        except NsvdError as error:
            raise NsvdError(f"dataset {name}: {error}") from None
        count, length = tokens.ids.shape
        total, predicted = math.fsum(nll), count * (length - 1)
        return {
            "dataset": name,
            "key": number.key,
            "identity": number.identity,
            "perplexity": perplexity(total, predicted),
            "nll": total,
            "tokens": predicted,
            "windows": count,
            "length": length,
            "max_windows": evaluation.max_windows,
            "dtype": plan.evaluation_dtype,
            "bos": tokens.bos,
            "token_sha256": tokens.sha256,
            "window_nll": nll,
            "seconds": round(time.perf_counter() - start, 3),
            "measured": now(),
            "environment": self.result["environment"],
        }
