"""The story of similarity records: load, calibrate, one pass over each evaluation set, keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import SimilarityPlan
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import Stopwatch, describe, ended, started_similarity
from nsvd_exp.experiment.resolve import PlannedMeasurement
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import Layer, find_linears
from nsvd_exp.models.loading import check_device
from nsvd_exp.pipeline.inputs import GramAccumulator, MeanAccumulator, Sums, watch
from nsvd_exp.pipeline.similarity import compare_layers
from nsvd_exp.progress import Observer
from nsvd_exp.storage.results import Result, ResultFile

log = logging.getLogger(__name__)


def run_similarities(
    plan: SimilarityPlan,
    session: Session,
    observer: Observer | None = None,
    on_wait: Callable[[str], None] = log.warning,
) -> list[Result]:
    """Make the records that are missing; all of them, in the order of `plan.measurements`.

    A problem in the work does not raise: that record then has `status` = `failed`, and its `error`
    says why. The other datasets go on, unless the model or its calibration is what failed: then
    there are no further records.

    Args:
        on_wait: is told before this waits for another process that is at one of these records;
            where it raises, nothing is waited for.

    Raises:
        NsvdError: a stored record is damaged or of another version,
            or the store cannot be written.
    """
    records = _Records(plan, session, observer or Observer())
    results = []
    with ExitStack() as stack:
        # All at once, so that two processes do not both calibrate; in one order, so that neither
        # waits for the other.
        missing = [file for file in plan.files if not plan.is_done(file.read())]
        for file in sorted(missing, key=lambda file: file.key):
            stack.enter_context(file.lock(on_wait))
        for measurement, file in zip(plan.measurements, plan.files, strict=True):
            results.append(records.made(measurement, file))
            if results[-1]["status"] == "failed" and not records.has_calibration:
                break
    return results


@dataclass
class _Records:
    """The records of one plan; `has_calibration`: the model could be loaded and calibrated."""

    plan: SimilarityPlan
    session: Session
    observer: Observer
    has_calibration: bool = False

    def made(self, measurement: PlannedMeasurement, file: ResultFile) -> Result:
        """The record of one dataset, which is stored by then; it is locked where it is missing."""
        plan, stopwatch = self.plan, Stopwatch(self.plan.device)
        previous = file.read()
        if previous is not None and plan.is_done(previous):
            self.observer.skipped(previous)
            return previous
        self.observer.started()
        result = started_similarity(plan, measurement, file, previous)
        error = None
        try:
            result |= self._measured(measurement, stopwatch)
        except Exception as caught:
            error = describe(caught)
        if error is not None and not self.has_calibration:
            self.session.release_model()
        result |= ended(plan, error, stopwatch.seconds)
        file.write(result)
        return result

    def _measured(self, measurement: PlannedMeasurement, stopwatch: Stopwatch) -> Result:
        """The fields that the work adds."""
        plan = self.plan
        check_device(plan.device)
        reset_peak_memory(plan.device)
        with stopwatch("load"):
            # Text before weights: a dataset that is not there should not cost a calibration first.
            texts = self.session.texts(plan, [measurement])
        return self.session.with_fallback(
            plan, lambda: self._with_model(measurement, texts, stopwatch)
        )

    def _with_model(
        self, measurement: PlannedMeasurement, texts: dict[str, str], stopwatch: Stopwatch
    ) -> Result:
        plan = self.plan
        with stopwatch("load"):
            loaded = self.session.load(plan)
            model = plan.config.model
            layers = find_linears(loaded.model, model.skip, model.strict)
        with stopwatch("calibrate"):
            calibration = self.session.calibration(plan, plan.calibration, layers, self.observer)
        self.has_calibration = True
        asked = plan.config.similarity
        has_gram = asked.statistic == "gram" or calibration.nbytes < asked.gram_limit_gb * 1e9
        dataset = measurement.dataset
        with stopwatch("evaluate"):
            tokens = self.session.windows(plan, measurement, texts)
            rows = self._compared(dataset.name, layers, calibration, tokens.ids, has_gram)
        windows, length = tokens.ids.shape
        return {
            "environment": environment(plan.device),
            "calibration": calibration.record,
            "dataset": {
                "name": dataset.name,
                "title": dataset.title,
                "tokens": windows * length,
                "windows": windows,
                "length": length,
                "max_windows": plan.config.evaluation.max_windows,
                "token_sha256": tokens.sha256,
                "bos": tokens.bos,
            },
            "statistics": ["mean", "abs_mean", *(["gram"] if has_gram else [])],
            "layers": rows,
        }

    def _compared(
        self,
        name: str,
        layers: dict[str, Layer],
        calibration: Calibration,
        ids: Tensor,
        has_gram: bool,
    ) -> list[dict[str, Any]]:
        """The similarity of every layer's inputs on ids (windows, length) to the calibration's."""
        loaded, batch = self.session.load(self.plan), self.plan.config.evaluation.batch
        kind = GramAccumulator if has_gram else MeanAccumulator
        progress = self.observer.progress(name)
        rows: dict[str, dict[str, Any]] = {}

        def keep(inside: Mapping[str, Layer], sums: Sums[MeanAccumulator]) -> None:
            rows.update({row["name"]: row for row in compare_layers(inside, calibration, sums)})

        try:
            watch(loaded.streamed or loaded.model, layers, ids, kind, keep, batch, progress)
        except NsvdError as error:
            raise type(error)(f"dataset {name}: {error}") from None
        return list(rows.values())
