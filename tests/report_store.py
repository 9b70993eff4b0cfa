"""Stores made by hand: valid results without a model, for the tests of the report."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.configuration import compose

from nsvd_exp.config.schema import Config, DatasetConfig
from nsvd_exp.data.sources import hub_identity
from nsvd_exp.experiment.plan import SETTINGS_WITHOUT_A_NUMBER, STAGE_VERSIONS, method_identity
from nsvd_exp.report import paper
from nsvd_exp.report.protocol import model_files
from nsvd_exp.storage.keys import decimal_text, digest
from nsvd_exp.storage.results import Result, cell_for, put_number, similarity_record

ENVIRONMENT = {
    "nsvd_exp": "0.1.0",
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    "python": "3.11.7",
    "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
    "device": "cpu",
    "hardware": "a processor",
    "threads": 2,
}
MEASURED = "2026-01-02T03:04:05+00:00"
EIGHT = dict(zip(paper.datasets(), (9.5, 29.0, 26.0, 19.0, 12.0, 6.0, 180.0, 360.0), strict=True))

_compose = functools.cache(compose)


def sha256(*parts: object) -> str:
    """A hash that stands for the content these parts name."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def make_cell(
    results_dir: Path,
    model: str = "tiny",
    method: str = "asvd_i",
    ratio: float | None = 0.3,
    k1: float | None = None,
    datasets: Mapping[str, float] = EIGHT,
    *,
    seed: int = 3,
    windows: int = 20,
    status: str = "done",
    length: int | None = None,
    max_windows: int | None = None,
    samples: int | None = None,
    solver: str = "basis",
    dtype: str = "float32",
    message: str = "out of memory",
    **changes: Any,
) -> Result:
    """Store one cell, or add to it; what its method does not have is left out.

    Args:
        model: a title of `conf/model`, then model, calibration and text are the paper's unless told
            otherwise; or any other, of a model that is a local folder.
        datasets: perplexity by name.
        length: tokens a window; 2048 for the paper's models, else 256.
        message: of a failed cell.
        changes: fields of the result to replace.
    """
    is_papers = _is_papers(model)
    length = length or (2048 if is_papers else 256)
    config = _config(model, method, ratio, k1)
    config.calibration.seed = seed
    config.calibration.samples = samples or config.calibration.samples
    config.solver = solver
    identity = _identity(config, dtype, is_papers)
    numbers = [
        _number(config, name, value, identity, windows, length, max_windows, is_papers)
        for name, value in datasets.items()
    ]
    cell = cell_for(results_dir, identity)
    result = _result(config, identity, status, message) | changes
    result |= {name: (cell.read() or result)[name] for name in ("datasets", "earlier")}
    for number in numbers:
        put_number(result, number)
    cell.write(result)
    return result


def make_papers_tables(results_dir: Path, number: int, model: str, factor: float = 1.01) -> None:
    """Store every row of one of the paper's tables, `factor` times the printed perplexities."""
    table = paper.tables()[number]
    for row in table.rows[model]:
        ours = {name: factor * p for name, p in table.perplexities(model, row).items()}
        make_cell(results_dir, model, *row, ours)


def make_similarity(
    results_dir: Path,
    model: str = "tiny",
    dataset: str = "ptb",
    values: Mapping[str, Sequence[float | None]] | None = None,
    *,
    length: int | None = None,
    status: str = "done",
    **changes: Any,
) -> Result:
    """Store one similarity record.

    Args:
        model, length: as of `make_cell`.
        values: one a layer, by statistic.
        changes: fields of the record to replace.
    """
    values = values or {"mean": [0.5, 0.7], "abs_mean": [0.9, 0.9], "gram": [0.4, 0.6]}
    is_papers = _is_papers(model)
    config = _config(model, "asvd_i", None, None)
    calibrated = _identity(config, "float32", is_papers)
    protocol = {
        "source": _source(config.dataset[dataset], "test", is_papers),
        "length": length or (2048 if is_papers else 256),
        "max_windows": None,
    }
    identity = {name: calibrated[name] for name in ("model", "dtype", "skip", "calibration")}
    identity |= {"dataset": protocol, "version": STAGE_VERSIONS["similarity"]}
    result = _result(config, identity, status, "out of memory")
    for name in ("method", "ratio", "k1", "solver", "achieved_ratio", "datasets", "earlier"):
        del result[name]
    result["dataset"] = {
        "name": dataset,
        "title": config.dataset[dataset].title,
        "windows": 20,
        "length": protocol["length"],
        "token_sha256": sha256(model, dataset, protocol["length"]),
    }
    of_layers = zip(*values.values(), strict=True)
    layers = [dict(zip(values, of_layer, strict=True)) for of_layer in of_layers]
    absent = dict.fromkeys({"mean", "abs_mean", "gram"} - values.keys())
    result["layers"] = [{"name": f"layers.{n}", "n": 8} | absent | v for n, v in enumerate(layers)]
    result |= {"statistics": list(values)} | changes
    similarity_record(results_dir, dataset, identity).write(result)
    return result


def _is_papers(model: str) -> bool:
    """Whether its text comes from the hub, as the paper's."""
    return model in model_files() and model != "tiny"


