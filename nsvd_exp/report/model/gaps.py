"""What is missing or failed in the tables, and the commands that fill it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from nsvd_exp.bundled import TEXT_DIR
from nsvd_exp.models.sources import PACKAGE
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.protocol import PAPERS_LENGTH, default_calibration, model_files
from nsvd_exp.report.model.settings import Setting
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block
from nsvd_exp.storage.keys import file_digest
from nsvd_exp.storage.results import Result


class Gap(NamedTuple):
    """What is missing of a model, and the command that fills it."""

    model: str
    what: str
    command: str


BUNDLED = "tiny"

UNFILLED = {"missing": "missing", "failed": "failed", "partial": "unfinished"}


def gaps_of(blocks: Iterable[Block], results_dir: str) -> list[Gap]:
    """One gap per block that is not complete."""
    return [
        Gap(block.group.model, _what(block), _command(block, results_dir))
        for block in blocks
        if block.incomplete or block.unstarted
    ]


def similarity_gaps(blocks: Iterable[SimilarityBlock], results_dir: str) -> list[Gap]:
    """One gap per model whose Figure 1 is begun and not complete."""
    found = []
    for block in blocks:
        absent = [name for name in paper.datasets() if name not in block.datasets]
        if absent and block.place == 0:
            what = f"Figure 1, {block.model}: {len(absent)} of {len(paper.datasets())} sets missing"
            found.append(Gap(block.model, what, _figure_command(block, absent, results_dir)))
    return found


def _figure_command(block: SimilarityBlock, absent: list[str], results_dir: str) -> str:
    record = next(iter(block.records.values()))
    protocol = record["identity"]["dataset"]
    overrides = [
        *_model_overrides([paper.SIMILARITY_MODEL], record),
        *_data_overrides(record, {record["dataset"]["name"]: protocol["source"]}),
        f"dataset={','.join(absent)}",
        *_calibration_overrides([record], record),
        *_window_overrides(
            record, protocol["length"], protocol["max_windows"], protocol.get("bos") == "window"
        ),
        *_dtype_overrides(record),
    ]
    quoted = map(shlex.quote, overrides)
    return " ".join(["python -m nsvd_exp experiment=figure1", *quoted, *_place(results_dir)])


def _what(block: Block) -> str:
    states = [e.state for line in block.lines for e in line.entries.values()]
    counts = {said: states.count(state) for state, said in UNFILLED.items()}
    said = [f"{count} numbers {state}" for state, count in counts.items() if count]
    if block.unstarted:
        ratios = ", ".join(f"{100 * ratio:g}%" for ratio in block.unstarted)
        said.append(f"nothing at the paper's {ratios}")
    group = block.group
    setting = f" with {', '.join(group.differences)}" if group.differences else ""
    return f"Layout of Table {block.table}, {group.model}{setting}: {', '.join(said)}"


def _place(results_dir: str) -> list[str]:
    return [] if results_dir == "results" else [shlex.quote(f"results_dir={results_dir}")]


def _command(block: Block, results_dir: str) -> str:
    """The preset of the block's table with this setting; it skips the cells that are done."""
    setting = block.group.setting
    cell = _fullest(setting)
    overrides = [
        f"experiment=table{block.table}",
        *_model_overrides(paper.tables()[block.table].models, cell),
        *_data_overrides(cell, {n: m["identity"]["source"] for n, m in cell["datasets"].items()}),
        *_ratio_overrides(block),
        *_calibration_overrides(setting.cells, cell),
        *_evaluation_overrides(setting, cell),
    ]
    quoted = [shlex.quote(override) for override in overrides]
    return " ".join(["python -m nsvd_exp", *quoted, *_place(results_dir)])


def _fullest(setting: Setting) -> Result:
    """The newest cell, of the calibrated ones where there are any: it knows all settings."""
    return max(setting.cells, key=lambda cell: ("calibration" in cell["config"], cell["updated"]))


