"""How two models compare on the same windows: of one text, and of several together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nsvd_exp.experiment.improvement import improvement
from nsvd_exp.report.model.intervals import Interval, Spread, interval, spread_of_sum

LARGEST_NATS = 700.0


@dataclass(frozen=True)
class Contrast:
    """How a perplexity compares with another one on the same windows.

    Attributes:
        log_ratio: the logarithm of one over the other, in nats per token.
        spread: of `log_ratio`; None for too few windows.
    """

    log_ratio: float
    spread: Spread | None

    @cached_property
    def times(self) -> float:
        """The one over the other."""
        return exp(self.log_ratio)

    @property
    def improvement(self) -> float:
        """By which fraction the one is lower than the other."""
        return improvement(self.times, 1.0)

    @property
    def nats_interval(self) -> Interval | None:
        """The paired 95% interval of `log_ratio`."""
        return None if self.spread is None else interval(self.log_ratio, self.spread)

    @cached_property
    def improvement_interval(self) -> Interval | None:
        """The paired 95% interval of `improvement`."""
        if self.nats_interval is None:
            return None
        low, high = self.nats_interval
        return improvement(exp(high), 1.0), improvement(exp(low), 1.0)


Parts = Sequence[tuple[int, Contrast]]
"""The terms of a sum over independent texts: each contrast with what it is divided by."""


def evenly(contrasts: Sequence[Contrast]) -> Parts:
    """The terms of a mean."""
    return [(len(contrasts), contrast) for contrast in contrasts]


def nats_interval(centre: float, parts: Parts) -> Interval | None:
    """The 95% interval of the sum of `log_ratio`; None where a text has too few windows."""
    known = [(1 / count, c.spread) for count, c in parts if c.spread is not None]
    return interval(centre, spread_of_sum(known)) if len(known) == len(parts) else None


def improvement_interval(centre: float, parts: Parts) -> Interval | None:
    """The 95% interval of the sum of `improvement`; None where a text has too few windows.

    By the delta method: the derivative of 1 - exp(x) is -exp(x). Of a ruined model that reaches
    beyond a perplexity of 0, where it is cut.
    """
    known = [(c.times / count, c.spread) for count, c in parts if c.spread is not None]
    if len(known) < len(parts):
        return None
    low, high = interval(centre, spread_of_sum(known))
    is_bounded = all(count > 0 for count, _ in parts)
    return low, min(high, math.fsum(1 / count for count, _ in parts)) if is_bounded else high


def exp(nats: float) -> float:
    """exp without overflow: an interval of a few windows can be wide."""
    return math.exp(min(nats, LARGEST_NATS))
