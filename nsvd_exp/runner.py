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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from nsvd_exp.calibration import DAMAGED, Calibration, calibrate
from nsvd_exp.cells import (
    Plan,
    PlannedCalibration,
    PlannedNumber,
    calibration_title,
    method_identity,
    public_config,
    public_name,
)
from nsvd_exp.data import Tokens, calibration_samples, text_of, windows
from nsvd_exp.errors import NsvdError
from nsvd_exp.fingerprint import digest
from nsvd_exp.layers import LowRankLinear, find_linears, parameter_count, replaced
from nsvd_exp.linalg import rank_for_ratio, relative_loss
from nsvd_exp.methods import Factors, Method, Statistics, whitening_named
from nsvd_exp.models import check_vocabulary, load_model, load_tokenizer, to_dtype
from nsvd_exp.perplexity import perplexity, window_nll
from nsvd_exp.progress import Observer
from nsvd_exp.provenance import environment, peak_memory
from nsvd_exp.schema import ModelConfig
from nsvd_exp.store import RESULT_VERSION, Result, put_number

log = logging.getLogger(__name__)


@dataclass
class LoadedModel:
    """A dense model in memory, and the tokenised datasets that its tokenizer made."""

    key: str
    model: nn.Module
    tokenizer: Any
    tokens: dict[str, Tokens] = field(default_factory=dict)


