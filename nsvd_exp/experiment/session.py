"""What a process holds for the jobs that follow each other in it: a `Session`.

The model, its tokenizer, tokenised datasets, the last calibration and output bases stay loaded for
what comes next; `cache_dir` keeps for every process what `cache.keep` says.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.data.text import special_tokens_in, special_tokens_note, text_of
from nsvd_exp.data.tokens import Tokens, windows
from nsvd_exp.errors import OutOfMemoryError
from nsvd_exp.experiment.bases import BasisMemory, SharedBases
from nsvd_exp.experiment.bases_plan import bases_of, model_key
from nsvd_exp.experiment.calibration import CalibrationPass, mixed_record
from nsvd_exp.experiment.calibration_plan import PlannedCalibration, PlannedGradients
from nsvd_exp.experiment.gradients import Gradients, GradientsPass
from nsvd_exp.experiment.loaded import LoadedModel, load_dense
from nsvd_exp.experiment.resolve import PlannedMeasurement, Resolved
from nsvd_exp.methods import Method
from nsvd_exp.methods.mixing import mixed_calibration
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.layers import Layer
from nsvd_exp.models.loading import check_vocabulary
from nsvd_exp.progress import Observer
from nsvd_exp.storage.cache import Cache
from nsvd_exp.storage.keys import digest

T = TypeVar("T")

log = logging.getLogger(__name__)


class Session:
    """What one process shares between its jobs; two sessions share nothing but `cache_dir`.

    Args:
        load: makes the dense model of a plan, streamed or not.
    """

    def __init__(self, load: Callable[[Resolved, bool], LoadedModel] = load_dense) -> None:
        self._load = load
        self._loaded: tuple[str, LoadedModel] | None = None
        # By model (with its tokenizer) and measurement: they outlive a model that is loaded again.
        self._tokens: dict[tuple[str, str], Tokens] = {}
        # What stands in `cache_dir` is a map of the files, not a copy.
        self._calibration: tuple[str, Calibration] | None = None
        self._gradients: tuple[PlannedGradients, Gradients] | None = None
        self._bases = BasisMemory()
        # Keys of models that memory=auto streams: they turned out too large for their device.
        self._too_large: set[str] = set()
        self._said_bos: set[str] = set()  # titles of models
        self._caches: dict[tuple[Path, str, float | None], Cache] = {}

    def load(self, plan: Resolved) -> LoadedModel:
        """The dense model of the plan, which stays loaded until another one is asked for."""
        is_streamed = self.is_streamed(plan)
        key = f"{'streamed' if is_streamed else 'resident'} {model_key(plan, device=plan.device)}"
        if self._loaded is None or self._loaded[0] != key:
            if self._loaded is not None:
                self.release_model()
            self._bases.drop_other_models(model_key(plan))
            if plan.calibration is None or not self._has_calibration(plan.calibration):
                self._calibration = self._gradients = None
            self._loaded = key, self._load(plan, is_streamed)
        return self._loaded[1]

    def is_streamed(self, plan: Resolved) -> bool:
        """Whether one block of the model is in memory at a time."""
        asked = plan.config.memory
        is_too_large = model_key(plan, device=plan.device) in self._too_large
        return asked == "streamed" or (asked == "auto" and is_too_large)

    def with_fallback(self, plan: Resolved, work: Callable[[], T]) -> T:
        """Do work that loads the model; with memory=auto once more, streamed, if memory runs out.

        Raises:
            OutOfMemoryError: it runs out all the same.
        """
        try:
            return work()
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
                raise
            problem = f"out of memory: {textwrap.shorten(str(error), 200)}"
            final = None
            if self.is_streamed(plan):
                final = " (with memory=streamed: one block at a time is still too much)"
            elif plan.config.memory == "resident":
                final = "; one block at a time: memory=streamed"
            if final is not None:
                raise OutOfMemoryError(problem + final) from error
        # Outside of the handler, whose traceback holds the model.
        log.warning("%s: going on with memory=streamed", problem)
        self._too_large.add(model_key(plan, device=plan.device))
        self.release_model()
        self._bases = BasisMemory()
        _give_memory_back()  # also of a model that was half loaded
        return self.with_fallback(plan, work)

    def release_model(self) -> None:
        """Forget the loaded model and give its memory back."""
        if self._loaded is None:
            return
        if self._loaded[1].streamed is not None:
            # They may stand in a folder that goes with the model.
            self._calibration = self._gradients = None
        self._loaded = None
        _give_memory_back()

    def texts(self, plan: Resolved, measurements: Iterable[PlannedMeasurement]) -> dict[str, str]:
        """The text of each measurement, by its key, unless it is tokenised already."""
        return {
            measurement.key: text_of(measurement.dataset, "test", measurement.source)
            for measurement in measurements
            if _tokens_key(plan, measurement) not in self._tokens
        }

    def windows(
        self, plan: Resolved, measurement: PlannedMeasurement, texts: dict[str, str]
    ) -> Tokens:
        """The windows of one dataset for the loaded model; they stay tokenised.

        Raises:
            NsvdError: less text than one window, or an id that the model has no embedding for.
        """
        loaded, key = self.load(plan), _tokens_key(plan, measurement)
        if key not in self._tokens:
            dataset = measurement.dataset
            self._tokens[key] = windows(
                loaded.tokenizer,
                texts[measurement.key],
                plan.length,
                plan.config.evaluation.max_windows,
                split_special_tokens=dataset.split_special_tokens,
                name=f"dataset {dataset.name}",
                bos=plan.config.evaluation.bos,
            )
            self._warn_of_traps(plan, dataset, texts[measurement.key], self._tokens[key])
        check_vocabulary(loaded.model, self._tokens[key].ids)
        return self._tokens[key]

    def _warn_of_traps(
        self, plan: Resolved, dataset: DatasetConfig, text: str, tokens: Tokens
    ) -> None:
        """Say what in a text, or in its windows, may not be as it was meant."""
        model = plan.config.model.title
        special = special_tokens_in(self.load(plan).tokenizer, text)
        if special and not dataset.split_special_tokens:
            log.warning(special_tokens_note(dataset.name, f"dataset.{dataset.name}", special))
        lacks_bos = tokens.bos and plan.config.evaluation.bos == "first" and len(tokens.ids) > 1
        if lacks_bos and model not in self._said_bos:
            self._said_bos.add(model)
            log.warning(
                "the tokenizer of %s begins a text with a BOS, so the first window has one and the "
                "others have none; evaluation.bos=window puts one in front of each",
                model,
            )

    def calibration(
        self,
        plan: Resolved,
        planned: PlannedCalibration,
        layers: dict[str, Layer],
        observer: Observer,
    ) -> Calibration:
        """The statistics: those of the last job, from `cache_dir`, or from a pass of the model.

        Raises:
            NsvdError: `cache_dir` cannot be written to, or the pass fails.
        """
        if self._calibration is None or not self._has_calibration(planned):
            self._calibration = None
            parts = [self._calibrated(plan, part, layers, observer) for part in planned.sources]
            made = parts[0]
            if planned.parts:
                weights = [weight for weight, _ in planned.parts]
                weighed = list(zip(weights, parts, strict=True))
                made = mixed_calibration(weighed, mixed_record(planned, parts))
            self._calibration = _calibration_key(planned), made
        made = self._calibration[1]
        if plan.gradients is None:
            return made
        gradients = self._gradients_of(plan, plan.gradients, layers, observer)
        record = dict(made.record) | {"gradients": plan.gradients.about}
        return dataclasses.replace(made, gradients=gradients, record=record)

    def _gradients_of(
        self,
        plan: Resolved,
        planned: PlannedGradients,
        layers: dict[str, Layer],
        observer: Observer,
    ) -> Gradients:
        """The gradients: those of the last job, from `cache_dir`, or from a pass backwards."""
        if self._gradients is None or not self._gradients[0].serves(planned):
            self._gradients = None
            work = GradientsPass(planned, self._pass(plan, planned.samples, layers, observer))
            self._gradients = planned, work.kept(self._cache(plan), digest(planned.identity)[:32])
        return self._gradients[1]

    def _calibrated(
        self,
        plan: Resolved,
        planned: PlannedCalibration,
        layers: dict[str, Layer],
        observer: Observer,
    ) -> Calibration:
        """The statistics of one source, from `cache_dir` or from a pass of the model."""
        work = self._pass(plan, planned, layers, observer)
        return work.kept(self._cache(plan), _calibration_key(planned))

    def _pass(
        self,
        plan: Resolved,
        planned: PlannedCalibration,
        layers: dict[str, Layer],
        observer: Observer,
    ) -> CalibrationPass:
        loaded = self.load(plan)
        return CalibrationPass(
            plan, planned, loaded.model, loaded.tokenizer, loaded.streamed, layers, observer
        )

    def _has_calibration(self, planned: PlannedCalibration) -> bool:
        return self._calibration is not None and self._calibration[0] == _calibration_key(planned)

    def bases(self, plan: Resolved, method: Method) -> SharedBases:
        """The output bases that a cell of this plan shares with others."""
        limit_gb = plan.config.cache.memory_gb
        limit = None if limit_gb is None else int(limit_gb * 1e9)
        # A streamed model is not to grow in memory: its bases are on disk, or made again.
        limit = 0 if self.is_streamed(plan) else limit
        return SharedBases(bases_of(plan, method), self._bases, self._cache(plan), limit)

    def _cache(self, plan: Resolved) -> Cache:
        keep, limit_gb = plan.config.cache.keep, plan.config.cache.limit_gb
        key = (plan.cache_dir, keep, limit_gb)
        if key not in self._caches:
            limit = None if limit_gb is None else int(limit_gb * 1e9)
            self._caches[key] = Cache(plan.cache_dir, keep, limit)
            self._caches[key].tidy()
        return self._caches[key]


def _give_memory_back() -> None:
    """Collect what nobody holds any more, and return a GPU's memory to its driver."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _calibration_key(planned: PlannedCalibration) -> str:
    return digest(planned.identity)[:32]


def _tokens_key(plan: Resolved, measurement: PlannedMeasurement) -> tuple[str, str]:
    return digest(plan.model.identity), measurement.key
