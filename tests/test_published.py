"""The published results: complete, free of places, and what their report and the README say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nsvd_exp.report.__main__ import main
from nsvd_exp.report.make import gather
from nsvd_exp.report.numbers import read_contents

REPOSITORY = Path(__file__).resolve().parent.parent
TABLES = {"tiny": [1, 2, 3, 4, 5, 6], "real9m": [1, 3, 4]}
ROWS = {
    "tiny": {1: 31, 3: 6, 4: 4, 5: 3, 6: 3},
    "real9m": {1: 31, 3: 6, 4: 4},
}

pytestmark = pytest.mark.parametrize("name", list(TABLES))


def store(name: str) -> Path:
    return REPOSITORY / "results" / name


def test_every_cell_is_there(name: str) -> None:
    report = gather(str(store(name)), TABLES[name], name)
    assert report.problems == []
    lines = {n: line for n, blocks in report.tables.items() for b in blocks for line in b.lines}
    assert set(lines) == set(ROWS[name])
    for number, blocks in report.tables.items():
        (block,) = blocks
        assert len(block.lines) == ROWS[name][number]
        assert block.incomplete == []
    if 2 in TABLES[name]:
        (alike,) = report.similarities
        assert [len(alike.spreads[s]) for s in ("mean", "abs_mean", "gram")] == [8, 8, 8]


def test_it_was_made_by_code_that_is_committed(name: str) -> None:
    for cell in read_contents(store(name)).cells:
        assert cell["environment"]["git"]["dirty"] is False


def test_nothing_says_where_it_was_made(name: str) -> None:
    paths = [path for path in store(name).rglob("*") if path.is_file()]
    assert paths
    for path in paths:
        assert path.stat().st_size < 1_000_000
        if path.suffix in (".json", ".md", ".tex", ".csv", ".html"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(?:home|root|tmp|work|Users|mnt)/", text), path


def test_the_report_is_that_of_the_results(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    numbers = ",".join(map(str, TABLES[name]))
    arguments = ["--tables", numbers, "--format", "md,tex,csv", "--out", str(tmp_path)]
    assert main([f"results/{name}", *arguments]) == 0
    made = sorted(path.name for path in tmp_path.glob("table*"))
    assert len(made) == 3 * len(TABLES[name])
    for file in made:
        published = store(name) / "report" / file
        assert (tmp_path / file).read_text(encoding="utf-8") == published.read_text("utf-8"), file


def test_the_readme_shows_its_numbers(name: str) -> None:
    """Every row of a perplexity table in the README stands so in the published Table 1."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    published = (store(name) / "report" / "table1.md").read_text(encoding="utf-8")
    assert f"results/{name}/report" in readme

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|\n ").split("|")]

    known = [cells(line) for line in published.splitlines() if line.startswith("|")]
    section = readme.partition(f"<!-- results/{name}, Table 1 -->")[2].partition("<!--")[0]
    rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    shown = [row for row in rows if re.search(r"\d\.\d\d", " ".join(row))]
    assert all(row[1:] in [other[1:] for other in known] for row in shown)
    assert len(shown) == (ROWS[name][1] if name == "tiny" else 0)
