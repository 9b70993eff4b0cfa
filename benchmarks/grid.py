"""What a grid costs, stage by stage, and the figures that have a target.

    python benchmarks/grid.py                      # about 15 minutes on two quiet cores
    python benchmarks/grid.py --windows all        # the first figure on the whole text: an hour
    python benchmarks/grid.py --preset llama_7b    # (a) and (b), random weights on a GPU
    python benchmarks/grid.py --quick              # a minute: that it runs, not how fast

Models of growing width and depth with random weights on the bundled text; for each, commands in
fresh processes with an empty store and cache:

(a) one nsvd_i cell;
(b) Table 1's grid, 31 cells;
(c) the same cells with `solver=paper` and nothing shared, as a straightforward implementation does
    them: a process, a calibration and a factorisation for each cell. Measured is one cell of each
    method, at ratio 0.3, on the last model; the grid is dense once and five times the others.

On the last model (a), (b), (c)'s nsvd_i cell and the passes of the evaluation alone are repeated,
one beside the other, so that noise hits all of them; ratios are medians over the repetitions. What
is done once says so. The smaller models and (c)'s other methods are.

Evaluation is what a grid costs: on the whole of the bundled text, 111 360 tokens per cell, it is a
quarter of an hour for the last model. So `--windows` caps it, which lowers its share: the share of
evaluation and the first target are harder to reach than on the whole text (see `targets.py`).
`--windows all` measures that one on the last model, and not the figures that no text changes.
"""

from __future__ import annotations

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import made
import table1
import targets
import torch
import transformers
from made import LLAMA_7B, Size
from measure import RESULTS, TARGET_HEADINGS, Figure, Machine, Sheet, keep, show
from runs import STAGES, Bench, Passes, Run, median_run

from nsvd_exp.models.devices import resolve_device

TABLE1 = ("experiment=table1", "model=tiny")
CELL = ("model=tiny", "ratio=0.3", "k1=0.95", "report=false")
METHODS = ("dense", *table1.METHODS)
NOTHING_SHARED = "(c) Table 1, nothing shared"
GROWTH, SAMPLES = (256, 512, 1024), 16

