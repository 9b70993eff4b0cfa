"""The story of a cell: plan, resume, load, calibrate, compress, evaluate, keep."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nsvd_exp.data.tokens import Tokens
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import (
    Measurement,
    Stopwatch,
    describe,
    ended,
    now,
    started_cell,
)
from nsvd_exp.experiment.resolve import PlannedMeasurement
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods import Method
from nsvd_exp.models.batches import memory_to
from nsvd_exp.models.layers import Layer, find_linears, parameter_count, replaced
from nsvd_exp.models.loading import check_device, to_dtype
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.compress import Compressor, achieved_ratio, check_ranks, ranks_of, spectra_of
from nsvd_exp.pipeline.evaluate import (
    bits_per_byte,
    finite,
    perplexity,
    window_nll,
    window_nll_streamed,
    word_perplexity,
)
from nsvd_exp.progress import Observer, Progress
from nsvd_exp.storage.results import Result, put_measurement

log = logging.getLogger(__name__)

Texts = dict[str, str]
"""The text of each planned measurement, by its key."""


def run_cell(
    plan: CellPlan,
    session: Session,
    observer: Observer | None = None,
    on_wait: Callable[[str], None] = log.warning,
) -> Result:
    """Do what is missing of a cell and return its result, which is stored by then.

    A problem in the work does not raise: the result then has `status` = `failed`, and its `error`
    says why. A cell that was done before stays `done` in the store.

    Args:
        on_wait: is told before this waits for another process that is at the same cell; where it
            raises, nothing is waited for.

    Raises:
        NsvdError: the stored result is damaged or of another version,
            or the store cannot be written.
    """
    observer = observer or Observer()
    with plan.file.lock(on_wait):
        previous = plan.file.read()
        if previous is not None and plan.is_done(previous):
            observer.skipped(previous)  # another process did it while this one waited
            return previous
        cell = _Cell(plan, session, observer, started_cell(plan, previous))
        plan.file.write(cell.result)
        observer.started()
        error = None
        try:
            cell.measure_what_is_missing()
        except Exception as caught:
            error = describe(caught)
        if error is not None:  # outside of the handler, whose traceback holds the model
            session.release_model()
        was_done = cell.result["status"] == "done"
        cell.result |= ended(plan, error, cell.stopwatch.seconds)
        # What another run asked for in vain takes nothing from a cell that was done.
        kept = {"status": "done", "error": None} if was_done else {}
        plan.file.write(cell.result | kept)
    observer.finished(cell.result)
    return cell.result


@dataclass
class _Cell:
    """A cell in work; `result` is stored after every dataset."""

    plan: CellPlan
    session: Session
    observer: Observer
    result: Result
    stopwatch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.plan.device)

    def measure_what_is_missing(self) -> None:
        """All stages, if any measurement is missing."""
        plan = self.plan
        if not plan.missing(self.result):
            return
        check_device(plan.device)
        reset_peak_memory(plan.device)
        self.result["environment"] = environment(plan.device)
        with self.stopwatch("load"):
            # Text before weights: a dataset that is not there should not cost a calibration first.
            texts = self.session.texts(plan, plan.missing(self.result))
        self.session.with_fallback(plan, lambda: self._with_model(texts))

    def _with_model(self, texts: Texts) -> None:
        with self.stopwatch("load"):
            loaded = self.session.load(self.plan)
        method = self.plan.choices.method
        layers: dict[str, Layer] = {}
        compressor = None
        if method is not None:
            model = self.plan.config.model
            layers = find_linears(loaded.model, model.skip, model.strict)
            compressor = self._calibrated(method, layers, loaded.streamed)
        if loaded.streamed is not None:
            self._evaluate_streamed(loaded.streamed, layers, compressor, texts)
            return
        with ExitStack() as stack:
            if compressor is not None:
                progress = self.observer.progress("decompose")
                compressed, table = self._decompose(compressor, layers, "the weights", progress)
                self._tell_layers(table, loaded.model)
                stack.enter_context(replaced(loaded.model, compressed))
            if self.plan.evaluation_dtype != self.plan.dtype:
                self._cast(loaded.model, stack)
            for measurement in self.plan.missing(self.result):
                with self.stopwatch("evaluate"):
                    measured = self._evaluate(loaded.model, measurement, texts)
                self._keep(measured)

    def _calibrated(
        self, method: Method, layers: dict[str, Layer], streamed: StreamedModel | None
    ) -> Compressor:
        """What makes low-rank layers of `layers`, with the statistics that its method needs."""
        plan, choices = self.plan, self.plan.choices
        check_ranks(layers, plan.config.ratio, choices.allocation, choices.storage)
        calibration = None
        if plan.calibration is not None:
            with self.stopwatch("calibrate"):
                calibration = self.session.calibration(
                    plan, plan.calibration, layers, self.observer
                )
            self.result["calibration"] = calibration.record
        compressor = Compressor(
            method,
            {},
            calibration,
            choices.storage,
            getattr(torch, plan.evaluation_dtype),
            plan.config.solver,
            None if plan.config.solver == "paper" else self.session.bases(plan, method),
        )
        spectra = None
        if choices.allocation.reads_spectra:
            progress = self.observer.progress("allocate")
            with self.stopwatch("decompose"), memory_to("decompose the weights", plan.device):
                spectra = spectra_of(compressor, layers, streamed, progress)
        ranks = ranks_of(layers, plan.config.ratio, choices.allocation, choices.storage, spectra)
        return dataclasses.replace(compressor, ranks=ranks)

    def _decompose(
        self,
        compressor: Compressor,
        layers: dict[str, Layer],
        what: str,
        progress: Progress | None = None,
    ) -> tuple[dict[str, nn.Module], list[dict[str, Any]]]:
        with self.stopwatch("decompose"), memory_to(f"decompose {what}", self.plan.device):
            return compressor.compress(layers, progress)

    def _tell_layers(self, table: list[dict[str, Any]], model: nn.Module) -> None:
        self.result["layers"] = table
        self.result["achieved_ratio"] = achieved_ratio(
            table, self.plan.choices.storage, parameter_count(model)
        )

    def _cast(self, model: nn.Module, stack: ExitStack) -> None:
        """Cast the model in place for its evaluation; undone where that loses nothing."""
        own = getattr(torch, self.plan.dtype)
        evaluated = getattr(torch, self.plan.evaluation_dtype)
        if torch.finfo(evaluated).bits > torch.finfo(own).bits:
            stack.callback(to_dtype, model, own)
        else:
            stack.callback(self.session.release_model)
        to_dtype(model, evaluated)

    def _evaluate(
        self, model: nn.Module, measurement: PlannedMeasurement, texts: Texts
    ) -> Measurement:
        """The perplexity of one dataset."""
        start = time.perf_counter()
        name, batch = measurement.dataset.name, self.plan.config.evaluation.batch
        tokens = self.session.windows(self.plan, measurement, texts)
        with _of_dataset(name):
            nll = window_nll(model, tokens.ids, batch, self.observer.progress(name))
        return self._measurement(measurement, tokens, nll, time.perf_counter() - start)

    def _keep(self, measured: Measurement) -> None:
        put_measurement(self.result, dict(measured))
        self.plan.file.write(self.result)
        self.observer.measured(measured)

    def _evaluate_streamed(
        self,
        streamed: StreamedModel,
        layers: dict[str, Layer],
        compressor: Compressor | None,
        texts: Texts,
    ) -> None:
        """All datasets in one pass of the model, a block of which is in memory at a time."""
        parts: list[tuple[PlannedMeasurement, Tokens]] = []
        problems: list[NsvdError] = []
        lacking: list[NsvdError] = []
        try:
            for measurement in self.plan.missing(self.result):
                parts.append((measurement, self.session.windows(self.plan, measurement, texts)))
        except NsvdError as error:  # the datasets before it have their numbers all the same
            lacking.append(error)
        if parts:
            ids = torch.cat([tokens.ids for _, tokens in parts])
            seconds_before = self.stopwatch.seconds.get("evaluate", 0.0)
            nll = self._nll_streamed(streamed, layers, compressor, ids)
            seconds = self.stopwatch.seconds["evaluate"] - seconds_before
            for measurement, tokens in parts:
                own, nll = nll[: len(tokens.ids)], nll[len(tokens.ids) :]
                share = seconds * len(own) / len(ids)
                try:
                    self._keep(self._measurement(measurement, tokens, own, share))
                except NsvdError as error:  # and so have those after it
                    problems.append(error)
        problems += lacking
        if problems:
            raise problems[0]

    def _nll_streamed(
        self,
        streamed: StreamedModel,
        layers: dict[str, Layer],
        compressor: Compressor | None,
        ids: torch.Tensor,
    ) -> list[float]:
        """nats of each window of ids (windows, length); each block is compressed on its way."""
        decomposed = self.observer.progress("decompose") if compressor else None
        rows: dict[str, dict[str, Any]] = {}

        def as_evaluated(index: int) -> AbstractContextManager[None]:
            if compressor is None:
                return nullcontext()
            inside = streamed.block_of(index, layers)
            compressed, table = self._decompose(compressor, inside, "a block")
            rows.update({row["name"]: row for row in table})
            if decomposed:
                decomposed(len(rows), len(layers))
            return replaced(streamed.model, compressed)

        dtype, batch = getattr(torch, self.plan.evaluation_dtype), self.plan.config.evaluation.batch
        progress = self.observer.progress("evaluate")
        with self.stopwatch("evaluate"):
            nll = window_nll_streamed(streamed, ids, dtype, as_evaluated, batch, progress)
        if compressor is not None:
            self._tell_layers(list(rows.values()), streamed.model)
        return nll

    def _measurement(
        self, measurement: PlannedMeasurement, tokens: Tokens, nll: list[float], seconds: float
    ) -> Measurement:
        """What is stored of one dataset.

        Args:
            nll: nats of each window.
        """
        name = measurement.dataset.name
        count, length = tokens.ids.shape
        total, predicted = math.fsum(nll), count * (length - 1)
        with _of_dataset(name):
            finite(nll, getattr(torch, self.plan.evaluation_dtype))
            value = perplexity(total, predicted)
        return {
            "dataset": name,
            "key": measurement.key,
            "identity": measurement.identity,
            "perplexity": value,
            "nll": total,
            "tokens": predicted,
            "bytes": tokens.bytes,
            "words": tokens.words,
            "bits_per_byte": bits_per_byte(total, tokens.bytes),
            "word_perplexity": word_perplexity(total, tokens.words),
            "windows": count,
            "length": length,
            "max_windows": self.plan.config.evaluation.max_windows,
            "dtype": self.plan.evaluation_dtype,
            "bos": tokens.bos,
            "token_sha256": tokens.sha256,
            "window_nll": nll,
            "seconds": round(seconds, 3),
            "measured": now(),
            "environment": self.result["environment"],
        }


@contextmanager
def _of_dataset(name: str) -> Iterator[None]:
    """An error inside names the dataset, and stays what it is."""
    try:
        yield
    except NsvdError as error:
        raise type(error)(f"dataset {name}: {error}") from None
