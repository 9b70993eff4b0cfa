"""One cell: load, calibrate, decompose, evaluate, keep.

The dense model, its tokenizer and tokenised datasets stay loaded for the cells that follow in the
same process; calibration statistics are kept in `cache_dir` for every process.
"""

from __future__ import annotations

import gc
import logging
import math
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from nsvd_exp.calibration import DAMAGED, Calibration, calibrate
from nsvd_exp.cells import (
    Plan,
    PlannedCalibration,
    PlannedNumber,
    calibration_title,
    public_config,
    public_name,
)
from nsvd_exp.compress import achieved_ratio, compress, ranks_for
from nsvd_exp.data import Tokens, calibration_samples, text_of, windows
from nsvd_exp.errors import NsvdError
from nsvd_exp.fingerprint import digest
from nsvd_exp.layers import find_linears, parameter_count, replaced
from nsvd_exp.methods import Method, whitening_named
from nsvd_exp.models import check_device, check_vocabulary, load_model, load_tokenizer, to_dtype
from nsvd_exp.perplexity import perplexity, window_nll
from nsvd_exp.progress import Observer
from nsvd_exp.provenance import environment, peak_memory, reset_peak_memory
from nsvd_exp.store import RESULT_VERSION, Result, hold, put_number

log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A dense model in memory, with its tokenizer."""

    key: str
    model: nn.Module
    tokenizer: Any


class Stopwatch:
    """Seconds a stage, summed under its name; a GPU is waited for before the clock is read."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device != "cpu" and torch.cuda.is_initialized():
                torch.cuda.synchronize(self._device)
            elapsed = time.perf_counter() - start
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + elapsed, 3)


_loaded: LoadedModel | None = None
# Tokenised datasets by model (with its tokenizer) and number: they outlive a model that is loaded
# again for the same grid.
_tokens: dict[tuple[str, str], Tokens] = {}


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
        if previous is not None and plan.is_done(previous):
            return previous  # another process did it while this one waited
        work = _Work(plan, _started(plan, previous), observer or Observer())
        plan.cell.write(work.result)
        error = None
        try:
            work.do()
        except Exception as caught:
            error = _describe(caught)
        if error is not None:  # outside of the handler, whose traceback holds the model
            release_model()
        work.result |= {
            "status": "done" if error is None else "failed",
            "error": error,
            "seconds": work.stopwatch.seconds,
            "peak_memory": peak_memory(plan.device),
            "updated": _now(),
        }
        plan.cell.write(work.result)
    return work.result


def release_model() -> None:
    """Forget the loaded model and give its memory back."""
    global _loaded
    _loaded = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(plan: Plan) -> LoadedModel:
    global _loaded
    key = digest({"model": plan.model.identity, "dtype": plan.dtype, "device": plan.device})
    if _loaded is None or _loaded.key != key:
        release_model()
        config = plan.config.model
        model = load_model(plan.model, config, plan.dtype, plan.device)
        _loaded = LoadedModel(key, model, load_tokenizer(plan.model, config))
    return _loaded


