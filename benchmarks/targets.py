"""The figures that have a target: one function each, which says what exactly is measured.

What measures and what computes are kept apart: a function that ends in `_figure` takes times.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import streamed
import torch
import transformers
from made import Size
from measure import Figure, seconds_of
from runs import Bench, Run
from table1 import FACTORS, METHODS, RATIOS, TWINS, ranks_for
from torch import Tensor, nn

from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import Compressor

SIX = f"method={','.join(METHODS)}"
WITHOUT_TWINS = f"method={','.join(name for name in METHODS if name not in TWINS)}"
ALL_RATIOS = f"ratio={','.join(map(str, RATIOS))}"
# What a call itself takes hides how a shorter work grows.
SECONDS_TO_SEE_GROWTH = 0.01
ONE_NUMBER = ("dataset=[wikitext2]", "evaluation.max_windows=1", "report=false")


def ratio_figure(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    limit: float,
    at_most: bool,
    note: str,
) -> Figure:
    """The median over the repetitions of a ratio of times.

    Args:
        above, below: seconds of each repetition.

    Returns:
        A figure without a value, which says why, where a time below the line is not above 0.
    """
    if min(below) <= 0:
        return Figure(name, None, limit, at_most, f"nothing to divide by: {min(below):.3g} s")
    ratios = tuple(a / b for a, b in zip(above, below, strict=True))
    return Figure(name, statistics.median(ratios), limit, at_most, note, repetitions=ratios)


def grid_over_evaluation_figures(
    walls: Sequence[float], passes: Sequence[float], tokens: int, all_tokens: int
) -> list[Figure]:
    """Table 1's grid, over its evaluation's forward passes alone.

    Above the line: wall seconds of the command, from the start of the interpreter to its end, with
    nothing in the store and nothing in the cache: imports, Hydra, loading, calibration,
    decomposition, evaluation, storing, the report. Below it: `Passes`, measured in the same run
    beside each repetition.

    `evaluation.max_windows` caps the evaluation, which makes the target harder: what comes on top
    of the passes is the same whether a dataset has 4 windows or 54, but is divided by a thirteenth
    of the passes. So under a cap the figure is given twice: as measured; and computed for the whole
    of the bundled text, where the same seconds on top of the measured passes are divided by passes
    that are longer by the number of tokens.

    Args:
        walls: seconds of the grid, of each repetition.
        passes: seconds of its forward passes, measured beside each repetition.
        tokens: that a cell evaluates.
        all_tokens: that it would evaluate on the whole text.
    """
    name = "Table 1's grid / forward passes of its evaluation"
    wall, of_passes = statistics.median(walls), statistics.median(passes)
    note = f"{wall:.4g} s / {of_passes:.4g} s, {tokens} tokens per cell"
    if all_tokens == tokens:
        return [ratio_figure(f"{name}, whole text", walls, passes, 1.25, True, note)]
    longer = all_tokens / tokens
    all_passes = [seconds * longer for seconds in passes]
    all_walls = [w - p + a for w, p, a in zip(walls, passes, all_passes, strict=True)]
    computed = (
        f"from the capped run: {wall - of_passes:.4g} s beside the passes, and passes {longer:.3g} "
        f"times as long, {all_tokens} tokens"
    )
    return [
        ratio_figure(f"{name}, capped", walls, passes, 1.25, True, note),
        ratio_figure(f"{name}, whole text, computed", all_walls, all_passes, 1.25, True, computed),
    ]


@dataclass(frozen=True)
class Decompositions:
    """Seconds of the stage `decompose`, summed over the cells of a grid.

    Attributes:
        ours, paper: of all six methods, by bases that cells share and by `solver=paper`.
        fewer, paper_fewer: the same without asvd_ii and nsvd_ii.
    """

    ours: float
    paper: float
    fewer: float
    paper_fewer: float


def decomposition_of_a_grid(bench: Bench, repeat: int, ratios: str = ALL_RATIOS) -> Figure:
    """Decomposing for 5 ratios x six methods, over `solver=paper` cell by cell: how much faster.

    The stored seconds of the stage `decompose`, summed over the 30 cells of a grid. `solver=paper`
    factorises each cell on its own: factor, SVD, inverse. The model has one layer: every layer's
    weights have the same seven shapes, so the ratio is that of any depth, and all 30 cells can be
    measured. Both sides make the layer table (losses) of every cell.

    Args:
        bench: of the model of one layer.
    """
    rounds = []
    for _ in range(repeat):
        ours = bench.run(SIX, ratios, *ONE_NUMBER).results
        paper = bench.run(SIX, ratios, *ONE_NUMBER, "solver=paper").results
        fewer = bench.run(WITHOUT_TWINS, ratios, *ONE_NUMBER).results
        paper_fewer = [r for r in paper if r["method"] not in TWINS]
        rounds.append(Decompositions(*map(_decompose, (ours, paper, fewer, paper_fewer))))
    return decomposition_figure(rounds)


def decomposition_figure(rounds: Sequence[Decompositions]) -> Figure:
    """The figure of `decomposition_of_a_grid`.

    asvd_ii and nsvd_ii have the output bases of asvd_i and nsvd_i, and come free where bases are
    shared. The note says how much that is: the same without the two on both sides.
    """
    ours, paper = [r.ours for r in rounds], [r.paper for r in rounds]
    name = "decomposing for 5 ratios x 6 methods: solver=paper / ours"
    note = f"{statistics.median(paper):.4g} s / {statistics.median(ours):.4g} s"
    whole = ratio_figure(name, paper, ours, 12, False, note)
    fewer = [r.fewer for r in rounds]
    without = ratio_figure("", [r.paper_fewer for r in rounds], fewer, 12, False, "")
    if whole.value is None or not without.value:
        return whole
    note += (
        f"; {without.value:.3g} times without asvd_ii and nsvd_ii, so that their coming free is a "
        f"factor of {whole.value / without.value:.3g}"
    )
    return replace(whole, note=note)


def _decompose(results: Sequence[dict[str, Any]]) -> float:
    return sum(result["seconds"].get("decompose", 0.0) for result in results)


def one_cell_over_paper_figures(
    ours: Sequence[Run], paper: Sequence[Run], calibration: Sequence[float]
) -> list[Figure]:
    """Calibrate + decompose of one nsvd_i cell from nothing: `solver=paper` over ours.

    The stored seconds of both stages, of commands in fresh processes with empty caches, one beside
    the other. `solver=paper` differs in the decomposition alone: it calibrates with the very pass
    of ours, which bounds the ratio where calibration is most of it. So it is also given against
    what the paper's setting takes in a straightforward implementation, which sums a Gram matrix for
    every Linear (seven in each layer, where four inputs are distinct): there the calibration of
    `solver=paper` counts as many times as `calibration_a_linear` measured.

    Args:
        calibration: `calibration_a_linear`.
    """
    mine, theirs = ([run.stages() for run in runs] for runs in (ours, paper))
    a_linear = statistics.median(calibration)
    below = [a["calibrate"] + a["decompose"] for a in mine]
    strict = [b["calibrate"] + b["decompose"] for b in theirs]
    straightforward = [a_linear * b["calibrate"] + b["decompose"] for b in theirs]
    parts = " / ".join(
        f"({statistics.median(s['calibrate'] for s in side):.4g} + "
        f"{statistics.median(s['decompose'] for s in side):.4g}) s"
        for side in (theirs, mine)
    )
    name = "calibrate + decompose one nsvd_i cell: solver=paper / ours"
    note = f"its calibration {a_linear:.3g} times as long, as measured in this run"
    longer = f"{name}, a Gram matrix for each Linear"
    return [
        ratio_figure(name, strict, below, 2, False, parts),
        ratio_figure(longer, straightforward, below, 2, False, note),
    ]


def calibration_a_linear(model: nn.Module, samples: Tensor, repeat: int) -> list[float]:
    """A calibration pass that sums a Gram matrix for every Linear, over ours: how much longer.

    It multiplies in float32 and sums in float64, as ours does on a CPU, on the same tokens in this
    process, one beside the other.

    Args:
        samples: (rows, length) token ids.
    """
    layers = find_linears(model, [])

    @torch.no_grad()
    def straightforward() -> None:
        sums = {
            layer: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64)
            for layer in layers.values()
        }

        def add(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2)
            sums[layer] += x.T @ x

        handles = [layer.register_forward_pre_hook(add) for layer in layers.values()]
        for ids in samples.split(max(4096 // samples.shape[1], 1)):
            model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()

    calibrate(model, layers, samples[:1])
    return [
        seconds_of(straightforward) / seconds_of(lambda: calibrate(model, layers, samples))
        for _ in range(repeat)
    ]


def second_run_over_empty_jobs(bench: Bench, grid: Run, repeat: int, *more: str) -> Figure:
    """The second run of a finished grid, over the same grid of empty Hydra jobs.

    Wall seconds of two commands in fresh processes, one beside the other: the grid's own, with all
    of its cells in the store; and `empty_jobs.py`, in which Hydra's own sweeper and launcher
    compose the same configuration for the same jobs, and a job is an empty function. Table 1 is 35
    jobs, 31 cells: dense has no ratio.
    """
    ours, empty = [], []
    for _ in range(repeat):
        ours.append(bench.again(grid.folder, *more).cost.seconds)
        empty.append(bench.empty(grid.folder, *more).seconds)
    note = f"{statistics.median(ours):.4g} s / {statistics.median(empty):.4g} s"
    name = f"second run of a grid of {len(grid.results)} cells / empty Hydra jobs"
    return ratio_figure(name, ours, empty, 1.2, True, note)


def streamed_bytes(quick: bool) -> Figure:
    """`memory=streamed`: bytes above the baseline, over what calibration cannot do without.

    Measured by `streamed.py`: the peak resident memory above the post-import baseline, over one
    block, its statistics and the hidden states, for a calibration of 16 x 512 tokens.
    """
    name = "streamed: bytes / (one block + its statistics + hidden states)"
    if quick:
        return Figure(name, None, 1.2, True, "not with --quick: streamed.py is a minute of its own")
    shape = streamed.Shape()
    note = f"{shape.blocks} blocks of hidden size {shape.hidden}, {shape.samples} x {shape.length}"
    return Figure(name, streamed.measure(shape)["streamed"], 1.2, True, f"{note} tokens")


def growth(sizes: Sequence[int], repeat: int) -> Figure:
    """The exponent p of seconds ~ n^p of a decomposition, n the hidden size.

    `Compressor` on the seven weights of one layer (LLaMA's shapes) by nsvd_i at ratio 0.3, in this
    process; the median of the repetitions of each size.
    """
    return growth_figure({n: _one_layer(n, repeat) for n in sizes})


def growth_figure(seconds: Mapping[int, float]) -> Figure:
    """The slope of the least-squares line through the logarithms of size and seconds.

    Small sizes are ruled by the cost of a call and lower it.

    Args:
        seconds: by size, in the order of the sizes; of two sizes at least.

    Returns:
        A figure without a value, which says why, where the times are too short to tell, or where
        a larger size took no longer than a smaller one.
    """
    name = "growth of the decomposition with hidden size: exponent"
    taken = ", ".join(f"{n}: {s:.3g} s" for n, s in seconds.items())
    times = list(seconds.values())
    if min(times) < SECONDS_TO_SEE_GROWTH:
        why = f"times below {SECONDS_TO_SEE_GROWTH:g} s are too short to show a growth: {taken}"
        return Figure(name, None, 3, True, why)
    if any(later <= earlier for earlier, later in pairwise(times)):
        return Figure(name, None, 3, True, f"a larger size took no longer: {taken}")
    x, y = ([math.log(v) for v in values] for values in (seconds, times))
    slope = statistics.linear_regression(x, y).slope
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return Figure(name, slope, 3, True, f"{taken}; between the last two {last:.3g}")


def _one_layer(n: int, repeat: int) -> float:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(Size(n, 1).config())
    shapes = {name: linear.weight.shape for name, linear in find_linears(model, []).items()}
    generator = torch.Generator().manual_seed(0)
    reads = {name: str(columns) for name, (_, columns) in shapes.items()}
    inputs = {width: _statistics(int(width), generator) for width in set(reads.values())}
    calibration = Calibration(inputs, reads)
    layers = {
        name: nn.Linear(columns, rows, bias=False).requires_grad_(False)
        for name, (rows, columns) in shapes.items()
    }
    ranks = ranks_for(layers, 0.3)
    compressor = Compressor(METHODS["nsvd_i"], ranks, calibration, FACTORS, torch.float32)
    compressor.compress(layers)
    return statistics.median(seconds_of(lambda: compressor.compress(layers)) for _ in range(repeat))


def _statistics(width: int, generator: torch.Generator) -> Statistics:
    X = torch.randn(2 * width, width, generator=generator)
    return Statistics(
        gram=(X.T @ X).double(),
        abs_mean=X.abs().mean(0).double(),
        mean=X.mean(0).double(),
        tokens=len(X),
    )