@dataclass
class Stopwatch:
    """Seconds a stage, summed under its name; a GPU is waited for before the clock is read."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + elapsed, 3)


_loaded: LoadedModel | None = None


def run_cell(plan: Plan, observer: Observer | None = None) -> Result:
    """Do what is missing of a cell and return its result, which is stored by then.

    A problem does not raise: the result then has `status` = `failed`, and its `error` says why.
    """
    observer = observer or Observer()
    with plan.cell.lock(log.warning):
        result = plan.cell.read()
        if plan.is_done(result):  # another process did it while this one waited
            assert result is not None
            return result
        result = _started(plan, result)
        plan.cell.write(result)
        stopwatch = Stopwatch()
        try:
            _work(plan, result, stopwatch, observer)
            result |= {"status": "done", "error": None}
        except Exception as error:
            result |= {"status": "failed", "error": _describe(error)}
            release_model()
        result["seconds"] = stopwatch.seconds
        result["peak_memory"] = peak_memory(plan.device)
        result["updated"] = _now()
        plan.cell.write(result)
    return result


def release_model() -> None:
    """Forget the loaded model and give its memory back."""
    global _loaded
    _loaded = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _started(plan: Plan, previous: Result | None) -> Result:
    """A result with everything that is known before the work; keeps numbers that are there."""
    config, method = plan.config, plan.config.method
    result: Result = {
        "version": RESULT_VERSION,
        "status": "partial",
        "key": plan.cell.key,
        "identity": plan.cell.identity,
        "model": config.model.title,
        "model_source": {"name": public_name(plan.model), **plan.model.identity},
        "method": method.name,
        "ratio": config.ratio if method.compresses else None,
        "k1": config.k1 if method.nested else None,
        "solver": config.solver if method.compresses else None,
        "dtype": plan.dtype,
        "config": public_config(plan) | {"method": method_identity(method)},
        "environment": environment(plan.device),
        "created": _now(),
        "achieved_ratio": None,
        "calibration": None,
        "layers": [],
        "datasets": {},
        "earlier": [],
        "error": None,
    }
    if previous is not None:
        result |= {name: previous[name] for name in ("created", "datasets", "earlier")}
    return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe(error: Exception) -> dict[str, str]:
    return {
        "type": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "traceback": traceback.format_exc(),
    }


def _work(plan: Plan, result: Result, stopwatch: Stopwatch, observer: Observer) -> None:
    with stopwatch("load"):
        # Text before weights: a dataset that is not there should not cost a calibration first.
        known = _loaded.tokens if _loaded and _loaded.key == _model_key(plan) else {}
        texts = {
            number.key: text_of(number.dataset, "test", number.source)
            for number in plan.missing(result)
            if number.key not in known
        }
        loaded = _load(plan)
    with ExitStack() as stack:
        if plan.config.method.compresses:
            _compress(plan, result, loaded, stack, stopwatch, observer)
        if plan.evaluation_dtype != plan.dtype:
            # Cast in place: the model is no longer the dense one of `dtype`, so it is not kept.
            stack.callback(release_model)
            to_dtype(loaded.model, plan.evaluation_dtype)
        for number in plan.missing(result):
            with stopwatch("evaluate"):
                tokens = _tokens(plan, number, texts, loaded)
                measured = _measure(plan, number, tokens, loaded, observer)
            put_number(result, measured)
            plan.cell.write(result)


def _compress(
    plan: Plan,
    result: Result,
    loaded: LoadedModel,
    stack: ExitStack,
    stopwatch: Stopwatch,
    observer: Observer,
) -> None:
    """Put the two-factor layers into the model, until `stack` ends."""
    layers = find_linears(loaded.model, plan.config.model.skip)
    ranks = _ranks(layers, plan.config.ratio)
    statistics = None
    if plan.calibration is not None:
        with stopwatch("calibrate"):
            calibration = _calibration(plan, loaded, layers, observer)
        statistics, result["calibration"] = calibration.statistics, calibration.record
    with stopwatch("decompose"):
        compressed, table = _decompose(plan, layers, ranks, statistics, observer)
    dense_count = parameter_count(loaded.model)
    stack.enter_context(replaced(loaded.model, compressed))
    result["layers"] = table
    result["achieved_ratio"] = _achieved(table, dense_count, loaded.model)


def _model_key(plan: Plan) -> str:
    return digest({"model": plan.model.identity, "dtype": plan.dtype, "device": plan.device})


def _load(plan: Plan) -> LoadedModel:
    global _loaded
    key = _model_key(plan)
    if _loaded is None or _loaded.key != key:
        release_model()
        config = plan.config.model
        model = load_model(plan.model, config, plan.dtype, plan.device)
        _loaded = LoadedModel(key, model, load_tokenizer(plan.model, config))
    return _loaded


def _calibration(
    plan: Plan, loaded: LoadedModel, layers: dict[str, nn.Linear], observer: Observer
) -> Calibration:
    """The statistics, from `cache_dir` or from a pass of the model."""
    assert plan.calibration is not None
    path = plan.cache_dir / "calibration" / f"{digest(plan.calibration.identity)[:32]}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                return Calibration.load(path)
            except DAMAGED as error:
                log.warning("calibration statistics %s are damaged (%s): made again", path, error)
        samples = _samples(plan, plan.calibration, loaded)
        check_vocabulary(loaded.model, samples.ids)
        batch, progress = plan.config.calibration.batch, observer.progress("calibrate")
        statistics = calibrate(loaded.model, layers, samples.ids, batch, progress)
        calibration = Calibration(statistics, _record(plan, samples))
        try:
            calibration.save(path)
        except OSError as error:
            log.warning("calibration statistics cannot be kept in %s: %s", path.parent, error)
        return calibration


def _samples(plan: Plan, planned: PlannedCalibration, loaded: LoadedModel) -> Tokens:
    calibration = plan.config.calibration
    tokenizer = loaded.tokenizer
    if planned.tokenizer is not None:
        other = ModelConfig(name=planned.tokenizer.name, title="tokenizer")
        tokenizer = load_tokenizer(planned.tokenizer, other)
    text = text_of(calibration.dataset, calibration.split, planned.source)
    samples = calibration_samples(tokenizer, text, calibration)
    if len(samples.ids) < calibration.samples:
        log.warning(
            "calibration: %d of the %d samples had %d tokens; the others are left out",
            len(samples.ids), calibration.samples, calibration.length,
        )  # fmt: skip
    return samples


def _record(plan: Plan, samples: Tokens) -> dict[str, Any]:
    return {
        "title": calibration_title(plan.config.calibration),
        "samples": len(samples.ids),
        "samples_asked": plan.config.calibration.samples,
        "tokens": samples.ids.numel(),
        "token_sha256": samples.sha256,
        "bos": samples.bos,
    }


def _ranks(layers: dict[str, nn.Linear], ratio: float) -> dict[str, int]:
    ranks = {}
    for name, linear in layers.items():
        try:
            ranks[name] = rank_for_ratio(linear.out_features, linear.in_features, ratio)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
    return ranks


def _decompose(
    plan: Plan,
    layers: dict[str, nn.Linear],
    ranks: dict[str, int],
    statistics: dict[str, Statistics] | None,
    observer: Observer,
) -> tuple[dict[str, nn.Module], list[dict[str, Any]]]:
    """The two-factor layers by name, and the table by layer."""
    config = plan.config
    assert config.method.whitening is not None
    method = Method(whitening_named(config.method.whitening), config.method.second, config.solver)
    progress = observer.progress("decompose")
    compressed: dict[str, nn.Module] = {}
    table = []
    for name, linear in layers.items():
        W = linear.weight.data
        known = statistics[name].to(W.device, torch.float64) if statistics else None
        try:
            factors = method.factorise(W, ranks[name], config.k1, known)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
        table.append(_layer_row(name, W, factors, known))
        left, right = factors.left.to(W.dtype), factors.right.to(W.dtype)
        compressed[name] = LowRankLinear(left, right, linear.bias)
        if progress:
            progress(len(table), len(layers))
    return compressed, table


def _layer_row(
    name: str, W: torch.Tensor, factors: Factors, statistics: Statistics | None
) -> dict[str, Any]:
    approximation = factors.left @ factors.right
    loss = relative_loss(W.double(), approximation, statistics.gram) if statistics else None
    return {
        "name": name,
        "m": W.shape[0],
        "n": W.shape[1],
        "k": factors.k1 + factors.k2,
        "k1": factors.k1,
        "activation_loss": loss,
        "weight_loss": relative_loss(W.double(), approximation),
        "shift": factors.shift,
    }


def _achieved(
    table: list[dict[str, Any]], dense_count: int, compressed: nn.Module
) -> dict[str, float]:
    """Fraction of parameters removed, of the compressed weights and of the whole model."""
    kept = sum(row["k"] * (row["m"] + row["n"]) for row in table)
    weights = sum(row["m"] * row["n"] for row in table)
    return {
        "layers": 1 - kept / weights,
        "model": 1 - parameter_count(compressed) / dense_count,
    }


def _tokens(
    plan: Plan, number: PlannedNumber, texts: dict[str, str], loaded: LoadedModel
) -> Tokens:
    if number.key not in loaded.tokens:
        text, cap = texts[number.key], plan.config.evaluation.max_windows
        loaded.tokens[number.key] = windows(
            loaded.tokenizer, text, number.dataset, plan.length, cap
        )
    return loaded.tokens[number.key]


def _measure(
    plan: Plan, number: PlannedNumber, tokens: Tokens, loaded: LoadedModel, observer: Observer
) -> dict[str, Any]:
    """The perplexity of one dataset, with all that is kept beside it."""
    name = number.dataset.name
    start = time.perf_counter()
    check_vocabulary(loaded.model, tokens.ids)
    progress = observer.progress(name)
    try:
        nll = window_nll(loaded.model, tokens.ids, plan.config.evaluation.batch, progress)
    except NsvdError as error:
        raise NsvdError(f"dataset {name}: {error}") from None
    count, length = tokens.ids.shape
    predicted = count * (length - 1)
    return {
        "dataset": name,
        "key": number.key,
        "identity": number.identity,
        "perplexity": perplexity(math.fsum(nll), predicted),
        "nll": math.fsum(nll),
        "tokens": predicted,
        "windows": count,
        "length": length,
        "max_windows": plan.config.evaluation.max_windows,
        "dtype": plan.evaluation_dtype,
        "bos": tokens.bos,
        "token_sha256": tokens.sha256,
        "window_nll": nll,
        "seconds": round(time.perf_counter() - start, 3),
    }
