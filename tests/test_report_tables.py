"""The report's tables: what stands in which, beside the paper's numbers, and what is not mixed."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.report_store import (
    EIGHT,
    block_of,
    blocks_of,
    line_of,
    make_cell,
    make_papers_tables,
    ptb_of,
    rewrite,
)

from nsvd_exp.config.files import method_files
from nsvd_exp.experiment.improvement import average_improvement
from nsvd_exp.report.after_grid import affected_blocks
from nsvd_exp.report.model.intervals import interval, log_perplexities
from nsvd_exp.report.model.measurements import Measurement, read_contents

ONE = {"ptb": 29.0}


# Which numbers stand together


def test_seeds_are_a_mean_and_a_deviation(tmp_path: Path) -> None:
    for seed, value in ((1, 20.0), (2, 22.0), (3, 27.0)):
        make_cell(tmp_path, method="asvd_i", datasets={"ptb": value}, seed=seed)
    entry = ptb_of(block_of(tmp_path), "asvd_i")
    assert entry.perplexity == pytest.approx(23.0)
    assert entry.deviation == pytest.approx(statistics.stdev([20.0, 22.0, 27.0]))
    assert len(entry.measurements) == 3


def test_methods_are_compared_at_the_seeds_they_share(tmp_path: Path) -> None:
    for seed, value in ((3, 20.0), (4, 40.0)):
        make_cell(tmp_path, method="asvd_i", datasets={"ptb": value}, seed=seed)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets={"ptb": 10.0}, seed=3)
    make_cell(tmp_path, method="nid_i", k1=0.95, datasets={"ptb": 10.0}, seed=5)
    entry = ptb_of(block_of(tmp_path), "nsvd_i", k1=0.95)
    assert entry.improvement == pytest.approx(0.5)
    assert entry.improvement_interval is not None
    assert ptb_of(block_of(tmp_path, 4), "nid_i", k1=0.95).improvement is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 16}, "calibration.samples 16 (not 64)"),
        ({"max_windows": 4}, "evaluation.max_windows 4 (not None)"),
        ({"length": 128}, "evaluation.length 128 (not 256)"),
        ({"solver": "paper"}, "solver paper (not basis)"),
        ({"dtype": "bfloat16"}, "dtype bfloat16 (not float32)"),
    ],
)
def test_numbers_of_another_protocol_are_never_averaged(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="asvd_ii", datasets={"ptb": 60.0}, **changes)
    main_block, other = blocks_of(tmp_path)
    assert ptb_of(main_block, "asvd_i").perplexity == EIGHT["ptb"]
    assert ptb_of(main_block, "asvd_ii").state == "missing"
    assert ptb_of(other, "asvd_ii").perplexity == 60.0
    assert said in other.differences


def test_numbers_on_other_tokens_or_another_revision_are_never_averaged(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    other = make_cell(tmp_path, method="asvd_ii", datasets={"ptb": 60.0})
    for change, said in (
        ({"token_sha256": "f" * 64}, "tokens of ptb ffffffffffff (not"),
        ({"identity": {"source": {"sha256": "e" * 64}, "version": 1}}, "ptb.sha256 eeeeeeeeeeee"),
    ):
        number = other["datasets"]["ptb"] | change
        rewrite(tmp_path, other | {"datasets": {"ptb": number}})
        main_block, second = blocks_of(tmp_path)
        assert ptb_of(main_block, "asvd_ii").state == "missing"
        assert ptb_of(second, "asvd_ii").perplexity == 60.0
        assert any(text.startswith(said) for text in second.differences)


def test_what_has_no_calibration_stands_beside_every_calibration(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense", datasets={"ptb": 4.0})
    make_cell(tmp_path, method="svd", datasets={"ptb": 70.0})
    for samples in (16, 64):
        make_cell(tmp_path, method="asvd_i", datasets=ONE, samples=samples)
    for block in blocks_of(tmp_path):
        assert ptb_of(block, "dense", None).perplexity == 4.0
        assert ptb_of(block, "svd").perplexity == 70.0


def test_two_models_of_one_title_are_two_blocks(tmp_path: Path) -> None:
    make_cell(tmp_path, model="mine", method="asvd_i", datasets=ONE)
    other = make_cell(tmp_path, model="mine", method="svd", datasets=ONE)
    identity = other["identity"] | {"model": {"sha256": "0" * 64}}
    rewrite(tmp_path, other | {"identity": identity})
    assert len(blocks_of(tmp_path, model="mine")) == 2


# What stands in a table


def test_the_best_of_a_column_is_marked_at_each_ratio(tmp_path: Path) -> None:
    for ratio, best in ((0.3, 20.0), (0.5, 50.0)):
        make_cell(tmp_path, method="svd", ratio=ratio, datasets={"ptb": 3 * best})
        make_cell(tmp_path, method="asvd_i", ratio=ratio, datasets={"ptb": best})
    make_cell(tmp_path, method="dense", datasets={"ptb": 4.0})
    block = block_of(tmp_path)
    marked = [(ln.row.method, ln.row.ratio) for ln in block.lines if ln.entries["ptb"].best]
    assert marked == [("asvd_i", 0.3), ("asvd_i", 0.5)]


def test_the_average_improvement_is_that_of_the_definition(tmp_path: Path) -> None:
    ours = {name: 0.9 * value + index for index, (name, value) in enumerate(EIGHT.items())}
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets=ours)
    line = line_of(block_of(tmp_path), "nsvd_i", k1=0.95)
    by_hand = statistics.fmean(1 - ours[n] / EIGHT[n] for n in EIGHT if n != "wikitext2")
    assert line.average.value == pytest.approx(by_hand)
    assert line.average.value == average_improvement(ours, EIGHT, list(EIGHT))
    assert line.average.interval is not None
    low, high = line.average.interval
    assert low < by_hand < high
    assert line.entries["ptb"].improvement == pytest.approx(1 - ours["ptb"] / EIGHT["ptb"])


def test_an_average_over_some_of_the_sets_is_no_average(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets=ONE)
    line = line_of(block_of(tmp_path), "nsvd_i", k1=0.95)
    assert line.average.value is None
    assert line.entries["ptb"].improvement == pytest.approx(0.0)


def test_missing_failed_and_unfinished_are_no_numbers(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="svd", datasets={}, status="failed", message="the disk is full")
    make_cell(tmp_path, method="asvd_0", datasets=ONE, status="partial")
    block = block_of(tmp_path)
    states = {m: line_of(block, m).entries["c4"].state for m in ("svd", "asvd_0", "asvd_ii")}
    assert states == {"svd": "failed", "asvd_0": "partial", "asvd_ii": "missing"}
    assert line_of(block, "svd").entries["c4"].message == "the disk is full"
    assert line_of(block, "asvd_0").entries["ptb"].perplexity == ONE["ptb"]
    assert all(line.entries["c4"].perplexity is None for line in block.incomplete)


def test_rows_that_the_paper_does_not_have_are_shown(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE)
    make_cell(tmp_path, method="asvd_iii", datasets=ONE)
    make_cell(tmp_path, method="nsvd_i", k1=0.5, datasets=ONE)
    make_cell(tmp_path, method="nid_i", k1=0.7, datasets=ONE)
    make_cell(tmp_path, method="nid_ii", k1=0.95, datasets=ONE)
    make_cell(tmp_path, method="mine", k1=0.6, datasets=ONE, method_block={"name": "mine"})
    first = [line.row[::2] for line in block_of(tmp_path).lines]
    assert first[-3:] == [("asvd_iii", None), ("nid_ii", 0.95), ("mine", 0.6)]
    assert ("nsvd_i", 0.5) in [line.row[::2] for line in block_of(tmp_path, 3).lines]
    assert ("nid_i", 0.7) in [line.row[::2] for line in block_of(tmp_path, 4).lines]


def test_a_table_of_one_ratio_takes_the_one_that_is_there(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", ratio=0.3, datasets=ONE)
    for k1 in (0.99, 0.95, 0.9):
        make_cell(tmp_path, method="nsvd_i", ratio=0.8, k1=k1, datasets=ONE)
    make_cell(tmp_path, method="asvd_i", ratio=0.8, datasets=ONE)
    assert block_of(tmp_path, 3).ratios == [0.8]
    assert block_of(tmp_path, 1).ratios == [None, 0.3, 0.8]
    assert block_of(tmp_path, 1).unstarted == [0.1, 0.2, 0.4, 0.5]
    assert "C4" in block_of(tmp_path, 1).unmeasured


# How a method is shown


def test_a_method_is_shown_as_its_newest_result_says(tmp_path: Path) -> None:
    blocks = [{"title": "Old"}, {"title": "Ours", "order": 25, "plot": {"color": "red"}}, {}]
    for year, ratio, block in zip(("2024", "2026", "2027"), (0.3, 0.4, 0.5), blocks, strict=True):
        own = {"name": "mine"} | block
        make_cell(tmp_path, method="mine", ratio=ratio, method_block=own, updated=f"{year}-01-01")
    make_cell(tmp_path, method="asvd_iii", datasets=ONE)
    block = block_of(tmp_path)
    line = line_of(block, "mine")
    assert (line.title, line.method.plot) == ("Ours", {"color": "red"})
    beyond = [line.row.method for line in block.lines if line.row.ratio == 0.3][-2:]
    assert beyond == ["mine", "asvd_iii"]


def test_a_result_of_an_earlier_version_is_shown_as_the_configuration_says(tmp_path: Path) -> None:
    for method in (*method_files(), "unknown"):
        make_cell(tmp_path, method=method, datasets=ONE, method_block={"name": method})
    lines = [line for number in (1, 3, 4) for line in block_of(tmp_path, number).lines]
    titles = {line.row.method: line.title for line in lines}
    assert titles == {name: file["title"] for name, file in method_files().items()} | {
        "unknown": "unknown"
    }
    assert block_of(tmp_path).lines[-1].title == "unknown"


@pytest.mark.parametrize(("method", "key"), [("nsvd_i", "k1"), ("svd", "ratio")])
def test_a_grid_ends_with_the_table_that_it_has_changed(
    tmp_path: Path, method: str, key: str
) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE)
    values: tuple[float, ...] = (0.99, 0.95, 0.9) if key == "k1" else (0.2, 0.3)
    cells = [make_cell(tmp_path, method=method, datasets=ONE, **{key: v}) for v in values]
    (block,) = affected_blocks(tmp_path, {cell["key"] for cell in cells})
    assert (block.model, block.table) == ("tiny", 3 if key == "k1" else 1)


# Beside the paper's numbers


def test_a_difference_is_shown_where_everything_is_the_papers(tmp_path: Path) -> None:
    make_papers_tables(tmp_path, 1, "llama-7b", factor=1.01)
    block = block_of(tmp_path, model="llama-7b")
    entries = [entry for line in block.lines for entry in line.entries.values()]
    assert len(entries) == 31 * 8
    assert [e.difference for e in entries] == pytest.approx([0.01] * len(entries))


@pytest.mark.parametrize(
    "changes",
    [{"max_windows": 20}, {"length": 1024}, {"samples": 128}, {"seed": 4}, {"model": "tiny"}],
)
def test_no_difference_is_shown_where_anything_is_not(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = {"model": "llama-7b", "method": "asvd_i", "datasets": ONE, **changes}
    make_cell(tmp_path, **settings)
    entry = ptb_of(block_of(tmp_path, model=settings["model"]), "asvd_i")
    assert entry.perplexity == 29.0
    assert entry.printed == 27.11
    assert entry.difference is None


@pytest.mark.parametrize(
    "change",
    [
        {"commit": None, "sha256": "a" * 64},  # a local mirror
        {"document": "{text}"},
        {"rows": 100},
        {"hub": "someone/else"},
        {"shuffled": True},
    ],
)
def test_no_difference_is_shown_for_other_text(tmp_path: Path, change: dict[str, Any]) -> None:
    cell = make_cell(tmp_path, model="llama-7b", method="dense", datasets={"ptb": 8.35})
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference == 0
    cell["datasets"]["ptb"]["identity"]["source"] |= change
    rewrite(tmp_path, cell)
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference is None


# Intervals


@pytest.fixture
def two_methods(tmp_path: Path) -> list[Measurement]:
    """ASVD-I and NSVD-I on the same 400 windows."""
    make_cell(tmp_path, method="asvd_i", datasets=ONE, windows=400)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets={"ptb": 26.0}, windows=400)
    return sorted(read_contents(tmp_path).measurements, key=lambda m: m.row.method)


def test_the_bootstrap_has_the_deviation_of_the_mean(two_methods: list[Measurement]) -> None:
    """Over many windows the mean loss deviates by s / sqrt(windows)."""
    for measurement in two_methods:
        samples = log_perplexities([measurement])[measurement.id]
        losses = np.array(measurement.stored["window_nll"]) / (measurement.stored["length"] - 1)
        assert samples.std() == pytest.approx(losses.std() / math.sqrt(len(losses)), rel=0.1)
        assert samples.mean() == pytest.approx(math.log(measurement.perplexity), abs=0.003)


def test_the_difference_of_two_methods_is_paired(two_methods: list[Measurement]) -> None:
    """Windows that are hard are hard for both: the paired interval is far narrower."""
    samples = log_perplexities(two_methods)
    ours, theirs = (samples[measurement.id] for measurement in two_methods)
    paired = np.subtract(*interval(ours - theirs))
    independent = np.subtract(*interval(ours - theirs[np.random.default_rng(0).permutation(2000)]))
    assert abs(paired) < abs(independent) / 3


def test_a_handful_of_windows_has_no_interval(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE, windows=3)
    assert ptb_of(block_of(tmp_path), "asvd_i").interval is None
