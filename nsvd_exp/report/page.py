"""`index.html`: one page with all of it, which needs no network and no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jinja2
from markupsafe import Markup

from nsvd_exp.experiment.improvement import IN_DOMAIN
from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report import paper
from nsvd_exp.report.entries import Block, Interval, Line
from nsvd_exp.report.figures import GROUND, INK, RULE
from nsvd_exp.report.gaps import Gap
from nsvd_exp.report.page_details import Details
from nsvd_exp.report.protocol import dataset_titles
from nsvd_exp.report.similarities import SimilarityBlock
from nsvd_exp.report.text import STATES, note_marks, percent, ratio_title, row_title
from nsvd_exp.storage.results import write_atomically

TEMPLATE = "page.html.jinja"
SIMILARITY_TABLE = 2

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PREFERRED = ("nsvd_i", "nsvd_ii", "nid_i", "nid_ii")
PREFERRED_RATIO = 0.3  # the one that most of the paper's tables are at

STATISTIC_TITLES = {
    "mean": "mean activation of each channel",
    "abs_mean": "mean absolute activation of each channel",
    "gram": "Gram matrix, flattened",
}


@dataclass(frozen=True)
class Drawing:
    """A figure, and the number of the table beneath which it stands."""

    table: int
    title: str
    caption: str
    model: str
    svg: Path


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        source: the `results_dir`, as the user wrote it.
        tables: blocks by number, without Table 2.
        similarities: of Table 2; None where it is not asked for.
        gaps: what is missing, and the command that does it.
        problems: one message a file that could not be read.
    """

    source: str
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock] | None
    drawings: list[Drawing]
    gaps: Sequence[Gap]
    problems: Sequence[str]

    @property
    def blocks(self) -> list[Block]:
        """Of all tables."""
        return [block for blocks in self.tables.values() for block in blocks]

    @property
    def numbers(self) -> list[int]:
        """Of its tables, Table 2 among them."""
        others = [] if self.similarities is None else [SIMILARITY_TABLE]
        return sorted([*self.tables, *others])

    @property
    def stored_models(self) -> list[str]:
        """Titles of which something is stored."""
        stored = [block.model for block in self.blocks if block.setting is not None]
        return list(dict.fromkeys([*stored, *(b.model for b in self.similarities or [])]))

    @property
    def other_models(self) -> list[str]:
        """Titles of which only the paper's numbers are there."""
        shown = dict.fromkeys(block.model for block in self.blocks)
        return [model for model in shown if model not in self.stored_models]

    @property
    def newest(self) -> str:
        """When its newest number was measured, UTC: the page's date, so that the same store always
        gives the same page."""
        return max((b.setting.newest for b in self.blocks if b.setting is not None), default="")


def write_page(path: Path, page: Page) -> None:
    """Write `page` to `path`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": False}
    environment.filters |= {
        "perplexity": format_perplexity,
        "percent": percent,
        "ratio": ratio_title,
        "gain": gain,
        "tint": tint,
    }
    environment.tests["unsure"] = is_unsure
    details = Details()
    tables = {number: [_view(b, details) for b in blocks] for number, blocks in page.tables.items()}
    similarities = [_similarity_view(block, details) for block in page.similarities or []]
    content = environment.get_template(TEMPLATE).render(
        page=page,
        tables=tables,
        similarities=similarities,
        papers_similarities=paper.similarities(),
        papers_datasets=dataset_titles(),
        similarity_model=paper.SIMILARITY_MODEL,
        captions=paper.CAPTIONS,
        headlines=[(b.model, text) for b in page.tables.get(1, []) if (text := headline(b))],
        drawings=[(d, inline_svg(d.svg, f"f{n}-")) for n, d in enumerate(page.drawings)],
        version=metadata.version("nsvd_exp"),
        states=STATES,
        data=details.data,
    )
    write_atomically(path, lambda file: file.write_text(content, encoding="utf-8"))


@dataclass(frozen=True)
class View:
    """A block with what the template needs beside it.

    Attributes:
        groups: its lines by ratio.
        titles: of its lines: method, and k1 where it has one.
        details: what is kept of each entry, by line and dataset; see `Details`.
        marks: of its footnotes.
        protocol: what it was measured with, for people.
    """

    block: Block
    groups: list[tuple[float | None, list[Line]]]
    titles: dict[paper.Row, str]
    details: dict[tuple[paper.Row, str], int | None]
    marks: dict[str, str]
    protocol: str

    @property
    def id(self) -> str:
        """In the page."""
        return _id(f"table-{self.block.table}-{self.block.model}-{self.block.place}")

    @property
    def has_papers(self) -> dict[paper.Row, bool]:
        """Whether a number of the paper stands in the line."""
        return {
            line.row: any(entry.printed is not None for entry in line.entries.values())
            for line in self.block.lines
        }

    @property
    def papers_label(self) -> str:
        """What a number of the paper is called: its model, where that is another one."""
        other = self.block.paper_model not in (None, self.block.model)
        return f"paper, {self.block.paper_model}" if other else "paper"

    @property
    def papers_note(self) -> str:
        """Why no difference to the paper's numbers is taken, where none is."""
        block = self.block
        entries = [entry for line in block.lines for entry in line.entries.values()]
        shown = [e for e in entries if e.printed is not None and e.perplexity is not None]
        if block.setting is None or any(entry.comparable for entry in shown):
            return ""
        if block.paper_model not in (None, block.model):
            return (
                f"Grey: the paper's numbers of {block.paper_model}, another model, so no "
                "difference is taken."
            )
        if not shown:
            return ""
        return (
            "Grey: the paper's numbers. Calibration, text or model are not the paper's, so no "
            "difference is taken."
        )


