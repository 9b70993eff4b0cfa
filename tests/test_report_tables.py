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
    group_of,
    groups_of,
    line_of,
    make_cell,
    make_papers_tables,
    ptb_of,
    rewrite,
    scaled,
    sha256,
)
from scipy import stats

from nsvd_exp.config.files import method_files
from nsvd_exp.experiment.improvement import average_improvement, calibration_sets
from nsvd_exp.report.after_grid import report_grid
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.contrasts import Contrast, evenly, improvement_interval
from nsvd_exp.report.model.intervals import Spread, interval, spread_of_mean, spread_of_sum
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render.headline import headlines
from nsvd_exp.report.render.records import of_results

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
    assert entry.over_reference is not None
    assert ptb_of(block_of(tmp_path, 4), "nid_i", k1=0.95).improvement is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 16}, "calibrated on 16 samples"),
        ({"max_windows": 4}, "4 windows per set"),
        ({"length": 128}, "windows of 128 tokens"),
        ({"solver": "paper"}, "solver paper"),
        ({"dtype": "bfloat16"}, "weights in bfloat16"),
    ],
)
def test_numbers_of_another_protocol_are_never_averaged(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="asvd_ii", datasets={"ptb": 60.0}, **changes)
    main, other = groups_of(tmp_path)
    assert [line.row.method for line in main.lines] == ["asvd_i"]
    assert ptb_of(main, "asvd_i").perplexity == EIGHT["ptb"]
    assert ptb_of(other, "asvd_ii").perplexity == 60.0
    assert said in other.differences
    assert "None" not in " ".join(main.setting.differences(other.setting))


