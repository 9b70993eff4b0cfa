"""Size and speed against the ratio."""

from __future__ import annotations

from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nsvd_exp.report.model.profiles import ProfileGroup
from nsvd_exp.report.render.axes import spaced
from nsvd_exp.report.render.plot_style import DATASET_STYLES, INK, Style, styled
from nsvd_exp.report.render.text import ratio_title

HALF_CHARACTERS = 42  # beneath half of the figure


def has_sizes(group: ProfileGroup) -> bool:
    """Whether `size_and_speed` has a point to show."""
    return any(line.ratio is not None for line in group.lines)


@styled()
def size_and_speed(group: ProfileGroup) -> Figure:
    """Sizes (left) and speeds (right) in times the dense model's, against the ratio.

    Of several profiles at a ratio there is a point each; the line goes through their means.
    """
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    ratios = sorted({line.ratio for line in group.lines if line.ratio is not None})
    for axes, is_speed in zip(panels, (False, True), strict=True):
        titles = [title for title in group.titles if group.is_speed(title) == is_speed]
        for place, title in enumerate(titles, 1):
            style = DATASET_STYLES[place % len(DATASET_STYLES)]
            label = title.rpartition(", ")[0]  # without the unit
            _plot(axes, _points(group, title), style, label)
        axes.axhline(1, color=INK, linewidth=1, linestyle=":")
        axes.set_title("speed" if is_speed else "size")
        axes.set_xticks(ratios, spaced(ratios, list(map(ratio_title, ratios)), HALF_CHARACTERS))
        axes.set_xlabel("parameters removed")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        axes.legend(fontsize=8, loc="best")
    panels[0].set_ylabel("times the dense model's")
    return figure


def _points(group: ProfileGroup, title: str) -> dict[float, list[float]]:
    """What the profiles at each ratio have measured of a quantity."""
    found: dict[float, list[float]] = {}
    for line in group.lines:
        quantity = line.quantities.get(title)
        if line.ratio is not None and quantity is not None and quantity.times is not None:
            found.setdefault(line.ratio, []).append(quantity.times)
    return found


def _plot(axes: Axes, points: dict[float, list[float]], style: Style, label: str) -> None:
    xs = [ratio for ratio, values in points.items() for _ in values]
    ys = [value for values in points.values() for value in values]
    axes.plot(xs, ys, **style.options | {"linestyle": "none"})
    axes.plot(list(points), list(map(fmean, points.values())), color=style.colour, linewidth=1.4)
    axes.plot([], [], linewidth=1.4, label=label, **style.options)