def _started(plan: Plan, previous: Result | None) -> Result:
    """A result with all that is known before the work; keeps what an earlier run has measured."""
    config, method = plan.config, plan.config.method
    kept: dict[str, Any] = {
        "status": "partial",
        "created": _now(),
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
        "version": RESULT_VERSION,
        "key": plan.cell.key,
        "identity": plan.cell.identity,
        "model": config.model.title,
        "model_source": {"name": public_name(plan.model), **plan.model.identity},
        "method": method.name,
        "ratio": config.ratio if method.compresses else None,
        "k1": config.k1 if method.nested else None,
        "solver": config.solver if method.compresses else None,
        "dtype": plan.dtype,
        "config": public_config(plan),
        "environment": None,
        "updated": _now(),
        "seconds": {},
        "peak_memory": None,
        "error": None,
        **kept,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(error: Exception) -> dict[str, str]:
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": traceback.format_exc(),
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
            texts = self._texts()
            loaded = _load(plan)
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

    def _cast(self, model: nn.Module, stack: ExitStack) -> None:
        """Cast the model in place for its evaluation; undone where that loses nothing."""
        own = getattr(torch, self.plan.dtype)
        evaluated = getattr(torch, self.plan.evaluation_dtype)
        if torch.finfo(evaluated).bits > torch.finfo(own).bits:
            stack.callback(to_dtype, model, own)
        else:
            stack.callback(release_model)
        to_dtype(model, evaluated)

    def _tokens_key(self, number: PlannedNumber) -> tuple[str, str]:
        return digest(self.plan.model.identity), number.key

    def _texts(self) -> dict[str, str]:
        """The text of each number to measure, unless it is tokenised already."""
        return {
            number.key: text_of(number.dataset, "test", number.source)
            for number in self.plan.missing(self.result)
            if self._tokens_key(number) not in _tokens
        }

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
                calibration = self._calibration(plan.calibration, loaded, layers)
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
            )
        dense_parameters = parameter_count(loaded.model)
        with replaced(loaded.model, compressed):
            result["achieved_ratio"] = achieved_ratio(
                result["layers"], dense_parameters, loaded.model
            )
            yield

    def _calibration(
        self, planned: PlannedCalibration, loaded: LoadedModel, layers: dict[str, nn.Linear]
    ) -> Calibration:
        """The statistics, from `cache_dir` or from a pass of the model."""
        folder = self.plan.cache_dir / "calibration"
        path = folder / f"{digest(planned.identity)[:32]}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            place = self.plan.config.cache_dir
            raise NsvdError(f"cache_dir={place} cannot be written to: {error}") from None
        with hold(path.with_suffix(".lock"), "the same calibration", log.warning):
            if path.exists():
                try:
                    return Calibration.load(path)
                except DAMAGED as error:
                    log.warning(
                        "calibration statistics %s are damaged (%s): made again", path, error
                    )
            log.info("calibrating on %s", calibration_title(self.plan.config.calibration))
            samples = self._samples(planned, loaded)
            check_vocabulary(loaded.model, samples.ids)
            statistics = calibrate(
                loaded.model,
                layers,
                samples.ids,
                self.plan.config.calibration.batch,
                self.observer.progress("calibrate"),
            )
            calibration = Calibration(statistics, self._record(samples))
            try:
                calibration.save(path)
            except OSError as error:
                log.warning("calibration statistics cannot be kept in %s: %s", folder, error)
            return calibration

    def _samples(self, planned: PlannedCalibration, loaded: LoadedModel) -> Tokens:
        calibration = self.plan.config.calibration
        tokenizer = loaded.tokenizer
        if planned.tokenizer is not None:
            tokenizer = load_tokenizer(planned.tokenizer.source, planned.tokenizer.config)
        text = text_of(calibration.dataset, calibration.split, planned.source)
        samples = calibration_samples(tokenizer, text, calibration)
        if len(samples.ids) < calibration.samples:
            log.warning(
                "calibration: %d of %d samples had %d tokens; the others are left out",
                len(samples.ids), calibration.samples, calibration.sample_length,
            )  # fmt: skip
        return samples

    def _record(self, samples: Tokens) -> dict[str, Any]:
        return {
            "title": calibration_title(self.plan.config.calibration),
            "samples": len(samples.ids),
            "samples_asked": self.plan.config.calibration.samples,
            "tokens": samples.ids.numel(),
            "token_sha256": samples.sha256,
            "bos": samples.bos,
        }

    def _measure(
        self, number: PlannedNumber, loaded: LoadedModel, texts: dict[str, str]
    ) -> dict[str, Any]:
        """The perplexity of one dataset, with all that is kept beside it."""
        start = time.perf_counter()
        plan, evaluation, name = self.plan, self.plan.config.evaluation, number.dataset.name
        tokens = _tokens.get(self._tokens_key(number))
        if tokens is None:
            text, cap = texts[number.key], evaluation.max_windows
            tokens = windows(loaded.tokenizer, text, number.dataset, plan.length, cap)
            _tokens[self._tokens_key(number)] = tokens
        check_vocabulary(loaded.model, tokens.ids)
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
            "measured": _now(),
            "environment": self.result["environment"],
        }
