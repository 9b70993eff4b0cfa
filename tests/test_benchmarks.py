"""The benchmarks run, and their figures hang together; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nsvd_exp.storage.results import read_all

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"

Gpu = Callable[..., dict[str, Any]]


def script(name: str, *arguments: str) -> None:
    """Run a file of `benchmarks/` in a process of its own, on this checkout."""
    subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
    )


def kept(out: Path) -> dict[str, Any]:
    """The record a benchmark wrote; neither it nor its Markdown says where it was made."""
    (record,) = out.glob("*.json")
    (page,) = out.glob("*.md")
    for path in (record, page):
        text = path.read_text("utf-8")
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text + path.name)
        for private in (str(Path.home()), str(REPOSITORY), str(out)):
            assert private not in text
    return json.loads(record.read_text("utf-8"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `benchmarks/grid.py --quick` keeps."""
    out = tmp_path_factory.mktemp("grid")
    script("grid.py", "--quick", "--out", str(out))
    return kept(out)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    """Runs `benchmarks/gpu.py --quick` in this process: what it keeps."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(*arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments, "--out", str(tmp_path)])
        importlib.import_module("gpu").main()
        return kept(tmp_path)

    return run


def check_figures(record: dict[str, Any]) -> None:
    """Each figure is a positive number, or says why there is none."""
    for figure in record["figures"]:
        if figure["value"] is None:
            assert figure["met"] is None
            assert figure["note"]
        else:
            assert math.isfinite(figure["value"])
            assert figure["value"] > 0
            below = figure["value"] <= figure["limit"]
            assert figure["met"] == (below if figure["at_most"] else not below)


def test_a_grid_costs_its_stages(grid: dict[str, Any]) -> None:
    assert {name.split()[1] for name in grid["costs"]} == {"(a)", "(b)", "(c)"}
    for cost in grid["costs"].values():
        assert all(seconds >= 0 for seconds in cost["stages"].values())
        assert cost["stages"]["decompose"] > 0
        assert sum(cost["stages"].values()) == pytest.approx(cost["wall"], rel=1e-3)
        share = cost["stages"]["evaluate"] / cost["wall"]
        assert 0 < cost["evaluation_share"] == pytest.approx(share, rel=1e-3)
        assert cost["peak_bytes"] > 1e8  # torch alone is more
        if sys.platform == "linux":
            assert cost["written_bytes"] > 0
    assert grid["costs"]["64x2 (b) Table 1"]["cells"] == 1 + 6


def test_every_target_of_a_grid_is_measured_or_says_why_not(grid: dict[str, Any]) -> None:
    check_figures(grid)
    values = {figure["name"]: figure["value"] for figure in grid["figures"]}
    for begins in (
        "Table 1's grid / forward passes of its evaluation, capped",
        "Table 1's grid / forward passes of its evaluation, whole text, computed",
        "decomposing for 5 ratios x 6 methods",
        "calibrate + decompose one nsvd_i cell",
        "second run of a grid of 7 cells",
        "growth of the decomposition",
    ):
        assert any(name.startswith(begins) and value for name, value in values.items())
    assert any(name.startswith("streamed") for name in values)
    capped, whole = (value for name, value in values.items() if name.startswith("Table 1"))
    assert 1 < whole < capped


def test_a_card_is_measured_against_its_own_matrix_product(gpu: Gpu) -> None:
    record = gpu("--quick")
    check_figures(record)
    assert all(figure["value"] for figure in record["figures"])
    stages = {name: s for name, s in record["details"].items() if name != "matrix product"}
    assert len(stages) == 4
    for stage in stages.values():
        assert 0 < stage["share_of_the_product"] < 1
    assert sum(stage["seconds"] for stage in stages.values()) <= record["wall"]


def test_it_stops_in_time_and_says_what_did_not_fit(gpu: Gpu) -> None:
    record = gpu("--quick", "--deadline", "0")
    check_figures(record)
    assert len(record["figures"]) == 4
    assert all("did not fit" in figure["note"] for figure in record["figures"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_there_is(gpu: Gpu, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu()
    assert "--quick" in capsys.readouterr().err


def test_a_model_folder_without_weights_gets_random_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    made = importlib.import_module("made")
    folder = made.save_config(tmp_path / "model", made.Size(64, 2).config())
    settings = ["model=tiny", f"model.name={folder}", "model.title=random", "dataset=[wikitext2]"]
    settings += ["-m", "method=asvd_i", "evaluation.max_windows=1", "calibration.samples=8"]
    script("random_weights.py", *settings, "report=false", f"results_dir={tmp_path / 'results'}")
    (result,) = made.check(read_all(tmp_path / "results"))
    assert result["method"] == "asvd_i"
