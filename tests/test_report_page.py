"""The page of the report, as a file."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import group_of, make_cell, scaled, write_full_page

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report import make
from nsvd_exp.report.model.headline import IMPROVEMENT, NATS
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render.headline import headlines
from nsvd_exp.report.render.page import page_text


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
        assert address.startswith(("#", "data:image/png;")) or address == "data:,", address


def test_ids_are_unique(page_file: Path) -> None:
    ids = re.findall(r'\sid="([^"]+)"', text_of(page_file))
    assert len(ids) == len(set(ids))


def test_the_same_store_gives_the_same_page(page_file: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        source = str(page_file.parent / "results")
        make.write(gather(source, [2, 3], "tiny"), folder, ["html"])
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in folders)
    assert len(one) == 1 + 4 * 3  # the page, and its figures in three formats
    assert one == two


def test_names_and_messages_are_text_not_markup(page_file: Path) -> None:
    text = text_of(page_file)
    assert "<b>o'dd" not in text
    assert "&lt;b&gt;o&#39;dd" in text
    assert "<i>the disk" not in text


def test_each_number_says_where_it_came_from(page_file: Path) -> None:
    details = details_of(page_file)
    _, of_run, of_place, of_cell = details["labels"]
    runs = [run for *_, runs in details["entries"] for run in runs]
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
    texts = details["texts"]
    seeds = [
        [run[1] for run in runs]
        for title, dataset, _, runs in details["entries"]
        if (texts[title], texts[dataset]) == ("tiny · ASVD-I · 50%", "PTB")
    ]
    assert seeds == [[3, 4]]


def said_of(results_dir: Path, measure: str = IMPROVEMENT) -> str:
    """The headline of the only model."""
    (headline,) = headlines([group_of(results_dir)], measure)
    return " ".join(headline.lines)


def make_three(results_dir: Path, factors: dict[str, float], dense: float = 0.5) -> None:
    """Store the dense model at `dense` times EIGHT, and methods at their factors."""
    make_cell(results_dir, method="dense", datasets=scaled(dense))
    for method, factor in factors.items():
        make_cell(results_dir, method=method, datasets=scaled(factor))


def test_the_headline_names_the_winner_first(tmp_path: Path) -> None:
    make_three(tmp_path, {"asvd_i": 1.0, "svd": 0.8, "nsvd_i": 0.9})
    said = said_of(tmp_path)
    assert said.startswith("tiny: best on average SVD at 30% of the parameters removed. SVD is the")
    assert "the best of 3 at 30%; ×1.60 the dense perplexity; 20.0% lower than ASVD-I" in said
    assert " (95%: " in said
    assert "better than ASVD-I in 7 of 7 sets, worse in 0" in said
    nats = said_of(tmp_path, NATS)
    assert f"{math.log(1.6):.3f} nats per token above the dense model (95%: " in nats


def test_the_headline_covers_every_ratio(tmp_path: Path) -> None:
    for ratio, (svd, nsvd) in {0.1: (0.9, 0.8), 0.5: (0.8, 0.9), 0.7: (0.7, 0.9)}.items():
        for method, factor in (("asvd_i", 1.0), ("svd", svd), ("nsvd_i", nsvd)):
            make_cell(tmp_path, method=method, ratio=ratio, datasets=scaled(factor))
    said = said_of(tmp_path)
    assert "best on average NSVD-I, k1 = 0.95 at 10%; SVD at 50% and 70% of the" in said
    assert said.count("is the best of 3 at") == 3
    assert "the dense model is not stored" in said


def test_the_reference_can_win(tmp_path: Path) -> None:
    make_three(tmp_path, {"asvd_i": 1.0, "nsvd_i": 1.05})
    said = said_of(tmp_path)
    assert "ASVD-I is the best of 2 at 30%; ×2.00 the dense perplexity; no method beats it" in said


def test_methods_that_are_equal_win_together(tmp_path: Path) -> None:
    make_three(tmp_path, {"asvd_i": 1.0, "nsvd_i": 0.9, "nsvd_ii": 0.9})
    assert "NSVD-I, k1 = 0.95 and NSVD-II, k1 = 0.95 are the best of 3" in said_of(tmp_path)


@pytest.mark.parametrize(("times", "is_ruined"), [(9.9, False), (10.1, True)])
def test_a_ruined_model_has_no_percentage(tmp_path: Path, times: float, is_ruined: bool) -> None:
    make_three(tmp_path, {"asvd_i": 2.5, "svd": 2.0}, dense=2 / times)
    said = said_of(tmp_path)
    assert ("the model is ruined" in said) == is_ruined
    assert ("20.0% lower" in said) == (not is_ruined)
    assert "better than ASVD-I in 7 of 7 sets" in said


def test_too_few_windows_have_no_percentage(tmp_path: Path) -> None:
    for method, factor in (("dense", 0.5), ("asvd_i", 1.0), ("svd", 0.8)):
        make_cell(tmp_path, method=method, datasets=scaled(factor), windows=7)
    said = said_of(tmp_path)
    assert "too few for a percentage" in said
    assert "20.0%" not in said
    assert "SVD is the best" in said


def test_the_measures_may_name_different_winners(tmp_path: Path) -> None:
    make_three(tmp_path, {"asvd_i": 1.0, "asvd_0": 1.2})
    make_cell(tmp_path, method="svd", datasets=scaled(0.9, ptb=29.0 * 4))
    assert "ASVD-I is the best" in said_of(tmp_path)
    assert "by the mean of log perplexity it is ASVD-I" not in said_of(tmp_path)
    make_cell(tmp_path, method="svd", datasets=scaled(0.75, ptb=29.0 * 4))
    said = said_of(tmp_path)
    assert ("by the mean of log perplexity it is SVD" in said) == ("ASVD-I is the best" in said)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.75, "9.750"),
        (883.82, "883.8"),
        (2594.78, "2595"),
        (9999.4, "9999"),
        (9999.6, "1.00e4"),
        (36652.0, "3.67e4"),
        (1.2345e9, "1.23e9"),
        (1.0, "1.000"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_four_digits_and_large_ones_one_form(value: float, text: str) -> None:
    assert format_perplexity(value) == text


def test_a_large_store_reports_soon_and_small(tmp_path: Path) -> None:
    """A fifth of 1,200 cells; `docs/report.md` says what the whole takes."""
    for model in ("one", "two", "three", "four"):
        make_cell(tmp_path, model=model, method="dense", datasets=scaled(0.3))
        for ratio in (0.1, 0.2, 0.3, 0.4, 0.5):
            for method in ("svd", "asvd_0", "asvd_i", "asvd_ii"):
                make_cell(tmp_path, model=model, method=method, ratio=ratio)
            for k1 in (0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):
                make_cell(tmp_path, model=model, method="nsvd_i", ratio=ratio, k1=k1)
    report = gather(str(tmp_path))
    text = page_text(report, [], [], with_paper=False)
    cells = sum(len(group.lines) for group in report.groups)
    assert cells == 4 * (1 + 5 * 11)
    assert len(text.encode()) / cells < 5_000_000 / 1200