def _model_overrides(papers: list[str], cell: Result) -> list[str]:
    """What turns a preset for the models `papers` into one for the model of `cell`."""
    model, identity = cell["model"], cell["identity"]["model"]
    name, is_local = model_files().get(model), "hub" not in identity
    is_found = model == BUNDLED or cell["config"]["model"]["name"].startswith(PACKAGE)
    skip = cell["config"]["model"]["skip"]
    skipped = [f"model.skip=[{','.join(skip)}]"] if skip else []
    if name is not None and (is_found or not is_local):
        return ([] if papers == [model] else [f"model={name}"]) + skipped
    place = "model.name=MODEL_FOLDER" if is_local else f"model.name={identity['hub']}"
    revision = [] if is_local else [f"model.revision={identity['commit']}"]
    file = cell["config"]["model"].get("gguf_file")
    gguf = [f"model.gguf_file={file}"] if file else []
    return [f"model={name or 'hf'}", place, *revision, *gguf, *skipped]


def _data_overrides(cell: Result, sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    local = {name: s["sha256"] for name, s in sources.items() if "sha256" in s}
    if not local or (cell["model"] == BUNDLED and local.items() <= _bundled_texts().items()):
        return []
    return ["data_dir=DATA_FOLDER"]


@cache
def _bundled_texts() -> dict[str, str]:
    """The SHA-256 of each bundled test set, by dataset."""
    return {path.parent.name: file_digest(path) for path in Path(TEXT_DIR).glob("*/test.*")}


def _ratio_overrides(block: Block) -> list[str]:
    ratios = {line.row.ratio for line in block.incomplete if line.row.ratio is not None}
    wanted = sorted(ratios | set(block.unstarted))
    if not wanted or wanted == paper.tables()[block.table].ratios:
        return []
    return [f"ratio={','.join(f'{ratio:g}' for ratio in wanted)}"]


def _default_length(model: str) -> int:
    """How many tokens a calibration sample and a window have by default."""
    return int(default_calibration(model)["length"] or PAPERS_LENGTH)


def _calibration_overrides(cells: Iterable[Result], cell: Result) -> list[str]:
    """The calibration of `cell`, at the seeds of all `cells`."""
    calibration = cell["config"].get("calibration")
    if calibration is None:
        return []
    default = default_calibration(cell["model"]) | {"length": _default_length(cell["model"])}
    seeds = {c["identity"]["calibration"]["seed"] for c in cells if "calibration" in c["identity"]}
    stored: dict[str, Any] = {name: calibration[name] for name in default if name != "batch"}
    stored["seed"] = ",".join(map(str, sorted(seeds)))
    default["seed"] = str(default["seed"])
    found = [f"calibration.{k}={v}" for k, v in stored.items() if v != default[k]]
    if calibration["dataset"]["name"] != "wikitext2":
        found.append(f"calibration.dataset={calibration['dataset']['name']}")
    return found


def _evaluation_overrides(setting: Setting, cell: Result) -> list[str]:
    agreement, found = setting.agreement, []
    names = list(setting.dataset_titles)
    if names and set(names) != set(paper.datasets()):
        found.append(f"dataset=[{','.join(names)}]")
    found += _window_overrides(
        cell,
        agreement.get("evaluation.length"),
        agreement.get("evaluation.max_windows"),
        agreement.get("evaluation.bos") == "each",
    )
    if agreement.get("evaluation.dtype", "float32") != "float32":
        found.append(f"evaluation.dtype={agreement['evaluation.dtype']}")
    if agreement.get("solver", "basis") != "basis":
        found.append(f"solver={agreement['solver']}")
    return found + _dtype_overrides(cell)


def _window_overrides(cell: Result, length: Any, most: Any, has_bos_in_each: bool) -> list[str]:
    found = []
    if length is not None and int(length) != _default_length(cell["model"]):
        found.append(f"evaluation.length={length}")
    if most not in (None, "None"):
        found.append(f"evaluation.max_windows={most}")
    if has_bos_in_each:
        found.append("evaluation.bos=window")
    return found


def _dtype_overrides(cell: Result) -> list[str]:
    """The dtype where it is not what a CPU takes by itself."""
    device = cell["config"].get("device"), (cell["environment"] or {}).get("device")
    return [f"dtype={cell['dtype']}"] if "cpu" in device and cell["dtype"] != "float32" else []
