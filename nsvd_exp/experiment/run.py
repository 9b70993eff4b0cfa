"""One cell: load, calibrate, decompose, evaluate, keep."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nsvd_exp.data.tokens import Tokens
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.bases import Bases
from nsvd_exp.experiment.plan import Plan, PlannedNumber, public_config
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import Stopwatch, describe, ended, identified, now
from nsvd_exp.experiment.session import (
    LoadedModel,
    bases_of,
    calibration_of,
    load,
    release_model,
    texts_of,
    windows_of,
    with_fallback,
)
from nsvd_exp.methods.base import Method, Statistics, whitening_named
from nsvd_exp.models.batches import memory_to
from nsvd_exp.models.layers import LowRankLinear, find_linears, parameter_count, replaced
from nsvd_exp.models.loading import check_device, to_dtype
from nsvd_exp.models.streamed import Compressed, StreamedModel, window_nll_streamed
from nsvd_exp.pipeline.compress import achieved_ratio, compress, ranks_for
from nsvd_exp.pipeline.evaluate import finite, perplexity, window_nll
from nsvd_exp.progress import Observer, Progress
from nsvd_exp.storage.results import Result, put_number

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


@dataclass(frozen=True)
class _Compressor:
    """Makes two-factor layers, of all layers or of some at a time."""

    plan: Plan
    ranks: dict[str, int]
    method: Method
    statistics: Mapping[str, Statistics] | None
    bases: Bases | None

    def compress(
        self, layers: dict[str, nn.Linear], progress: Progress | None = None
    ) -> tuple[dict[str, LowRankLinear], list[dict[str, Any]]]:
        """As `nsvd_exp.pipeline.compress.compress`."""
        dtype = getattr(torch, self.plan.evaluation_dtype)
        with memory_to("decompose the weights", self.plan.device):
            return compress(
                layers, self.ranks, self.method, self.plan.config.k1, self.statistics, dtype,
                progress, self.bases,
            )  # fmt: skip


@contextmanager
def _of_dataset(name: str) -> Iterator[None]:
    """An error inside names the dataset, and stays what it is."""
    try:
        yield
    except NsvdError as error:
        raise type(error)(f"dataset {name}: {error}") from None


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
        with_fallback(plan, lambda: self._measure_all(texts))

    def _measure_all(self, texts: dict[str, str]) -> None:
        with self.stopwatch("load"):
            loaded = load(self.plan)
        if loaded.streamed is not None:
            self._stream(loaded, loaded.streamed, texts)
            return
        with ExitStack() as stack:
            if self.plan.config.method.compresses:
                stack.enter_context(self._compressed(loaded))
            if self.plan.evaluation_dtype != self.plan.dtype:
                self._cast(loaded.model, stack)
            for number in self.plan.missing(self.result):
                with self.stopwatch("evaluate"):
                    measured = self._measure(number, loaded, texts)
                self._keep(measured)

    def _keep(self, measured: dict[str, Any]) -> None:
        put_number(self.result, measured)
        self.plan.cell.write(self.result)
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
        layers = find_linears(loaded.model, self.plan.config.model.skip)
        compressor = self._compressor(loaded, layers)
        progress = self.observer.progress("decompose")
        with self.stopwatch("decompose"):
            compressed, table = compressor.compress(layers, progress)
        self._tell_layers(table, loaded)
        with replaced(loaded.model, compressed):
            yield

    def _compressor(self, loaded: LoadedModel, layers: dict[str, nn.Linear]) -> _Compressor:
        """What makes two-factor layers of `layers`; calibrates for it."""
        plan, config = self.plan, self.plan.config
        ranks = ranks_for(layers, config.ratio)
        whitening = whitening_named(str(config.method.whitening))
        method = Method(whitening, config.method.second, config.solver)
        statistics = None
        if plan.calibration is not None:
            with self.stopwatch("calibrate"):
                calibration = calibration_of(plan, plan.calibration, loaded, layers, self.observer)
            statistics = {name: calibration.of(name) for name in layers}
            self.result["calibration"] = calibration.record
        bases = None if config.solver == "paper" else bases_of(plan)
        return _Compressor(plan, ranks, method, statistics, bases)

    def _tell_layers(self, table: list[dict[str, Any]], loaded: LoadedModel) -> None:
        self.result["layers"] = table
        self.result["achieved_ratio"] = achieved_ratio(table, parameter_count(loaded.model))

    def _stream(self, loaded: LoadedModel, streamed: StreamedModel, texts: dict[str, str]) -> None:
        """All datasets in one pass of the model, a block of which is in memory at a time."""
        plan, evaluation = self.plan, self.plan.config.evaluation
        layers = find_linears(loaded.model, plan.config.model.skip)
        compressor = None
        if plan.config.method.compresses:
            compressor = self._compressor(loaded, layers)
        parts, missing = self._windows_of_all(loaded, texts)
        problems: list[NsvdError] = []
        table: list[dict[str, Any]] = []
        if parts:
            ids = torch.cat([tokens.ids for _, tokens in parts])
            dtype = getattr(torch, plan.evaluation_dtype)
            within = self._within_blocks(streamed, layers, compressor, table)
            progress = self.observer.progress("evaluate")
            before = self.stopwatch.seconds.get("evaluate", 0.0)
            with self.stopwatch("evaluate"):
                nll = window_nll_streamed(streamed, ids, dtype, within, evaluation.batch, progress)
            seconds = self.stopwatch.seconds["evaluate"] - before
            if compressor is not None:
                self._tell_layers(table, loaded)
            for number, tokens in parts:
                own, nll = nll[: len(tokens.ids)], nll[len(tokens.ids) :]
                try:
                    measured = self._number(number, tokens, own, seconds * len(own) / len(ids))
                except NsvdError as error:  # the datasets after it have their numbers all the same
                    problems.append(error)
                else:
                    self._keep(measured)
        if missing is not None:
            problems.append(missing)
        if problems:
            raise problems[0]

    def _windows_of_all(
        self, loaded: LoadedModel, texts: dict[str, str]
    ) -> tuple[list[tuple[PlannedNumber, Tokens]], NsvdError | None]:
        """The windows of what is missing, up to the first dataset that has none, and its error."""
        parts: list[tuple[PlannedNumber, Tokens]] = []
        for number in self.plan.missing(self.result):
            try:
                parts.append((number, windows_of(self.plan, number, loaded, texts)))
            except NsvdError as error:
                return parts, error
        return parts, None

    def _within_blocks(
        self,
        streamed: StreamedModel,
        layers: dict[str, nn.Linear],
        compressor: _Compressor | None,
        table: list[dict[str, Any]],
    ) -> Compressed:
        """Makes a block what it is to be evaluated as, and fills the table by layer."""
        progress = self.observer.progress("decompose") if compressor else None

        @contextmanager
        def within(index: int) -> Iterator[None]:
            if compressor is None:
                yield
                return
            if index == 0:
                table.clear()  # memory ran out in an earlier pass
            with self.stopwatch("decompose"):
                inside = streamed.block_of(index, layers)
                compressed, rows = compressor.compress(inside)
            table.extend(rows)
            if progress:
                progress(len(table), len(layers))
            with replaced(streamed.model, compressed):
                yield

        return within

    def _measure(
        self, number: PlannedNumber, loaded: LoadedModel, texts: dict[str, str]
    ) -> dict[str, Any]:
        """The perplexity of one dataset, with all that is kept beside it."""
        start = time.perf_counter()
        name, batch = number.dataset.name, self.plan.config.evaluation.batch
        tokens = windows_of(self.plan, number, loaded, texts)
        with _of_dataset(name):
            nll = window_nll(loaded.model, tokens.ids, batch, self.observer.progress(name))
        return self._number(number, tokens, nll, time.perf_counter() - start)

    def _number(
        self, number: PlannedNumber, tokens: Tokens, nll: list[float], seconds: float
    ) -> dict[str, Any]:
        """What is stored of one dataset.

        Args:
            nll: nats of each window.
        """
        plan, name = self.plan, number.dataset.name
        with _of_dataset(name):
            finite(nll)
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
            "max_windows": plan.config.evaluation.max_windows,
            "dtype": plan.evaluation_dtype,
            "bos": tokens.bos,
            "token_sha256": tokens.sha256,
            "window_nll": nll,
            "seconds": round(seconds, 3),
            "measured": now(),
            "environment": self.result["environment"],
        }
