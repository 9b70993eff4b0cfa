"""The page of the report, as a file and in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_store import EIGHT, make_cell, make_papers_tables, make_similarity

from nsvd_exp.report import make, paper

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

TITLE = '<b>o\'dd & "model"</b>'


def scaled(factor: float, **others: float) -> dict[str, float]:
    """EIGHT, but for a factor."""
    return {name: factor * value for name, value in EIGHT.items()} | others


def make_store(results_dir: Path) -> Path:
    """All that a page has to show: the paper's model under its protocol, the bundled one with two
    seeds, a failed and an unfinished cell, other settings, and a model of an awkward name."""
    make_papers_tables(results_dir, 3, "llama-7b")
    make_cell(results_dir, method="dense", datasets=scaled(0.3))
    for ratio in (0.3, 0.5):
        for seed in (3, 4):
            factor = 1 + ratio + seed / 100
            make_cell(results_dir, method="asvd_i", ratio=ratio, datasets=scaled(factor), seed=seed)
        better = scaled(1.2 + ratio, ptb=60.0)
        make_cell(results_dir, method="nsvd_i", ratio=ratio, k1=0.95, datasets=better)
    make_cell(
        results_dir, method="svd", datasets={}, status="failed", message="<i>the disk</i> is full"
    )
    make_cell(results_dir, method="asvd_0", datasets={"ptb": 90.0}, status="partial")
    make_cell(results_dir, method="asvd_i", datasets=scaled(1.4), length=128)
    make_cell(results_dir, model=TITLE, method="asvd_i", datasets={"ptb": 20.0})
    make_cell(results_dir, model=TITLE, method="nsvd_i", k1=0.95, datasets={"ptb": 25.0})
    for name, (mean, _) in paper.similarities().items():
        alike = {"mean": [mean - 0.2, mean + 0.04], "abs_mean": [mean - 0.2, mean + 0.21]}
        make_similarity(results_dir, "llama-7b", name, alike)
    make_similarity(results_dir, "tiny", "ptb")
    make_similarity(results_dir, "tiny", "c4", length=128)
    make_similarity(results_dir, "tiny", "wikitext2")
    (results_dir / "cells" / "broken").mkdir()
    (results_dir / "cells" / "broken" / "result.json").write_text("{")
    return results_dir


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`index.html` of that store."""
    folder = tmp_path_factory.mktemp("page")
    written = make.write(make.gather(str(make_store(folder / "results"))), folder, ["html"])
    return next(path for path in written if path.name == "index.html")


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
    source = page_file.parent / "results"
    make.write(make.gather(str(source)), tmp_path, ["html"])
    for path in (page_file, *page_file.parent.glob("figures/*")):
        assert (tmp_path / path.relative_to(page_file.parent)).read_bytes() == path.read_bytes()


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


def test_the_summary_is_computed(tmp_path: Path) -> None:
    def summary(factor: float) -> str:
        store = tmp_path / str(factor)
        make_cell(store, method="asvd_i")
        make_cell(store, method="nsvd_i", k1=0.95, datasets=scaled(factor))
        make.write(make.gather(str(store)), store, ["html"])
        found = re.search(r'<li data-model="tiny">(.*?)</li>', text_of(store / "index.html"))
        assert found
        return re.sub("<[^>]*>", "", found[1])

    lower, higher = summary(0.912), summary(1.05)
    assert lower.startswith(
        "tiny at 30%: NSVD-I has 8.8% lower perplexity than ASVD-I on average over seven sets (95%"
    )
    assert "5.0% higher perplexity" in higher


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (PyPI)")
    if CHROMIUM is None:
        pytest.skip("needs a browser: Debian's package chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Opened:
    """A page in the browser, and what it complained of or asked the network for."""

    def __init__(self, browser: Any, path: Path, width: int, address: str = "") -> None:
        self.complaints: list[str] = []
        self.tab = browser.new_page(viewport={"width": width, "height": 800})
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", self._note)
        self.tab.goto(f"{path.as_uri()}{address}")

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.complaints.append(request.url)

    def shown(self, selector: str) -> list[str]:
        """The texts of what is to be seen."""
        texts = self.tab.locator(selector).evaluate_all(
            "found => found.filter(e => e.checkVisibility()).map(e => e.innerText ?? '')"
        )
        return list(texts)

    def number(self, model: str, method: str, column: int) -> Any:
        """A number of Table 1, by the method's title."""
        rows = self.tab.locator(f'#table-1 [data-model="{model}"] tr', has_text=method)
        return rows.filter(has=self.tab.locator("button")).first.locator("button").nth(column)


@pytest.fixture(params=[1400, 360])
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Opened]:
    """The page in a wide and in a narrow window."""
    opened = Opened(browser, page_file, request.param)
    yield opened
    opened.tab.close()
    assert opened.complaints == []


def test_all_tables_and_figures_are_there(opened: Opened) -> None:
    assert [title.split(".")[0] for title in opened.shown("main h2")] == [
        f"Table {number}" for number in range(1, 7)
    ]
    for number in range(1, 7):
        assert opened.shown(f"#table-{number} table.numbers")
    assert len(opened.shown("#table-1 figure svg")) == 1
    assert len(opened.shown("#table-2 figure svg")) == 2
    assert len(opened.shown("#table-3 figure svg")) == 1
    assert opened.shown("#gaps code")


