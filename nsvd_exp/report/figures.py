"""Figure 1 of the paper, perplexity against ratio, and against k1. Nothing of pyplot's state.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; every method and
every dataset keeps its own, and its marker, in all figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nsvd_exp.experiment.improvement import IN_DOMAIN
from nsvd_exp.report import paper
from nsvd_exp.report.entries import Block, Line
from nsvd_exp.report.similarities import SimilarityBlock
from nsvd_exp.report.text import percent, ratio_title, row_title
from nsvd_exp.storage.files import write_atomically

# The page puts its own colours in the place of these, so that it has a dark mode.
INK, RULE, GROUND = "#1c2024", "#d9dde2", "#ffffff"

BLUE, ORANGE, GREEN, VERMILION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
SKY, PINK, GREY, OLIVE = "#56b4e9", "#cc79a7", "#7a828a", "#94842a"


@dataclass(frozen=True)
class Style:
    """How one method or dataset is drawn; a method's second variant is hollow, so that the first
    is seen through it where they coincide."""

    colour: str
    marker: str
    hollow: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """As `Axes.plot` takes them."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": 7.5 if self.hollow else 4.5,
            "markerfacecolor": "none" if self.hollow else self.colour,
            "linestyle": DASHED if self.hollow else "-",
        }


METHOD_STYLES = {
    "dense": Style(GREY, ""),
    "svd": Style(GREY, "X"),
    "asvd_0": Style(PINK, "v"),
    "asvd_i": Style(ORANGE, "s"),
    "asvd_ii": Style(OLIVE, "s", hollow=True),
    "asvd_iii": Style(PINK, "P"),
    "nsvd_i": Style(BLUE, "o"),
    "nsvd_ii": Style(SKY, "o", hollow=True),
    "nid_i": Style(GREEN, "D"),
    "nid_ii": Style(VERMILION, "D", hollow=True),
}
OTHER_STYLES = (
    Style(VERMILION, "*"), Style(GREEN, "p"), Style(BLUE, "h"), Style(PINK, "d"),
)  # fmt: skip
DATASET_STYLES = (
    Style(GREY, "X"), Style(BLUE, "o"), Style(SKY, "s"), Style(GREEN, "^"), Style(OLIVE, "v"),
    Style(ORANGE, "D"), Style(VERMILION, "P"), Style(PINK, "*"),
)  # fmt: skip

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
    "svg.hashsalt": "nsvd_exp",
}

# A date or a version would change a committed file each time.
NO_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}

COLUMNS, BINS = 4, 20
DASHED = (0, (3, 2))
PAPERS_MARK: dict[str, Any] = {"color": INK, "marker": "+", "markersize": 6, "linestyle": "none"}


@contextmanager
def _styled() -> Iterator[None]:
    """Draws as SETTINGS say, whatever the user's own matplotlibrc does."""
    with matplotlib.style.context(["default", SETTINGS]):
        yield


def _panels(names: Sequence[str], height: float, **shared: Any) -> tuple[Figure, dict[str, Axes]]:
    """A grid of panels of COLUMNS columns, one a name; `height` of a row in inches."""
    rows = math.ceil(len(names) / COLUMNS)
    figure = Figure(figsize=(9.6, rows * height + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False, **shared).flat)
    for unused in axes[len(names) :]:
        unused.set_visible(False)
    return figure, dict(zip(names, axes, strict=False))


