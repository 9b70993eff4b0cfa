"""The published results: complete, free of places, and what their report and the README say."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from nsvd_exp.report.make import TEXT_FORMATS, table_texts
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.report import Report, gather

REPOSITORY = Path(__file__).resolve().parent.parent
TABLES = {
    "tiny": [1, 2, 3, 4, 5, 6],
    "real9m": [1, 3, 4],
    "smollm2-135m": [1, 2, 3, 4],
    "gemma3-270m": [1, 2, 3, 4],
}
ROWS = {
    "tiny": {1: 31, 3: 6, 4: 4, 5: 3, 6: 3},
    "real9m": {1: 31, 3: 6, 4: 4},
    "smollm2-135m": {1: 25, 3: 6, 4: 4},
    "gemma3-270m": {1: 25, 3: 6, 4: 4},
}
TITLES = {"smollm2-135m": "smollm2-135m-gguf"}  # of models, where it is not that of the folder

pytestmark = pytest.mark.parametrize("name", list(TABLES))


def store(name: str) -> Path:
    return REPOSITORY / "results" / name


@functools.cache
def report_of(name: str) -> Report:
    """The report of all its models."""
    return gather(str(store(name)), TABLES[name])


def test_every_cell_is_there(name: str) -> None:
    report = report_of(name)
    assert report.problems == []
    for number, rows in ROWS[name].items():
        title = TITLES.get(name, name)
        block = next(b for b in report.tables[number] if b.group.model == title)  # the main setting
        assert len(block.lines) == rows
        assert block.incomplete == []
    if 2 in TABLES[name]:
        (alike,) = report.similarities
        sets = len(report.groups[0].datasets)
        assert [len(alike.spreads[s]) for s in ("mean", "abs_mean", "gram")] == [sets] * 3


def test_it_was_made_by_code_that_is_committed(name: str) -> None:
    for cell in read_contents(store(name)).cells:
        assert cell["environment"]["git"]["dirty"] is False


def test_nothing_says_where_it_was_made(name: str) -> None:
    paths = [path for path in store(name).rglob("*") if path.is_file()]
    assert paths
    for path in paths:
        assert path.stat().st_size < 2_000_000
        if path.suffix in (".json", ".md", ".tex", ".csv", ".html"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(?:home|root|tmp|work|Users|mnt)/", text), path


@pytest.mark.parametrize("extension", TEXT_FORMATS)
def test_the_report_is_that_of_the_results(name: str, extension: str) -> None:
    made = dict(table_texts(report_of(name), extension))
    names = {"results", *(f"table{number}" for number in TABLES[name])}
    names |= {"equal_size"} if report_of(name).equal_size else set()
    names |= {"accuracy"} if report_of(name).accuracies else set()
    names |= {"profiles"} if report_of(name).profiles else set()
    assert made.keys() == names | ({"all"} if extension == "tex" else set())
    folder = store(name) / "report"
    assert {path.stem for path in folder.glob(f"*.{extension}")} == made.keys()
    for stem, text in made.items():
        published = (folder / f"{stem}.{extension}").read_text(encoding="utf-8")
        if extension == "csv":  # all digits, the last of which are the processor's
            assert numbers_in(text) == pytest.approx(numbers_in(published), rel=1e-9), stem
            text, published = without_numbers(text), without_numbers(published)
        assert published == text, stem


NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?(?![\w.])")


def numbers_in(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def without_numbers(text: str) -> str:
    return NUMBER.sub("#", text)


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def test_the_readme_shows_its_numbers(name: str) -> None:
    """Every row of a table of perplexities in the README stands so in the published results."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"results/{name}/report" in readme
    section = readme.partition(f"<!-- results/{name}, 20% removed -->")[2].partition("<!--")[0]
    shown = [cells(line) for line in section.splitlines() if line.startswith("|")]
    assert bool(shown) == (name == "smollm2-135m")
    if shown:
        published = (store(name) / "report" / "results.md").read_text(encoding="utf-8")
        rows = [cells(line) for line in published.splitlines() if line.startswith("|")]
        places = [rows[0].index(heading) for heading in shown[0]]
        known = [[row[place] for place in places] for row in rows if row[1] in ("", "20%")]
        assert len(shown) > 8
        assert all(row in known for row in shown[2:])
