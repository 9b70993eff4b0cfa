"""Thin products against one wide one, by rank: from where on a low-rank layer is faster.

    python benchmarks/products.py                  # six minutes on two quiet cores
    python benchmarks/products.py --device cuda --dtype bfloat16
    python benchmarks/products.py --quick          # small, seconds: that it runs

A Linear of weight (m, n) does m n multiplications for a token, left (right x) of rank k does
k (m + n), and the pivoted form k (m + n - k): of either, as many as numbers are stored, so that by
that count a fraction `removed` of them makes it 1 / (1 - removed) times as fast. What it does not
count is that a second product begins where the first ends, that thin products use a processor less
well, and that the pivoted form puts its outputs in order. All are timed here in turns, on the same
inputs; the median counts. The pivoted form is timed at the size of the factors, where its rank is
larger, and at their rank, where it is smaller than they are.
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

from nsvd_exp.models.lowrank import LowRankLinear, PivotedLinear
from nsvd_exp.models.storage import Factors, Pivoted

# SmolLM2-135M's: attention, and both ways of the MLP; LLaMA-7B's: attention, one way of the MLP.
SHAPES = ((576, 576), (1536, 576), (576, 1536), (4096, 4096), (11008, 4096))
TOKENS = (1, 8, 32, 128, 512)
REMOVED = (10, 20, 30, 40, 50, 70, 90)  # percent
FACTORS = "two factors"
SAME_SIZE, SAME_RANK = "pivoted, of the size of the factors", "pivoted, of the rank of the factors"
FORMS = (FACTORS, SAME_SIZE, SAME_RANK)
# A run is made of calls that take this long together, at least, so that a clock can tell.
SECONDS_OF_A_RUN = 2e-2


@dataclass(frozen=True)
class Point:
    """One shape at one rank, for so many tokens at once.

    Attributes:
        form: one of FORMS.
        removed: percent of the weight's numbers that two factors of the same size, or rank, do
            without.
        dense, low_rank: seconds of a call, the median.
        times: dense / low_rank, the median over pairs of runs.
        low, high: of these pairs, the quartiles.
    """

    form: str
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
            for removed in REMOVED:
                points += points_of(dense, x, removed)
    return points


def points_of(dense: nn.Linear, x: torch.Tensor, removed: int, repeat: int = 9) -> list[Point]:
    """The dense layer and every form of it timed in turns on x (tokens, n)."""
    m, n = dense.weight.shape
    layers = low_rank_layers(m, n, removed, x)
    calls = _calls(dense, x)
    runs: dict[nn.Module, list[float]] = {layer: [] for layer in (dense, *layers.values())}
    for _ in range(repeat):
        for layer, seconds in runs.items():
            seconds.append(_seconds(layer, x, calls))
    points = []
    for form, layer in layers.items():
        pairs = zip(runs[dense], runs[layer], strict=True)
        low, middle, high = statistics.quantiles((theirs / ours for theirs, ours in pairs), n=4)
        medians = (statistics.median(runs[one]) for one in (dense, layer))
        points.append(Point(form, m, n, len(x), removed, layer.rank, *medians, middle, low, high))
    return points


def low_rank_layers(
    m: int, n: int, removed: int, x: torch.Tensor
) -> dict[str, LowRankLinear | PivotedLinear]:
    """A layer of each form, of random numbers, in the dtype and on the device of x."""
    like = {"dtype": x.dtype, "device": x.device}
    most = Fraction(100 - removed, 100) * m * n  # numbers that may be kept

    def pivoted(k: int) -> PivotedLinear:
        place = torch.randperm(m, device=x.device)
        return PivotedLinear(torch.randn(m - k, k, **like), torch.randn(k, n, **like), place, None)

    k = Factors().largest_rank(m, n, most)
    return {
        FACTORS: LowRankLinear(torch.randn(m, k, **like), torch.randn(k, n, **like), None),
        SAME_SIZE: pivoted(Pivoted().largest_rank(m, n, most)),
        SAME_RANK: pivoted(k),
    }


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


def sheet(form: str, points: Sequence[Point]) -> Sheet:
    """Of one form: times as fast by how much is removed, and the break-even."""
    points = [point for point in points if point.form == form]
    rows = []
    for m, n, tokens in dict.fromkeys((p.m, p.n, p.tokens) for p in points):
        own = [p for p in points if (p.m, p.n, p.tokens) == (m, n, tokens)]
        even = break_even(own)
        shown = "never" if even is None else "always" if even == 0 else f"{even:.0f}%"
        rows.append([f"{m} x {n}", f"{tokens}", *(f"{p.times:.2f}" for p in own), shown])
    if form != SAME_RANK:
        predicted = [f"{100 / (100 - removed):.2f}" for removed in REMOVED]
        rows.append(["by count", "", *predicted, "always"])
    headings = ("m x n", "tokens", *(f"{removed}%" for removed in REMOVED), "faster from")
    title = f"Times as fast as the dense layer, by what two factors remove. Here: {form}"
    return Sheet(title, headings, rows)


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
    sheets = [sheet(form, points) for form in FORMS]
    show(sheets, record["machine"])
    out = arguments.out or (None if arguments.quick else RESULTS)
    if out is not None:
        name = f"products {arguments.dtype}"
        print(f"written: {keep(out, name, record, sheets)}")


if __name__ == "__main__":
    main()
