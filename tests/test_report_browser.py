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

    def open_layouts(self) -> None:
        """Unfold what is laid out like the paper's tables."""
        self.tab.evaluate(
            "for (const part of document.querySelectorAll('details')) part.open = true"
        )

    def number(self, model: str, method: str, column: int) -> Any:
        """A number of "Your results", by the method's title."""
        rows = self.tab.locator(f'.results tr[data-model="{model}"][data-method="{method}"]')
        return rows.filter(has=self.tab.locator("button")).first.locator("button").nth(column)


@pytest.fixture(params=[1400, 360])
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Opened]:
    """The page in a wide and in a narrow window."""
    opened = Opened(browser, page_file, request.param)
    yield opened
    opened.tab.close()
    assert opened.complaints == []


def test_the_page_opens_with_your_results(opened: Opened) -> None:
    assert opened.shown("h1") == ["Your results"]
    assert len(opened.shown(".results tbody tr")) > 15
    titles = ["At equal size: what each step buys", "Plots", "Laid out like the paper's tables"]
    assert opened.shown("main h2") == titles
    assert opened.shown("#plots figure svg")
    summaries = opened.shown(".layout > summary")
    assert [text.split(" of the paper:")[0] for text in summaries] == [
        f"Laid out like Table {number}" for number in range(1, 7)
    ]
    assert not opened.shown(".layout table")
    opened.open_layouts()
    for number in range(1, 7):
        assert opened.shown(f"#table-{number} table.numbers")
    assert opened.shown("#gaps code")


def test_nothing_overflows(opened: Opened) -> None:
    tab = opened.tab
    opened.open_layouts()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # What is wider than the window scrolls in a box of its own, beside its first column.
    box = tab.locator("#results > .scroll")
    box.evaluate("box => { box.scrollLeft = 200; }")
    title = box.locator("tbody th").first.bounding_box()
    assert title["x"] == pytest.approx(box.bounding_box()["x"], abs=1)
    assert title["width"] < 0.3 * tab.viewport_size["width"]


def test_the_filters_leave_what_is_asked_for(opened: Opened) -> None:
    tab = opened.tab
    opened.open_layouts()
    for model in ("tiny", AWKWARD_TITLE):
        tab.select_option("#model", model)
        assert {name.split("\n")[0] for name in opened.shown(".results td.name")} == {model}
        assert {name.split(", ")[0] for name in opened.shown(".layout h3")} == {model}
        assert all(said.startswith(model) for said in opened.shown(".headlines > [data-model]"))
        assert all(f", {model}" in said for said in opened.shown("#gaps .gap"))
    tab.select_option("#model", "tiny")
    tab.select_option("#method", "NSVD-I")
    assert set(opened.shown(".results tbody th")) == {"NSVD-I"}
    tab.select_option("#method", "")
    tab.select_option("#ratio", "50%")
    assert set(opened.shown(".results tbody td:nth-child(3)")) == {"", "50%"}
    assert set(opened.shown("#table-1 .group th")) == {"50% removed"}
    assert opened.shown("#equal-size tbody th")[0] == "ASVD-I, pivoted, fisher"
    tab.select_option("#ratio", "30%")
    assert opened.shown("#equal-size tbody") == []
    for choice in ("#model", "#ratio"):
        tab.select_option(choice, "")
    models = {name.split("\n")[0] for name in opened.shown(".results td.name")}
    assert models == {"tiny", "llama-7b", AWKWARD_TITLE}


def test_the_filters_are_in_the_address(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, 1400, "#table-1&model=tiny&measure=nats")
    assert {name.split("\n")[0] for name in opened.shown(".results td.name")} == {"tiny"}
    assert opened.shown("#table-1 table")
    assert opened.shown(".results [data-measure='nats']")
    opened.tab.locator(".links a", has_text="Gaps").click()
    opened.tab.wait_for_url("**#gaps&model=tiny&measure=nats")
    opened.tab.select_option("#model", "llama-7b")
    opened.tab.select_option("#measure", "improvement")
    assert opened.tab.url.endswith("#gaps&model=llama-7b")
    opened.tab.reload()
    assert {name.split("\n")[0] for name in opened.shown(".results td.name")} == {"llama-7b"}
    assert opened.complaints == []
    opened.tab.close()


