"""What cells and similarity records have in common: the dense model, its text, its calibration.

The model, its tokenizer, tokenised datasets and the last calibration stay loaded for what follows
in the same process; `cache_dir` keeps for every process what `cache.keep` says.
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

from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import Tokens, calibration_samples, windows
from nsvd_exp.errors import NsvdError, OutOfMemoryError
from nsvd_exp.experiment.bases import Bases, memory
from nsvd_exp.experiment.order import basis_group, model_identity
from nsvd_exp.experiment.plan import (
    PlannedCalibration,
    PlannedNumber,
    Resolved,
    calibration_title,
)
from nsvd_exp.methods.base import Calibration
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.devices import gpus_of
from nsvd_exp.models.loading import check_vocabulary, load_model, load_streamed, load_tokenizer
from nsvd_exp.models.streamed import StreamedModel, calibrate_streamed
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.progress import Observer, Progress
from nsvd_exp.storage.cache import CANNOT_WRITE, STATISTICS, Cache
from nsvd_exp.storage.files import DamagedError, ScratchFolder, hold
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.tensors import StatisticsFolder

T = TypeVar("T")

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


_loaded: LoadedModel | None = None
# Tokenised datasets by model (with its tokenizer) and number: they outlive a model that is loaded
# again for the same grid.
_tokens: dict[tuple[str, str], Tokens] = {}
# The last calibration and its key. What stands in `cache_dir` is a map of the file, not a copy.
_calibration: tuple[str, Calibration] | None = None
# Keys of models that memory=auto streams: they turned out too large for their device.
_too_large: set[str] = set()
# One for each setting of a cache, so that it warns once.
_caches: dict[tuple[Path, str, float | None], Cache] = {}


def load(plan: Resolved) -> LoadedModel:
    """The dense model of the plan, which stays loaded until another one is asked for."""
    global _loaded
    place = "streamed" if is_streamed(plan) else "resident"
    key = f"{place} {_model_key(plan)}"
    if _loaded is None or _loaded.key != key:
        release_model()
        memory.drop_other_models(model_identity(plan))
        if plan.calibration is None or not _is_last(plan.calibration):
            release_calibration()
        config = plan.config.model
        streamed = _streamed(plan) if place == "streamed" else None
        model = (
            streamed.model if streamed else load_model(plan.model, config, plan.dtype, plan.device)
        )
        _loaded = LoadedModel(key, model, load_tokenizer(plan.model, config), streamed)
    return _loaded


def _streamed(plan: Resolved) -> StreamedModel:
    """The model of the plan, on the first of its GPUs."""
    place = next(iter(gpus_of(plan.device)), "cpu")
    make_cache_dir(plan)
    own = ScratchFolder(plan.cache_dir, ".streamed.")
    model, weights = load_streamed(plan.model, plan.config.model, plan.dtype, own.path)
    return StreamedModel(model, weights, torch.device(place), plan.cache_dir, own)


def _model_key(plan: Resolved) -> str:
    return digest({"model": plan.model.identity, "dtype": plan.dtype, "device": plan.device})


def is_streamed(plan: Resolved) -> bool:
    """Whether one block of the model is in memory at a time."""
    asked = plan.config.memory
    return asked == "streamed" or (asked == "auto" and _model_key(plan) in _too_large)


def with_fallback(plan: Resolved, work: Callable[[], T]) -> T:
    """Do the work, which loads the model; with memory=auto once more streamed if memory runs out.

    Raises:
        OutOfMemoryError: it runs out all the same.
    """
    try:
        return work()
    except (RuntimeError, MemoryError, OutOfMemoryError) as error:
        if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
            raise
        problem = f"out of memory: {textwrap.shorten(str(error), 200)}"
        if is_streamed(plan):
            problem += " (with memory=streamed: one block at a time is still too much)"
            raise OutOfMemoryError(problem) from error
        if plan.config.memory == "resident":
            raise OutOfMemoryError(f"{problem}; one block at a time: memory=streamed") from error
    # Outside of the handler, whose traceback holds the model.
    log.warning("%s: going on with memory=streamed", problem)
    _too_large.add(_model_key(plan))
    release_model()
    memory.clear()
    return with_fallback(plan, work)


def release_model() -> None:
    """Forget the loaded model and give its memory back."""
    global _loaded
    if _loaded is not None and _loaded.streamed is not None:
        release_calibration()  # which may stand in a file that goes with the model
    _loaded = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def texts_of(plan: Resolved, numbers: Iterable[PlannedNumber]) -> dict[str, str]:
    """The text of each number, by its key, unless it is tokenised already."""
    return {
        number.key: text_of(number.dataset, "test", number.source)
        for number in numbers
        if _tokens_key(plan, number) not in _tokens
    }


def windows_of(
    plan: Resolved, number: PlannedNumber, loaded: LoadedModel, texts: dict[str, str]
) -> Tokens:
    """The windows of one dataset, which stay tokenised.

    Args:
        texts: from `texts_of`.

    Raises:
        NsvdError: less text than one window, or an id that the model has no embedding for.
    """
    key = _tokens_key(plan, number)
    if key not in _tokens:
        dataset, cap = number.dataset, plan.config.evaluation.max_windows
        _tokens[key] = windows(
            loaded.tokenizer, texts[number.key], plan.length, cap, dataset.split_special_tokens,
            f"dataset {dataset.name}",
        )  # fmt: skip
    check_vocabulary(loaded.model, _tokens[key].ids)
    return _tokens[key]


def _tokens_key(plan: Resolved, number: PlannedNumber) -> tuple[str, str]:
    return digest(plan.model.identity), number.key


def calibration_of(
    plan: Resolved,
    planned: PlannedCalibration,
    loaded: LoadedModel,
    layers: dict[str, nn.Linear],
    observer: Observer,
) -> Calibration:
    """The statistics: of the last cell, from `cache_dir`, or from a pass of the model.

    Raises:
        NsvdError: `cache_dir` cannot be written to, or the pass fails.
    """
    global _calibration
    if _calibration is None or not _is_last(planned):
        release_calibration()
        work = _CalibrationPass(plan, planned, loaded, layers, observer)
        key = _calibration_key(planned)
        _calibration = key, _kept_calibration(plan, key, work)
    return _calibration[1]


def _calibration_key(planned: PlannedCalibration) -> str:
    return digest(planned.identity)[:32]


def _is_last(planned: PlannedCalibration) -> bool:
    return _calibration is not None and _calibration[0] == _calibration_key(planned)


def release_calibration() -> None:
    """Forget the last calibration."""
    global _calibration
    _calibration = None


def cache_of(plan: Resolved) -> Cache:
    """Where the plan keeps what is shared with other processes."""
    keep, limit_gb = plan.config.cache.keep, plan.config.cache.limit_gb
    key = plan.cache_dir, keep, limit_gb
    if key not in _caches:
        _caches[key] = Cache(
            plan.cache_dir, keep, None if limit_gb is None else int(limit_gb * 1e9)
        )
    return _caches[key]


def bases_of(plan: Resolved) -> Bases:
    """The output bases that a cell of this plan shares with others."""
    limit_gb = plan.config.cache.memory_gb
    limit = None if limit_gb is None else int(limit_gb * 1e9)
    # A streamed model is not to grow in memory: its bases are on disk, or made again.
    return Bases(basis_group(plan), cache_of(plan), 0 if is_streamed(plan) else limit)


def _kept_calibration(plan: Resolved, key: str, work: _CalibrationPass) -> Calibration:
    cache = cache_of(plan)
    if not cache.keeps(STATISTICS):
        if work.streamed is None:
            return work.in_memory()
        return work.in_folder(StatisticsFolder(work.streamed.scratch))
    title = calibration_title(plan.config.calibration)
    about = {"model": plan.config.model.title, "dtype": plan.dtype, "calibration": title}
    cache.use(STATISTICS, key, about)
    folder = StatisticsFolder(cache.folder / STATISTICS / key)
    lock = folder.path.with_suffix(".lock")
    with hold(lock, f"the calibration of {about['model']}", log.warning):
        if folder.is_complete:
            try:
                return folder.load()
            except DamagedError as error:
                cache.say(
                    "calibration statistics are damaged or of another version, and made again: "
                    f"{error}"
                )
        if work.streamed is not None:
            return work.in_folder(folder)
        calibration = work.in_memory()
        kept = cache.write(STATISTICS, calibration.nbytes, lambda: folder.save(calibration))
    # Read back: the memory of the sums themselves is free for the evaluation then.
    return folder.load(check=False) if kept else calibration


@dataclass(frozen=True)
class _CalibrationPass:
    """A pass of the dense model over the calibration samples, which has not begun."""

    plan: Resolved
    planned: PlannedCalibration
    loaded: LoadedModel
    layers: dict[str, nn.Linear]
    observer: Observer

    @property
    def streamed(self) -> StreamedModel | None:
        """What brings the model's weights, where they are not in memory."""
        return self.loaded.streamed

    def in_memory(self) -> Calibration:
        """All statistics at once."""
        samples = self._samples()
        parts = calibrate(self.loaded.model, self.layers, samples.ids, *self._options())
        return Calibration(*parts, _record(self.plan, samples))

    def in_folder(self, folder: StatisticsFolder) -> Calibration:
        """The statistics of a streamed model, written block by block: they never sum up.

        Raises:
            NsvdError: they cannot be written.
        """
        streamed, samples = self.streamed, self._samples()
        assert streamed is not None
        try:
            with folder.being_written():
                reads = calibrate_streamed(
                    streamed, self.layers, samples.ids, folder.add, *self._options()
                )
                folder.finish(reads, _record(self.plan, samples))
        except CANNOT_WRITE as error:
            raise NsvdError(
                f"calibration statistics cannot be kept in {folder.path} ({error}), and with "
                "memory=streamed there is no other place for them: give another cache_dir"
            ) from None
        return folder.load(check=False)

    def _samples(self) -> Tokens:
        log.info("calibrating on %s", calibration_title(self.plan.config.calibration))
        samples = _samples(self.plan, self.planned, self.loaded)
        check_vocabulary(self.loaded.model, samples.ids)
        return samples

    def _options(self) -> tuple[int | str, Progress | None]:
        return self.plan.config.calibration.batch, self.observer.progress("calibrate")


