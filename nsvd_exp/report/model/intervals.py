"""95% intervals of mean losses, from the bootstrap over blocks of neighbouring windows.

Windows that follow each other are often of one document, hence no independent draws. The circular
block bootstrap (Politis and Romano 1992) resamples blocks of `block_length` neighbours, the last
window being followed by the first. The variance that it gives a mean has a closed form, so nothing
is drawn at random here. Of few blocks the percentiles of a bootstrap cover too little: the interval
takes Student's t with one degree of freedom less than there are blocks. `benchmarks/intervals.py`
shows what intervals cover with this block length, and with others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEVEL = 0.95
FEWEST_WINDOWS = 8  # fewer say too little about how windows vary

Interval = tuple[float, float]
"""Its lower and upper end."""


class Spread(NamedTuple):
    """How sure a mean is: its variance, and the degrees of freedom behind that."""

    variance: float
    freedom: float


def block_length(windows: int) -> int:
    """The neighbours that are resampled together: windows ** 0.6, as a whole number.

    8, 32 and 128 windows have blocks of 3, 8 and 18.
    """
    return round(windows**0.6)


def spread_of_mean(values: NDArray[np.float64]) -> Spread | None:
    """The spread of the mean of `values` under the circular block bootstrap.

    Args:
        values: one per window, in the order of the text: (windows,).

    Returns:
        None for fewer than FEWEST_WINDOWS windows.
    """
    windows = len(values)
    if windows < FEWEST_WINDOWS:
        return None
    length = block_length(windows)
    centred = values - values.sum() / windows
    sums = np.cumsum(np.concatenate([[0.0], centred, centred[: length - 1]]))
    of_blocks = sums[length:] - sums[:-length]  # one per window that a block starts at
    # A resample's mean is that of windows / length blocks, drawn independently.
    variance = float(np.dot(of_blocks, of_blocks)) / windows / (length * windows)
    return Spread(variance, windows / length - 1)


def spread_of_sum(parts: Sequence[tuple[float, Spread]]) -> Spread:
    """The spread of a weighted sum of means over independent texts.

    The degrees of freedom are those of Welch and Satterthwaite, but at most one more than those of
    the part that has fewest: the variances of several short texts are too low all at once.

    Args:
        parts: the weight and the spread of each.
    """
    variances = [weight**2 * spread.variance for weight, spread in parts]
    variance, freedoms = math.fsum(variances), [spread.freedom for _, spread in parts]
    if len(parts) == 1 or variance == 0:
        return Spread(variance, min(freedoms))
    shares = math.fsum(v**2 / freedom for v, freedom in zip(variances, freedoms, strict=True))
    return Spread(variance, min(variance**2 / shares, min(freedoms) + 1))


def interval(centre: float, spread: Spread) -> Interval:
    """The interval of LEVEL around a mean."""
    half = float(stdtrit(spread.freedom, (1 + LEVEL) / 2)) * math.sqrt(spread.variance)
    return centre - half, centre + half
