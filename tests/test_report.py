"""The report's files and command line: what is written, what is missing, and what is bad input."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.configuration import compose
from helpers.report_store import (
    EIGHT,
    block_of,
    blocks_of,
    make_cell,
    make_papers_tables,
    make_similarity,
    ptb_of,
    rewrite,
)

from nsvd_exp.report.__main__ import main
from nsvd_exp.report.model.gaps import Gap, gaps_of
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.report import gather
from nsvd_exp.storage.results import similarity_file
from nsvd_exp.storage.validity import sealed

TABLE_1 = ("dense", "svd", "asvd_0", "asvd_i", "asvd_ii", "nsvd_i", "nsvd_ii")
ONE = {"ptb": 29.0}


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m nsvd_exp.report`."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# Files


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Table 1 at 30% and a row of Table 3, on `tiny`; one cell has failed, one is missing."""
    folder = tmp_path / "results"
    for index, method in enumerate(TABLE_1[:-1]):
        k1 = 0.95 if method.startswith("nsvd") else None
        values = {name: value * (1 + index / 10) for name, value in EIGHT.items()}
        make_cell(folder, method=method, k1=k1, datasets=values)
    make_cell(folder, method="nsvd_i", k1=0.9, datasets={}, status="failed", message="no & memory_")
    return folder


