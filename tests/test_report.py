"""The report: what stands in which table, beside the paper's numbers, and what is not mixed."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.configuration import compose
from report_store import EIGHT, make_cell, make_papers_tables

from nsvd_exp.experiment.improvement import average_improvement
from nsvd_exp.report import paper, tables
from nsvd_exp.report.__main__ import main
from nsvd_exp.report.entries import Block, Entry, Line
from nsvd_exp.report.gaps import gaps_of
from nsvd_exp.report.intervals import interval, log_perplexities
from nsvd_exp.report.numbers import read_contents
from nsvd_exp.report.paper import Row
from nsvd_exp.storage.results import Result

TABLE_1 = ("dense", "svd", "asvd_0", "asvd_i", "asvd_ii", "nsvd_i", "nsvd_ii")
ONE = {"ptb": 29.0}


def blocks_of(results_dir: Path, number: int = 1, model: str = "tiny") -> list[Block]:
    """The blocks of a model in one of the tables."""
    built = tables.build(read_contents(results_dir), [number])[number]
    return [block for block in built if block.model == model]


def block_of(results_dir: Path, number: int = 1, model: str = "tiny") -> Block:
    """The only one."""
    (block,) = blocks_of(results_dir, number, model)
    return block


def line_of(block: Block, method: str, ratio: float | None = 0.3, k1: float | None = None) -> Line:
    (line,) = [line for line in block.lines if line.row == Row(method, ratio, k1)]
    return line


def ptb_of(block: Block, method: str, ratio: float | None = 0.3, k1: float | None = None) -> Entry:
    return line_of(block, method, ratio, k1).entries["ptb"]


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m nsvd_exp.report`."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# The paper's numbers


@pytest.mark.parametrize(
    ("number", "rows"), [(1, {"llama-7b": 31}), (3, {"llama-7b": 6}), (4, {"llama-7b": 4}),
                         (5, {"vicuna-7b": 3, "mistral-7b": 3, "opt-6.7b": 3}),
                         (6, {"llama-7b": 3, "llama-13b": 3, "llama-30b": 3})],
)  # fmt: skip
def test_the_papers_tables_have_their_rows(number: int, rows: dict[str, int]) -> None:
    table = paper.tables()[number]
    assert {model: len(found) for model, found in table.rows.items()} == rows
    assert len(table.printed) == 8 * sum(rows.values())


def test_the_papers_averages_follow_from_its_perplexities() -> None:
    checked = 0
    for table in paper.tables().values():
        for (model, row), printed in table.averages.items():
            recomputed = table.average(model, row)
            assert recomputed is not None
            is_misprint = (table.number, row.method, row.k1) == (3, "nsvd_i", 0.99)
            if printed is not None:
                assert (abs(abs(100 * recomputed) - printed) < 0.11) != is_misprint
                checked += 1
    assert checked == 22


@pytest.mark.parametrize(
    ("number", "model", "row", "dataset", "said"),
    [
        (3, "llama-7b", Row("nsvd_i", 0.3, 0.99), "alpaca_eval_jp", "32.7%, recomputed 29.3% bett"),
        (3, "llama-7b", Row("nsvd_i", 0.3, 0.99), "average", "9.3%, recomputed 8.8%"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "cmrc_cn", "24.9%, recomputed 23.9% worse"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "alpaca_eval", "1.2%, recomputed 1.4% better"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.99), "average", "lost .* recomputed 4.6% worse"),
        (4, "llama-7b", Row("nid_i", 0.3, 0.9), "average", "lost .* recomputed 5.4% worse"),
        (5, "vicuna-7b", Row("nsvd_i", 0.3, 0.95), "ptb", "51.9%, recomputed 54.5% .*ASVD-0"),
        (5, "mistral-7b", Row("nsvd_i", 0.3, 0.95), "alpaca_eval_jp", "1.2%, recomputed 1.1% wor"),
        (1, "llama-7b", Row("nsvd_i", 0.3, 0.95), "alpaca_eval_jp", "367.69 here, 367.79 in Tab"),
    ],
)
def test_misprints_have_a_footnote_where_they_stand(
    number: int, model: str, row: Row, dataset: str, said: str
) -> None:
    assert re.search(said, paper.tables()[number].footnotes[model, row, dataset])


def test_what_the_paper_printed_right_has_no_footnote() -> None:
    notes = [note for table in paper.tables().values() for note in table.footnotes]
    printed = sum(len(table.printed) for table in paper.tables().values())
    assert printed == 472
    assert len(notes) < 20


def test_the_presets_are_the_papers_tables() -> None:
    """What `experiment=tableN` runs is what Table N shows."""
    for number, table in paper.tables().items():
        written = Path(__file__).parent.parent / "conf" / "experiment" / f"table{number}.yaml"
        text = written.read_text(encoding="utf-8")
        for method, k1 in table.variants:
            assert method in text
            assert k1 is None or f"{k1:g}" in text


# Which numbers stand together


def test_seeds_are_a_mean_and_a_deviation(tmp_path: Path) -> None:
    for seed, value in ((1, 20.0), (2, 22.0), (3, 27.0)):
        make_cell(tmp_path, method="asvd_i", datasets={"ptb": value}, seed=seed)
    entry = ptb_of(block_of(tmp_path), "asvd_i")
    assert entry.perplexity == pytest.approx(23.0)
    assert entry.deviation == pytest.approx(statistics.stdev([20.0, 22.0, 27.0]))
    assert len(entry.numbers) == 3


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


def rewrite(results_dir: Path, result: Result) -> None:
    (path,) = (results_dir / "cells").glob(f"*{result['key'][:16]}/result.json")
    path.write_text(json.dumps(result), encoding="utf-8")


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
    own = make_cell(tmp_path, method="nsvd_ii", k1=0.6, datasets=ONE)
    identity = own["identity"] | {"method": {"name": "mine"}}
    rewrite(tmp_path, own | {"method": "mine", "identity": identity})
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


def test_no_difference_is_shown_for_a_local_mirror(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, model="llama-7b", method="dense", datasets={"ptb": 8.35})
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference == 0
    number = cell["datasets"]["ptb"]
    number["identity"]["source"] = {"sha256": "a" * 64, "document": "{sentence}"}
    rewrite(tmp_path, cell)
    assert ptb_of(block_of(tmp_path, model="llama-7b"), "dense", None).difference is None


# Intervals


def two_cells(tmp_path: Path, windows: int = 400) -> list[Any]:
    make_cell(tmp_path, method="asvd_i", datasets=ONE, windows=windows)
    make_cell(tmp_path, method="nsvd_i", k1=0.95, datasets={"ptb": 26.0}, windows=windows)
    return sorted(read_contents(tmp_path).numbers, key=lambda n: n.row.method)


def test_the_bootstrap_has_the_deviation_of_the_mean(tmp_path: Path) -> None:
    """Over many windows the mean loss deviates by s / sqrt(windows)."""
    for number in two_cells(tmp_path):
        samples = log_perplexities([number])[number.id]
        losses = np.array(number.stored["window_nll"]) / (number.stored["length"] - 1)
        assert samples.std() == pytest.approx(losses.std() / math.sqrt(len(losses)), rel=0.1)
        assert samples.mean() == pytest.approx(math.log(number.perplexity), abs=0.003)


def test_the_difference_of_two_methods_is_paired(tmp_path: Path) -> None:
    """Windows that are hard are hard for both: the paired interval is far narrower."""
    ours, theirs = (log_perplexities(two_cells(tmp_path))[n.id] for n in two_cells(tmp_path))
    paired = np.subtract(*interval(ours - theirs))
    independent = np.subtract(*interval(ours - theirs[np.random.default_rng(0).permutation(2000)]))
    assert abs(paired) < abs(independent) / 3
    assert np.ptp(ours - ours) == 0


def test_a_handful_of_windows_has_no_interval(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE, windows=3)
    assert ptb_of(block_of(tmp_path), "asvd_i").interval is None


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
    for number in range(1, 7):
        for extension in ("md", "tex", "csv", "html"):
            assert (store / "report" / f"table{number}.{extension}").stat().st_size > 300
    assert "index.html" in out
    page = (store / "report" / "index.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)


def test_csv_holds_the_stored_numbers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(capsys, store, "--format", "csv", "--tables", "1")
    assert [path.name for path in (store / "report").glob("table*")] == ["table1.csv"]
    rows = list(csv.DictReader((store / "report" / "table1.csv").open(encoding="utf-8")))
    stored = {n.id: n for n in read_contents(store).numbers}
    found = {(r["key"], r["dataset"]): r for r in rows if r["model"] == "tiny" and r["key"]}
    assert len(found) == 6 * 8
    for number in stored.values():
        row = found[number.cell["key"], number.dataset]
        assert float(row["perplexity"]) == number.perplexity
        assert row["commit"] == number.stored["environment"]["git"]["commit"]
    missing = [r for r in rows if r["model"] == "tiny" and r["state"] == "missing"]
    assert len(missing) == 8
    assert all(row["perplexity"] == "" for row in missing)


def test_markdown_says_what_failed_and_marks_the_best(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, store, "--format", "md")
    lines = (store / "report" / "table3.md").read_text(encoding="utf-8").splitlines()
    (failed,) = [line for line in lines if "k1 = 0.9 " in line]
    assert failed.count("failed") == 8
    (best,) = [line for line in lines if "| ASVD-I " in line]
    assert best.count("**") == 16
    assert any("*574.60 (+29.3%)*<sup>" in line for line in lines)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_every_latex_table_compiles(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_papers_tables(store, 1, "llama-7b")
    own = make_cell(store, model="50%_of {a} #1\\model~^", method="asvd_i")
    assert own["model"] in read_contents(store).models
    report(capsys, store, "--format", "tex")
    sources = sorted((store / "report").glob("*.tex"))
    assert len(sources) == 6
    for source in sources:
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", str(source)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert not re.search(r"Overfull|Float too large|undefined", done.stdout)


@pytest.fixture
def overrides() -> Callable[[str], list[str]]:
    """What follows `python -m nsvd_exp` in a command, for `compose`."""

    def parse(command: str) -> list[str]:
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "nsvd_exp"]
        return [w for w in words[3:] if not re.match(r"(ratio|calibration\.seed)=.*,", w)]

    return parse


@pytest.mark.parametrize(
    "changes", [{}, {"samples": 16}, {"max_windows": 4}, {"length": 128}, {"solver": "paper"}]
)
def test_the_command_that_fills_the_gaps_is_of_the_same_setting(
    tmp_path: Path, changes: dict[str, Any], overrides: Callable[[str], list[str]]
) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=ONE, **changes)
    built = tables.build(read_contents(tmp_path), [3])
    (what, command), *_ = gaps_of(built[3], str(tmp_path))
    assert what.startswith("Table 3, tiny: 5 numbers missing")
    config = compose(*overrides(command))
    assert config.model.title == "tiny"
    assert config.results_dir == str(tmp_path)
    assert list(config.dataset) == ["ptb"]
    assert config.calibration.samples == changes.get("samples", 64)
    assert config.evaluation.max_windows == changes.get("max_windows")
    assert (config.evaluation.length or 256) == changes.get("length", 256)
    assert config.solver == changes.get("solver", "basis")


def test_the_command_asks_for_the_ratios_that_are_missing(tmp_path: Path) -> None:
    make_papers_tables(tmp_path, 1, "llama-7b")
    for path in (tmp_path / "cells").glob("svd-0.[24]*"):
        shutil.rmtree(path)
    (what, command), *_ = gaps_of(tables.build(read_contents(tmp_path), [1])[1], "results")
    assert what == "Table 1, llama-7b: 16 numbers missing"
    assert command == "python -m nsvd_exp experiment=table1 ratio=0.2,0.4"


def test_nothing_is_said_of_a_table_that_is_complete(tmp_path: Path) -> None:
    make_papers_tables(tmp_path, 1, "llama-7b")
    assert gaps_of(tables.build(read_contents(tmp_path), [1])[1], "results") == []


# Bad input


def test_no_results_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = report(capsys, tmp_path / "nowhere")
    assert code == 2
    assert "holds no results yet" in err
    assert "experiment=table1" in err


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
    del result["datasets"]["ptb"]["window_nll"]
    path.write_text(json.dumps(result), encoding="utf-8")
    (problem,) = read_contents(store).problems
    assert "window_nll" in problem


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
    rows = csv.DictReader((store / "report" / "table1.csv").open(encoding="utf-8"))
    assert {row["model"] for row in rows} == {"other"}


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
    result["datasets"]["ptb"]["perplexity"] *= 0.8
    result["identity"]["version"] = 2  # the code of a stage may differ: that is what is compared
    path.write_text(json.dumps(result), encoding="utf-8")
    shutil.rmtree(next((store / "cells").glob("asvd_0*")))
    code, out, _ = report(capsys, store, "--compare", other, "--format", "csv")
    said = " ".join(out.split())
    assert "40 numbers in both, 39 of them equal to the last digit; 0 only here, 8 only" in said
    assert "largest difference +25.000%" in said
    rows = list(csv.DictReader((store / "report" / "compare.csv").open(encoding="utf-8")))
    assert (rows[0]["method"], rows[0]["dataset"]) == ("svd", "ptb")
    assert float(rows[0]["difference"]) == pytest.approx(0.25)
