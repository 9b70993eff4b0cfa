"""What a process holds for the jobs that follow each other in it: a `Session`.

The model, its tokenizer, tokenised datasets, the last calibration and output bases stay loaded for
what comes next; `cache_dir` keeps for every process what `cache.keep` says.
"""

from __future__ import annotations

import gc
import logging
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from nsvd_exp.config.schema import ModelConfig
from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import Tokens, windows
from nsvd_exp.errors import NsvdError, OutOfMemoryError
from nsvd_exp.experiment.bases import BasesOf, BasisMemory, SharedBases
from nsvd_exp.experiment.calibration import CalibrationPass
from nsvd_exp.experiment.order import metric_of
from nsvd_exp.experiment.resolve import (
    STAGE_VERSIONS,
    PlannedCalibration,
    PlannedMeasurement,
    Resolved,
    calibration_title,
)
from nsvd_exp.methods import Method
from nsvd_exp.methods.base import Calibration
from nsvd_exp.methods.svd import IDENTITY
from nsvd_exp.methods.truncation import has_gram_metric
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.devices import gpus_of
from nsvd_exp.models.hub import ModelSource
from nsvd_exp.models.loading import check_vocabulary, load_model, load_streamed, load_tokenizer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.progress import Observer
from nsvd_exp.storage.cache import STREAMED, Cache
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.keys import digest

T = TypeVar("T")

LoadModel = Callable[[ModelSource, ModelConfig, str, str], nn.Module]

log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A dense model with its tokenizer.

    Attributes:
        streamed: what brings its weights, where they are not in memory; None where they are.
    """

    key: str
    model: nn.Module
    tokenizer: Any
    streamed: StreamedModel | None = None


class Session:
    """What one process shares between its jobs; two sessions share nothing but `cache_dir`.

    Args:
        load_model: loads a model that is to be in memory as a whole.
    """

    def __init__(self, load_model: LoadModel = load_model) -> None:
        self._load_model = load_model
        self._loaded: LoadedModel | None = None
        # By model (with its tokenizer) and measurement: they outlive a model that is loaded again.
        self._tokens: dict[tuple[str, str], Tokens] = {}
        # What stands in `cache_dir` is a map of the files, not a copy.
        self._calibration: tuple[str, Calibration] | None = None
        self._bases = BasisMemory()
        # Keys of models that memory=auto streams: they turned out too large for their device.
        self._too_large: set[str] = set()
        self._caches: dict[tuple[Path, str, float | None], Cache] = {}

    def load(self, plan: Resolved) -> LoadedModel:
        """The dense model of the plan, which stays loaded until another one is asked for."""
        place = "streamed" if self.is_streamed(plan) else "resident"
        key = f"{place} {_model_on_device(plan)}"
        if self._loaded is None or self._loaded.key != key:
            self.release_model()
            self._bases.drop_other_models(_model_key(plan))
            if plan.calibration is None or not self._has_calibration(plan.calibration):
                self._calibration = None
            config = plan.config.model
            streamed = _streamed(plan) if place == "streamed" else None
            model = (
                self._load_model(plan.model, config, plan.dtype, plan.device)
                if streamed is None
                else streamed.model
            )
            self._loaded = LoadedModel(key, model, load_tokenizer(plan.model, config), streamed)
        return self._loaded

    def is_streamed(self, plan: Resolved) -> bool:
        """Whether one block of the model is in memory at a time."""
        asked = plan.config.memory
        is_too_large = _model_on_device(plan) in self._too_large
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
            if self.is_streamed(plan):
                problem += " (with memory=streamed: one block at a time is still too much)"
                raise OutOfMemoryError(problem) from error
            if plan.config.memory == "resident":
                raise OutOfMemoryError(
                    f"{problem}; one block at a time: memory=streamed"
                ) from error
        # Outside of the handler, whose traceback holds the model.
        log.warning("%s: going on with memory=streamed", problem)
        self._too_large.add(_model_on_device(plan))
        self.release_model()
        self._bases.clear()
        _give_memory_back()  # also of a model that was half loaded
        return self.with_fallback(plan, work)

    def release_model(self) -> None:
        """Forget the loaded model and give its memory back."""
        if self._loaded is None:
            return
        if self._loaded.streamed is not None:
            self._calibration = None  # it may stand in a folder that goes with the model
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

        Args:
            texts: from `texts`.

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
            )
        check_vocabulary(loaded.model, self._tokens[key].ids)
        return self._tokens[key]

    def calibration(
        self,
        plan: Resolved,
        planned: PlannedCalibration,
        layers: dict[str, nn.Linear],
        observer: Observer,
    ) -> Calibration:
        """The statistics: those of the last job, from `cache_dir`, or from a pass of the model.

        Raises:
            NsvdError: `cache_dir` cannot be written to, or the pass fails.
        """
        if self._calibration is None or not self._has_calibration(planned):
            self._calibration = None
            loaded = self.load(plan)
            work = CalibrationPass(
                plan, planned, loaded.model, loaded.tokenizer, loaded.streamed, layers, observer
            )
            key = _calibration_key(planned)
            self._calibration = key, work.kept(self._cache(plan), key)
        return self._calibration[1]

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
        """Where the plan keeps what is shared with other processes."""
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


def bases_of(plan: Resolved, method: Method) -> BasesOf:
    """What the bases of a cell of this plan are made from."""
    metric = metric_of(method)
    calibration = None if plan.calibration is None else plan.calibration.identity
    of_metric = None if metric == IDENTITY else calibration
    identity = {
        **_model_identity(plan),
        "metric": metric,
        "calibration": of_metric,
        "version": STAGE_VERSIONS["decompose"],
    }
    about = {
        "model": plan.config.model.title,
        "dtype": plan.dtype,
        "metric": metric if isinstance(metric, str) else metric["class"],
    }
    if of_metric is not None:
        about["calibration"] = calibration_title(plan.config.calibration)
    return BasesOf(
        model=_model_key(plan),
        calibration=None if calibration is None else digest(calibration),
        key=digest(identity)[:32],
        is_gram=has_gram_metric(method),
        about=about,
    )


def _model_identity(plan: Resolved) -> dict[str, Any]:
    return {"model": plan.model.identity, "dtype": plan.dtype}


def _model_key(plan: Resolved) -> str:
    return digest(_model_identity(plan))


def _model_on_device(plan: Resolved) -> str:
    return digest({**_model_identity(plan), "device": plan.device})


def _calibration_key(planned: PlannedCalibration) -> str:
    return digest(planned.identity)[:32]


def _tokens_key(plan: Resolved, measurement: PlannedMeasurement) -> tuple[str, str]:
    return digest(plan.model.identity), measurement.key


def _streamed(plan: Resolved) -> StreamedModel:
    """The model of the plan, on the first of its GPUs."""
    place = next(iter(gpus_of(plan.device)), "cpu")
    try:
        plan.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = plan.config.cache_dir
        raise NsvdError(f"cache_dir={name} cannot be written to: {error}") from None
    own = ScratchFolder(plan.cache_dir, STREAMED)
    model, weights = load_streamed(plan.model, plan.config.model, plan.dtype, own.path)
    return StreamedModel(model, weights, torch.device(place), plan.cache_dir, own)