def test_every_table_is_written_in_every_format(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = report(capsys, store)
    assert (code, err) == (0, "")
    for name in ("results", "table1", "table3"):
        for extension in ("md", "tex", "csv"):
            assert (store / "report" / f"{name}.{extension}").stat().st_size > 300
    assert not list((store / "report").glob("table2.*"))  # no similarity is stored
    assert "index.html" in out
    assert out.startswith("tiny: best on average")
    page = (store / "report" / "index.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)


def test_csv_holds_the_stored_numbers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(capsys, store, "--format", "csv", "--tables", "1")
    written = sorted(path.name for path in (store / "report").glob("*.*"))
    assert written == ["results.csv", "table1.csv"]
    rows = rows_of(store, "table1")
    assert "paper_perplexity" not in rows[0]
    stored = {n.id: n for n in read_contents(store).measurements}
    found = {(r["key"], r["dataset"]): r for r in rows if r["model"] == "tiny" and r["key"]}
    assert len(found) == 6 * 8
    for number in stored.values():
        row = found[number.cell["key"], number.dataset]
        assert float(row["perplexity"]) == number.perplexity
        assert row["commit"] == number.stored["environment"]["git"]["commit"]
    missing = [r for r in rows if r["model"] == "tiny" and r["state"] == "missing"]
    assert len(missing) == 8
    assert all(row["perplexity"] == "" for row in missing)
    results = rows_of(store, "results")
    assert {row["key"] for row in results if row["perplexity"]} == {key for key, _ in found}
    assert {row["state"] for row in results} == {"done", "failed"}
    for row in results:
        assert row["bits_per_byte"] == ""
        if row["perplexity"] and row["ratio"]:
            dense = next(r for r in results if not r["ratio"] and r["dataset"] == row["dataset"])
            times = float(row["perplexity"]) / float(dense["perplexity"])
            assert float(row["times_dense"]) == pytest.approx(times)


def test_the_papers_numbers_are_shown_when_asked_for(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, store, "--format", "csv,md")
    assert "paper, llama-7b" not in (store / "report" / "table1.md").read_text(encoding="utf-8")
    report(capsys, store, "--format", "csv,md", "--paper")
    assert "paper, llama-7b" in (store / "report" / "table1.md").read_text(encoding="utf-8")
    rows = rows_of(store, "table1")
    assert {r["paper_perplexity"] for r in rows if r["dataset"] == "ptb"} >= {"8.35", "27.11"}


def rows_of(store: Path, name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of the report."""
    path = store / "report" / f"{name}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_markdown_says_what_failed_and_marks_the_best(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, store, "--format", "md", "--paper")
    lines = (store / "report" / "table3.md").read_text(encoding="utf-8").splitlines()
    (failed,) = [line for line in lines if "k1 = 0.9 " in line]
    assert failed.count("failed") == 8
    (best,) = [line for line in lines if "| ASVD-I " in line]
    assert best.count("**") == 16
    assert any("*574.60*<sup>a</sup> *(+29.3%)*" in line for line in lines)  # as it is printed
    assert lines[0].startswith("# Laid out like Table 3 of the paper")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
@pytest.mark.parametrize("options", [[], ["--paper"]])
def test_the_latex_tables_compile_and_fit(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    make_papers_tables(store, 1, "llama-7b")
    own = make_cell(store, model="50%_of {a} #1\\model~^", method="asvd_i")
    assert own["model"] in read_contents(store).labels.values()
    report(capsys, store, "--format", "tex", *options)
    for path in (store / "report").glob("table*.tex"):
        assert "documentclass" not in path.read_text(encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"]
    command += [f"-output-directory={tmp_path}", "all.tex"]
    done = subprocess.run(
        command, cwd=store / "report", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.search(r"Overfull|Float too large|undefined", done.stdout)


# Gaps


def overrides_of(command: str) -> list[str]:
    """What follows `python -m nsvd_exp` in a command, for `compose`: without the grid's values."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "nsvd_exp"]
    return [w for w in words[3:] if not re.match(r"(ratio|calibration\.seed)=.*,", w)]


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("package:some_package", ["model=smollm2_135m_gguf"]),
        (
            "a_folder",
            ["model=smollm2_135m_gguf", "model.name=MODEL_FOLDER", "model.gguf_file=a.gguf"],
        ),
    ],
)
def test_the_command_that_fills_figure_1_is_of_the_same_setting(
    tmp_path: Path, name: str, typed: list[str]
) -> None:
    record = make_similarity(tmp_path, "smollm2-135m-gguf", length=512)
    record["identity"]["dataset"] |= {"max_windows": 16, "source": {"sha256": "0" * 64}}
    record["identity"]["dataset"]["bos"] = "window"
    record["identity"]["model"] = {"gguf_sha256": "0" * 64}
    record["config"]["model"] |= {"name": name, "gguf_file": "a.gguf"}
    changes = {"environment": {"device": "cpu"}, "dtype": "bfloat16"}
    shutil.rmtree(tmp_path / "similarities")
    file = similarity_file(tmp_path, "ptb", record["identity"])
    file.write(record | changes | {"key": file.key})
    (gap,) = gather(str(tmp_path), [2]).gaps
    assert gap.what == "Figure 1, smollm2-135m-gguf: 7 of 8 sets missing"
    words = gap.command.split()
    assert "dataset=wikitext2,c4,snips,alpaca_eval,mctest,cmrc_cn,alpaca_eval_jp" in words
    assert {
        "data_dir=DATA_FOLDER",
        "evaluation.length=512",
        "evaluation.max_windows=16",
        "evaluation.bos=window",
        "dtype=bfloat16",
    } < set(words)
    assert [word for word in words if word.startswith("model")] == typed


@pytest.mark.parametrize(
    "changes", [{}, {"samples": 16}, {"max_windows": 4}, {"length": 128}, {"solver": "paper"}]
)
def test_the_command_that_fills_the_gaps_is_of_the_same_setting(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE, **changes)
    ((model, what, command),) = gaps_of(blocks_of(tmp_path, 3), str(tmp_path))
    assert (model, what) == ("tiny", "Layout of Table 3, tiny: 5 numbers missing")
    config = compose(*overrides_of(command))
    assert config.model.title == "tiny"
    assert config.results_dir == str(tmp_path)
    assert list(config.dataset) == ["ptb"]
    assert config.calibration.samples == changes.get("samples", 64)
    assert config.evaluation.max_windows == changes.get("max_windows")
    assert (config.evaluation.length or 256) == changes.get("length", 256)
    assert config.solver == changes.get("solver", "basis")


def test_the_command_asks_for_the_ratios_that_are_missing(tmp_path: Path) -> None:
    def gaps() -> list[Gap]:
        return gaps_of(blocks_of(tmp_path, 1, "llama-7b"), "results")

    make_papers_tables(tmp_path, 1, "llama-7b")
    assert gaps() == []
    for path in (tmp_path / "cells").glob("svd-0.[24]*"):
        shutil.rmtree(path)
    ((_, what, command),) = gaps()
    assert what == "Layout of Table 1, llama-7b: 16 numbers missing"
    assert command == "python -m nsvd_exp experiment=table1 ratio=0.2,0.4"


# Bad input


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "there is no .*nowhere: to make some results, python -m nsvd_exp experiment="),
        ("empty", "holds no results yet: to make some results, .*results_dir=.*empty"),
        ("a [b]\udcff", "there is no .*'results_dir="),
        ("file", "file is no folder: give a results_dir"),
        ("file/within", "within cannot be read: Not a directory"),
        ("", "the name of the folder of results is empty"),
    ],
)
def test_no_results_at_all(
    store: Path, tmp_path: Path, given: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    folder = given and f"{tmp_path}/{given}"
    before = sorted(tmp_path.rglob("*"))
    for arguments in ([folder], [store, "--compare", folder]):
        code, out, err = report(capsys, *arguments)
        assert (code, out) == (2, "")
        assert re.search(said, err)
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged"),
        ("[1, 2]", "is damaged"),
        ('{"version": 99}', "has result version 99, this program reads 1"),
        ('{"version": 1}', "is damaged"),
    ],
)
def test_a_file_that_cannot_be_used_costs_its_own_number_only(
    store: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (store / "cells").glob("svd-0.3-*/result.json")
    path.write_text(content, encoding="utf-8")
    code, _, err = report(capsys, store, "--format", "csv,md")
    assert code == 1
    assert err.count("error:") == 1
    assert said in " ".join(err.split())
    assert str(path) in err.replace("\n", "")
    assert ptb_of(block_of(store), "svd").state == "missing"
    assert ptb_of(block_of(store), "asvd_i").state == "done"
    assert (store / "report" / "table1.csv").exists()


def test_a_number_that_lacks_a_field_is_damage(store: Path) -> None:
    (path,) = (store / "cells").glob("svd-0.3-*/result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    whole = result["datasets"]["ptb"]
    for bad in ({}, {"window_nll": [1.0]}, {"window_nll": [1.0] * 20}):
        result["datasets"]["ptb"] = {k: v for k, v in whole.items() if k != "window_nll"} | bad
        path.write_bytes(sealed(result))
        (problem,) = read_contents(store).problems
        assert "window_nll" in problem
    for value in (0.0, -1.0, 3.0):
        result["datasets"]["ptb"] = whole | {"perplexity": value}
        path.write_bytes(sealed(result))
        (problem,) = read_contents(store).problems
        assert "perplexity" in problem


def test_every_file_damaged_is_one_message_each(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (store / "cells").glob("*/result.json"):
        path.write_text("", encoding="utf-8")
    code, _, err = report(capsys, store)
    assert code == 2
    assert err.count("is damaged") == 7


def test_a_table_or_format_that_does_not_exist(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = report(capsys, store, "--tables", "1,9", "--format", "md,docx")
    assert code == 1
    assert "unknown table '9'" in err
    assert "unknown format 'docx'" in err
    assert (store / "report" / "table1.md").exists()
    code, _, err = report(capsys, store, "--tables", "seven")
    assert code == 2
    assert "unknown table 'seven'" in err


def test_an_unknown_model_is_answered_with_the_nearest(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = report(capsys, store, "--model", "tinny")
    assert code == 2
    assert "Did you mean tiny" in err


def test_one_model_alone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cell(store, model="other", method="asvd_i")
    report(capsys, store, "--model", "other", "--format", "csv", "--tables", "1")
    assert {row["model"] for row in rows_of(store, "table1")} == {"other"}
    assert {row["model"] for row in rows_of(store, "results")} == {"other"}


def test_a_folder_that_cannot_be_written_to(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "file").write_text("")
    code, _, err = report(capsys, store, "--out", store / "file" / "x", "--format", "md")
    assert code == 2
    assert "cannot be written to" in err
    assert "--out" in err


# Two stores


def test_two_stores_are_compared_number_by_number(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(store, other)
    code, out, _ = report(capsys, store, "--compare", other, "--format", "csv")
    assert code == 0
    assert "48 numbers in both, 48 of them equal to the last digit" in " ".join(out.split())
    (path,) = (other / "cells").glob("svd-0.3-*/result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    measured = result["datasets"]["ptb"]
    less = math.log(0.8) * (measured["length"] - 1)
    losses = [loss + less for loss in measured["window_nll"]]
    measured |= {"window_nll": losses, "nll": math.fsum(losses)}
    measured["perplexity"] = math.exp(measured["nll"] / measured["tokens"])
    result["identity"]["version"] = 2  # the code of a stage may differ: that is what is compared
    rewrite(other, result)
    shutil.rmtree(next((store / "cells").glob("asvd_0*")))
    code, out, _ = report(capsys, store, "--compare", other, "--format", "csv")
    said = " ".join(out.split())
    assert "40 numbers in both, 39 of them equal to the last digit; 0 only here, 8 only" in said
    assert "largest difference +25.000%" in said
    rows = rows_of(store, "compare")
    assert (rows[0]["method"], rows[0]["dataset"]) == ("svd", "ptb")
    assert float(rows[0]["difference"]) == pytest.approx(0.25)


def test_stores_without_a_number_in_common_are_not_compared(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_cell(tmp_path / "other", model="other", method="asvd_i")
    code, out, err = report(capsys, store, "--compare", tmp_path / "other")
    assert (code, out) == (2, "")
    assert err.startswith("error: --compare: no measurement of ")
    assert "(of tiny)" in err
    assert "(of other)" in err
    assert not (store / "report").exists()
