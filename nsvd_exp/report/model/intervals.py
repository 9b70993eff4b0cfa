"""95% intervals of mean losses, for windows of which neighbours may be alike.

Windows that follow each other are often of one document, hence no independent draws: what decides
how sure their mean is are slow changes along the text. They are measured by its lowest cosine
frequencies (the equal-weighted cosine estimate of a long-run variance: Müller 2004, "A theory of
robust long-run variance estimation"; Lazarus, Lewis, Stock and Watson 2018, "HAR inference:
recommendations for practice"), and Student's t has one degree of freedom for each. Of independent
Gaussian windows that interval is exact; of windows that are alike it covers what a bootstrap over
blocks of neighbours does not cover with so few windows. `benchmarks/intervals.py` shows what the
intervals cover, beside that bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
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


def frequencies(windows: int) -> int:
    """How many cosine frequencies the variance is taken from: 0.4 windows ** (2/3), rounded.

    Of 8, 32 and 128 windows 2, 4 and 10: the rule that Lazarus, Lewis, Stock and Watson recommend.
    """
    return round(0.4 * windows ** (2 / 3))


@cache
def _cosines(windows: int) -> NDArray[np.float64]:
    """Orthonormal cosines, which go once, twice, ... half around: (frequencies, windows)."""
    places = (np.arange(windows) + 0.5) / windows
    orders = np.arange(1, frequencies(windows) + 1)
    cosines: NDArray[np.float64] = np.sqrt(2 / windows) * np.cos(np.pi * np.outer(orders, places))
    return cosines


def spread_of_mean(values: NDArray[np.float64]) -> Spread | None:
    """The spread of the mean of `values`, whose neighbours may be alike.

    Args:
        values: one per window, in the order of the text: (windows,).

    Returns:
        None for fewer than FEWEST_WINDOWS windows.
    """
    windows = len(values)
    if windows < FEWEST_WINDOWS:
        return None
    waves = _cosines(windows) @ values
    variance = float(waves @ waves) / len(waves) / windows
    # Where neighbours are alike, even the lowest frequency has less than frequency 0, the mean's
    # own. This factor is what simulated texts ask for; it takes little cover of independent ones.
    return Spread(variance * (1 + 1.5 / windows), len(waves))


def spread_of_sum(parts: Sequence[tuple[float, Spread]]) -> Spread:
    """The spread of a weighted sum of means over independent texts.

    The degrees of freedom lie between those of Welch and Satterthwaite, which are too few for short
    texts of independent windows, and those that Welch (1947) corrects for the variances being
    estimates (plus and minus 2 in place of 1), which are too many where neighbours are alike.

    Args:
        parts: the weight and the spread of each.
    """
    variances = [weight**2 * spread.variance for weight, spread in parts]
    variance, freedoms = math.fsum(variances), [spread.freedom for _, spread in parts]
    if variance == 0:
        return Spread(0.0, min(freedoms))
    shares = math.fsum(v**2 / (f + 1) for v, f in zip(variances, freedoms, strict=True))
    return Spread(variance, variance**2 / shares - 1)


def interval(centre: float, spread: Spread) -> Interval:
    """The interval of LEVEL around a mean."""
    half = float(stdtrit(spread.freedom, (1 + LEVEL) / 2)) * math.sqrt(spread.variance)
    return centre - half, centre + half