def test_nothing_overflows(opened: Opened) -> None:
    tab = opened.tab
    tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What is wider than the window scrolls in a box of its own, beside its first column.
    box = tab.locator("#table-1 .block[data-model='llama-7b'] .scroll")
    wide = box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert wide == (tab.viewport_size["width"] == 360)
    box.evaluate("box => { box.scrollLeft = 200; }")
    title = box.locator("tbody th").first.bounding_box()
    assert title["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
    assert title["width"] < 0.3 * tab.viewport_size["width"]


def test_the_filter_leaves_one_model(opened: Opened) -> None:
    tab = opened.tab
    for model in ("tiny", TITLE):
        tab.select_option("#model", model)
        assert set(opened.shown("main h3")) == {model}
        assert opened.shown("#table-1 table.numbers")
        assert all(said.startswith(model) for said in opened.shown(".headlines [data-model]"))
    tab.select_option("#model", "")
    assert set(opened.shown("main h3")) == {"tiny", "llama-7b", TITLE}


def test_the_filter_is_in_the_address(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, 1400, "#table-1&model=tiny")
    assert set(opened.shown("main h3")) == {"tiny"}
    assert opened.tab.locator("#table-1 h2").bounding_box()["y"] < 200
    opened.tab.locator(".links a", has_text="Gaps").click()
    assert opened.tab.url.endswith("#gaps&model=tiny")
    opened.tab.select_option("#model", "llama-7b")
    assert opened.tab.url.endswith("#gaps&model=llama-7b")
    opened.tab.reload()
    assert set(opened.shown("main h3")) == {"llama-7b"}
    assert opened.complaints == []
    opened.tab.close()


def test_a_click_shows_where_a_number_came_from(opened: Opened) -> None:
    panel = opened.tab.locator("#details")
    assert panel.is_hidden()
    opened.number("llama-7b", "NSVD-I", 0).click()
    said = panel.inner_text()
    for expected in ("llama-7b · NSVD-I", "95% interval", "cells/nsvd_i-0.3", "0123456789abcdef"):
        assert expected in said
    box, size = panel.bounding_box(), opened.tab.viewport_size
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    opened.tab.keyboard.press("Escape")
    assert panel.is_hidden()
    opened.number("tiny", "SVD", 1).click()
    assert "failed: <i>the disk</i> is full" in panel.inner_text()


def test_the_keyboard_reaches_the_numbers(opened: Opened) -> None:
    tab = opened.tab
    first = opened.number("tiny", "Original", 0)
    first.focus()
    title = tab.locator("#details h4")
    tab.keyboard.press("ArrowRight")
    assert title.inner_text() == "tiny · Original · PTB"
    tab.keyboard.press("ArrowDown")
    assert title.inner_text() == "tiny · SVD · 30% · PTB"
    tab.keyboard.press("Escape")
    tab.keyboard.press("Enter")
    assert title.is_visible()
    tab.keyboard.press("Tab")
    assert tab.locator("#details").is_hidden()


def test_no_state_but_done_shows_a_number(opened: Opened) -> None:
    block = '#table-1 [data-model="tiny"] '
    assert set(opened.shown(f"{block} td.failed .value")) == {"failed"}
    assert set(opened.shown(f"{block} td.partial .value")) == {"unfinished"}
    assert set(opened.shown(f"{block} td.missing .value")) == {"–"}


def test_the_papers_numbers_can_be_put_away(opened: Opened) -> None:
    block = '#table-1 [data-model="llama-7b"] '
    differences = opened.shown(f"{block} .difference")
    assert differences
    assert set(differences) == {"+1.0%"}
    assert not opened.shown('[data-model="tiny"] .difference')
    opened.tab.uncheck("#with-paper")
    assert not opened.shown("main .paper")
    assert opened.shown(f"{block} .value")


def test_another_setting_says_what_differs(opened: Opened) -> None:
    summaries = opened.shown('#table-1 [data-model="tiny"] summary')
    assert summaries == ["tiny, another setting: evaluation.length 128 (not 256)"]


def test_the_similarity_nearest_to_the_papers_is_named(opened: Opened) -> None:
    rows = opened.shown("#table-2 [data-model='llama-7b'] tbody tr")
    assert len(rows) == 3
    assert ["nearest to the paper's" in row for row in rows] == [False, True, False]
    opened.tab.locator("#table-2 [data-model='llama-7b'] button.place").first.click()
    assert "similarities/wikitext2-" in opened.tab.locator("#details").inner_text()
    assert "nearest" not in " ".join(opened.shown("#table-2 [data-model='tiny']"))
    assert opened.shown("#table-2 [data-model='tiny'] summary")


def test_footnotes_stand_where_the_paper_misprints(opened: Opened) -> None:
    notes = opened.shown('#table-3 [data-model="llama-7b"] ul.note li')
    assert any("printed 9.3%, recomputed 8.8% better" in note for note in notes)
    marks = opened.shown('#table-3 [data-model="llama-7b"] td sup')
    assert len(marks) >= len(notes)


def test_commands_can_be_copied(opened: Opened) -> None:
    opened.tab.locator("[data-copy]").first.click()
    opened.tab.wait_for_selector("text=/Copied|Selected/")
    assert opened.tab.evaluate("getSelection().toString()") == opened.shown("#gaps code")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, page_file: Path, scheme: str) -> None:
    """A contrast of 4.5, as WCAG 2.1 asks of small text."""
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(page_file.as_uri())
    names = ("ground", "panel", "ink", "soft", "better", "worse", "accent")
    colours = tab.evaluate(
        "names => names.map(n => getComputedStyle(document.documentElement)"
        ".getPropertyValue('--' + n).trim())",
        names,
    )
    tab.close()
    light = {name: luminance(colour) for name, colour in zip(names, colours, strict=True)}
    for text in names[2:]:
        for ground in names[:2]:
            low, high = sorted((light[text], light[ground]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def luminance(colour: str) -> float:
    """Of `#rrggbb`, relative, as WCAG 2.1 defines it."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
