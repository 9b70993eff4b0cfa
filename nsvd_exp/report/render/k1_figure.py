"""The improvement over ASVD-I against k1, the fraction of the rank that stage one gets."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.render.axes import percents, spaced
from nsvd_exp.report.render.figures import COLUMNS, LONGEST_NAME, plot_known
from nsvd_exp.report.render.plot_style import DATASET_STYLES, INK, OTHER_STYLES, style_of, styled
from nsvd_exp.report.render.text import clipped, percent, ratio_title

HALF_CHARACTERS = 42  # beneath half a figure
MOST_VALUES = 6  # written beside their points: more would touch


@styled()
def against_k1(group: Group, method: str, ratio: float) -> Figure:
    """The improvement over ASVD-I against k1: of each dataset, and on average with its interval.

    k1 = 1 is ASVD-I itself.
    """
    lines = _k1_lines(group, method, ratio)
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for place, (name, title) in enumerate(group.datasets.items()):
        style = DATASET_STYLES[place % len(DATASET_STYLES)]
        points = [(line.row.k1, line.entries[name].improvement) for line in lines]
        left_out = name in group.setting.calibrated_on
        shown = clipped(title, LONGEST_NAME) + " (not in the average)" * left_out
        plot_known(left, [(1.0, 0.0), *points], style, label=shown)
    _plot_average(right, lines)
    k1s = [1.0, *(line.row.k1 for line in lines if line.row.k1 is not None)]
    for axes, title in ((left, "each dataset"), (right, "average, with its 95% interval")):
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(f"{title}, {ratio_title(ratio)} removed")
        axes.set_xticks(k1s, spaced(k1s, [f"{k1:g}" for k1 in k1s], HALF_CHARACTERS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percents(value)))
        axes.set_xlabel("k1, fraction of the rank for stage one (1: ASVD-I)")
    left.invert_xaxis()  # shared with the other panel
    left.set_ylabel("improvement over ASVD-I")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=COLUMNS)
    return figure


def k1_curves(group: Group) -> list[tuple[str, float]]:
    """The methods with two k1 or more at one ratio, each with the ratio that has most of them."""
    found: dict[str, tuple[int, float]] = {}
    for method in group.setting.methods:
        for ratio in group.ratios:
            count = len([line for line in _k1_lines(group, method, ratio) if line.row.k1])
            if count > max(1, found.get(method, (0, 0.0))[0]):
                found[method] = count, ratio
    return sorted((method, ratio) for method, (_, ratio) in found.items())


def _k1_lines(group: Group, method: str, ratio: float) -> list[Line]:
    """The lines of a method at a ratio that have an improvement, the largest k1 first."""
    lines = [ln for ln in group.lines if (ln.row.method, ln.row.ratio) == (method, ratio)]
    return sorted(filter(_has_improvement, lines), key=lambda line: -(line.row.k1 or 0))


def _plot_average(axes: Axes, lines: Sequence[Line]) -> None:
    """The average improvement of each line, with its interval and its value written beside it."""
    style = style_of(lines[0].method) or OTHER_STYLES[0]
    points = [(line.row.k1, line.average.improvement) for line in lines]
    plot_known(axes, [(1.0, 0.0), *points], style)
    for place, line in enumerate(lines):
        k1, average = line.row.k1, line.average
        if k1 is None or average.improvement is None:
            continue
        if average.improvement_interval is not None:
            axes.plot([k1, k1], average.improvement_interval, color=style.colour, linewidth=1.5)
        if len(lines) > MOST_VALUES:
            continue
        # On the side where the line is not; the first point has an axis there, and is told above
        # its interval.
        side = "left" if average.improvement < 0 else "right" if place else "center"
        offset = ({"left": 4, "right": -4, "center": 0}[side], 6)
        top = (average.improvement_interval or (0, average.improvement))[1]
        height = top if side == "center" else average.improvement
        axes.annotate(
            percent(average.improvement), (k1, height), offset, fontsize=8,
            textcoords="offset points", ha=side,
        )  # fmt: skip
    axes.margins(x=0.12, y=0.12)


def _has_improvement(line: Line) -> bool:
    return any(entry.improvement is not None for entry in line.entries.values())
