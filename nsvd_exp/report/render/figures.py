"""Figure 1 of the paper, and perplexity against ratio.

Figures are made without pyplot, so they share no state.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.paper import DENSE
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.render.axes import label_log_axis, legend_above, spaced
from nsvd_exp.report.render.plot_style import (
    BLUE,
    DASHED,
    GROUND,
    INK,
    PAPERS_MARK,
    SKY,
    VERMILION,
    Style,
    line_styles,
    styled,
)
from nsvd_exp.report.render.text import clipped, ratio_title, row_title

COLUMNS, BINS = 4, 20
LONGEST_NAME = 26  # of a dataset or a method: as wide as a panel
PANEL_CHARACTERS = 16  # beneath a panel


def _panels(names: Sequence[str], height: float, **shared: Any) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel per name; `height` of a row in inches."""
    columns = _columns(len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(9.6, rows * height + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for unused in axes[len(names) :]:
        unused.set_visible(False)
    return figure, dict(zip(names, axes, strict=False))


def _columns(panels: int) -> int:
    """COLUMNS, or fewer where these would leave much of the figure empty."""
    return 3 if panels in (5, 6) else min(max(panels, 2), COLUMNS)


@styled()
def figure1(block: SimilarityBlock, statistic: str, with_paper: bool = False) -> Figure:
    """Histograms of a similarity over the compressed layers: one panel per dataset, shared axes.

    A line marks the mean. With the paper's numbers a dashed line marks its mean, where the two may
    be compared.

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
        if with_paper and block.comparable and name in paper.similarities():
            theirs = paper.similarities()[name]
            axes.axvline(theirs[0], color=VERMILION, linewidth=1.5, linestyle=DASHED)
            said += f"  (paper {theirs[0]:.2f} ± {theirs[1]:.2f})"
        axes.set_title(clipped(block.datasets[name], LONGEST_NAME), pad=17)
        axes.text(0.5, 1.04, said, transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xlim(lowest, 1)
    handles = [Line2D([], [], color=BLUE, label="mean over the layers (± deviation)")]
    if with_paper and block.comparable:
        handles.append(Line2D([], [], color=VERMILION, linestyle=DASHED, label="the paper's mean"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    _label_columns(list(panels.values()), "cosine similarity")
    figure.supylabel("compressed layers", fontsize=9)
    return figure


@styled()
def against_ratio(group: Group, with_paper: bool = False) -> Figure:
    """Perplexity (log axis) against the ratio, one panel per dataset; `by_method` for one ratio.

    The dense model is a horizontal line. A method with several k1 has the one that is stored at
    most ratios.

    Args:
        with_paper: whether crosses show what the paper prints of this model.
    """
    printed = paper.perplexities_of(group.title) if with_paper else {}
    lines = curve_lines(group)
    if len({line.row.ratio for line in lines}) == 1:
        return by_method(group)
    names = [n for n in group.datasets if any(_number(line, n) is not None for line in lines)]
    figure, panels = _panels(names, 2.15, sharex=True)
    styles = line_styles(lines)
    ratios = sorted({line.row.ratio for line in lines if line.row.ratio is not None})
    for name, axes in panels.items():
        axes.set_yscale("log")
        for title, style in styles.items():
            own = [line for line in lines if row_title(line) == title]
            plot_known(axes, [(line.row.ratio, _number(line, name)) for line in own], style)
        if (dense := _dense(group, name)) is not None:
            axes.axhline(dense, color=INK, linewidth=1, linestyle=":")
        if printed:
            points = [(row.ratio, values.get(name)) for row, values in printed.items()]
            axes.plot(*_known(points), **PAPERS_MARK)
        axes.set_title(clipped(group.datasets[name], LONGEST_NAME))
        axes.set_xticks(ratios, spaced(ratios, list(map(ratio_title, ratios)), PANEL_CHARACTERS))
        label_log_axis(axes.yaxis)
    _label_columns(list(panels.values()), "parameters removed")
    figure.supylabel("perplexity", fontsize=9)
    _ratio_legend(figure, group, styles, bool(printed))
    return figure


@styled()
def by_method(group: Group) -> Figure:
    """Perplexity (log axis) of each method at the one ratio that is stored, a panel per dataset.

    The dense model is a vertical line.
    """
    lines = [line for line in group.lines if _has_number(line) and line.row.ratio is not None]
    names = [n for n in group.datasets if any(_number(line, n) is not None for line in lines)]
    figure, panels = _panels(names, 0.9 + 0.2 * len(lines), sharey=True)
    styles = line_styles(lines)
    for name, axes in panels.items():
        axes.set_xscale("log")
        for place, line in enumerate(lines):
            points = [(_number(line, name), float(place))]
            plot_known(axes, points, styles[row_title(line)])
        if (dense := _dense(group, name)) is not None:
            axes.axvline(dense, color=INK, linewidth=1, linestyle=":")
        axes.set_title(clipped(group.datasets[name], LONGEST_NAME))
        titles = [clipped(row_title(line), LONGEST_NAME) for line in lines]
        axes.set_yticks(range(len(lines)), titles)
        axes.margins(x=0.15)
        label_log_axis(axes.xaxis)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    ratio = ratio_title(lines[0].row.ratio)
    _label_columns(list(panels.values()), "perplexity")
    title = f"{ratio} of the parameters removed"
    figure.legend(handles=_dense_handles(group), title=title, loc="outside upper center")
    return figure


def curve_lines(group: Group) -> list[Line]:
    """The lines of compressed models with numbers; of a method, those of one k1 alone."""
    lines = [line for line in group.lines if _has_number(line) and line.row.ratio is not None]
    count = Counter((line.row.method, line.row.k1 or 0.0) for line in lines)
    chosen: dict[str, tuple[int, float]] = {}
    for (method, k1), times in count.items():
        # Of k1 that are stored equally often it is the largest.
        chosen[method] = max(chosen.get(method, (0, 0.0)), (times, k1))
    return [line for line in lines if chosen[line.row.method][1] == (line.row.k1 or 0.0)]


def _dense(group: Group, dataset: str) -> float | None:
    """The dense model's perplexity."""
    found = [_number(line, dataset) for line in group.lines if line.row == DENSE]
    return found[0] if found else None


def _dense_handles(group: Group) -> list[Line2D]:
    """The dense model's line in a legend; none where it is not stored."""
    titles = [clipped(line.title, LONGEST_NAME) for line in group.lines if line.row == DENSE]
    return [Line2D([], [], color=INK, linewidth=1, linestyle=":", label=t) for t in titles]


def _ratio_legend(figure: Figure, group: Group, styles: dict[str, Style], with_paper: bool) -> None:
    """The methods, the dense model and, where they are drawn, the paper's numbers."""
    handles = [
        Line2D([], [], label=clipped(title, LONGEST_NAME), **style.options)
        for title, style in styles.items()
    ]
    handles += _dense_handles(group)
    if with_paper:
        handles.append(Line2D([], [], label="paper", **PAPERS_MARK))
    legend_above(figure, handles)


def has_ratios(group: Group) -> bool:
    """Whether a compressed model has a number."""
    return bool(curve_lines(group))


def has_printed_ratios(group: Group) -> bool:
    """Whether `against_ratio` has numbers of the paper to show."""
    has_curves = len({line.row.ratio for line in curve_lines(group)}) > 1
    return has_curves and bool(paper.perplexities_of(group.title))


def _label_columns(panels: Sequence[Axes], label: str) -> None:
    """An axis label, and the ticks' own, under the lowest panel of every column."""
    for axes in panels[-_columns(len(panels)) :]:
        axes.set_xlabel(label)
        axes.tick_params(labelbottom=True)


def _number(line: Line, name: str) -> float | None:
    return line.entries[name].perplexity


def _has_number(line: Line) -> bool:
    return any(entry.perplexity is not None for entry in line.entries.values())


Points = Sequence[tuple[float | None, float | None]]
"""x and y; a point with a None is left out."""


def plot_known(axes: Axes, points: Points, style: Style, **options: Any) -> None:
    """The points that have both, joined by a line."""
    axes.plot(*_known(points), linewidth=1.4, **style.options, **options)


def _known(points: Points) -> tuple[list[float], list[float]]:
    """The x and the y of the points that have both."""
    known = [(x, y) for x, y in points if x is not None and y is not None]
    return [x for x, _ in known], [y for _, y in known]