def make_cache_dir(plan: Resolved) -> Path:
    """`cache_dir`, which is there now.

    Raises:
        NsvdError: it cannot be made.
    """
    folder = plan.cache_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = plan.config.cache_dir
        raise NsvdError(f"cache_dir={place} cannot be written to: {error}") from None
    return folder


def _samples(plan: Resolved, planned: PlannedCalibration, loaded: LoadedModel) -> Tokens:
    calibration = plan.config.calibration
    tokenizer = loaded.tokenizer
    if planned.tokenizer is not None:
        tokenizer = load_tokenizer(planned.tokenizer.source, planned.tokenizer.config)
    text = text_of(calibration.dataset, calibration.split, planned.source)
    samples = calibration_samples(
        tokenizer, text, calibration.samples, calibration.sample_length, calibration.seed,
        calibration.sampler, calibration.dataset.split_special_tokens,
        f"the calibration text of {calibration.dataset.name}",
    )  # fmt: skip
    if len(samples.ids) < calibration.samples:
        log.warning(
            "calibration: %d of %d samples had %d tokens; the others are left out",
            len(samples.ids), calibration.samples, calibration.sample_length,
        )  # fmt: skip
    return samples


def _record(plan: Resolved, samples: Tokens) -> dict[str, Any]:
    return {
        "title": calibration_title(plan.config.calibration),
        "samples": len(samples.ids),
        "samples_asked": plan.config.calibration.samples,
        "tokens": samples.ids.numel(),
        "token_sha256": samples.sha256,
        "bos": samples.bos,
    }
