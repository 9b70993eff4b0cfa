"""How figures look: colours, markers and matplotlib's settings, and how figures are saved.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart. Every
method and every dataset keeps its own colour and marker in all figures; a method's are those of
its file in `conf/method`.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nsvd_exp.report.model.methods import ShownMethod
from nsvd_exp.report.model.results import Line
from nsvd_exp.report.render.text import row_title
from nsvd_exp.storage.files import write_atomically

log = logging.getLogger(__name__)

# The page replaces these three by colours of its theme, so that it has a dark mode.
INK, RULE, GROUND = "#1c2024", "#d9dde2", "#ffffff"

BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PINK, GREY, OLIVE = "#56b4e9", "#cc79a7", "#7a828a", "#94842a"

DASHED = (0, (3, 2))
PAPERS_MARK: dict[str, Any] = {"color": INK, "marker": "+", "markersize": 6, "linestyle": "none"}


@dataclass(frozen=True)
class Style:
    """How a method or a dataset is drawn.

    Attributes:
        colour: any that matplotlib knows.
        hollow: whether the markers are outlines on a dashed line. The second variant of a method
            is hollow, so that the first is seen through it where the two coincide.
    """

    colour: str
    marker: str
    hollow: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Axes.plot`."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": 7.5 if self.hollow else 4.5,
            "markerfacecolor": "none" if self.hollow else self.colour,
            "linestyle": DASHED if self.hollow else "-",
        }


# For methods that have no style of their own, or share it with another line of the figure.
OTHER_STYLES = (
    Style(VERMILION, "*"), Style(GREEN, "p"), Style(BLUE, "h"), Style(PINK, "d"),
)  # fmt: skip
DATASET_STYLES = (
    Style(GREY, "X"), Style(BLUE, "o"), Style(SKY, "s"), Style(GREEN, "^"), Style(OLIVE, "v"),
    Style(ORANGE, "D"), Style(VERMILION, "P"), Style(PINK, "*"),
)  # fmt: skip


def style_of(method: ShownMethod) -> Style | None:
    """The style that the configuration of a method gives it; None where it gives none.

    A colour or marker that matplotlib does not know counts as none, with a warning.
    """
    plot = method.plot
    if not plot:
        return None
    colour, marker = plot.get("color", ""), str(plot.get("marker", "o"))
    if is_color_like(colour) and marker in Line2D.markers:
        return Style(colour, marker, bool(plot.get("hollow", False)))
    log.warning("method %s: plot %s is no colour and marker of matplotlib", method.name, dict(plot))
    return None


def line_styles(lines: Iterable[Line]) -> dict[str, Style]:
    """A style for each method and k1, by title; no two of the first few are the same."""
    styles: dict[str, Style] = {}
    others = iter(OTHER_STYLES * 10)
    for line in lines:
        title, own = row_title(line), style_of(line.method)
        if title not in styles:
            free = own is not None and own not in styles.values()
            styles[title] = own if own is not None and free else next(others)
    return styles


SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "text.parse_math": False,  # titles are text, whatever stands in them
    "svg.hashsalt": "nsvd_exp",
}

# A date or a version would change a committed file each time it is made.
NO_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw with SETTINGS, whatever the user's own matplotlibrc says.

    A character that the font lacks is a box in the figure, of which nothing more is said.
    """
    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@styled()
def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write `folder/name.<format>` for each format; the same figure gives the same bytes."""
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    _lay_out(figure)
    for path, suffix in zip(paths, formats, strict=True):
        write_atomically(
            path,
            lambda target, suffix=suffix: figure.savefig(  # type: ignore[misc]
                target, format=suffix, dpi=160, metadata=NO_METADATA.get(suffix)
            ),
        )
    return paths


@styled()
def svg_text(figure: Figure) -> str:
    """The figure as SVG; the same figure gives the same text."""
    _lay_out(figure)
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=NO_METADATA["svg"])
    return written.getvalue()


def _lay_out(figure: Figure) -> None:
    """Find the layout once, and not again for each format."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
