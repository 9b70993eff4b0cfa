"""The benchmarks run to their end and compute rightly; how fast anything is, no test says."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu as gpu_benchmark
import grid as grid_benchmark
import made
import products
import pytest
import torch
from helpers.command_line import REPOSITORY, Capture
from measure import Cost, Figure
from runs import Run, median_run
from targets import (
    Decompositions,
    decomposition_figure,
    grid_over_evaluation_figures,
    growth_figure,
    one_cell_over_paper_figures,
    ratio_figure,
)

from nsvd_exp.storage.results import read_all

BENCHMARKS = REPOSITORY / "benchmarks"


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


def check_figures(record: dict[str, Any]) -> None:
    """Each figure is a number beside its target, or says why there is none."""
    for figure in record["figures"]:
        if figure["value"] is None:
            assert figure["met"] is None
            assert figure["note"]
        else:
            assert math.isfinite(figure["value"])
            below = figure["value"] <= figure["limit"]
            assert figure["met"] == (below if figure["at_most"] else not below)


@pytest.mark.slow
def test_a_grid_is_measured_to_its_end(tmp_path: Path) -> None:
    script("grid.py", "--quick", "--out", str(tmp_path))
    record = kept(tmp_path)
    assert {name.split()[1] for name in record["costs"]} == {"(a)", "(b)", "(c)"}
    for cost in record["costs"].values():
        assert cost["stages"].keys() == {*grid_benchmark.STAGES, "rest"}
        assert cost["peak_bytes"] > 1e8  # torch alone is more
        if sys.platform == "linux":
            assert cost["written_bytes"] > 0
    assert record["costs"]["64x2 (b) Table 1"]["cells"] == 1 + 6
    check_figures(record)
    names = [figure["name"] for figure in record["figures"]]
    for begins in (
        "Table 1's grid / forward passes of its evaluation, capped",
        "Table 1's grid / forward passes of its evaluation, whole text, computed",
        "decomposing for 5 ratios x 6 methods",
        "calibrate + decompose one nsvd_i cell: solver=paper / ours",
        "calibrate + decompose one nsvd_i cell: solver=paper / ours, a Gram matrix",
        "second run of a grid of 7 cells",
        "streamed",
        "growth of the decomposition",
    ):
        assert any(name.startswith(begins) for name in names), begins


@pytest.mark.slow
def test_the_report_of_a_large_store_is_measured_to_its_end() -> None:
    script("report.py", "--cells", "40", "--repeat", "1")


def gpu(out: Path, *arguments: str) -> dict[str, Any]:
    """What `benchmarks/gpu.py` keeps, run in this process."""
    gpu_benchmark.main([*arguments, "--out", str(out)])
    record = kept(out)
    check_figures(record)
    assert len(record["figures"]) == 4
    return record


@pytest.mark.slow
def test_a_card_is_measured_against_its_own_matrix_product(tmp_path: Path) -> None:
    record = gpu(tmp_path, "--quick")
    assert all(figure["value"] is not None for figure in record["figures"])
    assert len(record["details"].keys() - {"matrix product"}) == 4


@pytest.mark.slow
def test_it_stops_in_time_and_says_what_did_not_fit(tmp_path: Path) -> None:
    record = gpu(tmp_path, "--quick", "--deadline", "0")
    assert all("did not fit" in figure["note"] for figure in record["figures"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_there_is(tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        gpu(tmp_path)
    assert "--quick" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_folder_without_weights_gets_random_ones(tmp_path: Path) -> None:
    folder = made.save_config(tmp_path / "model", made.Size(64, 2).config())
    settings = ["model=tiny", f"model.name={folder}", "model.title=random", "dataset=[wikitext2]"]
    settings += ["-m", "method=asvd_i", "evaluation.max_windows=1", "calibration.samples=8"]
    script("random_weights.py", *settings, "report=false", f"results_dir={tmp_path / 'results'}")
    (result,) = made.check(read_all(tmp_path / "results"))
    assert result["method"] == "asvd_i"


@pytest.mark.slow
def test_thin_products_are_timed_against_a_wide_one(tmp_path: Path) -> None:
    products.main(["--quick", "--out", str(tmp_path)])
    record = kept(tmp_path)
    by_form = {form: [p for p in record["points"] if p["form"] == form] for form in products.FORMS}
    assert [len(own) for own in by_form.values()] == [2 * len(products.REMOVED)] * 3
    for factors, same_size, same_rank in zip(*by_form.values(), strict=True):
        m, n, k = factors["m"], factors["n"], factors["k"]
        most = (100 - factors["removed"]) * m * n // 100  # numbers that may be kept
        assert k * (m + n) <= most < (k + 1) * (m + n)
        larger = same_size["k"]
        assert larger * (m + n - larger) <= most < (larger + 1) * (m + n - larger - 1)
        assert same_rank["k"] == k <= larger
        for point in (factors, same_size, same_rank):
            assert 0 < point["low"] <= point["times"] <= point["high"]


def at(removed: int, times: float) -> products.Point:
    return products.Point(products.FACTORS, 4, 4, 1, removed, 1, 1.0, 1.0, times, times, times)


def test_low_rank_is_faster_from_where_it_crosses_the_dense_layer_last() -> None:
    for points, expected in (
        ([(10, 1.1), (20, 1.2)], 0.0),
        ([(10, 0.5), (20, 0.9)], None),
        ([(10, 0.5), (20, 1.5)], 15.0),
        ([(10, 1.1), (20, 0.75), (40, 1.25), (50, 2.0)], 30.0),
    ):
        assert products.break_even([at(*point) for point in points]) == expected


def run_of(seconds: float, *cells: dict[str, float], peak: int = 0, written: int = 0) -> Run:
    """A command that took so long, with the stages of its cells."""
    return Run(Cost(seconds, peak, written), [{"seconds": cell} for cell in cells], Path())


def test_what_no_stage_accounts_for_is_the_rest() -> None:
    run = run_of(10, {"load": 1, "evaluate": 2}, {"decompose": 3, "evaluate": 2.5})
    assert run.stages() == {
        "load": 1, "calibrate": 0, "decompose": 3, "evaluate": 4.5, "rest": 1.5,
    }  # fmt: skip


def test_the_cost_of_a_repeated_command_is_its_median() -> None:
    runs = [
        run_of(10, {"evaluate": 5}, peak=3, written=7),
        run_of(20, {"evaluate": 8}, peak=1, written=9),
        run_of(40, {"evaluate": 30}, peak=2, written=8),
    ]
    cost = median_run(runs)
    assert (cost["cells"], cost["repetitions"]) == (1, 3)
    assert (cost["wall"], cost["stages"]["evaluate"], cost["stages"]["rest"]) == (20, 8, 10)
    assert cost["evaluation_share"] == 0.5  # of the shares 0.5, 0.4, 0.75
    assert (cost["peak_bytes"], cost["written_bytes"]) == (2, 8)


def test_a_grid_with_nothing_shared_is_dense_once_and_the_others_at_five_ratios() -> None:
    stages = {"load": 1, "calibrate": 0, "decompose": 0, "evaluate": 2, "rest": 1}
    dense = {"wall": 4, "stages": stages, "peak_bytes": 7, "written_bytes": 10}
    svd = {"wall": 6, "stages": stages | {"decompose": 2}, "peak_bytes": 9, "written_bytes": 20}
    cost = grid_benchmark.nothing_shared({"dense": dense, "svd": svd})
    assert (cost["cells"], cost["wall"], cost["peak_bytes"]) == (6, 34, 9)
    assert (cost["stages"]["evaluate"], cost["stages"]["decompose"]) == (12, 10)
    assert cost["evaluation_share"] == 12 / 34
    assert cost["written_bytes"] == 110


def test_a_target_is_met_on_its_side_and_at_the_limit() -> None:
    for at_most, met in ((True, [True, True, False, None]), (False, [False, True, True, None])):
        assert [Figure("", value, 2, at_most, "").met for value in (1, 2, 3, None)] == met


def test_a_ratio_is_the_median_of_those_of_the_repetitions() -> None:
    figure = ratio_figure("x", [6, 8, 30], [3, 8, 10], 2, True, "how")
    assert (figure.value, figure.repetitions, figure.note) == (2, (2, 1, 3), "how")
    nothing = ratio_figure("x", [6, 8], [3, 0], 2, True, "how")
    assert nothing.value is None
    assert nothing.note == "nothing to divide by: 0 s"


def test_a_capped_grid_is_computed_for_the_whole_text() -> None:
    capped, whole = grid_over_evaluation_figures([15, 12, 30], [10, 10, 10], 100, 400)
    assert capped.value == 1.5
    assert whole.value == 1.125  # 5 s beside passes of 40 s
    (measured,) = grid_over_evaluation_figures([15], [10], 100, 100)
    assert measured.value == 1.5
    assert "whole text" in measured.name


def test_the_decomposition_of_a_grid_says_what_comes_free() -> None:
    figure = decomposition_figure([Decompositions(ours=2, paper=40, fewer=2, paper_fewer=20)])
    assert figure.value == 20
    assert "40 s / 2 s; 10 times without asvd_ii and nsvd_ii" in figure.note
    assert figure.note.endswith("a factor of 2")
    assert decomposition_figure([Decompositions(0, 40, 2, 20)]).value is None


def test_a_cell_is_compared_with_the_papers_and_with_a_pass_for_each_linear() -> None:
    ours = [run_of(9, {"calibrate": 2, "decompose": 1})]
    paper = [run_of(9, {"calibrate": 2, "decompose": 7})]
    strict, straightforward = one_cell_over_paper_figures(ours, paper, [1.5, 2, 9])
    assert (strict.value, straightforward.value) == (3, 11 / 3)
    assert strict.note == "(2 + 7) s / (2 + 1) s"


def test_growth_is_an_exponent_and_no_number_where_it_cannot_be_told() -> None:
    cubic = growth_figure({n: 2e-8 * n**3 for n in (100, 200, 400)})
    assert cubic.value == pytest.approx(3)
    assert cubic.note.endswith("between the last two 3")
    for seconds, why in (
        ({32: 0.02, 48: 0.02}, "a larger size took no longer: 32: 0.02 s, 48: 0.02 s"),
        ({32: 0.03, 48: 0.02, 64: 0.04}, "a larger size took no longer"),
        ({32: 0.002, 48: 0.01}, "times below 0.01 s are too short to show a growth: 32: 0.002 s"),
    ):
        figure = growth_figure(seconds)
        assert figure.value is None
        assert figure.note.startswith(why)


def test_the_work_of_a_card_is_counted_by_hand() -> None:
    size = made.Size(hidden=64, layers=2)
    setting = dataclasses.replace(gpu_benchmark.QUICK, size=size, vocabulary=100, length=10)
    work = gpu_benchmark.Work(setting, [(64, 64), (172, 64)])
    weights, tokens, inner = 64 * 64 + 172 * 64, 20, 172
    blocks = tokens * (2 * weights + 2 * 10 * 64 * 2)
    assert work.weights() == weights
    assert work.evaluation(None, tokens) == blocks + 2 * tokens * 100 * 64
    assert work.evaluation(0.5, tokens) < work.evaluation(None, tokens)
    assert work.calibration(2) == blocks + 2 * tokens * 2 * (3 * 64**2 + inner**2)