Costs = dict[str, dict[str, Any]]


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    on_gpu = arguments.preset == "llama_7b"
    device = resolve_device("cuda" if on_gpu else "cpu")
    machine = Machine(device)
    with tempfile.TemporaryDirectory(prefix="nsvd-grid-") as folder:
        measured = _llama_7b(Path(folder)) if on_gpu else _sizes(Path(folder), arguments)
    costs, figures, settings = measured
    whole = arguments.windows == "all"
    options = " --preset llama_7b" if on_gpu else " --windows all" if whole else ""
    record: dict[str, Any] = {
        "command": f"benchmarks/grid.py{options}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine.record(),
        "settings": settings,
        "costs": costs,
        "figures": [figure.record() for figure in figures],
    }
    sheets = [cost_sheet(costs), Sheet("Targets", TARGET_HEADINGS, [f.row() for f in figures])]
    sheets = sheets if figures else sheets[:1]
    show(sheets, record["machine"])
    out = arguments.out or (None if arguments.quick else RESULTS)
    if out is not None:
        name = "grid-llama-7b" if on_gpu else "grid-whole-text" if whole else "grid"
        print(f"written: {keep(out, name, record, sheets)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=_size_list, help="256x4,256x8,512x8; the last has targets")
    parser.add_argument("--windows", help="of 256 tokens per dataset: 4, or all")
    parser.add_argument("--repeat", type=int, help="3")
    parser.add_argument("--preset", choices=["llama_7b"])
    parser.add_argument("--quick", action="store_true", help="small and once; keeps no file")
    parser.add_argument("--out", type=Path, help="folder for JSON and Markdown; results/benchmarks")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.sizes = arguments.sizes or [Size(64, 2)] if quick else arguments.sizes or DEFAULT
    arguments.repeat = arguments.repeat or (1 if quick else 3)
    arguments.windows = arguments.windows or ("1" if quick else "4")
    return arguments


DEFAULT = [Size(256, 4), Size(256, 8), Size(512, 8)]


def _size_list(text: str) -> list[Size]:
    return [Size.parse(part) for part in text.split(",")]


def _sizes(
    folder: Path, arguments: argparse.Namespace
) -> tuple[Costs, list[Figure], dict[str, Any]]:
    """The default: costs of every size, the targets on the last."""
    *smaller, target = arguments.sizes
    quick, repeat, windows = arguments.quick, arguments.repeat, arguments.windows
    smaller = [] if windows == "all" else smaller
    settings = ["device=cpu"]
    settings += [f"evaluation.max_windows={'null' if windows == 'all' else windows}"]
    grid_settings = [*TABLE1]
    if quick:
        settings += ["dataset=[wikitext2,ptb]", "calibration.samples=8"]
        grid_settings += ["ratio=0.3"]
    costs: Costs = {}
    for size in smaller:
        bench = Bench(made.save(folder / str(size), size), tuple(settings))
        costs[f"{size} (a) one cell"] = median_run([bench.run("method=nsvd_i", *CELL)])
        costs[f"{size} (b) Table 1"] = median_run([bench.run(*grid_settings)])
    bench = Bench(made.save(folder / str(target), target), tuple(settings))
    measured = _repeated(bench, grid_settings, repeat)
    costs[f"{target} (a) one cell"] = median_run(measured["cells"])
    costs[f"{target} (b) Table 1"] = median_run(measured["grids"])
    paper = _paper(bench, measured["paper"], ("nsvd_i",) if quick else METHODS)
    costs |= {f"{target} (c) {name}": cost for name, cost in paper.items()}
    said = {"sizes": [str(s) for s in (*smaller, target)], "windows": windows, "repeat": repeat}
    passes: Passes = measured["passes"]
    figures = targets.grid_over_evaluation_figures(
        [grid.cost.seconds for grid in measured["grids"]],
        [passes.total(seconds) for seconds in measured["pass_seconds"]],
        passes.tokens,
        passes.all_tokens,
    )
    if windows == "all":
        return costs, figures, said
    shallow = Size(target.hidden, 1)
    figures += [
        targets.decomposition_of_a_grid(
            Bench(made.save(folder / str(shallow), shallow), ("model=tiny", *settings)),
            repeat,
            "ratio=0.3" if quick else targets.ALL_RATIOS,
        ),
        *targets.one_cell_over_paper_figures(
            measured["cells"], measured["paper"], _calibration(bench, repeat)
        ),
        targets.second_run_over_empty_jobs(bench, measured["grids"][-1], repeat, *grid_settings),
        targets.streamed_bytes(quick),
        targets.growth((32, 48, 64) if quick else GROWTH, repeat),
    ]
    return costs, figures, said


def _repeated(bench: Bench, grid_settings: list[str], repeat: int) -> dict[str, Any]:
    """What is repeated, one beside the other."""
    grids: list[Run] = []
    cells: list[Run] = []
    paper: list[Run] = []
    pass_seconds = []
    passes = None
    for _ in range(repeat):
        grids.append(bench.run(*grid_settings))
        passes = passes or Passes(bench, TABLE1[1:], grids[0].results)
        pass_seconds.append(passes.seconds())
        cells.append(bench.run("method=nsvd_i", *CELL))
        paper.append(bench.run("method=nsvd_i", *CELL, "solver=paper"))
    return {
        "grids": grids,
        "cells": cells,
        "paper": paper,
        "passes": passes,
        "pass_seconds": pass_seconds,
    }


def _paper(bench: Bench, nsvd_i: list[Run], methods: tuple[str, ...]) -> Costs:
    """(c): one process for each method, and what follows for the whole grid."""
    cells = {"nsvd_i": median_run(nsvd_i)}
    for method in methods:
        if method not in cells:
            run = bench.run(f"method={method}", *CELL, "solver=paper")
            cells[method] = median_run([run])
    if set(methods) != set(METHODS):
        return {f"solver=paper, {name}": cost for name, cost in cells.items()}
    shown = {f"solver=paper, {name}": cells[name] for name in ("nsvd_i", "asvd_ii", "svd")}
    return {**shown, NOTHING_SHARED.removeprefix("(c) "): nothing_shared(cells)}


def nothing_shared(cells: Costs) -> dict[str, Any]:
    """What Table 1's grid costs if each cell is a process of its own.

    Args:
        cells: the cost of one cell of each method; dense counts once, the others once per ratio.
    """
    times = {name: 1 if name == "dense" else 5 for name in cells}

    def total(pick: Callable[[dict[str, Any]], float]) -> float:
        return sum(times[name] * pick(cost) for name, cost in cells.items())

    written = [cost["written_bytes"] for cost in cells.values()]
    wall = total(lambda cost: cost["wall"])
    stages = {s: total(lambda cost: cost["stages"][s]) for s in (*STAGES, "rest")}  # noqa: B023
    return {
        "cells": sum(times.values()),
        "repetitions": 0,
        "measured": "one cell of each method at ratio 0.3; dense once and five times the others",
        "wall": wall,
        "stages": stages,
        "evaluation_share": stages["evaluate"] / wall,
        "peak_bytes": max(cost["peak_bytes"] for cost in cells.values()),
        "written_bytes": None if None in written else total(lambda cost: cost["written_bytes"]),
    }


def _calibration(bench: Bench, repeat: int) -> list[float]:
    """`calibration_a_linear` on this model, with random ids: only the sizes matter to it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(bench.model).eval()
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(made.VOCABULARY, (SAMPLES, made.POSITIONS), generator=generator)
    return targets.calibration_a_linear(model, samples, repeat)


def _llama_7b(folder: Path) -> tuple[Costs, list[Figure], dict[str, Any]]:
    """(a) and (b) on LLaMA-7B's shape, calibrated as in the paper; weights made on the device."""
    model = folder / "llama_7b"
    made.save_config(model, LLAMA_7B.config(vocabulary=32000, positions=2048))
    settings = (
        *("device=cuda", "dtype=bfloat16", "evaluation.max_windows=4"),
        *("calibration.samples=256", "calibration.length=2048"),
    )
    script = str(Path(__file__).resolve().parent / "random_weights.py")
    bench = Bench(model, settings, program=(script,))
    costs = {
        "llama_7b (a) one cell": median_run([bench.run("method=nsvd_i", *CELL)]),
        "llama_7b (b) Table 1": median_run([bench.run(*TABLE1)]),
    }
    return costs, [], {"preset": "llama_7b", "windows": "4", "repeat": 1}


def cost_sheet(costs: Costs) -> Sheet:
    """Seconds by stage, the share of evaluation, memory and bytes."""
    headings = ("model, what", "cells", "runs", "wall", *STAGES, "rest", "evaluation's share")
    rows = []
    for name, cost in costs.items():
        written = cost["written_bytes"]
        rows.append(
            [
                name,
                str(cost["cells"]),
                str(cost["repetitions"] or "computed"),
                f"{cost['wall']:.1f}",
                *(f"{cost['stages'][stage]:.1f}" for stage in (*STAGES, "rest")),
                f"{cost['evaluation_share']:.0%}",
                f"{cost['peak_bytes'] / 1e9:.2f} GB",
                "–" if written is None else f"{written / 1e6:.0f} MB",
            ]
        )
    title = "Costs, in seconds"
    walls = {name.partition(" ")[2]: cost["wall"] for name, cost in costs.items()}
    if NOTHING_SHARED in walls:
        times = walls[NOTHING_SHARED] / walls["(b) Table 1"]
        title += f"; (c) takes {times:.3g} times as long as (b), on the last model"
    return Sheet(title, (*headings, "peak memory", "written"), rows)


if __name__ == "__main__":
    main()
