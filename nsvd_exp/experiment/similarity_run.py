"""Similarity records: load, calibrate, one pass over each evaluation set, keep."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import PlannedNumber
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import Stopwatch, describe, ended, identified, now
from nsvd_exp.experiment.session import (
    LoadedModel,
    calibration_of,
    is_streamed,
    load,
    release_model,
    texts_of,
    windows_of,
    with_fallback,
)
from nsvd_exp.experiment.similarity_plan import SimilarityPlan, record_config
from nsvd_exp.methods.base import Calibration
from nsvd_exp.models.layers import find_linears
from nsvd_exp.models.loading import check_device
from nsvd_exp.models.streamed import StreamedModel, watch_streamed
from nsvd_exp.pipeline.calibrate import GramAccumulator, MeanAccumulator, Sums, watch
from nsvd_exp.pipeline.similarity import compare_layers
from nsvd_exp.progress import Observer
from nsvd_exp.storage.results import Cell, Result

log = logging.getLogger(__name__)


def run_similarities(plan: SimilarityPlan, observer: Observer | None = None) -> list[Result]:
    """Make the records that are missing; all of them, stored, in the order of `plan.numbers`.

    A problem in the work does not raise: that record then has `status` = `failed`, and its `error`
    says why. The other datasets go on, unless the model or its calibration is what failed: then
    there are no further records.

    Raises:
        NsvdError: a stored record is damaged or of another version.
        OSError: the store cannot be written.
    """
    work = _Work(plan, observer or Observer())
    results = []
    for number, record in zip(plan.numbers, plan.records, strict=True):
        results.append(work.do(number, record))
        if work.is_stuck:
            break
    return results


@dataclass
class _Ready:
    """What every record of a plan needs."""

    loaded: LoadedModel
    layers: dict[str, nn.Linear]
    calibration: Calibration


class _Work:
    """The records of one plan; model and calibration are got ready once, for the first of them.

    Attributes:
        is_stuck: whether they could not be.
    """

    def __init__(self, plan: SimilarityPlan, observer: Observer) -> None:
        self.plan, self.observer = plan, observer
        self.is_stuck = False
        self._ready: _Ready | None = None

    def do(self, number: PlannedNumber, record: Cell) -> Result:
        """Make a record, unless it is done."""
        plan, stopwatch = self.plan, Stopwatch(self.plan.device)
        with record.lock(log.warning):
            previous = record.read()
            if previous is not None and plan.is_done(previous):
                return previous
            result = self._started(number, record, previous)
            error = None
            try:
                result |= self._made(number, stopwatch)
            except Exception as caught:
                error = describe(caught)
            if error is not None and self._ready is None:
                self.is_stuck = True
                release_model()
            result |= ended(plan, error, stopwatch.seconds)
            record.write(result)
        return result

    def _started(self, number: PlannedNumber, record: Cell, previous: Result | None) -> Result:
        """All that is known before the work; keeps what an earlier run has measured."""
        kept: dict[str, Any] = {
            "created": now(),
            "environment": None,
            "calibration": None,
            "dataset": {"name": number.dataset.name, "title": number.dataset.title},
            "statistics": [],
            "layers": [],
        }
        if previous is not None:
            kept = {name: previous[name] for name in kept}
        return {**identified(self.plan, record, record_config(self.plan)), **kept}

    def _made(self, number: PlannedNumber, stopwatch: Stopwatch) -> Result:
        """The fields that the work adds."""
        plan = self.plan
        check_device(plan.device)
        reset_peak_memory(plan.device)
        with stopwatch("load"):
            # Text before weights: a dataset that is not there should not cost a calibration first.
            texts = texts_of(plan, [number])
        return with_fallback(plan, lambda: self._with_model(number, texts, stopwatch))

    def _with_model(
        self, number: PlannedNumber, texts: dict[str, str], stopwatch: Stopwatch
    ) -> Result:
        plan = self.plan
        ready = self._prepare(stopwatch)
        has_gram = self._wants_gram(ready.calibration)
        with stopwatch("evaluate"):
            tokens = windows_of(plan, number, ready.loaded, texts)
            layers = self._compare(number, ready, tokens.ids, has_gram)
        windows, length = tokens.ids.shape
        return {
            "environment": environment(plan.device),
            "calibration": ready.calibration.record,
            "dataset": {
                "name": number.dataset.name,
                "title": number.dataset.title,
                "tokens": windows * length,
                "windows": windows,
                "length": length,
                "max_windows": plan.config.evaluation.max_windows,
                "token_sha256": tokens.sha256,
                "bos": tokens.bos,
            },
            "statistics": ["mean", "abs_mean", *(["gram"] if has_gram else [])],
            "layers": layers,
        }

    def _prepare(self, stopwatch: Stopwatch) -> _Ready:
        plan = self.plan
        if self._ready is None or (self._ready.loaded.streamed is None) == is_streamed(plan):
            self._ready = None  # before another way of holding the model takes its place
            with stopwatch("load"):
                loaded = load(plan)
                layers = find_linears(loaded.model, plan.config.model.skip)
            with stopwatch("calibrate"):
                calibration = calibration_of(plan, plan.calibration, loaded, layers, self.observer)
            self._ready = _Ready(loaded, layers, calibration)
        return self._ready

    def _wants_gram(self, calibration: Calibration) -> bool:
        similarity = self.plan.config.similarity
        limit = similarity.gram_limit_gb * 1e9
        return similarity.statistic == "gram" or calibration.nbytes < limit

    def _compare(
        self, number: PlannedNumber, ready: _Ready, ids: Tensor, has_gram: bool
    ) -> list[dict[str, Any]]:
        """The similarity of every layer; ids (windows, length)."""
        name, batch = number.dataset.name, self.plan.config.evaluation.batch
        kind = GramAccumulator if has_gram else MeanAccumulator
        progress = self.observer.progress(name)
        try:
            if ready.loaded.streamed is not None:
                return _compare_streamed(ready, ready.loaded.streamed, ids, kind, batch, progress)
            sums = watch(ready.loaded.model, ready.layers, ids, kind, batch, progress)
        except NsvdError as error:
            raise type(error)(f"dataset {name}: {error}") from None
        return compare_layers(ready.layers, ready.calibration, sums)


def _compare_streamed(
    ready: _Ready,
    streamed: StreamedModel,
    ids: Tensor,
    kind: type[MeanAccumulator],
    *options: Any,
) -> list[dict[str, Any]]:
    """The similarity of every layer, with the sums of one block at a time."""
    rows: dict[str, dict[str, Any]] = {}

    def keep(inside: Mapping[str, nn.Linear], sums: Sums[MeanAccumulator]) -> None:
        rows.update({row["name"]: row for row in compare_layers(inside, ready.calibration, sums)})

    watch_streamed(streamed, ready.layers, ids, kind, keep, *options)
    return list(rows.values())
