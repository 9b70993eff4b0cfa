"""Two thin products against one wide one, by rank: from where on a low-rank layer is faster.

    python benchmarks/products.py                  # about ten minutes on a CPU
    python benchmarks/products.py --device cuda --dtype bfloat16
    python benchmarks/products.py --quick          # small, seconds: that it runs

A Linear of weight (m, n) does m n multiplications for a token, and left (right x) of rank k does
k (m + n): by that count a fraction `removed` of them makes it 1 / (1 - removed) times as fast. What
it does not count is that a second product begins where the first ends, and that thin products use a
processor less well. Both are timed here in turns, on the same inputs; the median counts.
"""

from __future__ import annotations

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import torch
from measure import RESULTS, Machine, Sheet, keep, seconds_of, show
from torch import nn

from nsvd_exp.models.layers import LowRankLinear
from nsvd_exp.models.storage import Factors

# SmolLM2-135M's: attention, and both ways of the MLP; LLaMA-7B's: attention, one way of the MLP.
SHAPES = ((576, 576), (1536, 576), (576, 1536), (4096, 4096), (11008, 4096))
TOKENS = (1, 8, 32, 128, 512)
REMOVED = (10, 20, 30, 40, 50, 70, 90)  # percent
# A run is made of calls that take this long together, at least, so that a clock can tell.
SECONDS_OF_A_RUN = 2e-2


@dataclass(frozen=True)
class Point:
    """One shape at one rank, for so many tokens at once.

    Attributes:
        removed: percent of the weight's numbers.
        dense, low_rank: seconds of a call, the median.
        times: dense / low_rank, the median over pairs of runs.
        low, high: of these pairs, the quartiles.
    """

    m: int
    n: int
    tokens: int
    removed: int
    k: int
    dense: float
    low_rank: float
    times: float
    low: float
    high: float


@torch.no_grad()
def measured(
    shapes: Sequence[tuple[int, int]], tokens: Sequence[int], dtype: torch.dtype, device: str
) -> list[Point]:
    """All points, shape by shape."""
    points = []
    for m, n in shapes:
        dense = nn.Linear(n, m, bias=False, dtype=dtype, device=device)
        for rows in tokens:
            x = torch.randn(rows, n, dtype=dtype, device=device)
            points += [point(dense, x, removed) for removed in REMOVED]
    return points


def point(dense: nn.Linear, x: torch.Tensor, removed: int, repeat: int = 9) -> Point:
    """Both layers timed in turns on x (tokens, n)."""
    m, n = dense.weight.shape
    k = Factors().largest_rank(m, n, Fraction(100 - removed, 100) * m * n)
    like = {"dtype": x.dtype, "device": x.device}
    low_rank = LowRankLinear(torch.randn(m, k, **like), torch.randn(k, n, **like), None)
    calls = _calls(dense, x)
    runs: dict[nn.Module, list[float]] = {dense: [], low_rank: []}
    for _ in range(repeat):
        for layer, seconds in runs.items():
            seconds.append(_seconds(layer, x, calls))
    ratios = [ours / theirs for ours, theirs in zip(runs[dense], runs[low_rank], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = (statistics.median(seconds) for seconds in runs.values())
    return Point(m, n, len(x), removed, k, *medians, middle, low, high)


def _calls(layer: nn.Module, x: torch.Tensor) -> int:
    """Calls of a run."""
    layer(x)
    return max(1, int(SECONDS_OF_A_RUN / _seconds(layer, x, 3)))


def _seconds(layer: nn.Module, x: torch.Tensor, calls: int) -> float:
    """Of one call, in a run of so many."""

    def run() -> None:
        for _ in range(calls):
            layer(x)

    layer(x)  # brings its weight into the cache, as the other's has just been
    return seconds_of(run) / calls


def break_even(points: Sequence[Point]) -> float | None:
    """The percentage removed from which on low rank is faster, between the measured ones.

    Args:
        points: of one shape and number of tokens, by `removed`.

    Returns:
        None where it never is; 0 where it always is.
    """
    slower = [p for p in points if p.times < 1]
    if not slower:
        return 0.0
    last = slower[-1]
    faster = [p for p in points if p.removed > last.removed]
    if not faster:
        return None
    first = faster[0]
    part = (1 - last.times) / (first.times - last.times)
    return last.removed + part * (first.removed - last.removed)


def sheet(points: Sequence[Point]) -> Sheet:
    """Times as fast by how much is removed, and the break-even."""
    rows = []
    for m, n, tokens in dict.fromkeys((p.m, p.n, p.tokens) for p in points):
        own = [p for p in points if (p.m, p.n, p.tokens) == (m, n, tokens)]
        even = break_even(own)
        shown = "never" if even is None else "always" if even == 0 else f"{even:.0f}%"
        rows.append([f"{m} x {n}", f"{tokens}", *(f"{p.times:.2f}" for p in own), shown])
    predicted = [f"{100 / (100 - removed):.2f}" for removed in REMOVED]
    rows.append(["by count", "", *predicted, "always"])
    headings = ("m x n", "tokens", *(f"{removed}%" for removed in REMOVED), "faster from")
    return Sheet("Times as fast as the dense layer, by what is removed", headings, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, write.

    Args:
        given: the arguments; None: those of the command.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--quick", action="store_true", help="small; keeps no file")
    parser.add_argument("--out", type=Path, help="folder for JSON and Markdown; results/benchmarks")
    arguments = parser.parse_args(given)
    machine, start = Machine(arguments.device), time.monotonic()
    shapes, tokens = (((64, 48),), (1, 16)) if arguments.quick else (SHAPES, TOKENS)
    points = measured(shapes, tokens, getattr(torch, arguments.dtype), arguments.device)
    record = {
        "command": "benchmarks/products.py" + (" --quick" if arguments.quick else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "dtype": arguments.dtype,
        "machine": machine.record(),
        "wall": time.monotonic() - start,
        "points": [asdict(point) for point in points],
    }
    sheets = [sheet(points)]
    show(sheets, record["machine"])
    out = arguments.out or (None if arguments.quick else RESULTS)
    if out is not None:
        name = f"products {arguments.dtype}"
        print(f"written: {keep(out, name, record, sheets)}")


if __name__ == "__main__":
    main()