def test_numbers_on_other_tokens_or_another_revision_are_never_averaged(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    other = make_cell(tmp_path, method="asvd_ii", datasets={"ptb": 60.0})
    for change, said in (
        ({"token_sha256": "f" * 64}, "tokens of ptb ffffffffffff"),
        ({"identity": {"source": {"sha256": "e" * 64}, "version": 1}}, "ptb sha256 eeeeeeeeeeee"),
    ):
        number = other["datasets"]["ptb"] | change
        rewrite(tmp_path, other | {"datasets": {"ptb": number}})
        main_block, second = blocks_of(tmp_path)
        assert ptb_of(main_block, "asvd_ii").state == "missing"
        assert ptb_of(second, "asvd_ii").perplexity == 60.0
        assert said in second.group.differences


def test_what_has_no_calibration_stands_beside_every_calibration(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense", datasets={"ptb": 4.0})
    make_cell(tmp_path, method="svd", datasets={"ptb": 70.0})
    for samples in (16, 64):
        make_cell(tmp_path, method="asvd_i", datasets=ONE, samples=samples)
    for block in blocks_of(tmp_path):
        assert ptb_of(block, "dense", None).perplexity == 4.0
        assert ptb_of(block, "svd").perplexity == 70.0


def test_two_models_of_one_title_are_told_apart_by_a_hash(tmp_path: Path) -> None:
    make_cell(tmp_path, model="mine", method="asvd_i", datasets=ONE)
    for method in ("svd", "asvd_i"):
        other = make_cell(tmp_path, model="mine", method=method, ratio=0.5, datasets=ONE)
        identity = other["identity"] | {"model": {"sha256": "0" * 64}}
        rewrite(tmp_path, other | {"identity": identity})
    labels = list(read_contents(tmp_path).labels.values())
    assert labels == ["mine (00000000)", f"mine ({sha256('mine')[:8]})"]
    report = gather(str(tmp_path), [1], "mine")
    assert [group.model for group in report.groups] == labels
    assert [headline.model for headline in headlines(report.groups)] == labels[:1]
    (group,) = gather(str(tmp_path), [1], labels[0]).groups
    assert group.ratios == [0.5]


# What stands in a table


def test_the_best_of_a_column_is_marked_at_each_ratio(tmp_path: Path) -> None:
    for ratio, best in ((0.3, 20.0), (0.5, 50.0)):
        make_cell(tmp_path, method="svd", ratio=ratio, datasets={"ptb": 3 * best})
        make_cell(tmp_path, method="asvd_i", ratio=ratio, datasets={"ptb": best})
    make_cell(tmp_path, method="dense", datasets={"ptb": 4.0})
    block = block_of(tmp_path)
    marked = [(ln.row.method, ln.row.ratio) for ln in block.lines if ln.entries["ptb"].best]
    assert marked == [("asvd_i", 0.3), ("asvd_i", 0.5)]


@pytest.mark.parametrize("method", ["svd", "asvd_0", "asvd_ii", "nsvd_i", "asvd_iii"])
def test_every_method_has_the_averages_of_the_definition(tmp_path: Path, method: str) -> None:
    ours = {name: 0.9 * value + index for index, (name, value) in enumerate(EIGHT.items())}
    dense = {name: value / 3 for name, value in EIGHT.items()}
    make_cell(tmp_path, method="dense", datasets=dense)
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method=method, datasets=ours)
    k1 = 0.95 if method == "nsvd_i" else None
    line = line_of(group_of(tmp_path), method, k1=k1)
    sets = [name for name in EIGHT if name != "wikitext2"]
    average = line.average
    assert list(average.sets) == sets
    assert average.improvement == pytest.approx(
        statistics.fmean(1 - ours[n] / EIGHT[n] for n in sets)
    )
    assert average.improvement == average_improvement(ours, EIGHT, list(EIGHT), ["wikitext2"])
    assert average.nats == pytest.approx(
        statistics.fmean(math.log(ours[n]) - math.log(dense[n]) for n in sets)
    )
    better = sum(ours[name] < EIGHT[name] for name in sets)
    assert (average.better, average.worse) == (better, len(sets) - better)
    for value, bounds in (
        (average.improvement, average.improvement_interval),
        (average.nats, average.nats_interval),
    ):
        assert bounds is not None
        assert bounds[0] < value < bounds[1]
    assert line.entries["ptb"].improvement == pytest.approx(1 - ours["ptb"] / EIGHT["ptb"])
    assert line.entries["ptb"].times_dense == pytest.approx(ours["ptb"] / dense["ptb"])
    assert line_of(group_of(tmp_path), "asvd_i").average.improvement is None


def test_the_average_leaves_out_what_calibration_saw_whichever_it_is(tmp_path: Path) -> None:
    for method, factor in (("asvd_i", 1.0), ("svd", 0.9), ("nsvd_i", 0.8)):
        numbers = {name: factor * value for name, value in EIGHT.items()} | {"c4": 1e6}
        make_cell(tmp_path, model="llama-7b", method=method, datasets=numbers, calibrated_on="c4")
    block = block_of(tmp_path, model="llama-7b")
    assert block.group.calibrated_on == ["C4"]
    average = line_of(block, "nsvd_i", k1=0.95).average
    assert average.improvement == pytest.approx(0.2)
    assert set(average.sets) == set(EIGHT) - {"c4"}
    table, row = paper.tables()[1], Row("nsvd_i", 0.3, 0.95)
    assert average.printed == table.average("llama-7b", row, average.sets)
    assert average.printed != table.average("llama-7b", row)
    assert average.note is None


def test_a_mix_is_calibrated_on_all_its_sets() -> None:
    assert calibration_sets(None) == []
    assert calibration_sets({"dataset": {"name": "c4"}}) == ["c4"]
    mix = {"dataset": [{"name": "c4"}, {"name": "ptb"}]}
    assert calibration_sets(mix) == ["c4", "ptb"]
    assert average_improvement(EIGHT, EIGHT, ["c4", "ptb"], calibration_sets(mix)) is None


def test_one_ruined_set_dominates_the_improvement_and_not_the_nats(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense", datasets=scaled(0.5))
    make_cell(tmp_path, method="asvd_i")
    make_cell(tmp_path, method="svd", datasets=scaled(0.9, ptb=29.0 * 30))
    make_cell(tmp_path, method="asvd_0", datasets=scaled(1.5))
    group = group_of(tmp_path)
    svd, other = (line_of(group, method).average for method in ("svd", "asvd_0"))
    assert svd.improvement is not None
    assert other.improvement is not None
    assert svd.nats is not None
    assert other.nats is not None
    assert svd.improvement < other.improvement
    assert svd.nats < other.nats + 0.01


def test_an_average_over_some_of_the_sets_is_no_average(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=EIGHT)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets=ONE)
    line = line_of(block_of(tmp_path), "nsvd_i", k1=0.95)
    assert line.average.improvement is None
    assert line.average.nats is None
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


def test_all_that_is_stored_stands_in_one_table(tmp_path: Path) -> None:
    others = [("asvd_iii", None), ("nsvd_i", 0.5), ("nid_i", 0.7), ("nid_ii", 0.95), ("mine", 0.6)]
    make_cell(tmp_path, method="asvd_i", datasets=ONE)
    for method, k1 in others[:-1]:
        make_cell(tmp_path, method=method, k1=k1, datasets=ONE)
    make_cell(tmp_path, method="mine", k1=0.6, datasets=ONE, method_block={"name": "mine"})
    lines = [line.row[::2] for line in group_of(tmp_path).lines]
    assert set(lines) == {("asvd_i", None), *others}
    assert lines[-1] == ("mine", 0.6)
    layout = {line.row[::2] for line in block_of(tmp_path).lines}
    assert layout == {(method, k1) for method, k1 in paper.tables()[1].variants}


def test_a_layout_of_which_no_row_is_stored_is_left_out(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_iii", datasets=ONE)
    make_cell(tmp_path, method="dense", datasets=ONE)
    assert gather(str(tmp_path)).tables == {}


def test_other_units_are_stored_or_missing(tmp_path: Path) -> None:
    units = {"bits_per_byte": 1.25, "word_perplexity": 512.0}
    make_cell(tmp_path, method="asvd_i", datasets=ONE, units=units)
    make_cell(tmp_path, method="svd", datasets=ONE)
    records = {record["method"]: record for record in of_results([group_of(tmp_path)])}
    assert {name: records["asvd_i"][name] for name in units} == units
    assert {records["svd"][name] for name in units} == {None}


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
    group = group_of(tmp_path)
    line = line_of(group, "mine")
    assert (line.title, line.method.plot) == ("Ours", {"color": "red"})
    assert [line.row.method for line in group.lines if line.row.ratio == 0.3] == [
        "mine",
        "asvd_iii",
    ]


def test_a_result_of_an_earlier_version_is_shown_as_the_configuration_says(tmp_path: Path) -> None:
    for method in (*method_files(), "unknown"):
        make_cell(tmp_path, method=method, datasets=ONE, method_block={"name": method})
    lines = group_of(tmp_path).lines
    titles = {line.row.method: line.title for line in lines}
    assert titles == {name: file["title"] for name, file in method_files().items()} | {
        "unknown": "unknown"
    }
    assert lines[-1].title == "unknown"


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_a_grid_ends_with_the_ratios_that_it_has_changed(
    tmp_path: Path,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for ratio in (0.1, 0.2, 0.3):
        make_cell(tmp_path, method="asvd_i", ratio=ratio)
    cell = make_cell(tmp_path, method="nid_ii", ratio=0.2, datasets=scaled(1.5))
    report_grid(str(tmp_path), {cell["key"]}, is_changed=False)
    out = capsys.readouterr().out
    assert all(len(line) <= columns for line in out.splitlines() if "report:" not in line)
    assert "20%" in out
    assert "10%" not in out
    assert "30%" not in out.replace("30%\n", "")
    assert "NID-II 0.95" in out
    assert ("no room for: " in out) == (columns < 160)
    assert "index.html" in out


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
    make_cell(tmp_path, model="llama-7b", method="asvd_i", datasets={"c4": 25.0})
    cell = make_cell(tmp_path, model="llama-7b", method="dense", datasets={"ptb": 8.35})
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference == 0
    cell["datasets"]["ptb"]["identity"]["source"] |= change
    rewrite(tmp_path, cell)
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference is None


def test_storage_and_allocation_make_rows_of_one_table(tmp_path: Path) -> None:
    """Each beside the paper's form, which they are compared with; those that differ stay apart."""
    make_cell(tmp_path, method="dense", datasets=ONE)
    make_cell(tmp_path, datasets={"ptb": 30.0})
    fisher = {"class": "Fisher", "version": 1, "floor": "0", "ceiling": "1", "multiple": 8}
    forms: dict[str, dict[str, object]] = {
        "pivoted": {"storage": {"class": "Pivoted", "version": 1}},
        "fisher": {"allocation": fisher},
        "fisher floor 0.1": {"allocation": fisher | {"floor": "0.1"}},
        "Mine a 2 version 1": {"allocation": {"class": "own.Mine", "a": 2, "version": 1}},
        "factors version 2": {"storage": {"class": "Factors", "version": 2}},
    }
    for form in forms.values():
        make_cell(tmp_path, datasets={"ptb": 24.0}, form=form)
    group = group_of(tmp_path)
    found = {line.title: line for line in group.lines}
    assert set(found) == {"Original", "ASVD-I", *(f"ASVD-I, {name}" for name in forms)}
    entry = found["ASVD-I, pivoted"].entries["ptb"]
    assert entry.improvement == pytest.approx(0.2)
    assert len(entry.measurements) == 1
    (block,) = gather(str(tmp_path), [1]).tables[1]
    papers = {name for name, _ in paper.tables()[1].variants}
    assert {line.row.method for line in block.lines} == papers


def test_fields_of_a_method_and_what_is_mixed_in_make_rows_of_one_table(tmp_path: Path) -> None:
    """Only what is not as in `conf/method` is named; seeds of one row are averaged."""
    make_cell(tmp_path, method="dense", datasets=ONE)
    make_cell(tmp_path, datasets={"ptb": 30.0})
    ridge = {"class": "RidgeASVD", "version": 1, "ridge": "0.1", "target": "diagonal"}
    for value, perplexity in (("0.1", 28.0), ("0.3", 24.0)):
        form = {"method": ridge | {"ridge": value}}
        make_cell(tmp_path, method="asvd_ridge", datasets={"ptb": perplexity}, form=form)
    nested = {"class": "NSVD", "version": 1, "k1": "0.95", "second": {"class": "TruncatedSVD"}}
    make_cell(tmp_path, method="nsvd_i", form={"method": {**nested, "first": {"class": "RidgeASVD",
              "version": 1, "ridge": "0.3", "target": "diagonal"}}})  # fmt: skip
    for seed in (3, 4):
        cell = make_cell(tmp_path, method="asvd_ii", datasets={"ptb": 20.0 + seed}, seed=seed)
        cell["identity"]["calibration"]["mix"] = {
            "random": {"weight": "0.1", "samples": 64, "length": 256, "seed": seed}
        }
        rewrite(tmp_path, cell)
    kfac = {"class": "KFAC", "version": 1, "damping": "0.1", "ridge": "0", "target": "diagonal"}
    for count, labels in ((16, "model"), (64, "model"), (16, "text")):
        gradients = {"samples": count, "labels": labels, "version": 1}
        make_cell(tmp_path, method="kfac", form={"method": kfac, "gradients": gradients})
    found = {line.title: line for line in group_of(tmp_path).lines}
    assert {"KFAC", "KFAC, 64 gradient samples", "KFAC, labels of the text"} <= found.keys()
    assert found["ASVD-RIDGE"].entries["ptb"].improvement == pytest.approx(1 - 28 / 30)
    assert found["ASVD-RIDGE, ridge 0.3"].entries["ptb"].improvement == pytest.approx(0.2)
    assert "NSVD-I, first ridge 0.3, first target diagonal" in found
    mixed = found["ASVD-II, 10% random"].entries["ptb"]
    assert (mixed.perplexity, len(mixed.measurements)) == (23.5, 2)


# Intervals


def test_an_interval_of_improvements_ends_at_a_perplexity_of_0() -> None:
    ruined = Contrast(12.0, Spread(1.0, 3.0))
    bounds = improvement_interval(ruined.improvement, evenly([ruined, ruined]))
    assert bounds is not None
    assert bounds[0] < ruined.improvement < bounds[1] == 1.0
    more = improvement_interval(0.0, [*evenly([ruined]), (-1, ruined)])  # of a difference: no end
    assert more is not None
    assert more[1] == -more[0] > 1


def test_the_spread_of_a_mean_done_by_hand() -> None:
    """Eight windows and two cosines: half around, which is all of the step, and once around."""
    spread = spread_of_mean(np.array([1.0] * 4 + [-1.0] * 4))
    assert spread is not None
    wave = 1 / (2 * math.sin(math.pi / 16))  # 2 (cos 1/16 + cos 3/16 + cos 5/16 + cos 7/16 pi) / 2
    assert spread.variance == pytest.approx(wave**2 / 2 / 8 * (1 + 1.5 / 8))
    assert spread.freedom == 2
    low, high = interval(2.0, spread)
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - 2.0 == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(spread.variance))


def test_the_spread_ignores_the_mean_itself() -> None:
    values = np.random.default_rng(0).standard_normal(32)
    spread, moved = spread_of_mean(values), spread_of_mean(values + 5.0)
    assert spread is not None
    assert moved is not None
    assert moved.variance == pytest.approx(spread.variance)


def test_independent_sets_add_their_variances() -> None:
    one, other = Spread(4.0, 3.0), Spread(1.0, 3.0)
    assert spread_of_sum([(1.0, one)]) == pytest.approx(one)
    total = spread_of_sum([(0.5, one), (0.5, other)])
    assert total.variance == pytest.approx((4.0 + 1.0) / 4)
    assert total.freedom == pytest.approx(5**2 / ((4**2 + 1**2) / (3 + 1)) - 1)
    assert spread_of_sum([(0.5, Spread(0.0, 3.0)), (0.5, Spread(0.0, 2.0))]) == (0.0, 2.0)


@pytest.mark.parametrize("windows", [8, 32])
@pytest.mark.parametrize("rho", [0.0, 0.4])
def test_intervals_cover(windows: int, rho: float) -> None:
    """A small run of what `benchmarks/intervals.py` shows with more texts."""
    generator = np.random.default_rng(windows)
    held = 0
    for _ in range(600):
        values = generator.standard_normal(windows)
        for place in range(1, windows):
            values[place] = rho * values[place - 1] + math.sqrt(1 - rho**2) * values[place]
        spread = spread_of_mean(values)
        assert spread is not None
        low, high = interval(values.mean(), spread)
        held += low <= 0 <= high
    assert 0.92 <= held / 600 <= 0.98


def test_the_difference_of_two_methods_is_paired(tmp_path: Path) -> None:
    """Windows that are hard are hard for both: the paired interval is far narrower."""
    make_cell(tmp_path, method="asvd_i", datasets=ONE, windows=400)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets={"ptb": 26.0}, windows=400)
    entry = ptb_of(group_of(tmp_path), "nsvd_i", k1=0.95)
    assert entry.interval is not None
    assert entry.over_reference is not None
    assert entry.over_reference.improvement_interval is not None
    alone = math.log(entry.interval[1] / entry.interval[0])
    low, high = entry.over_reference.improvement_interval
    assert low < 1 - 26.0 / 29.0 < high
    assert high - low < alone / 3


@pytest.mark.parametrize("windows", [7, 8])
def test_under_eight_windows_there_is_no_interval(tmp_path: Path, windows: int) -> None:
    make_cell(tmp_path, method="dense", datasets=scaled(0.5), windows=windows)
    make_cell(tmp_path, method="asvd_i", windows=windows)
    make_cell(tmp_path, method="svd", datasets=scaled(0.9), windows=windows)
    line = line_of(group_of(tmp_path), "svd")
    entry, average = line.entries["ptb"], line.average
    assert entry.over_reference is not None
    bounds = [
        entry.interval,
        entry.over_reference.improvement_interval,
        average.improvement_interval,
        average.nats_interval,
    ]
    assert [found is None for found in bounds] == [windows == 7] * 4
    assert average.is_short == (windows == 7)


def test_seeds_that_are_averaged_have_an_interval(tmp_path: Path) -> None:
    for seed, factor in ((3, 1.0), (4, 1.2)):
        make_cell(tmp_path, method="asvd_i", seed=seed, datasets=scaled(factor))
        make_cell(tmp_path, method="nsvd_i", k1=0.95, seed=seed, datasets=scaled(0.9 * factor))
    entry = ptb_of(group_of(tmp_path), "nsvd_i", k1=0.95)
    assert entry.improvement == pytest.approx(0.1)
    assert entry.over_reference is not None
    assert entry.over_reference.improvement_interval is not None
