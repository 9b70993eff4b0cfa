"""Figure 1 of the paper, perplexity against ratio, and improvement against k1.

Figures are made without pyplot, so they share no state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from nsvd_exp.experiment.improvement import IN_DOMAIN
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.methods import shown_method
from nsvd_exp.report.model.paper import DENSE
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block, Line
from nsvd_exp.report.render.plot_style import (
    BLUE,
    DASHED,
    DATASET_STYLES,
    GROUND,
    INK,
    OTHER_STYLES,
    PAPERS_MARK,
    SKY,
    VERMILION,
    Style,
    line_styles,
    style_of,
    styled,
)
from nsvd_exp.report.render.text import percent, ratio_title, row_title

COLUMNS, BINS = 4, 20

Points = Sequence[tuple[float | None, float | None]]
"""x and y; a point with a None is left out."""


def _panels(names: Sequence[str], height: float, **shared: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel per name, in COLUMNS columns; `height` of a row in inches."""
    rows = math.ceil(len(names) / COLUMNS)
    figure = Figure(figsize=(9.6, rows * height + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False, **shared).flat)
    for unused in axes[len(names) :]:
        unused.set_visible(False)
    return figure, dict(zip(names, axes, strict=False))


@styled()
def figure1(block: SimilarityBlock, statistic: str) -> Figure:
    """Histograms of a similarity over the compressed layers: one panel per dataset, shared axes.

    A line marks the mean; a dashed line marks the paper's, where the two may be compared.

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


@styled()
def against_ratio(block: Block) -> Figure | None:
    """Perplexity (log axis) against the ratio, one panel per dataset.

    The dense model is a horizontal line. Crosses are the paper's numbers, if the model is its own.

    Returns:
        None for fewer than two ratios.
    """
    lines = [line for line in block.lines if _has_number(line) and line.row.ratio is not None]
    ratios = sorted({line.row.ratio for line in lines if line.row.ratio is not None})
    if len(ratios) < 2:
        return None
    names = [n for n in block.datasets if any(_number(line, n) is not None for line in lines)]
    figure, panels = _panels(names, 2.15, sharex=True)
    styles = line_styles(lines)
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
    _ratio_legend(figure, block, styles)
    return figure


def _ratio_legend(figure: Figure, block: Block, styles: dict[str, Style]) -> None:
    """The methods, the dense model and, where they are drawn, the paper's numbers."""
    titles = [line.title for line in block.lines if line.row == DENSE]
    dense = titles[0] if titles else shown_method(DENSE.method).title
    handles = [Line2D([], [], label=title, **style.options) for title, style in styles.items()]
    handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=":", label=dense))
    if block.model == block.paper_model:
        handles.append(Line2D([], [], label="paper", **PAPERS_MARK))
    columns = len(handles) if len(handles) <= 8 else math.ceil(len(handles) / 2)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


@styled()
def against_k1(block: Block) -> Figure | None:
    """The improvement over ASVD-I against k1: of each dataset, and on average with its interval.

    k1 = 1 is ASVD-I itself. Crosses are the paper's averages, if the model is its own.

    Returns:
        None for fewer than two k1.
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
    style = style_of(lines[0].method) or OTHER_STYLES[0]
    points = [(line.row.k1, line.average.value) for line in lines]
    _plot(axes, [(1.0, 0.0), *points], style)
    for place, line in enumerate(lines):
        k1, average = line.row.k1, line.average
        if k1 is None or average.value is None:
            continue
        if average.interval is not None:
            axes.plot([k1, k1], average.interval, color=style.colour, linewidth=1.5)
        # On the side where the line is not; the first point has an axis there.
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


def _staggered(k1s: Sequence[float]) -> list[str]:
    """The labels of an axis; a label that would run into the one before it goes a line lower."""
    labels: list[str] = []
    for place, k1 in enumerate(k1s):
        close = place > 0 and k1s[place - 1] - k1 < 0.1 * (k1s[0] - k1s[-1])
        is_low = close and not labels[-1].startswith("\n")
        labels.append("\n" * is_low + f"{k1:g}")
    return labels


def _percents(value: float) -> str:
    return f"{round(100 * value, 6):g}%".replace("-", "−")


def _known(points: Points) -> tuple[list[float], list[float]]:
    """The x and the y of the points that have both."""
    known = [(x, y) for x, y in points if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]


def _plot(axes: Axes, points: Points, style: Style, **options: Any) -> None:
    axes.plot(*_known(points), linewidth=1.4, **style.options, **options)


TICK_SETS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(1 + 0.2 * n for n in range(45)))


def _label_log_axis(axes: Axes) -> None:
    """Put at least three round numbers on a log axis: most panels hold one power of ten only."""
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
    """A label such as `500`, `1e5` or `1.5e5`."""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{value:g}" if value < 1e4 else f"{float(digits):g}e{int(exponent)}"
