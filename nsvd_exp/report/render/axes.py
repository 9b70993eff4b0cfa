"""The labels of axes and legends: no two touch, and a logarithmic axis has round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

LEGEND_COLUMNS = 6
LEGEND_CHARACTERS, KEY_CHARACTERS = 150, 6  # of a legend in all, and of a line's sample in it
MOST_TICKS = 5
TICK_SETS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


def label_log_axis(axis: Axis) -> None:
    """Put at least three round numbers on a log axis: most panels hold one power of ten only."""
    low, high = sorted(axis.get_view_interval())
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in TICK_SETS:
        ticks = [d * 10.0**e for e in exponents for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    else:  # so short a piece of a log axis that it is nearly linear
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / MOST_TICKS) or 1]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """A label such as `500`, `1e5` or `1.5e5`."""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{value:g}" if value < 1e4 else f"{float(digits):g}e{int(exponent)}"


def spaced(values: Sequence[float], labels: Sequence[str], characters: float) -> list[str]:
    """The labels, in two rows and without those that would run into another one.

    Args:
        characters: that fit beside each other between the first and the last value.
    """
    per_value = characters / ((max(values) - min(values)) or 1)
    ends: list[float | None] = [None, None]  # where the last label of each row ends
    kept = []
    for value, label in zip(values, labels, strict=True):
        place = abs(value - values[0]) * per_value
        half = len(label) / 2
        free = [row for row, end in enumerate(ends) if end is None or place - half > end + 0.5]
        kept.append("\n" * free[0] + label if free else "")
        if free:
            ends[free[0]] = place + half
    return kept


def percents(value: float) -> str:
    """A label such as `12.5%`, with a true minus sign."""
    return f"{round(100 * value, 6):g}%".replace("-", "−")


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above the panels of a figure, in as many columns as fit, evenly filled."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    most = max(1, min(LEGEND_COLUMNS, LEGEND_CHARACTERS // (longest + KEY_CHARACTERS)))
    rows = math.ceil(len(handles) / most)
    columns = math.ceil(len(handles) / rows)
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)
