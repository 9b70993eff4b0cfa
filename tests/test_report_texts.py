"""Titles and names are text in everything that a report writes, whatever stands in them."""

from __future__ import annotations

import csv
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.report_store import make_cell, make_similarity, rewrite, scaled
from rich.cells import cell_len

from nsvd_exp.config.checks import shown
from nsvd_exp.report.__main__ import main
from nsvd_exp.storage.results import similarity_file

SCRIPT = "模型 é Ж"
TITLES = {
    "marked up": r"$\frac{1}$ [/x] [b]y[/b] {0} %s <b>a</b> & 'c' | `d` *e* #1 ~^_$</script> {{7}} "
    "\\",
    "control": "a\x1b[31mb\x00c\r\nd\u202ee, and half \ud83d of one",
    "long": "very " * 80,
    "word": "w" * 400,
}  # fmt: skip


def make_awkward_store(results_dir: Path, title: str) -> None:
    """Store cells and records of which model, method, datasets and message have this title."""
    block = {"name": "mine", "title": title, "order": 5}
    for method, own in (("dense", None), ("asvd_i", None), ("svd", None), ("mine", block)):
        for ratio in (0.3, 0.5):
            cell = make_cell(
                results_dir, title, method, ratio, datasets=scaled(1 + ratio), method_block=own
            )
            for dataset in cell["config"]["dataset"].values():
                dataset["title"] = f"{dataset['name']} {title}"
            if cell["calibration"]:
                cell["calibration"]["title"] = title
            rewrite(results_dir, cell)
    for k1 in (0.9, 0.8):
        make_cell(results_dir, title, "nsvd_i", 0.3, k1, scaled(1.1))
    make_cell(results_dir, title, "asvd_0", datasets={}, status="failed", message=title)
    for name in ("ptb", "c4"):
        record = make_similarity(results_dir, title, name)
        record["dataset"]["title"] = f"{name} {title}"
        similarity_file(results_dir, name, record["identity"]).write(record)


@pytest.fixture(params=list(TITLES))
def title(request: pytest.FixtureRequest) -> str:
    """Something that may go wrong."""
    return TITLES[request.param]


@pytest.fixture
def store(tmp_path: Path, title: str) -> Path:
    """A store of that title."""
    make_awkward_store(tmp_path / "results", title)
    return tmp_path / "results"


def test_a_title_is_text_in_every_output(
    store: Path, title: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(store)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    folder, plain = store / "report", shown(title)
    written = {p.name: p.read_bytes().decode() for p in folder.iterdir() if p.is_file()}
    assert set(written) >= {"index.html", "results.md", "results.tex", "results.csv", "table2.csv"}
    for text in (out, *written.values()):
        assert re.sub(r"[\n\t]", "", text).isprintable()
    assert plain.split()[0] in out
    tables = out[: out.index("Layout of Table")]  # commands stand in one line, however long it is
    assert max(map(cell_len, tables.splitlines())) <= 80
    assert re.search(r"[0-9]\)\s+\S+%", tables)  # a number is there, and the average beside it
    assert (
        html.escape(plain).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
        in written["index.html"]
    )
    rows = list(csv.DictReader(written["results.csv"].splitlines()))
    assert {row["model"] for row in rows} == {plain}
    lines = [line for line in written["results.md"].splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    drawn = list((folder / "figures").glob("*.svg"))
    assert len(drawn) == 4
    for path in drawn:
        ElementTree.parse(path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_a_title_is_text_in_latex(store: Path, tmp_path: Path) -> None:
    main([str(store), "--format", "tex"])
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"]
    command += [f"-output-directory={tmp_path}", "all.tex"]
    done = subprocess.run(command, cwd=store / "report", capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.search(rb"Float too large|undefined", done.stdout)


def test_a_terminal_without_utf_8_gets_ascii(tmp_path: Path) -> None:
    make_awkward_store(tmp_path / "results", SCRIPT)
    command = [sys.executable, "-m", "nsvd_exp.report", "results", "--format", "md"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "COLUMNS": "100"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"(x1." in done.stdout
    assert "模型" in (tmp_path / "results" / "report" / "results.md").read_text(encoding="utf-8")


def test_a_reader_that_has_seen_enough_does_not_end_the_report(tmp_path: Path) -> None:
    """As that of `| head` has: the files are written all the same."""
    make_cell(tmp_path / "results", method="asvd_i")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nsvd_exp.report", "results", "--format", "md"]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "results" / "report" / "results.md").exists()


def test_two_models_have_figures_of_their_own(tmp_path: Path) -> None:
    for model in ("模型", "语言", "a b", "a-b"):
        for ratio in (0.3, 0.5):
            make_cell(tmp_path, model, "asvd_i", ratio)
    main([str(tmp_path), "--format", "html"])
    names = {path.name for path in (tmp_path / "report" / "figures").glob("*.svg")}
    assert len(names) == 4
    assert "ratio-a-b.svg" in names
    assert all(name.isascii() for name in names)
