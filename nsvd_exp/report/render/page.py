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
from nsvd_exp.report.model.entries import RUINED
from nsvd_exp.report.model.headline import MEASURES
from nsvd_exp.report.model.intervals import FEWEST_WINDOWS, Interval
from nsvd_exp.report.model.report import Report
from nsvd_exp.report.model.results import columns_of
from nsvd_exp.report.render import accuracies, continuations, equal_size
from nsvd_exp.report.render.headline import headlines
from nsvd_exp.report.render.markup import HTML
from nsvd_exp.report.render.page_details import Details
from nsvd_exp.report.render.page_views import protocol, result_rows, similarity_view, view_of
from nsvd_exp.report.render.plot_style import GROUND, INK, RULE
from nsvd_exp.report.render.profile_tables import predicted_text, quantity_text
from nsvd_exp.report.render.text import (
    REFERENCE,
    STATES,
    change,
    group_title,
    layout_title,
    left_out,
    nats,
    paper_title,
    percent,
    printed,
    ratio_title,
    times,
)

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        svg: as text.
        svg_with_paper: the same figure with the paper's numbers; empty where it has none.
    """

    title: str
    caption: str
    model: str
    svg: str
    svg_with_paper: str = ""


def page_text(
    report: Report, drawings: Sequence[Drawing], undrawn: Sequence[str], with_paper: bool
) -> str:
    """The page as HTML.

    Args:
        undrawn: the models of which some figures are left out.
        with_paper: whether the paper's numbers are shown from the beginning.
    """
    details = Details()
    rows = result_rows(report.groups, details)
    text = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            rows=rows,
            datasets=columns_of(report.groups),
            methods=list(dict.fromkeys(row.line.title for row in rows)),
            ratios=sorted({r for group in report.groups for r in group.ratios}),
            headlines=[
                found for measure in MEASURES for found in headlines(report.groups, measure)
            ],
            tables={n: [view_of(b, details) for b in bs] for n, bs in report.tables.items()},
            similarities=[similarity_view(block, details) for block in report.similarities],
            papers_similarities=paper.similarities(),
            similarity_model=paper.SIMILARITY_MODEL,
            equal_size=equal_size.by_group(report.equal_size),
            equal_size_title=equal_size.TITLE,
            equal_size_legend=equal_size.legend(report.equal_size),
            accuracies=[(block, accuracies.table_of([block], HTML)) for block in report.accuracies],
            accuracy_title=accuracies.TITLE,
            accuracy_legend=accuracies.LEGEND,
            continuations_title=continuations.TITLE,
            continuations_legend=continuations.LEGEND,
            drawings=[(d, _layers(d, f"f{number}")) for number, d in enumerate(drawings)],
            undrawn=undrawn,
            has_paper=bool(report.numbers) or any(d.svg_with_paper for d in drawings),
            with_paper=with_paper,
            newest=max((group.setting.newest for group in report.groups), default=""),
            left_out=left_out(report.groups),
            ruined=RUINED,
            fewest=FEWEST_WINDOWS,
            version=metadata.version("nsvd_exp"),
            states=STATES,
            reference=REFERENCE,
            data=details.data,
        )
    )
    return re.sub(r"\n\s+", "\n", text)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {
        "separators": (",", ":"), "sort_keys": False, "ensure_ascii": False,
    }  # fmt: skip
    environment.filters |= {
        "perplexity": format_perplexity,
        "printed": printed,
        "percent": percent,
        "change": change,
        "times": times,
        "quantity": quantity_text,
        "predicted": predicted_text,
        "nats": nats,
        "ratio": ratio_title,
        "protocol": protocol,
        "group_title": group_title,
        "layout_title": layout_title,
        "paper_title": paper_title,
        "equal_size_sentence": equal_size.sentence,
        "equal_size_table": lambda block: equal_size.table_of([block], HTML),
        "line_title": continuations.line_title,
        "prompt_title": continuations.prompt_title,
        "written": continuations.html_text,
        "gain": _gain,
        "tint": _tint,
    }
    environment.tests["unsure"] = _is_unsure
    return environment


def _gain(improvement: float) -> str:
    """The size of an improvement; `×12` where a perplexity is that many times ASVD-I's."""
    return change(improvement).lstrip("+−")


def _tint(improvement: float) -> int:
    """How strongly an entry is coloured, from 0 to 100; an improvement of 50% has it all."""
    return round(100 * min(abs(improvement) / 0.5, 1) ** 0.5)


def _is_unsure(bounds: Interval | None) -> bool:
    """Whether an interval holds 0."""
    return bounds is not None and bounds[0] <= 0 <= bounds[1]


def _layers(drawing: Drawing, prefix: str) -> list[tuple[str, Markup]]:
    """What the page shows of a figure: a class, by which its switch finds it, and the SVG."""
    if not drawing.svg_with_paper:
        return [("", _inline_svg(drawing.svg, f"{prefix}-"))]
    return [
        ("no-paper", _inline_svg(drawing.svg, f"{prefix}-")),
        ("paper", _inline_svg(drawing.svg_with_paper, f"{prefix}p-")),
    ]


def _inline_svg(text: str, prefix: str) -> Markup:
    """The `svg` element of a file, with ids of its own, in the colours of the page's theme."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for colour, variable in ((INK, "--ink"), (RULE, "--rule"), (GROUND, "--ground")):
        text = text.replace(colour, f"var({variable})")
    return Markup(text)
