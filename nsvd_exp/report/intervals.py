"""95% intervals from the bootstrap over windows (Efron and Tibshirani 1993, chapters 6 and 13).

Windows are drawn with replacement, the same ones for every method, so that the difference between
two methods is a paired one. The percentile interval is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nsvd_exp.report.numbers import Number

RESAMPLES = 2000
AT_ONCE = 250
LEVEL = 95
FEWEST_WINDOWS = 10  # a handful of windows says nothing of how windows vary

Samples = NDArray[np.float64]
"""(RESAMPLES,)"""


def log_perplexities(numbers: Iterable[Number]) -> dict[tuple[str, str], Samples]:
    """The mean loss (nats) of each number in every resample, by the number's id.

    Numbers of fewer than FEWEST_WINDOWS windows are left out.
    """
    by_text: dict[tuple[str, int], list[Number]] = defaultdict(list)
    for number in numbers:
        if number.stored["windows"] >= FEWEST_WINDOWS:
            by_text[number.stored["token_sha256"], number.stored["windows"]].append(number)
    samples: dict[tuple[str, str], Samples] = {}
    for (text, _), group in by_text.items():
        means = _resampled_means(np.array([n.stored["window_nll"] for n in group]).T, text)
        predicted = np.array([n.stored["tokens"] / n.stored["windows"] for n in group])
        samples |= dict(zip((n.id for n in group), (means / predicted).T, strict=True))
    return samples


def _resampled_means(losses: NDArray[np.float64], text: str) -> NDArray[np.float64]:
    """Means over resampled windows: (RESAMPLES, numbers) of `losses` (windows, numbers)."""
    windows = len(losses)
    # Seeded by the text: two methods on it see the same windows, two texts independent ones.
    generator = np.random.default_rng(int(text[:16], 16))
    share = np.full(windows, 1 / windows)
    batches = [
        generator.multinomial(windows, share, size=AT_ONCE) @ losses / windows
        for _ in range(RESAMPLES // AT_ONCE)
    ]
    return np.concatenate(batches)


def interval(samples: Samples) -> tuple[float, float]:
    """The percentiles between which LEVEL per cent of the resamples lie."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
