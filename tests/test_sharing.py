"""The order of a grid: what is shared is made once, and what was typed is what is shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.cells import Watch
from helpers.command_line import Capture, Settings, run_main
from helpers.configuration import compose
from torch import Tensor

from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.order import grid_order
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods import Method


def ordered(*jobs: str) -> list[str]:
    """Jobs (`method=svd ratio=0.1`) in the order to launch them."""
    order = grid_order([compose(*job.split()) for job in jobs])
    assert sorted(order) == list(range(len(jobs)))
    return [jobs[index] for index in order]


def test_what_is_shared_is_asked_for_in_one_go() -> None:
    names = ["nsvd_i", "asvd_0", "svd", "asvd_iii", "asvd_i", "dense"]
    configs = {name: compose(f"method={name}") for name in names}
    jobs = list(itertools.product((0.1, 0.3), "AB", (3, 4), names))

    def config(ratio: float, model: str, seed: int, name: str) -> Config:
        of = configs[name]
        model_config = replace(of.model, name=model)
        calibration = replace(of.calibration, seed=seed)
        return replace(of, ratio=ratio, model=model_config, calibration=calibration)

    order = grid_order([config(*job) for job in jobs])
    assert sorted(order) == list(range(len(jobs)))
    launched = [jobs[index] for index in order]
    assert [model for _, model, _, _ in launched] == ["A"] * 24 + ["B"] * 24
    # Those that look at no activations; then for each calibration, what shares the identity with
    # them, then the metrics as they come up.
    alone = ["svd"] * 4 + ["dense"] * 4
    each = ["asvd_iii"] * 2 + ["nsvd_i"] * 2 + ["asvd_i"] * 2 + ["asvd_0"] * 2
    assert [name for _, _, _, name in launched[:24]] == alone + each + each
    assert [seed for _, _, seed, _ in launched[8:24]] == [3] * 8 + [4] * 8


def test_jobs_that_differ_in_nothing_shared_stay_as_they_were_typed() -> None:
    jobs = [f"method=nsvd_i evaluation.length={n}" for n in (64, 16, 32)]
    assert ordered(*jobs) == jobs
    assert grid_order([]) == []
    mixed = "measure=similarity", "method=svd", "ratio=0.5"  # records and cells in one grid
    assert set(ordered(*mixed)) == set(mixed)


def test_who_reads_most_of_the_gradients_makes_them_for_the_others() -> None:
    asvd_0, asvd_i, fisher = "method=asvd_0", "method=asvd_i", "method=asvd_i allocation=fisher"
    others = "method=kfac", "method=fwsvd", "method=weighted_kfac", "method=svd"
    assert ordered(asvd_0, asvd_i, fisher, *others) == [
        "method=svd", "method=weighted_kfac", "method=kfac", asvd_i, fisher, "method=fwsvd", asvd_0,
    ]  # fmt: skip


class WatchedSession(Session):
    """Tells `watch` of every model that is loaded and of every basis that is made."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.load)
        self.watch = watch

    def bases(self, plan: Resolved, method: Method) -> Any:
        shared, watch = super().bases(plan, method), self.watch

        def get(layer: str, W: Tensor, make: Callable[[], Any]) -> Any:
            return shared.get(layer, W, lambda: watch.progress("basis") or make())

        return SimpleNamespace(get=get)


@pytest.mark.parametrize("keep", ["none", "statistics", "bases"])
def test_a_grid_makes_each_shared_stage_once(
    settings: Settings, model_folder: Callable[..., Path], keep: str
) -> None:
    common = [*settings("opt"), "dataset=[ptb]", f"cache.keep={keep}"]
    models = [model_folder("llama"), model_folder("llama", 1)]
    grid = itertools.product((0.1, 0.3), models, ("nsvd_i", "svd", "asvd_i"))
    configs = [
        compose(*common, f"method={method}", f"ratio={ratio}", f"model.name={model}")
        for ratio, model, method in grid
    ]
    watch = Watch()
    session = WatchedSession(watch)
    for index in grid_order(configs):
        assert run_cell(plan_cell(configs[index]), session, watch)["status"] == "done"
    layers, metrics = 2 * 7, 2
    done = {name: watch.begun[name] for name in ("load resident", "calibrate", "basis")}
    assert done == {"load resident": 2, "calibrate": 2, "basis": 2 * layers * metrics}


def test_the_table_of_a_grid_is_as_it_was_typed(
    settings: Settings,
    model_folder: Callable[..., Path],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # a line for each job
    models = f"model.name={model_folder('llama')},{model_folder('llama', 1)}"
    grid = ["dataset=[ptb]", "ratio=0.1,0.3", models, "method=nsvd_i,svd,asvd_i", "report=false"]
    arguments = [a for a in settings("opt") if not a.startswith(("model.name=", "dataset="))]
    code, out, err = run_main(capsys, "-m", *arguments, *grid)
    assert code == 0, err
    assert err.count("calibrating on") == 2
    rows = [line for line in out.splitlines() if "llama-" in line]
    typed = itertools.product(("0.1", "0.3"), ("llama-0", "llama-1"), ("NSVD-I", "SVD", "ASVD-I"))
    assert len(rows) == 12
    for row, (ratio, model, method) in zip(rows, typed, strict=True):  # the last axis fastest
        words = row.lower().split()
        assert {model, ratio, method.lower().replace("-", "_")} <= set(words)