def _config(model: str, method: str, ratio: float | None, k1: float | None) -> Config:
    of_model = model if _is_papers(model) else "tiny"
    composed = _compose(f"model={model_files()[of_model]}", f"method={method}")
    length = 2048 if _is_papers(model) else 256
    return dataclasses.replace(
        composed,
        ratio=ratio or 0.3,
        k1=k1 or 0.95,
        model=dataclasses.replace(composed.model, title=model),
        calibration=dataclasses.replace(composed.calibration, length=length),
    )


def _source(dataset: DatasetConfig, split: str, is_papers: bool) -> dict[str, Any]:
    if is_papers:
        pinned = len(dataset.revision) == 40
        commit = dataset.revision if pinned else sha256(dataset.hub)[:40]
        return hub_identity(dataset, split, commit)
    return {"document": "{text}", "format": ".jsonl", "sha256": sha256(dataset.name, split)}


def _model_identity(config: Config, is_papers: bool) -> dict[str, Any]:
    if not is_papers:
        return {"sha256": sha256(config.model.title)}
    revision = config.model.revision
    commit = revision if len(revision) == 40 else sha256(config.model.name)[:40]
    identity: dict[str, Any] = {"hub": config.model.name, "commit": commit}
    return identity | ({"tokenizer": config.model.tokenizer} if config.model.tokenizer else {})


def _identity(config: Config, dtype: str, is_papers: bool) -> dict[str, Any]:
    method, calibration = config.method, config.calibration
    identity: dict[str, Any] = {
        "model": _model_identity(config, is_papers),
        "dtype": dtype,
        "method": method_identity(method),
    }
    if method.compresses:
        identity |= {"ratio": decimal_text(config.ratio), "solver": config.solver, "skip": []}
        identity["version"] = STAGE_VERSIONS["decompose"]
    if method.nested:
        identity["k1"] = decimal_text(config.k1)
    if method.calibrated:
        identity["calibration"] = {
            "source": _source(calibration.dataset, calibration.split, is_papers),
            "samples": calibration.samples,
            "length": calibration.length,
            "seed": calibration.seed,
            "sampler": calibration.sampler,
            "tokenizer": None,
            "version": STAGE_VERSIONS["calibrate"],
        }
    return identity


def _number(
    config: Config,
    name: str,
    perplexity: float,
    cell: dict[str, Any],
    windows: int,
    length: int,
    max_windows: int | None,
    is_papers: bool,
) -> dict[str, Any]:
    identity = {
        "source": _source(config.dataset[name], "test", is_papers),
        "length": length,
        "max_windows": max_windows,
        "version": STAGE_VERSIONS["evaluate"],
    }
    tokens = sha256(config.model.title, name, length, windows)
    window_nll = _window_nll(perplexity, windows, length, tokens, digest(cell))
    return {
        "dataset": name,
        "key": digest(identity),
        "identity": identity,
        "perplexity": perplexity,
        "nll": math.fsum(window_nll),
        "tokens": windows * (length - 1),
        "windows": windows,
        "length": length,
        "max_windows": max_windows,
        "dtype": cell["dtype"],
        "bos": False,
        "token_sha256": tokens,
        "window_nll": window_nll,
        "seconds": 0.5,
        "measured": MEASURED,
        "environment": ENVIRONMENT,
    }


def _window_nll(perplexity: float, windows: int, length: int, text: str, cell: str) -> list[float]:
    """Nats of every window: windows of a text are hard or easy for every method alike."""
    shared, own = random.Random(text), random.Random(text + cell)
    noise = [shared.gauss(0, 0.2) + own.gauss(0, 0.03) for _ in range(windows)]
    mean = math.fsum(noise) / windows
    return [(math.log(perplexity) + value - mean) * (length - 1) for value in noise]


def _result(
    config: Config,
    identity: dict[str, Any],
    status: str,
    message: str,
) -> Result:
    method, calibration = config.method, identity.get("calibration")
    settings = dataclasses.asdict(config)
    error = {"type": "RuntimeError", "message": message, "traceback": "Traceback ..."}
    tokens = sha256(config.model.title, "calibration", calibration)
    return {
        "version": 1,
        "key": digest(identity),
        "identity": identity,
        "model": config.model.title,
        "model_source": {"name": config.model.name, **identity["model"]},
        "dtype": identity["dtype"],
        "config": {k: v for k, v in settings.items() if k not in SETTINGS_WITHOUT_A_NUMBER},
        "method": method.name,
        "ratio": config.ratio if method.compresses else None,
        "k1": config.k1 if method.nested else None,
        "solver": config.solver if method.compresses else None,
        "environment": ENVIRONMENT,
        "created": MEASURED,
        "updated": MEASURED,
        "seconds": {"load": 1.0, "evaluate": 4.0},
        "peak_memory": {"host_bytes": 1, "device_bytes": None},
        "achieved_ratio": {"layers": config.ratio, "model": config.ratio},
        "calibration": {"title": "made up", "token_sha256": tokens} if calibration else None,
        "layers": [],
        "datasets": {},
        "earlier": [],
        "status": status,
        "error": error if status == "failed" else None,
    }
