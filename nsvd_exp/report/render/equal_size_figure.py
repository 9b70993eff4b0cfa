"""Loss against size over the ratios, or of each row where there is one ratio."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from nsvd_exp.report.model.equal_size import EqualSizeLine, blocks_of, frontier
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.render.axes import label_log_axis, legend_above, percents
from nsvd_exp.report.render.figures import curve_lines
from nsvd_exp.report.render.plot_style import BLUE, GREY, GROUND, INK, line_styles, styled
from nsvd_exp.report.render.text import clipped, nats, ratio_title, row_title

LOG_FROM = 10  # times the smallest loss: with a wider range the axis is logarithmic
LONGEST_TITLE = 48  # of a row: a third of the figure's width
LOSS = "nats per token over dense, mean"
SAME_SIZE = 0.005  # by how much less may be removed at the same size
FRONTIER: dict[str, Any] = {
    "linestyle": "none", "marker": "o", "markersize": 12, "markerfacecolor": "none",
    "markeredgecolor": INK, "label": "frontier",
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "color": GREY, "linewidth": 0.7, "marker": ".", "markersize": 4, "alpha": 0.7, "zorder": 1.8,
    "label": "others",
}  # fmt: skip
KINDS = {"beyond the paper": (BLUE, "o"), "the paper's": (GREY, "s")}
BEHIND_TEXT = {"facecolor": GROUND, "edgecolor": "none", "pad": 1}  # no line through a number
OVER_RATIOS = (
    "What each row loses on average against what was removed of the compressed layers' numbers. "
    "Rings: the frontier, the points that no other one beats in both, where sizes within half a "
    "percentage point count as equal. Named are the paper's methods in the paper's form and the "
    "rows on the frontier, grey are all others."
)
OF_ONE_RATIO = (
    "What each row loses on average, with its 95% interval, at {} of the compressed layers' "
    "numbers removed."
)


def has_losses(group: Group) -> bool:
    """Whether `loss` has a point to show."""
    return bool(_known(group))


def caption(group: Group) -> str:
    """What `loss` shows, in sentences."""
    if _is_one_ratio(group):
        return OF_ONE_RATIO.format(ratio_title(_known(group)[0].line.row.ratio))
    return OVER_RATIOS


def loss(group: Group) -> Figure:
    """The mean loss of each row: over the ratios, or beside each other where there is only one."""
    return by_row(group) if _is_one_ratio(group) else against_size(group)


@styled()
def against_size(group: Group) -> Figure:
    """Mean nats over dense against the achieved ratio, one line per row, rings on the frontier."""
    known = _known(group)
    points = [(line.achieved or 0.0, line.nats or 0.0) for line in known]
    best = frontier(points, SAME_SIZE)
    named = _named(group, {row_title(known[index].line) for index in best})
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    axes = figure.subplots()
    by_title: dict[str, list[tuple[float, float]]] = {}
    for line, point in zip(known, points, strict=True):
        by_title.setdefault(row_title(line.line), []).append(point)
    styles = line_styles(named)
    for title, own in by_title.items():
        options = styles[title].options | {"linewidth": 1.4} if title in styles else OTHERS
        axes.plot(*zip(*own, strict=True), **options)
    rings = axes.plot(*zip(*(points[index] for index in best), strict=True), **FRONTIER)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percents(value)))
    axes.set_xlabel("removed of the compressed layers' numbers")
    axes.set_ylabel(LOSS)
    if _is_wide([lost for _, lost in points]):
        axes.set_yscale("log")
        label_log_axis(axes.yaxis)
    handles = [
        Line2D([], [], label=clipped(title, LONGEST_TITLE), linewidth=1.4, **style.options)
        for title, style in styles.items()
    ]
    others = [Line2D([], [], **OTHERS)] if by_title.keys() - styles.keys() else []
    legend_above(figure, [*handles, *others, *rings])
    return figure


@styled()
def by_row(group: Group) -> Figure:
    """Mean nats over dense of each row at the one ratio, with its interval; best first."""
    known = _known(group)
    figure = Figure(figsize=(9.6, 1.2 + 0.22 * len(known)), layout="constrained")
    axes = figure.subplots()
    drawn: list[float] = []
    for place, line in enumerate(known):
        value, bounds = line.nats or 0.0, line.line.average.nats_interval or ()
        drawn += [value, *bounds]
        colour, marker = KINDS["the paper's" if line.line.is_of_paper else "beyond the paper"]
        axes.plot(bounds, [place] * len(bounds), color=colour, linewidth=1.5)
        axes.plot([value], [place], color=colour, marker=marker)
        axes.annotate(
            nats(value), (max([value, *bounds]), place), (6, 0), fontsize=8,
            textcoords="offset points", va="center", bbox=BEHIND_TEXT,
        )  # fmt: skip
    titles = [clipped(row_title(line.line), LONGEST_TITLE) for line in known]
    axes.set_yticks(range(len(known)), titles)
    axes.set_ylim(len(known) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel(LOSS)
    if _is_wide(drawn):
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=label)
        for label, (colour, marker) in KINDS.items()
    ]
    legend_above(figure, handles)
    return figure


def _known(group: Group) -> list[EqualSizeLine]:
    """The rows with a loss and an achieved ratio, by ratio, those that lose least first."""
    lines = [line for block in blocks_of(group) for line in block.lines]
    return [line for line in lines if line.nats is not None and line.achieved is not None]


def _is_one_ratio(group: Group) -> bool:
    return len({line.line.row.ratio for line in _known(group)}) == 1


def _named(group: Group, on_frontier: Collection[str]) -> list[Line]:
    """The lines of the legend: of the paper, with one k1 of each method, then of the frontier."""
    papers = [line for line in curve_lines(group) if line.is_of_paper]
    return papers + [line for line in group.lines if row_title(line) in on_frontier]


def _is_wide(values: Sequence[float]) -> bool:
    """Whether losses, all of them positive, ask for a logarithmic axis."""
    return min(values) > 0 and max(values) > LOG_FROM * min(values)
