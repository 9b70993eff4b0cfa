"""The page of the report in a browser: nothing overflows, everything can be reached and asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import AWKWARD_TITLE, write_full_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`index.html` of a store with everything."""
    return write_full_page(tmp_path_factory.mktemp("page"))


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
    for model in ("tiny", AWKWARD_TITLE):
        tab.select_option("#model", model)
        assert set(opened.shown("main h3")) == {model}
        assert opened.shown("#table-1 table.numbers")
        assert all(said.startswith(model) for said in opened.shown(".headlines [data-model]"))
    tab.select_option("#model", "")
    assert set(opened.shown("main h3")) == {"tiny", "llama-7b", AWKWARD_TITLE}


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
