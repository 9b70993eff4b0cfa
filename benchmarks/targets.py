"""The figures that have a target: one function each, which says what exactly is measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import streamed
import torch
import transformers
from made import Size
from measure import Figure, seconds_of
from runs import Bench, Passes, Run
from torch import Tensor, nn

from nsvd_exp.methods.base import Method, Statistics, whitening_named
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.compress import compress, ranks_for

NESTED = "method=svd,asvd_0,asvd_i,asvd_ii,nsvd_i,nsvd_ii"
WITHOUT_TWINS = "method=svd,asvd_0,asvd_i,nsvd_i"
RATIOS = "ratio=0.1,0.2,0.3,0.4,0.5"
ONE_NUMBER = ("dataset=[wikitext2]", "evaluation.max_windows=1", "report=false")


def grid_over_evaluation(
    grids: Sequence[Run], passes: Passes, seconds: Sequence[dict[float | None, float]]
) -> list[Figure]:
    """Table 1's grid, over its evaluation's forward passes alone.

    Above: wall seconds of the command, from the start of the interpreter to its end, with nothing
    in the store and nothing in the cache: imports, Hydra, loading, calibration, decomposition,
    evaluation, storing, the report. Below: `Passes`, measured in the same run beside each
    repetition; the median of the ratios of the repetitions.

    `evaluation.max_windows` caps the evaluation, which makes the target harder: what comes on top
    of the passes is the same whether a dataset has 4 windows or 54, but is divided by a thirteenth
    of the passes. So under a cap the figure is given twice: as measured; and computed for the whole
    of the bundled text, where the same seconds on top of the measured passes are divided by passes
    that are longer by the number of tokens.

    Args:
        grids: the repetitions.
        seconds: of the passes, one beside each repetition.
    """
    totals = [passes.total(s) for s in seconds]
    walls = [grid.cost.seconds for grid in grids]
    measured = [wall / total for wall, total in zip(walls, totals, strict=True)]
    longer = passes.all_tokens / passes.tokens
    whole = [
        1 + (wall - total) / (total * longer) for wall, total in zip(walls, totals, strict=True)
    ]
    name = "Table 1's grid / forward passes of its evaluation"
    note = (
        f"{statistics.median(walls):.4g} s / {statistics.median(totals):.4g} s, "
        f"{passes.tokens} tokens a cell"
    )
    if passes.all_tokens == passes.tokens:
        return [_median(f"{name}, whole text", measured, 1.25, True, note)]
    computed = (
        f"from the capped run: {statistics.median(walls) - statistics.median(totals):.4g} s "
        f"beside the passes, and passes {longer:.3g} times as long, {passes.all_tokens} tokens"
    )
    return [
        _median(f"{name}, capped", measured, 1.25, True, note),
        _median(f"{name}, whole text, computed", whole, 1.25, True, computed),
    ]


def decomposition_of_a_grid(bench: Bench, repeat: int, ratios: str = RATIOS) -> Figure:
    """Decomposing for 5 ratios x six methods, over `solver=paper` cell by cell: how much faster.

    The stored seconds of the stage `decompose`, summed over the 30 cells of a grid. `solver=paper`
    factorises each cell on its own: factor, SVD, inverse. The model has one layer: every layer's
    weights have the same seven shapes, so the ratio is that of any depth, and all 30 cells can be
    measured. Both sides make the layer table (losses) of every cell.

    asvd_ii and nsvd_ii have the output bases of asvd_i and nsvd_i, and come free where bases are
    shared. How much that is: the same without the two on both sides.

    Args:
        bench: of the model of one layer.
    """
    ours, paper, fewer, paper_fewer = [], [], [], []
    for _ in range(repeat):
        ours.append(_decompose(bench.run(NESTED, ratios, *ONE_NUMBER).results))
        done = bench.run(NESTED, ratios, *ONE_NUMBER, "solver=paper").results
        paper.append(_decompose(done))
        paper_fewer.append(_decompose([r for r in done if not r["method"].endswith("svd_ii")]))
        fewer.append(_decompose(bench.run(WITHOUT_TWINS, ratios, *ONE_NUMBER).results))
    factors = [theirs / mine for theirs, mine in zip(paper, ours, strict=True)]
    without = statistics.median(t / m for t, m in zip(paper_fewer, fewer, strict=True))
    note = (
        f"{statistics.median(paper):.4g} s / {statistics.median(ours):.4g} s; "
        f"{without:.3g} times without asvd_ii and nsvd_ii, so that their coming free is a factor "
        f"of {statistics.median(factors) / without:.3g}"
    )
    name = "decomposing for 5 ratios x 6 methods: solver=paper / ours"
    return _median(name, factors, 12, False, note)


def _decompose(results: Sequence[dict[str, Any]]) -> float:
    return sum(result["seconds"].get("decompose", 0.0) for result in results)


def one_cell_over_paper(
    ours: Sequence[Run], paper: Sequence[Run], calibration: Sequence[float]
) -> list[Figure]:
    """Calibrate + decompose of one nsvd_i cell from nothing: `solver=paper` over ours.

    The stored seconds of both stages, of commands in fresh processes with empty caches, one beside
    the other. `solver=paper` differs in the decomposition alone: it calibrates with the very pass
    of ours, which bounds the ratio where calibration is most of it. So it is also given against
    what the paper's setting takes in a straightforward implementation, which sums a Gram matrix for
    every Linear (seven a layer, where four inputs are distinct): there the calibration of
    `solver=paper` counts as many times as `calibration_a_linear` measured.

    Args:
        calibration: `calibration_a_linear`.
    """
    mine, theirs = ([run.stages() for run in runs] for runs in (ours, paper))
    a_linear = statistics.median(calibration)
    strict, straightforward = [], []
    for a, b in zip(mine, theirs, strict=True):
        strict.append((b["calibrate"] + b["decompose"]) / (a["calibrate"] + a["decompose"]))
        straightforward.append(
            (a_linear * b["calibrate"] + b["decompose"]) / (a["calibrate"] + a["decompose"])
        )
    parts = " / ".join(
        f"({statistics.median(s['calibrate'] for s in side):.4g} + "
        f"{statistics.median(s['decompose'] for s in side):.4g}) s"
        for side in (theirs, mine)
    )
    name = "calibrate + decompose one nsvd_i cell: solver=paper / ours"
    note = f"its calibration {a_linear:.3g} times as long, as measured in this run"
    return [
        _median(name, strict, 2, False, parts),
        _median(f"{name}, a Gram matrix a Linear", straightforward, 2, False, note),
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
    seconds = []
    for _ in range(repeat):
        ours = bench.again(grid.folder, *more).cost.seconds
        seconds.append((ours, bench.empty(grid.folder, *more).seconds))
    note = " / ".join(f"{statistics.median(s[side] for s in seconds):.4g} s" for side in (0, 1))
    name = f"second run of a grid of {len(grid.results)} cells / empty Hydra jobs"
    return _median(name, [ours / empty for ours, empty in seconds], 1.2, True, note)


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

    `compress` of the seven weights of one layer (LLaMA's shapes) by nsvd_i at ratio 0.3, in this
    process; the median of the repetitions a size; p is the slope of the least-squares line through
    the logarithms. Small sizes are ruled by the cost of a call and lower it.
    """
    seconds = {n: _one_layer(n, repeat) for n in sizes}
    x, y = ([math.log(v) for v in values] for values in (seconds, seconds.values()))
    slope = statistics.linear_regression(x, y).slope
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    taken = ", ".join(f"{n}: {s:.3g} s" for n, s in seconds.items())
    note = f"{taken}; between the last two {last:.3g}"
    return Figure("growth of the decomposition with hidden size: exponent", slope, 3, True, note)


