"""What the report's 95% intervals cover, on made-up losses whose neighbours are correlated.

python benchmarks/intervals.py [--repeat 4000] [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nsvd_exp.report.model import intervals
from nsvd_exp.report.model.intervals import Spread, frequencies, interval

WINDOWS = (8, 16, 32, 64, 128)
SETS = 5  # of an average
WIDTH = 120

Losses = NDArray[np.float64]
"""One per window; their expectation is 0: (windows,)."""

Text = Callable[[np.random.Generator, int], Losses]
"""Makes the losses of a number of windows."""


def independent(generator: np.random.Generator, windows: int) -> Losses:
    """Windows that have nothing in common."""
    return generator.standard_normal(windows)


def of_documents(generator: np.random.Generator, windows: int) -> Losses:
    """Documents of two to six windows; 30% of the variance is between documents."""
    lengths = generator.integers(2, 7, windows + 6)
    first = generator.integers(0, 6)  # the text may begin within a document
    document = np.repeat(np.arange(windows + 6), lengths)[first : first + windows]
    effects = generator.standard_normal(windows + 6)[document]
    return np.sqrt(0.3) * effects + np.sqrt(0.7) * generator.standard_normal(windows)


def autoregressive(generator: np.random.Generator, windows: int, rho: float = 0.4) -> Losses:
    """A stationary process; neighbours have a correlation of `rho`."""
    losses = generator.standard_normal(windows)
    for place in range(1, windows):
        losses[place] = rho * losses[place - 1] + np.sqrt(1 - rho**2) * losses[place]
    return losses


def skewed(generator: np.random.Generator, windows: int) -> Losses:
    """Independent windows, a few of which are far worse than the others."""
    return generator.standard_exponential(windows) - 1


TEXTS: dict[str, Text] = {
    "documents of 2 to 6 windows": of_documents,
    "autoregressive, 0.4": autoregressive,
    "independent": independent,
    "independent, skewed": skewed,
    "autoregressive, 0.6": partial(autoregressive, rho=0.6),
}


def texts(text: Text, windows: int, repeat: int, seed: int) -> Iterator[Losses]:
    """`repeat` texts of this kind."""
    generator = np.random.default_rng([seed, windows])
    return (text(generator, windows) for _ in range(repeat))


def spread(losses: Losses) -> Spread:
    """The report's spread of a mean."""
    found = intervals.spread_of_mean(losses)
    assert found is not None
    return found


def covers(centre: float, found: Spread) -> bool:
    """Whether the report's interval holds the expectation, which is 0."""
    low, high = interval(centre, found)
    return low <= 0 <= high


def coverage(text: Text, windows: int, repeat: int, seed: int = 0) -> float:
    """The share of the intervals of one set that hold the expectation."""
    made = texts(text, windows, repeat, seed)
    return float(np.mean([covers(losses.mean(), spread(losses)) for losses in made]))


def average_coverage(text: Text, windows: int, repeat: int, seed: int = 0) -> float:
    """The share of the intervals of an average over SETS sets that hold the expectation."""
    made = texts(text, windows, repeat * SETS, seed)
    held = []
    for group in zip(*[made] * SETS, strict=True):
        total = intervals.spread_of_sum([(1 / SETS, spread(losses)) for losses in group])
        held.append(covers(float(np.mean([losses.mean() for losses in group])), total))
    return float(np.mean(held))


def percentile_coverage(
    text: Text, windows: int, repeat: int, length: int, seed: int = 0, resamples: int = 500
) -> float:
    """The share that holds the expectation of a bootstrap's percentile intervals.

    Args:
        length: neighbours that are resampled together.
    """
    generator = np.random.default_rng([seed, windows, length])
    blocks = -(-windows // length)
    held = []
    for losses in texts(text, windows, repeat, seed):
        starts = generator.integers(0, windows, (resamples, blocks, 1))
        places = ((starts + np.arange(length)) % windows).reshape(resamples, -1)[:, :windows]
        low, high = np.percentile(losses[places].mean(axis=1), [2.5, 97.5])
        held.append(low <= 0 <= high)
    return float(np.mean(held))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=4000, help="texts per figure [4000]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = Table(title="coverage of 95% intervals, per cent")
    methods: dict[str, Callable[[Text, int], float]] = {
        "one set": lambda t, n: coverage(t, n, options.repeat, options.seed),
        f"mean of {SETS} sets": lambda t, n: average_coverage(t, n, options.repeat, options.seed),
        "bootstrap, blocks": lambda t, n: percentile_coverage(
            t, n, options.repeat // 4, round(n**0.6), options.seed
        ),
        "bootstrap, windows": lambda t, n: percentile_coverage(
            t, n, options.repeat // 4, 1, options.seed
        ),
    }
    for heading in ("windows", "cosines", "losses", *methods):
        table.add_column(heading, justify="right")
    for windows in WINDOWS:
        for name, text in TEXTS.items():
            found = [f"{100 * cover(text, windows):.1f}" for cover in methods.values()]
            table.add_row(str(windows), str(frequencies(windows)), name, *found)
        table.add_section()
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()