@_styled()
def figure1(block: SimilarityBlock, statistic: str) -> Figure:
    """Histograms of a similarity over the compressed layers, a panel a dataset, on shared axes.

    A line marks the mean; a dashed one the paper's, where the two may be compared.

    Args:
        statistic: one of `block.statistics`.
    """
    spreads = block.spreads[statistic]
    values = {name: block.values(statistic, name) for name in spreads}
    figure, panels = _panels(list(values), 2.0, sharex=True, sharey=True)
    lowest = math.floor(10 * min(map(min, values.values()))) / 10
    edges = [lowest + (1 - lowest) * step / BINS for step in range(BINS + 1)]
    for name, axes in panels.items():
        ours = spreads[name]
        axes.hist(values[name], bins=edges, color=SKY, edgecolor=GROUND, linewidth=0.6)
        axes.axvline(ours.mean, color=BLUE, linewidth=1.5)
        said = f"{ours.mean:.2f} ± {ours.std:.2f}".replace("-", "−")
        if block.comparable and name in paper.similarities():
            theirs = paper.similarities()[name]
            axes.axvline(theirs[0], color=VERMILION, linewidth=1.5, linestyle=DASHED)
            said += f"  (paper {theirs[0]:.2f} ± {theirs[1]:.2f})"
        axes.set_title(block.datasets[name], pad=17)
        axes.text(0.5, 1.04, said, transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xlim(lowest, 1)
    handles = [Line2D([], [], color=BLUE, label="mean over the layers (± deviation)")]
    if block.comparable:
        handles.append(Line2D([], [], color=VERMILION, linestyle=DASHED, label="the paper's mean"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    figure.supxlabel("cosine similarity of activations to the calibration set's", fontsize=9)
    figure.supylabel("compressed layers", fontsize=9)
    return figure


@_styled()
def against_ratio(block: Block) -> Figure | None:
    """Perplexity (log axis) against the ratio, a panel a dataset; None for fewer than two ratios.

    The dense model is a horizontal line; crosses are the paper's numbers, where the model is its.
    """
    lines = [line for line in block.lines if _has_number(line) and line.row.ratio is not None]
    ratios = sorted({line.row.ratio for line in lines if line.row.ratio is not None})
    if len(ratios) < 2:
        return None
    names = [n for n in block.datasets if any(_number(line, n) is not None for line in lines)]
    figure, panels = _panels(names, 2.15, sharex=True)
    styles = _method_styles(lines)
    for name, axes in panels.items():
        axes.set_yscale("log")
        for title, style in styles.items():
            own = [line for line in lines if row_title(line) == title]
            _plot(axes, [(line.row.ratio, _number(line, name)) for line in own], style)
        for line in block.lines:
            if line.row.ratio is None and (dense := _number(line, name)) is not None:
                axes.axhline(dense, color=INK, linewidth=1, linestyle=":")
        if block.model == block.paper_model:
            printed = [(line.row.ratio, line.entries[name].printed) for line in block.lines]
            axes.plot(*_known(printed), **PAPERS_MARK)
        axes.set_title(block.datasets[name])
        axes.set_xticks(ratios, [ratio_title(ratio) for ratio in ratios])
        _label_log_axis(axes)
    figure.supxlabel("parameters removed", fontsize=9)
    figure.supylabel("perplexity", fontsize=9)
    handles = [Line2D([], [], label=title, **style.options) for title, style in styles.items()]
    handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=":", label="Original"))
    if block.model == block.paper_model:
        handles.append(Line2D([], [], label="paper", **PAPERS_MARK))
    columns = len(handles) if len(handles) <= 8 else math.ceil(len(handles) / 2)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    return figure


@_styled()
def against_k1(block: Block) -> Figure | None:
    """The improvement over ASVD-I against k1: of each dataset, and on average with its interval.

    None for fewer than two k1. k1 = 1 is ASVD-I itself. Crosses are the paper's averages, where
    the model is its.
    """
    lines = [line for line in block.lines if line.row.k1 is not None and _has_improvement(line)]
    lines.sort(key=lambda line: -(line.row.k1 or 0))
    if len(lines) < 2:
        return None
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for place, (name, title) in enumerate(block.datasets.items()):
        style = DATASET_STYLES[place % len(DATASET_STYLES)]
        points = [(line.row.k1, line.entries[name].improvement) for line in lines]
        shown = f"{title} (not in the average)" if name == IN_DOMAIN else title
        _plot(left, [(1.0, 0.0), *points], style, label=shown)
    _plot_average(right, block, lines)
    k1s = [1.0, *(line.row.k1 for line in lines if line.row.k1 is not None)]
    for axes, title in ((left, "each dataset"), (right, "average, with its 95% interval")):
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(title)
        axes.set_xticks(k1s, _staggered(k1s))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percents(value)))
        axes.set_xlabel("k1, fraction of the rank for stage one (1: ASVD-I)")
    left.invert_xaxis()  # shared with the other panel
    left.set_ylabel("improvement over ASVD-I")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=COLUMNS)
    return figure


