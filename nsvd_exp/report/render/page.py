"""The page `index.html`: everything in one file, which needs no network and no other file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import jinja2
from markupsafe import Markup

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.gaps import Gap
from nsvd_exp.report.model.intervals import Interval
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.report import SIMILARITY_TABLE
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block
from nsvd_exp.report.render.page_details import Details
from nsvd_exp.report.render.page_views import headline, similarity_view, view_of
from nsvd_exp.report.render.plot_style import GROUND, INK, RULE
from nsvd_exp.report.render.text import STATES, paper_title, percent, ratio_title

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Drawing:
    """A figure of the page, and the number of the table beneath which it stands."""

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
        tables: the blocks of each table but Table 2, by number.
        similarities: the blocks of Table 2; None where it is not asked for.
        gaps: what is missing, and the commands that fill it.
        problems: one message for each file that could not be read.
    """

    source: str
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock] | None
    drawings: list[Drawing]
    gaps: Sequence[Gap]
    problems: Sequence[str]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of all tables."""
        return [block for blocks in self.tables.values() for block in blocks]

    @property
    def numbers(self) -> list[int]:
        """The numbers of its tables, with Table 2 where it is asked for."""
        others = [] if self.similarities is None else [SIMILARITY_TABLE]
        return sorted([*self.tables, *others])

    @property
    def stored_models(self) -> list[str]:
        """Titles of the models of which something is stored."""
        stored = [block.model for block in self.blocks if block.setting is not None]
        return list(dict.fromkeys([*stored, *(b.model for b in self.similarities or [])]))

    @property
    def other_models(self) -> list[str]:
        """Titles of the models of which only the paper's numbers are there."""
        shown = dict.fromkeys(block.model for block in self.blocks)
        return [model for model in shown if model not in self.stored_models]

    @property
    def newest(self) -> str:
        """When its newest number was measured, UTC.

        The page carries this date and not today's, so that one store always gives the same page.
        """
        return max((b.setting.newest for b in self.blocks if b.setting is not None), default="")


def page_text(page: Page) -> str:
    """The page as HTML."""
    details = Details()
    tables = {n: [view_of(block, details) for block in bs] for n, bs in page.tables.items()}
    similarities = [similarity_view(block, details) for block in page.similarities or []]
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            page=page,
            tables=tables,
            similarities=similarities,
            papers_similarities=paper.similarities(),
            papers_datasets=dataset_titles(),
            similarity_model=paper.SIMILARITY_MODEL,
            captions=paper.CAPTIONS,
            headlines=[(b.model, text) for b in page.tables.get(1, []) if (text := headline(b))],
            drawings=[(d, _inline_svg(d.svg, f"f{n}-")) for n, d in enumerate(page.drawings)],
            version=metadata.version("nsvd_exp"),
            states=STATES,
            data=details.data,
        )
    )


@cache
def _environment() -> jinja2.Environment:
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
        "paper_title": paper_title,
        "gain": _gain,
        "tint": _tint,
    }
    environment.tests["unsure"] = _is_unsure
    return environment


def _gain(improvement: float) -> str:
    """The size of an improvement; `×12` where a perplexity is that many times ASVD-I's."""
    times = 1 - improvement
    return f"×{times:,.0f}" if times >= 10 else percent(abs(improvement))[1:]


def _tint(improvement: float) -> int:
    """How strongly an entry is coloured, from 0 to 100; an improvement of 50% has it all."""
    return round(100 * min(abs(improvement) / 0.5, 1) ** 0.5)


def _is_unsure(bounds: Interval | None) -> bool:
    """Whether an interval holds 0."""
    return bounds is not None and bounds[0] <= 0 <= bounds[1]


def _inline_svg(path: Path, prefix: str) -> Markup:
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
