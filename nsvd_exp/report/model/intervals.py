"""95% intervals from the bootstrap over windows (Efron and Tibshirani 1993, chapters 6 and 13).

Windows are drawn with replacement, the same ones for every method, so that the difference between
two methods is a paired one. The interval is the percentile interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nsvd_exp.report.model.measurements import Measurement

RESAMPLES = 2000
AT_ONCE = 250
LEVEL = 95  # per cent
FEWEST_WINDOWS = 10  # fewer say too little about how windows vary

Samples = NDArray[np.float64]
"""One value per resample: (RESAMPLES,)."""

Interval = tuple[float, float]
"""Its lower and upper end."""


def log_perplexities(measurements: Iterable[Measurement]) -> dict[tuple[str, str], Samples]:
    """The mean loss (nats per token) in every resample, by the id of the measurement.

    Measurements over fewer than FEWEST_WINDOWS windows are left out.
    """
    by_text: dict[tuple[str, int], list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        stored = measurement.stored
        if stored["windows"] >= FEWEST_WINDOWS:
            by_text[stored["token_sha256"], stored["windows"]].append(measurement)
    samples: dict[tuple[str, str], Samples] = {}
    for (text, _), group in by_text.items():
        means = _resampled_means(np.array([m.stored["window_nll"] for m in group]).T, text)
        predicted = np.array([m.stored["tokens"] / m.stored["windows"] for m in group])
        samples |= dict(zip((m.id for m in group), (means / predicted).T, strict=True))
    return samples


def _resampled_means(losses: NDArray[np.float64], text: str) -> NDArray[np.float64]:
    """Means over resampled windows.

    Args:
        losses: nats, (windows, measurements).
        text: hash of the evaluated tokens.

    Returns:
        (RESAMPLES, measurements)
    """
    windows = len(losses)
    # Seeded by the text: two methods see the same windows of it, two texts independent ones.
    generator = np.random.default_rng(int(text[:16], 16))
    share = np.full(windows, 1 / windows)
    batches = [
        generator.multinomial(windows, share, size=AT_ONCE) @ losses / windows
        for _ in range(RESAMPLES // AT_ONCE)
    ]
    return np.concatenate(batches)


def interval(samples: Samples) -> Interval:
    """The two percentiles between which LEVEL per cent of the resamples lie."""
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