def test_a_heading_sorts(opened: Opened) -> None:
    heading = opened.tab.locator(".results .sort", has_text="PTB")
    stored = opened.shown(".results td:nth-child(6)")

    def numbers() -> list[float]:
        texts = opened.shown(".results td:nth-child(6)")
        return [float(text.split()[0]) for text in texts if text[:1].isdigit()]

    heading.click()
    assert numbers() == sorted(numbers())
    heading.click()
    assert numbers() == sorted(numbers(), reverse=True)
    heading.click()
    assert opened.shown(".results td:nth-child(6)") == stored


def test_a_reader_can_switch_the_measure(opened: Opened) -> None:
    averages = ".results td.average b"
    assert all("%" in text or "×" in text for text in opened.shown(averages))
    said = opened.shown(".headlines > li[data-model='tiny']")
    opened.tab.select_option("#measure", "nats")
    assert not any("%" in text for text in opened.shown(averages))
    assert opened.shown(averages)
    assert opened.shown(".headlines > li[data-model='tiny']") != said
    assert "Nats over" in " ".join(opened.shown(".results th.average"))


def test_a_click_shows_where_a_number_came_from(opened: Opened) -> None:
    panel = opened.tab.locator("#details")
    assert panel.is_hidden()
    opened.number("llama-7b", "NSVD-I", 0).click()
    said = panel.inner_text()
    for expected in (
        "llama-7b · NSVD-I",
        "95% interval",
        "cells/nsvd_i-0.3",
        "0123456789abcdef",
    ):
        assert expected in said
    box, size = panel.bounding_box(), opened.tab.viewport_size
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    opened.tab.keyboard.press("Escape")
    assert panel.is_hidden()
    opened.number("tiny", "NSVD-I", 1).click()
    assert "nats over dense (95%)" in panel.inner_text()
    opened.tab.keyboard.press("Escape")
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
    opened.open_layouts()
    for block in (".results ", '#table-1 [data-model="tiny"] '):
        assert set(opened.shown(f"{block} td.failed")) == {"failed"}
        assert set(opened.shown(f"{block} td.partial")) <= {"unfinished"}
        assert set(opened.shown(f"{block} td.missing")) <= {"–"}
    assert opened.shown('#table-1 [data-model="tiny"] td.partial')
    assert opened.shown('#table-1 [data-model="tiny"] td.missing')


def test_the_papers_numbers_are_a_switch(opened: Opened) -> None:
    opened.open_layouts()
    block = '#table-3 [data-model="llama-7b"] '
    assert not opened.shown("main .paper, main td em")
    opened.tab.check("#with-paper")
    differences = opened.shown(f"{block} .difference")
    assert differences
    assert set(differences) == {"+1.0%"}
    assert not opened.shown('[data-model="tiny"] .difference')
    opened.tab.uncheck("#with-paper")
    assert not opened.shown("main .paper, main td em")


def test_the_papers_crosses_follow_the_switch(opened: Opened) -> None:
    figures = opened.tab.locator("#plots figure[data-model='llama-7b']")
    without, crossed = opened.shown("#plots .no-paper svg"), "#plots .paper svg"
    assert len(without) == 1  # of Figure 1; one ratio of the paper's model has no crosses
    assert not opened.shown(crossed)
    opened.tab.check("#with-paper")
    assert len(opened.shown(crossed)) == len(without)
    assert not opened.shown("#plots .no-paper svg")
    opened.tab.uncheck("#with-paper")
    assert not opened.shown(crossed)
    assert figures.count() > 1


def test_another_setting_says_what_differs(opened: Opened) -> None:
    said = opened.shown(".results tr[data-model='tiny'] td.name small")
    assert set(said) == {"windows of 128 tokens"}


def test_the_similarity_nearest_to_the_papers_is_named(opened: Opened) -> None:
    opened.open_layouts()
    opened.tab.check("#with-paper")
    rows = opened.shown("#table-2 [data-model='llama-7b'] tbody tr")
    assert len(rows) == 3
    assert ["nearest to the paper's" in row for row in rows] == [False, True, False]
    opened.tab.locator("#table-2 [data-model='llama-7b'] button").first.click()
    assert "similarities/wikitext2-" in opened.tab.locator("#details").inner_text()
    assert "nearest" not in " ".join(opened.shown("#table-2 [data-model='tiny']"))
    assert opened.shown("#table-2 [data-model='tiny'] h3")[1:] == ["tiny, windows of 128 tokens"]


def test_footnotes_stand_where_the_paper_misprints(opened: Opened) -> None:
    opened.open_layouts()
    opened.tab.check("#with-paper")
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
