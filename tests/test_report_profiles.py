"""Size and speed in the report: what profiles have measured stands beside the dense model's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.report_store import make_cell, make_profile, scaled

from nsvd_exp.report.__main__ import main
from nsvd_exp.report.model.profiles import ProfileGroup
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render.profile_figure import size_and_speed
from nsvd_exp.storage.results import PROFILE, result_paths
from nsvd_exp.storage.validity import sealed

TITLES = [
    *("On disk, MB", "In memory, MB", "Peak, MB"),
    *("Prompt of 128, tokens/s", "Prompt of 512, tokens/s"),
    *("Decode batch 1, tokens/s", "Decode batch 8, tokens/s"),
]


def groups_of(results_dir: Path) -> list[ProfileGroup]:
    return gather(str(results_dir)).profiles


def make_profiles(results_dir: Path) -> None:
    """Store two ratios of two methods, and the folder of a saved model."""
    for ratio in (0.5, 0.3):
        for method, faster in (("nsvd_i", 0.0), ("svd", 0.2)):
            cell = make_cell(results_dir, method=method, ratio=ratio)
            make_profile(results_dir, cell, share=1 - ratio, speed=1 + ratio + faster)
    make_profile(results_dir, None, 0.8, 0.9)


def test_a_profile_stands_beside_the_dense_model(tmp_path: Path) -> None:
    make_profiles(tmp_path)
    (group,) = groups_of(tmp_path)
    assert (group.model, group.titles) == ("tiny", TITLES)
    assert group.machine == "cpu, a processor, 2 threads, float32"
    names = [(line.title, line.ratio) for line in group.lines]
    assert names == [
        ("SVD", 0.3), ("NSVD-I", 0.3), ("SVD", 0.5), ("NSVD-I", 0.5), ("my_model", None),
    ]  # fmt: skip
    quantities = group.lines[0].quantities
    assert quantities["On disk, MB"].compressed == pytest.approx(0.7 * 8.1)
    assert group.dense("On disk, MB") == pytest.approx(8.1)
    assert quantities["On disk, MB"].times == pytest.approx(0.7)
    fast = quantities["Decode batch 8, tokens/s"]
    assert fast.dense == pytest.approx(8 * 32 / 0.04)
    assert fast.times == pytest.approx(1.5)
    assert fast.spread == pytest.approx((1.5, 1.5))
    assert fast.predicted == pytest.approx(1 / 0.7)


def test_profiles_of_several_machines_are_never_mixed(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, method="svd")
    for hardware, speed in (("one", 1.1), ("other", 2.0)):
        make_profile(tmp_path, cell, speed=speed, hardware=hardware)
    groups = groups_of(tmp_path)
    assert [group.place for group in groups] == [0, 1]
    times = [group.lines[0].quantities["Prompt of 128, tokens/s"].times for group in groups]
    assert times == pytest.approx([1.1, 2.0])


def test_what_is_unknown_or_did_not_fit_is_no_number(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, method="svd")
    none = {"batch": 1, "length": 128, "tokens_per_second": None, "seconds": [], "flops": 0}
    record = make_profile(tmp_path, cell, peak_bytes=None)
    record["dense"]["prefill"] = record["compressed"]["prefill"] = [none]
    (path,) = result_paths(tmp_path, PROFILE)
    path.write_bytes(sealed(record))
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "profiles.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if "| SVD |" in line]
    assert row.split(" | ")[4:6] == ["–", "no memory"]
    rows = list(csv.DictReader((tmp_path / "report" / "profiles.csv").open(encoding="utf-8")))
    known = {row["quantity"]: row["compressed"] for row in rows}
    assert known["Peak, MB"] == known["Prompt of 128, tokens/s"] == ""


@pytest.mark.parametrize("columns", [80, 200])
def test_every_output_has_them(
    tmp_path: Path,
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    make_profiles(tmp_path)
    make_cell(tmp_path, method="dense", datasets=scaled(0.5))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    tables = out[out.index("size and speed") : out.index("Layout of Table")]
    assert max(map(len, tables.splitlines())) <= columns
    assert ("9,600 (×1.50)" in tables) == (columns == 200)
    assert "×1.50" in tables
    folder = tmp_path / "report"
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names >= {"profiles.md", "profiles.tex", "profiles.csv", "profile-tiny.svg"}
    assert "profiles" in (folder / "all.tex").read_text()
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "<h2>Size and speed</h2>" in page
    assert "counted ×1.43" in page


def test_a_store_of_profiles_alone_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_profile(tmp_path, None)
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--model", "tiny"]) == 0
    assert "my_model" in capsys.readouterr().out
    assert "my_model" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert main([str(tmp_path), "--model", "tinny"]) == 2
    assert "Did you mean tiny" in capsys.readouterr().err


def test_a_damaged_profile_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_profiles(tmp_path)
    first, second, *_ = result_paths(tmp_path, PROFILE)
    first.write_text("{", encoding="utf-8")
    lacking = make_profile(tmp_path, make_cell(tmp_path, method="asvd_i"))
    del lacking["compressed"]["parameters"]
    (own,) = (p for p in result_paths(tmp_path, PROFILE) if p.parent.name.startswith("asvd_i"))
    own.write_bytes(sealed(lacking))
    assert main([str(tmp_path), "--format", "csv"]) == 1
    said = capsys.readouterr().err
    assert said.count("error:") == 2
    assert "parameters" in said
    (group,) = groups_of(tmp_path)
    assert len(group.lines) == 4
    assert second.exists()


def test_the_figure_has_a_point_for_each_profile(tmp_path: Path) -> None:
    make_profiles(tmp_path)
    (group,) = groups_of(tmp_path)
    left, right = size_and_speed(group).axes
    for axes, count in ((left, 3), (right, 4)):
        points = [line for line in axes.lines if len(line.get_xdata()) == 4]
        assert len(points) == count
        assert len(axes.get_legend().get_texts()) == count
    means = [line.get_ydata() for line in right.lines if list(line.get_xdata()) == [0.3, 0.5]]
    assert next(list(ys) for ys in means) == pytest.approx([1.4, 1.6])
