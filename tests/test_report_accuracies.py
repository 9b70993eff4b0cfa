"""The report's accuracies at tasks: which stand together, beside the dense model's; each form."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from helpers.report_store import AWKWARD_TITLE, make_cell
from helpers.tasks import make_scores

from nsvd_exp.experiment.zeroshot import Accuracy, format_accuracy, format_difference
from nsvd_exp.report.make import table_texts, write
from nsvd_exp.report.model.accuracies import AccuracyBlock
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.report import gather

DENSE = {"quiz": "1111011111", "riddle": "11110"}


def blocks_of(results_dir: Path) -> list[AccuracyBlock]:
    return gather(str(results_dir)).accuracies


def texts_of(results_dir: Path, extension: str) -> str:
    return dict(table_texts(gather(str(results_dir)), extension))["accuracy"]


def test_a_cell_stands_beside_the_dense_model(tmp_path: Path) -> None:
    make_scores(tmp_path, "dense", DENSE)
    make_scores(tmp_path, "svd", {"quiz": "1010011000", "riddle": "11010"})
    make_scores(tmp_path, "asvd_i", {"quiz": "1111000000"})
    (block,) = blocks_of(tmp_path)
    assert (block.model, block.tasks, block.differences) == ("tiny", ["quiz", "riddle"], [])
    assert block.chances == {"quiz": 0.25, "riddle": 0.25}
    dense, svd, asvd = block.lines
    assert [line.title for line in block.lines] == ["Original", "SVD", "ASVD-I"]
    assert dense.over_dense == {}
    assert svd.over_dense["quiz"].value == pytest.approx(-0.5)
    assert svd.mean(block.tasks) == pytest.approx((0.5, (0.24 / 9 + 0.24 / 4) ** 0.5 / 2))
    less = svd.mean_over_dense(block.tasks)
    assert less is not None
    assert less.value == pytest.approx(-0.35)
    assert asvd.mean(block.tasks) is None  # of one task there is no number
    assert asvd.mean_over_dense(block.tasks) is None
    assert (dense.best, svd.best, asvd.best) == (set(), {"quiz"}, {"quiz"})


def test_numbers_made_otherwise_stand_apart_and_seeds_in_rows_of_their_own(tmp_path: Path) -> None:
    make_scores(tmp_path, "dense", DENSE)
    for seed in (3, 4):
        make_scores(tmp_path, "asvd_i", {"quiz": "1111000000", "riddle": "11010"}, seed=seed)
    make_scores(tmp_path, "svd", {"quiz": "10"}, limit=2)
    main, other = blocks_of(tmp_path)
    assert [line.title for line in main.lines] == ["Original", "ASVD-I, seed 3", "ASVD-I, seed 4"]
    assert [line.title for line in other.lines] == ["SVD"]
    assert any("limit" in said for said in other.differences)
    assert other.lines[0].over_dense == {}


def test_every_form_says_the_same(tmp_path: Path) -> None:
    make_scores(tmp_path, "dense", DENSE, model=AWKWARD_TITLE)
    svd = make_scores(tmp_path, "svd", {"quiz": "1010011000"}, model=AWKWARD_TITLE)
    markdown, latex = texts_of(tmp_path, "md"), texts_of(tmp_path, "tex")
    assert "40.0 ± 16.3 (−50.0)" in markdown
    assert "| 30% | SVD |" in markdown
    assert "guessing" in markdown
    assert r"40.0 $\pm$ 16.3 &" in latex
    assert "($-$50.0)" in latex  # beneath it
    assert r"acc\_norm" in latex
    rows = list(csv.DictReader(io.StringIO(texts_of(tmp_path, "csv"))))
    assert [(row["method"], row["task"]) for row in rows] == [
        *(("dense", "quiz"), ("dense", "riddle"), ("svd", "quiz"))
    ]
    score = svd["tasks"]["quiz"]
    assert float(rows[2]["accuracy"]) == score["accuracy"]
    assert float(rows[2]["over_dense"]) == pytest.approx(-0.5)
    assert (rows[2]["key"], rows[2]["mean"]) == (svd["key"], "")
    written = write(gather(str(tmp_path)), tmp_path / "out", ["html"])
    text = written[-1].read_text(encoding="utf-8")
    assert 'id="accuracy"' in text
    assert "<div>40.0 ± 16.3 (−50.0)</div>" in text
    assert "<b>o'dd" not in text


def test_scores_alone_are_a_report_and_without_any_there_is_no_table(tmp_path: Path) -> None:
    make_cell(tmp_path / "one")
    report = gather(str(tmp_path / "one"))
    assert report.accuracies == []
    assert "accuracy" not in dict(table_texts(report, "md"))
    assert 'id="accuracy"' not in write(report, tmp_path / "out", ["html"])[-1].read_text()
    make_scores(tmp_path / "two", "dense", DENSE)
    for path in (tmp_path / "two").glob("cells/*/result.json"):
        path.unlink()
    report = gather(str(tmp_path / "two"))
    assert (report.groups, report.models) == ([], ["tiny"])
    assert (tmp_path / "out/index.html") in write(report, tmp_path / "out", ["html"])


def test_a_file_that_cannot_be_used_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    make_scores(tmp_path, "dense", DENSE)
    make_scores(tmp_path, "svd", {"quiz": "1010011000"})
    (path,) = tmp_path.glob("cells/svd-*/zeroshot.json")
    path.write_text("{")
    contents = read_contents(tmp_path)
    assert [result["method"] for result in contents.scores] == ["dense"]
    assert [str(path) in problem for problem in contents.problems] == [True]
    (block,) = blocks_of(tmp_path)
    assert [line.title for line in block.lines] == ["Original"]


def test_numbers_are_per_cents_and_points() -> None:
    assert format_accuracy(Accuracy(0.5714, 0.0316)) == "57.1 ± 3.2"
    assert format_accuracy(Accuracy(1.0, None)) == "100.0"
    assert format_accuracy(None) == "–"
    assert format_difference(Accuracy(-0.042, 0.019)) == "−4.2 ± 1.9"
    assert format_difference(Accuracy(0.042, None)) == "+4.2"
    assert format_difference(None) == "–"