def _plot_average(axes: Axes, block: Block, lines: Sequence[Line]) -> None:
    """The average improvement of each line, with its interval and its value written beside it."""
    method = lines[0].row.method
    style = METHOD_STYLES.get(method, OTHER_STYLES[0])
    points = [(line.row.k1, line.average.value) for line in lines]
    _plot(axes, [(1.0, 0.0), *points], style)
    for place, line in enumerate(lines):
        k1, average = line.row.k1, line.average
        if k1 is None or average.value is None:
            continue
        if average.interval is not None:
            axes.plot([k1, k1], average.interval, color=style.colour, linewidth=1.5)
        # On the side where the line is not; the first has an axis there.
        side = "left" if average.value < 0 else "right" if place else "center"
        offset = ({"left": 4, "right": -4, "center": 0}[side], 6)
        axes.annotate(
            percent(average.value), (k1, average.value), offset, fontsize=8,
            textcoords="offset points", ha=side,
        )  # fmt: skip
    if block.model == block.paper_model:
        printed = [(line.row.k1, line.average.printed) for line in block.lines if line.row.k1]
        axes.plot(*_known(printed), label="paper", **PAPERS_MARK)
        axes.legend(loc="best")
    axes.margins(x=0.12, y=0.12)


def _number(line: Line, name: str) -> float | None:
    return line.entries[name].perplexity


def _has_number(line: Line) -> bool:
    return any(entry.perplexity is not None for entry in line.entries.values())


def _has_improvement(line: Line) -> bool:
    return any(entry.improvement is not None for entry in line.entries.values())


def _method_styles(lines: Iterable[Line]) -> dict[str, Style]:
    """Of each method and k1, by its title; one that the paper does not have gets the next free."""
    styles: dict[str, Style] = {}
    others = iter(OTHER_STYLES * 10)
    for line in lines:
        title, own = row_title(line), METHOD_STYLES.get(line.row.method)
        if title not in styles:
            free = own is not None and own not in styles.values()
            styles[title] = own if own is not None and free else next(others)
    return styles


def _staggered(k1s: Sequence[float]) -> list[str]:
    """Labels of an axis, on a line below where they would run into the one before."""
    labels: list[str] = []
    for place, k1 in enumerate(k1s):
        close = place > 0 and k1s[place - 1] - k1 < 0.1 * (k1s[0] - k1s[-1])
        is_low = close and not labels[-1].startswith("\n")
        labels.append("\n" * is_low + f"{k1:g}")
    return labels


def _percents(value: float) -> str:
    return f"{round(100 * value, 6):g}%".replace("-", "−")


Points = Sequence[tuple[float | None, float | None]]


def _known(points: Points) -> tuple[list[float], list[float]]:
    """x and y of the points that are there."""
    known = [(x, y) for x, y in points if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _plot(axes: Axes, points: Points, style: Style, **options: Any) -> None:
    axes.plot(*_known(points), linewidth=1.4, **style.options, **options)


TICK_SETS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(1 + 0.2 * n for n in range(45)))


def _label_log_axis(axes: Axes) -> None:
    """Round numbers, three at least: the usual powers of ten would leave most panels with one."""
    low, high = axes.get_ylim()
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in TICK_SETS:
        ticks = [d * 10.0**e for e in exponents for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """`500`, `1e5`, `1.5e5`."""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{value:g}" if value < 1e4 else f"{float(digits):g}e{int(exponent)}"


@_styled()
def save(
    figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("svg", "pdf", "png")
) -> list[Path]:
    """Write `folder/name.<format>` for each format; the same figure gives the same bytes."""
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    for path, suffix in zip(paths, formats, strict=True):
        write_atomically(
            path,
            lambda target, suffix=suffix: figure.savefig(  # type: ignore[misc]
                target, format=suffix, dpi=160, metadata=NO_METADATA.get(suffix)
            ),
        )
    return paths
