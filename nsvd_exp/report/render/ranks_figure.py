"""Heat maps of the ranks that allocations gave the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nsvd_exp.report.model.ranks import RankMap
from nsvd_exp.report.render.axes import percents
from nsvd_exp.report.render.plot_style import BLUE, ORANGE, RULE, styled
from nsvd_exp.report.render.text import clipped, nats, ratio_title, row_title

MOST_MAPS, COLUMNS = 6, 2
LONGEST_TITLE = 48  # of a row: as wide as a panel
ROW_INCHES, TALLEST_PANEL = 0.2, 4.0
MOST_KINDS = 30  # that are named beside a panel: more would touch
# One colour for each tenth, so that a share can be read off.
SHARES = LinearSegmentedColormap.from_list(
    "shares", ["#e8f1f8", "#7db5da", BLUE, "#002a45"], N=10
).with_extremes(over=ORANGE)


def caption(maps: Sequence[RankMap]) -> str:
    """What `heat_maps` shows, in sentences."""
    ratio = ratio_title(maps[0].line.line.row.ratio)
    which = (
        f"the {MOST_MAPS} of {len(maps)} allocations that lose least"
        if len(maps) > MOST_MAPS
        else "the allocations"
    )
    return (
        "The rank of each compressed layer in parts of its full rank, min(rows, columns), at "
        f"{ratio} removed, by block and kind of Linear: {which}, the best first."
    )


@styled()
def heat_maps(maps: Sequence[RankMap]) -> Figure:
    """Rank over full rank by block (across) and kind (down), one panel for each of the first maps.

    Dense layers have a colour of their own.

    Args:
        maps: of one model, the best first; MOST_MAPS of them are drawn.
    """
    shown = maps[:MOST_MAPS]
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = min(0.9 + ROW_INCHES * len(shown[0].kinds), TALLEST_PANEL)
    figure = Figure(figsize=(9.6, rows * height + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, own in zip(panels.flat, shown, strict=False):
        _draw(axes, own)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels.flat[max(0, len(shown) - columns) : len(shown)]:
        axes.set_xlabel("block")
        axes.tick_params(labelbottom=True)
    mappable = ScalarMappable(Normalize(0, 1), SHARES)
    bar = figure.colorbar(mappable, ax=panels, fraction=0.025, pad=0.015)
    bar.set_label("rank over full rank")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percents(value)))
    dense = Patch(facecolor=ORANGE, label="dense: not compressed")
    figure.legend(handles=[dense], loc="outside upper center")
    return figure


def _draw(axes: Axes, own: RankMap) -> None:
    values = [[_value(own.shares.get((kind, block))) for block in own.blocks] for kind in own.kinds]
    shown = np.ma.masked_invalid(np.array(values))
    # One picture in place of a shape a layer: the page stays small.
    axes.imshow(
        shown, SHARES, vmin=0, vmax=1, interpolation="none", aspect="auto",
        extent=(0, len(own.blocks), len(own.kinds), 0),
    )  # fmt: skip
    axes.set_facecolor(RULE)
    axes.grid(visible=False)
    step = math.ceil(len(own.kinds) / MOST_KINDS)
    axes.set_yticks(np.arange(0, len(own.kinds), step) + 0.5, own.kinds[::step])
    ticks = [int(t) for t in MaxNLocator(8, integer=True).tick_values(0, len(own.blocks) - 1)]
    inside = [tick for tick in ticks if 0 <= tick < len(own.blocks)]
    axes.set_xticks([tick + 0.5 for tick in inside], [str(own.blocks[tick]) for tick in inside])
    axes.tick_params(length=0)
    title, lost = row_title(own.line.line), own.line.nats
    said = "no average" if lost is None else f"{nats(lost)} nats over dense"
    axes.set_title(f"{clipped(title, LONGEST_TITLE)}\n{said}")


def _value(share: float | None) -> float:
    """What is drawn of a layer: what is above 1 is dense, and NaN is nothing."""
    if share is None:
        return math.nan
    return share if share < 1 else 2.0
