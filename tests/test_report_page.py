"""The page of the report, as a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import block_of, make_cell, scaled, write_full_page

from nsvd_exp.report import make
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render.page_views import headline


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`index.html` of a store with everything."""
    return write_full_page(tmp_path_factory.mktemp("page"))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def details_of(path: Path) -> dict[str, Any]:
    """What the page knows of its numbers."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text_of(path))
    assert found
    return dict(json.loads(found[1]))


def test_the_page_needs_nothing_but_itself(page_file: Path) -> None:
    text = text_of(page_file)
    addresses = re.findall(r'(?:\bsrc|\bhref|\baction)="([^"]*)"|url\(([^)]*)\)|@import', text)
    assert addresses
    for address in map("".join, addresses):
        assert address.startswith("#") or address == "data:,", address


def test_ids_are_unique(page_file: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', text_of(page_file))
    assert len(ids) == len(set(ids))


def test_the_same_store_gives_the_same_page(page_file: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        source = str(page_file.parent / "results")
        make.write(gather(source, [2, 3], "tiny"), folder, ["html"])
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in folders)
    assert len(one) == 3 + 3  # pages, and a figure in three formats
    assert one == two


def test_names_and_messages_are_text_not_markup(page_file: Path) -> None:
    text = text_of(page_file)
    assert "<b>o'dd" not in text
    assert "&lt;b&gt;o&#39;dd" in text
    assert "<i>the disk" not in text


def test_each_number_says_where_it_came_from(page_file: Path) -> None:
    details = details_of(page_file)
    _, of_run, of_place, of_cell = details["labels"]
    runs = [run for _, _, runs in details["entries"] for run in runs]
    assert len(runs) > 100
    for run in runs:
        place, cell = details["places"][run[-2]], details["cells"][run[-1]]
        known = dict(zip([*of_run, *of_place, *of_cell], [*run[:-2], *place, *cell], strict=True))
        expected = ["windows", "measured", "commit", "device", "cell", "key", "seconds by stage"]
        assert all(known[name] for name in expected)
        assert (page_file.parent / "results" / known["cell"] / "result.json").is_file()
        assert known["cell"].endswith(known["key"])


def test_several_seeds_are_listed_one_by_one(page_file: Path) -> None:
    details = details_of(page_file)
    seeds = {
        title: [run[1] for run in runs]
        for title, _, runs in details["entries"]
        if title == "tiny · ASVD-I · 50% · PTB"
    }
    assert seeds == {"tiny · ASVD-I · 50% · PTB": ["3", "4"]}


@pytest.mark.parametrize(
    ("method", "factor", "said"),
    [
        (
            "nsvd_i",
            0.912,
            "NSVD-I has 8.8% lower perplexity than ASVD-I on average over seven sets",
        ),
        ("nsvd_i", 1.05, "NSVD-I has 5.0% higher perplexity than ASVD-I on average over"),
        ("asvd_iii", 0.9, "ASVD-III has 10.0% lower"),  # not the paper's, and alone there
    ],
)
def test_the_headline_is_computed(tmp_path: Path, method: str, factor: float, said: str) -> None:
    make_cell(tmp_path, method="asvd_i")
    make_cell(tmp_path, method=method, datasets=scaled(factor))
    text = re.sub("<[^>]*>", "", str(headline(block_of(tmp_path))))
    assert text.startswith(f"tiny at 30%: {said}")
    assert " (95%: " in text