def _one_layer(n: int, repeat: int) -> float:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(Size(n, 1).config())
    shapes = {name: linear.weight.shape for name, linear in find_linears(model, []).items()}
    generator = torch.Generator().manual_seed(0)
    layers, known = {}, {}
    inputs = {width: _statistics(width, generator) for width in {s[1] for s in shapes.values()}}
    for name, (rows, columns) in shapes.items():
        layers[name] = nn.Linear(columns, rows, bias=False).requires_grad_(False)
        known[name] = inputs[columns]
    method, ranks = Method(whitening_named("cholesky"), "svd"), ranks_for(layers, 0.3)

    def work() -> None:
        compress(layers, ranks, method, 0.95, known, torch.float32)

    work()
    return statistics.median(seconds_of(work) for _ in range(repeat))


def _statistics(width: int, generator: torch.Generator) -> Statistics:
    X = torch.randn(2 * width, width, generator=generator)
    return Statistics(
        gram=(X.T @ X).double(),
        abs_mean=X.abs().mean(0).double(),
        mean=X.mean(0).double(),
        tokens=len(X),
    )


def _median(name: str, values: Sequence[float], limit: float, at_most: bool, note: str) -> Figure:
    value = statistics.median(values)
    return Figure(name, value, limit, at_most, note, repetitions=tuple(values))
