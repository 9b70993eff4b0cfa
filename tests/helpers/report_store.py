"""Results as the program stores them, made by hand and without a model: for the report's tests."""

from __future__ import annotations

import functools
import hashlib
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nsvd_exp.config.files import conf_dir, method_files, model_named, register
from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.data.sources import hub_identity
from nsvd_exp.report.make import write
from nsvd_exp.report.model import paper, results, tables
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.protocol import default_calibration, model_files
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.tables import Block
from nsvd_exp.storage.kept import MEASUREMENTS
from nsvd_exp.storage.keys import decimal_text, digest
from nsvd_exp.storage.results import (
    PROFILE,
    Result,
    cell_file,
    similarity_file,
    subject_file,
)

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
AWKWARD_TITLE = '<b>o\'dd & "model"</b>'
STATISTICS = {"mean": [0.5, 0.7], "abs_mean": [0.9, 0.9], "gram": [0.4, 0.6]}

UNCALIBRATED = ("dense", "svd")
NESTED = ("nsvd_i", "nsvd_ii", "nid_i", "nid_ii")


def sha256(*parts: object) -> str:
    """A hash that stands for the content these parts name."""
    text = "/".join(map(str, parts))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def make_cell(
    results_dir: Path,
    model: str = "tiny",
    method: str = "asvd_i",
    ratio: float = 0.3,
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
    calibrated_on: str = "wikitext2",
    units: Mapping[str, float] | None = None,
    method_block: Mapping[str, Any] | None = None,
    form: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """Store one cell, or add to it; a setting that its method does not have is left out.

    Args:
        model: a title of `conf/model`, then model, calibration and text are the paper's unless told
            otherwise; or any other title, then the model is a local folder.
        k1: None for the default of a method that has a k1.
        datasets: perplexity by name.
        length: tokens per window; None for 2048 with the paper's models and 256 with others.
        message: of a failed cell.
        calibrated_on: the dataset that calibration takes samples from.
        units: further fields of every measurement, such as `bits_per_byte`.
        method_block: the stored configuration of the method; None for that of `conf/method`.
        form: `storage` and `allocation` of its identity.
        changes: fields of the result to replace.
    """
    length = length or _default_length(model)
    compresses = method != "dense"
    k1 = (k1 or 0.95) if method in NESTED else k1
    calibration = None
    if method not in UNCALIBRATED:
        calibration = _calibration(model, seed, samples, calibrated_on)
    identity: dict[str, Any] = {"model": _model_identity(model), "dtype": dtype}
    identity["method"] = {"class": method} if compresses else None
    if compresses:
        identity |= {"ratio": decimal_text(ratio), "solver": solver, "skip": [], "version": 1}
        identity |= form or {}
    if k1 is not None:
        identity["method"]["k1"] = decimal_text(k1)
    if calibration is not None:
        identity["calibration"] = _calibration_identity(model, calibration)
    result = _result(model, identity, list(EIGHT), calibration, status, message)
    result |= {
        "method": method,
        "ratio": ratio if compresses else None,
        "k1": k1,
        "solver": solver if compresses else None,
        "achieved_ratio": {"layers": ratio, "model": ratio} if compresses else None,
        "datasets": {},
        "earlier": [],
    }
    block = method_files()[method] if method_block is None else method_block
    result["config"] |= {"method": dict(block), "solver": solver}
    cell = cell_file(results_dir, method, identity)
    result |= changes
    result |= {name: (cell.read() or result)[name] for name in ("datasets", "earlier")}
    for name, value in datasets.items():
        measured = _measurement(model, name, value, identity, windows, length, max_windows)
        MEASUREMENTS.put(result, measured | dict(units or {}))
    cell.write(result)
    return result


def rewrite(results_dir: Path, result: Result) -> None:
    """Replace a stored cell, found by its key, by this one under the keys of its identities."""
    (folder,) = (results_dir / "cells").glob(f"*{result['key'][:16]}")
    shutil.rmtree(folder)
    measured = {n: m | {"key": digest(m["identity"])} for n, m in result["datasets"].items()}
    cell = cell_file(results_dir, result["method"], result["identity"])
    cell.write(result | {"key": cell.key, "datasets": measured})


def make_papers_tables(results_dir: Path, number: int, model: str, factor: float = 1.01) -> None:
    """Store every row of one of the paper's tables: `factor` times the printed perplexities."""
    table = paper.tables()[number]
    for row in table.rows[model]:
        ours = {name: factor * p for name, p in table.perplexities(model, row).items()}
        make_cell(results_dir, model, row.method, row.ratio or 0.3, row.k1, ours)


def make_similarity(
    results_dir: Path,
    model: str = "tiny",
    dataset: str = "ptb",
    values: Mapping[str, Sequence[float | None]] = STATISTICS,
    *,
    length: int | None = None,
    status: str = "done",
    **changes: Any,
) -> Result:
    """Store one similarity record.

    Args:
        model, length: as in `make_cell`.
        values: one per layer, by statistic.
        changes: fields of the record to replace.
    """
    length = length or _default_length(model)
    calibration = _calibration(model, seed=3, samples=None)
    source = _source(dataset, "test", _is_papers(model))
    identity = {
        "model": _model_identity(model),
        "dtype": "float32",
        "skip": [],
        "calibration": _calibration_identity(model, calibration),
        "dataset": {"source": source, "length": length, "max_windows": None},
        "version": 1,
    }
    result = _result(model, identity, [dataset], calibration, status, "out of memory")
    result["dataset"] = {
        "name": dataset,
        "title": _dataset(dataset).title,
        "windows": 20,
        "length": length,
        "token_sha256": sha256(model, dataset, length),
    }
    of_layers = zip(*values.values(), strict=True)
    layers = [dict(zip(values, of_layer, strict=True)) for of_layer in of_layers]
    absent = dict.fromkeys(STATISTICS.keys() - values.keys())
    result["layers"] = [{"name": f"layers.{n}", "n": 8} | absent | v for n, v in enumerate(layers)]
    result |= {"statistics": list(values)} | changes
    similarity_file(results_dir, dataset, identity).write(result)
    return result


def make_profile(
    results_dir: Path,
    cell: Result | None,
    share: float = 0.8,
    speed: float = 1.2,
    *,
    hardware: str = "a processor",
    subject: str = "my_model",
    **compressed: Any,
) -> Result:
    """Store a profile of size and speed.

    Args:
        cell: that was measured; None for a folder of the name `subject`, of the model `tiny`.
        share: what the compressed model stores of the dense one's numbers.
        speed: of the compressed model, in times the dense one's.
        compressed: fields of what was measured of the compressed model to replace.
    """
    environment = ENVIRONMENT | {"hardware": hardware}
    if cell is not None:
        folder = cell_file(results_dir, cell["method"], cell["identity"]).folder
        subject = folder.name
    known = {"cell": cell["key"]} if cell else {"sha256": sha256(subject)}
    identity = {"subject": known | {"dtype": "float32"}, "hardware": hardware, "version": 1}
    record = {
        "version": 1,
        "status": "done",
        "identity": identity,
        "created": MEASURED,
        "subject": subject,
        "model": cell["model"] if cell else "tiny",
        "cell": cell["key"] if cell else None,
        **{n: cell[n] if cell else None for n in ("method", "ratio", "k1", "achieved_ratio")},
        "dtype": "float32",
        "dense": _profiled(1.0, 1.0),
        "compressed": _profiled(share, speed) | compressed,
        "environment": environment,
    }
    file = subject_file(results_dir, PROFILE, subject, identity)
    record["key"] = file.key
    file.write(record)
    return record


def _profiled(share: float, speed: float) -> dict[str, Any]:
    sizes = {"parameters": 2e6, "disk_bytes": 8.1e6, "memory_bytes": 8.2e6, "step_bytes": 7e6}
    found: dict[str, Any] = {name: round(share * size) for name, size in sizes.items()}
    found["peak_bytes"] = round(share * 9e6)
    for kind, runs in (("prefill", [(1, 128), (1, 512)]), ("decode", [(1, 32), (8, 32)])):
        found[kind] = [
            {
                "batch": batch,
                "length": length,
                "tokens_per_second": speed * batch * length / 0.04,
                "seconds": [0.04 / speed, 0.038 / speed, 0.042 / speed],
                "flops": round(share * 1e9),
            }
            for batch, length in runs
        ]
    return found


def scaled(factor: float, **others: float) -> dict[str, float]:
    """EIGHT times a factor, with `others` in place of some."""
    return {name: factor * value for name, value in EIGHT.items()} | others


def make_full_store(results_dir: Path) -> Path:
    """Store something of all that a page has to show.

    The paper's model under its protocol; the bundled one with two seeds, an allocation, a failed
    and an unfinished cell, and other settings; a model with an awkward name; a damaged file.
    """
    make_papers_tables(results_dir, 3, "llama-7b")
    make_cell(results_dir, method="dense", datasets=scaled(0.3))
    for ratio in (0.3, 0.5):
        for seed in (3, 4):
            factor = 1 + ratio + seed / 100
            make_cell(results_dir, method="asvd_i", ratio=ratio, datasets=scaled(factor), seed=seed)
        better = scaled(1.2 + ratio, ptb=60.0)
        make_cell(results_dir, method="nsvd_i", ratio=ratio, k1=0.95, datasets=better)
    form = {"storage": {"class": "Pivoted"}, "allocation": {"class": "Fisher"}}
    layers = [{"name": f"h.{n}.fc", "m": 8, "n": 8, "k": 4 * (n + 1)} for n in range(2)]
    make_cell(results_dir, ratio=0.5, datasets=scaled(0.9), form=form, layers=layers)
    make_cell(
        results_dir, method="svd", datasets={}, status="failed", message="<i>the disk</i> is full"
    )
    make_cell(results_dir, method="asvd_0", datasets={"ptb": 90.0}, status="partial")
    make_cell(results_dir, method="asvd_i", datasets=scaled(1.4), length=128)
    make_cell(results_dir, model=AWKWARD_TITLE, method="asvd_i", datasets={"ptb": 20.0})
    make_cell(results_dir, model=AWKWARD_TITLE, method="nsvd_i", k1=0.95, datasets={"ptb": 25.0})
    for name, (mean, _) in paper.similarities().items():
        alike = {"mean": [mean - 0.2, mean + 0.04], "abs_mean": [mean - 0.2, mean + 0.21]}
        make_similarity(results_dir, "llama-7b", name, alike)
    make_similarity(results_dir, "tiny", "ptb")
    make_similarity(results_dir, "tiny", "c4", length=128)
    make_similarity(results_dir, "tiny", "wikitext2")
    (results_dir / "cells" / "broken").mkdir()
    (results_dir / "cells" / "broken" / "result.json").write_text("{")
    return results_dir


def write_full_page(folder: Path) -> Path:
    """The page of a full store in `folder/results`; returns the path of `index.html`."""
    report = gather(str(make_full_store(folder / "results")))
    return next(path for path in write(report, folder, ["html"]) if path.name == "index.html")


def groups_of(results_dir: Path, model: str = "tiny") -> list[Group]:
    """All that is stored of a model: its main setting, then its others."""
    groups = results.build(read_contents(results_dir).by_model())
    return [group for group in groups if group.model == model]


def group_of(results_dir: Path, model: str = "tiny") -> Group:
    """The only setting of a model."""
    (group,) = groups_of(results_dir, model)
    return group


def blocks_of(results_dir: Path, number: int = 1, model: str = "tiny") -> list[Block]:
    """The blocks of a model in one of the paper's layouts: its main setting, then its others."""
    return tables.build(groups_of(results_dir, model), [number])[number]


def block_of(results_dir: Path, number: int = 1, model: str = "tiny") -> Block:
    """The only block of a model."""
    (block,) = blocks_of(results_dir, number, model)
    return block


def line_of(
    of: Block | Group, method: str, ratio: float | None = 0.3, k1: float | None = None
) -> Line:
    """The only line of this row."""
    (line,) = [line for line in of.lines if line.row == Row(method, ratio, k1)]
    return line


def ptb_of(
    of: Block | Group, method: str, ratio: float | None = 0.3, k1: float | None = None
) -> Entry:
    """The entry of this row for PTB."""
    return line_of(of, method, ratio, k1).entries["ptb"]


def _is_papers(model: str) -> bool:
    """Whether the model and its text come from the hub, as the paper's do."""
    return model in model_files() and model != "tiny"


def _default_length(model: str) -> int:
    return 2048 if _is_papers(model) else 256


@functools.cache
def _dataset(name: str) -> DatasetConfig:
    written = OmegaConf.load(conf_dir() / "dataset" / f"{name}.yaml")
    dataset = OmegaConf.to_object(OmegaConf.merge(DatasetConfig, written))
    assert isinstance(dataset, DatasetConfig)
    return dataset


def _source(dataset: str, split: str, is_papers: bool) -> dict[str, Any]:
    """The identity of the rows: the hub's, or those of a local file."""
    if not is_papers:
        return {"document": "{text}", "format": ".jsonl", "sha256": sha256(dataset, split)}
    revision = _dataset(dataset).revision
    commit = revision if len(revision) == 40 else sha256(_dataset(dataset).hub)[:40]
    return hub_identity(_dataset(dataset), split, commit)


def _model_identity(title: str) -> dict[str, Any]:
    if not _is_papers(title):
        return {"sha256": sha256(title)}
    register()
    model = model_named(model_files()[title], "main")
    commit = model.revision if len(model.revision) == 40 else sha256(model.name)[:40]
    identity: dict[str, Any] = {"hub": model.name, "commit": commit}
    return identity | ({"tokenizer": model.tokenizer} if model.tokenizer else {})


def _calibration(
    model: str, seed: int, samples: int | None, dataset: str = "wikitext2"
) -> dict[str, Any]:
    """The resolved configuration of the calibration set."""
    default = default_calibration(model if _is_papers(model) else "tiny")
    own = {"dataset": asdict(_dataset(dataset)), "length": _default_length(model), "seed": seed}
    return default | own | {"samples": samples or default["samples"]}


def _calibration_identity(model: str, calibration: Mapping[str, Any]) -> dict[str, Any]:
    names = ("samples", "length", "seed", "sampler", "tokenizer")
    identity = {name: calibration[name] for name in names} | {"version": 1}
    source = _source(calibration["dataset"]["name"], "train", _is_papers(model))
    return {"source": source} | identity


def _measurement(
    model: str,
    name: str,
    perplexity: float,
    cell: dict[str, Any],
    windows: int,
    length: int,
    max_windows: int | None,
) -> dict[str, Any]:
    identity = {
        "source": _source(name, "test", _is_papers(model)),
        "length": length,
        "max_windows": max_windows,
        "version": 1,
    }
    tokens = sha256(model, name, length, windows)
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
    """The loss of every window, nats: a window is hard or easy for every method alike."""
    shared, own = random.Random(text), random.Random(text + cell)
    noise = [shared.gauss(0, 0.2) + own.gauss(0, 0.03) for _ in range(windows)]
    mean = math.fsum(noise) / windows
    return [(math.log(perplexity) + value - mean) * (length - 1) for value in noise]


def _result(
    model: str,
    identity: dict[str, Any],
    datasets: Sequence[str],
    calibration: dict[str, Any] | None,
    status: str,
    message: str,
) -> Result:
    """The fields that a cell and a similarity record have in common."""
    config: dict[str, Any] = {
        "model": {"name": model, "title": model, "skip": []},
        "dataset": {name: asdict(_dataset(name)) for name in datasets},
    }
    error = {"type": "RuntimeError", "message": message, "traceback": "Traceback ..."}
    made_from = None
    if calibration is not None:
        config["calibration"] = calibration
        tokens = sha256(model, "calibration", identity["calibration"])
        made_from = {"title": "made up", "token_sha256": tokens}
    return {
        "version": 1,
        "key": digest(identity),
        "identity": identity,
        "model": model,
        "model_source": {"name": model, **identity["model"]},
        "dtype": identity["dtype"],
        "config": config,
        "environment": ENVIRONMENT,
        "created": MEASURED,
        "updated": MEASURED,
        "seconds": {"load": 1.0, "evaluate": 4.0},
        "peak_memory": {"host_bytes": 1, "device_bytes": None},
        "calibration": made_from,
        "layers": [],
        "status": status,
        "error": error if status == "failed" else None,
    }
