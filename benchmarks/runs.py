"""Grids and cells through the command line, each in a fresh process, and what their stages took."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
import transformers
from made import check
from measure import ROOT, Cost, median_cost, run, seconds_of
from table1 import ranks_for
from torch import nn

from nsvd_exp.cli.arguments import normalise
from nsvd_exp.config.files import conf_dir, register
from nsvd_exp.config.schema import typed_config
from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import windows
from nsvd_exp.experiment.plan import CellPlan, plan_cell
from nsvd_exp.models.layers import find_linears, replaced
from nsvd_exp.models.lowrank import LowRankLinear
from nsvd_exp.pipeline.evaluate import window_nll
from nsvd_exp.storage.results import Result, read_all

PROGRAM = ("-m", "nsvd_exp")
STAGES = ("load", "calibrate", "decompose", "evaluate")


@dataclass(frozen=True)
class Run:
    """One command: what it cost, and the results it left.

    Attributes:
        folder: its `results_dir`.
    """

    cost: Cost
    results: list[Result]
    folder: Path

    def stages(self) -> dict[str, float]:
        """Seconds by stage, summed over the cells; `rest` is what no stage accounts for.

        That is the start of the interpreter, imports, Hydra, planning, storing and the report.
        """
        sums = dict.fromkeys(STAGES, 0.0)
        for result in self.results:
            for name, seconds in result["seconds"].items():
                sums[name] += seconds
        return sums | {"rest": self.cost.seconds - sum(sums.values())}

    def only(self) -> Result:
        """The result of a run of one cell."""
        (result,) = self.results
        return result


@dataclass(frozen=True)
class Bench:
    """One model, and the settings that all commands on it have in common.

    Attributes:
        model: its folder.
        settings: of the command line.
        program: what runs a command line.
    """

    model: Path
    settings: tuple[str, ...]
    program: tuple[str, ...] = PROGRAM

    def arguments(self, *more: str) -> list[str]:
        """The arguments of a grid on this model."""
        title = f"model.title=random-{self.model.name}"
        return ["-m", *more, f"model.name={self.model}", title, *self.settings]

    def run(self, *more: str) -> Run:
        """Run a grid with no stored result and no cache."""
        folder = Path(tempfile.mkdtemp(dir=self.model.parent, prefix="results-"))
        return self.again(folder, *more)

    def again(self, folder: Path, *more: str) -> Run:
        """Run a grid whose results are in `folder`."""
        cost = run(*self.program, *self.arguments(*more), f"results_dir={folder}")
        return Run(cost, check(read_all(folder)), folder)

    def empty(self, folder: Path, *more: str) -> Cost:
        """What the same grid of empty Hydra jobs costs."""
        script = str(ROOT / "benchmarks" / "empty_jobs.py")
        return run(script, *self.arguments(*more), f"results_dir={folder}")

    def plan(self, *more: str) -> CellPlan:
        """The cell of one job."""
        return planned(*self.arguments(*more)[1:])


def planned(*arguments: str) -> CellPlan:
    """The cell of a command line."""
    register()
    given = [normalise(argument) for argument in arguments]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return plan_cell(typed_config(hydra.compose("config", given)))


def median_run(runs: Sequence[Run]) -> dict[str, Any]:
    """What runs of the same command cost, as medians, in the form that is kept."""
    cost = median_cost([run.cost for run in runs])
    by_run = [run.stages() for run in runs]
    stages = {name: statistics.median(stages[name] for stages in by_run) for name in by_run[0]}
    return {
        "cells": len(runs[0].results),
        "repetitions": len(runs),
        "wall": cost.seconds,
        "stages": stages,
        "evaluation_share": statistics.median(
            stages["evaluate"] / run.cost.seconds for stages, run in zip(by_run, runs, strict=True)
        ),
        "peak_bytes": cost.peak_bytes,
        "written_bytes": cost.written_bytes,
    }


class Passes:
    """The forward passes of a grid's evaluation, and nothing else, in this process.

    The dense model's, and the compressed model's at each ratio: `window_nll` on the windows and in
    the batches of the grid. The cells of one ratio have the same ranks, and so take the same time.

    Args:
        bench: of the grid.
        more: its further settings.
        results: of the grid, whose tokens these must be.
    """

    def __init__(self, bench: Bench, more: Iterable[str], results: Sequence[Result]) -> None:
        plan = bench.plan(*more)
        tokenizer = transformers.AutoTokenizer.from_pretrained(bench.model)
        cap = plan.config.evaluation.max_windows
        self._batch = plan.config.evaluation.batch
        self._windows, self.all_tokens = {}, 0
        for asked in plan.measurements:
            text = text_of(asked.dataset, "test", asked.source)
            special = asked.dataset.split_special_tokens
            self._windows[asked.dataset.name] = windows(tokenizer, text, plan.length, cap, special)
            self.all_tokens += windows(tokenizer, text, plan.length, None, special).ids.numel()
        self.tokens = sum(found.ids.numel() for found in self._windows.values())
        self._results = results
        self._check_tokens()
        self._model = transformers.AutoModelForCausalLM.from_pretrained(bench.model).eval()
        self._layers = find_linears(self._model, [])

    def _check_tokens(self) -> None:
        for result in self._results:
            for name, number in result["datasets"].items():
                if number["token_sha256"] != self._windows[name].sha256:
                    raise RuntimeError(f"{name}: not the tokens of the grid's evaluation")

    def seconds(self) -> dict[float | None, float]:
        """Seconds of one pass over all datasets, by ratio (None: the dense model)."""
        ratios = dict.fromkeys(result["ratio"] for result in self._results)
        return {ratio: self._one(ratio) for ratio in ratios}

    def total(self, seconds: Mapping[float | None, float]) -> float:
        """Seconds of the whole grid: each cell takes as long as a pass at its ratio."""
        return sum(seconds[result["ratio"]] for result in self._results)

    def _one(self, ratio: float | None) -> float:
        replacements = {} if ratio is None else dict(self._random_factors(ratio))
        with replaced(self._model, replacements):
            first = next(iter(self._windows.values())).ids[:1]
            window_nll(self._model, first, self._batch)  # does not count: it touches the weights
            return seconds_of(
                lambda: [
                    window_nll(self._model, found.ids, self._batch)
                    for found in self._windows.values()
                ]
            )

    def _random_factors(self, ratio: float) -> Iterator[tuple[str, nn.Module]]:
        for name, k in ranks_for(self._layers, ratio).items():
            m, n = self._layers[name].weight.shape
            left, right = torch.randn(m, k) / k**0.5, torch.randn(k, n) / n**0.5
            yield name, LowRankLinear(left, right, None)