def _view(block: Block, details: Details) -> View:
    lines = {r: [line for line in block.lines if line.row.ratio == r] for r in block.ratios}
    titles = {line.row: row_title(line) for line in block.lines}
    places = {
        (line.row, name): details.of_entry(block, line, name, entry)
        for line in block.lines
        for name, entry in line.entries.items()
    }
    return View(block, list(lines.items()), titles, places, note_marks([block]), protocol(block))


@dataclass(frozen=True)
class SimilarityView:
    """A block of Table 2 with what the template needs beside it.

    Attributes:
        rows: title, whether it is the nearest to the paper's, distance to the paper's, and by
            dataset mean, deviation and details.
    """

    block: SimilarityBlock
    rows: list[tuple[str, bool, float | None, dict[str, tuple[float, float, int]]]]

    @property
    def id(self) -> str:
        """In the page."""
        return _id(f"table-{SIMILARITY_TABLE}-{self.block.model}-{self.block.place}")

    @property
    def protocol(self) -> str:
        """As of `protocol`."""
        records = self.block.records.values()
        parts = [
            _joined(f"{record['dataset']['length']}-token windows" for record in records),
            _joined(record["dtype"] for record in records),
            _joined(record["calibration"]["title"] for record in records),
        ]
        return " · ".join(parts)


def _similarity_view(block: SimilarityBlock, details: Details) -> SimilarityView:
    rows = []
    for statistic in block.statistics:
        title = STATISTIC_TITLES[statistic]
        values = {
            name: (found.mean, found.std, details.of_similarity(block, title, statistic, name))
            for name, found in block.spreads[statistic].items()
        }
        distance = block.distance(statistic) if block.comparable else None
        rows.append((title, statistic == block.nearest, distance, values))
    return SimilarityView(block, rows)


def _id(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def protocol(block: Block) -> str:
    """Windows, precision and calibration of a block, as far as its numbers share them."""
    if block.setting is None:
        return ""
    numbers, cells = block.setting.numbers, block.setting.cells
    parts = [
        _joined(f"{n.stored['length']}-token windows" for n in numbers),
        _joined(f"at most {n.stored['max_windows']} a set" for n in numbers
                if n.stored["max_windows"] is not None),
        _joined(cell["dtype"] for cell in cells),
        _joined(f"solver {cell['solver']}" for cell in cells if cell["solver"] is not None),
        _joined(cell["calibration"]["title"] for cell in cells if cell["calibration"] is not None),
    ]  # fmt: skip
    return " · ".join(part for part in parts if part)


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def gain(improvement: float) -> str:
    """Its size without a sign; `×12` where a perplexity is that many times ASVD-I's."""
    times = 1 - improvement
    return f"×{times:,.0f}" if times >= 10 else percent(abs(improvement))[1:]


def tint(improvement: float) -> int:
    """How strongly an entry is coloured, 0 to 100: in full from 50% on."""
    return round(100 * min(abs(improvement) / 0.5, 1) ** 0.5)


def headline(block: Block) -> Markup | None:
    """One sentence on the average improvement of the first of PREFERRED that has one; None where
    there is none, or the block is not the model's main one."""
    found = [
        line
        for line in block.lines
        if block.place == 0 and line.row.method in PREFERRED and line.average.value is not None
    ]
    if not found:
        return None
    line = min(found, key=lambda ln: (ln.row.ratio != PREFERRED_RATIO, _rank(ln), ln.row.ratio))
    value, bounds = line.average.value, line.average.interval
    assert value is not None
    sets = len([name for name in block.datasets if name != IN_DOMAIN])
    said = Markup(
        "<b>{model}</b> at {ratio}: {title} has <strong>{size} {direction} perplexity</strong> "
        "than ASVD-I on average over {sets}"
    ).format(
        model=block.model,
        ratio=ratio_title(line.row.ratio),
        title=line.title,
        size=f"{abs(100 * value):.1f}%",
        direction="lower" if value >= 0 else "higher",
        sets="one set" if sets == 1 else f"{COUNTS[sets] if sets < len(COUNTS) else sets} sets",
    )
    if bounds is not None:
        low, high = bounds if value >= 0 else (-bounds[1], -bounds[0])
        said += f" (95%: {_plain(low)} to {_plain(high)})"
    if line.average.printed is not None and block.paper_model == block.model:
        printed = line.average.printed
        said += f"; in the paper {_plain(abs(printed))} {'lower' if printed >= 0 else 'higher'}"
    return said + "."


def _rank(line: Line) -> int:
    return PREFERRED.index(line.row.method)


def _plain(fraction: float) -> str:
    return f"{100 * fraction:.1f}%".replace("-", "−")


def is_unsure(bounds: Interval | None) -> bool:
    """Whether an interval holds 0."""
    return bounds is not None and bounds[0] <= 0 <= bounds[1]


def inline_svg(path: Path, prefix: str) -> Markup:
    """The `svg` element of a file, with ids of its own, in the colours of the page's theme."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for colour, variable in ((INK, "--ink"), (RULE, "--rule"), (GROUND, "--ground")):
        text = text.replace(colour, f"var({variable})")
    return Markup(text)
