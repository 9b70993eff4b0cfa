"""The story of a cell: plan, resume, load, calibrate, compress, evaluate, keep."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from nsvd_exp.data.tokens import Tokens
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import Compression, Table, prepared
from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import Measurement, Stopwatch, now, started_cell
from nsvd_exp.experiment.resolve import PlannedMeasurement
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.work import done_once
from nsvd_exp.models.layers import replaced
from nsvd_exp.models.loading import check_device
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.evaluate import (
    bits_per_byte,
    finite,
    perplexity,
    window_nll,
    window_nll_streamed,
    word_perplexity,
)
from nsvd_exp.progress import Observer
from nsvd_exp.storage.kept import MEASUREMENTS
from nsvd_exp.storage.results import Result

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

    Args, problems and errors are as of `nsvd_exp.experiment.work.done_once`.
    """
    observer = observer or Observer()

    def begin(previous: Result | None) -> _Cell:
        return _Cell(plan, session, observer, started_cell(plan, previous))

    return done_once(plan, session, observer, on_wait, begin)


@dataclass
class _Cell:
    """A cell in work; `result` is stored after every dataset."""

    plan: CellPlan
    session: Session
    observer: Observer
    result: Result
    stopwatch: Stopwatch = field(init=False)
    keeps_model: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.plan.device)

    def do(self) -> None:
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
        work = prepared(self.plan, self.session, self.observer, self.stopwatch)
        if work.calibration is not None:
            self.result["calibration"] = work.calibration
        if work.loaded.streamed is not None:
            self._evaluate_streamed(work, work.loaded.streamed, texts)
            return
        with work.resident() as made:
            self._tell_layers(made.layers, made.achieved_ratio)
            for measurement in self.plan.missing(self.result):
                with self.stopwatch("evaluate"):
                    measured = self._evaluate(made.model, measurement, texts)
                self._keep(measured)

    def _tell_layers(self, table: Table, achieved: dict[str, float] | None) -> None:
        self.result |= {"layers": table, "achieved_ratio": achieved}

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
        MEASUREMENTS.put(self.result, dict(measured))
        self.plan.file.write(self.result)
        self.observer.measured(measured)

    def _evaluate_streamed(self, work: Compression, streamed: StreamedModel, texts: Texts) -> None:
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
            nll = self._nll_streamed(work, streamed, ids)
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
        self, work: Compression, streamed: StreamedModel, ids: torch.Tensor
    ) -> list[float]:
        """nats of each window of ids (windows, length); each block is compressed on its way."""
        decomposed = self.observer.progress("decompose") if work.layers else None
        rows: dict[str, dict[str, Any]] = {}

        def as_evaluated(index: int) -> AbstractContextManager[None]:
            inside = streamed.block_of(index, work.layers)
            compressed, table = work.low_rank(inside, "a block")
            rows.update({row["name"]: row for row in table})
            if decomposed:
                decomposed(len(rows), len(work.layers))
            return replaced(streamed.model, compressed)

        dtype, batch = getattr(torch, self.plan.evaluation_dtype), self.plan.config.evaluation.batch
        progress = self.observer.progress("evaluate")
        with self.stopwatch("evaluate"):
            nll = window_nll_streamed(streamed, ids, dtype, as_evaluated, batch, progress)
        table = list(rows.values())
        self._tell_layers(table, work.achieved_ratio(table))
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
