"""The order of a grid: what is shared is made once, and what was typed is what is shown."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import run_main
from helpers.configuration import compose

from nsvd_exp.config.schema import Config
from nsvd_exp.experiment import session as stages
from nsvd_exp.experiment.order import grid_order
from nsvd_exp.methods import base as methods

Settings = Callable[..., list[str]]


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
        calibration = replace(of.calibration, seed=seed)
        return replace(
            of, ratio=ratio, model=replace(of.model, name=model), calibration=calibration
        )

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


class Counts:
    """How often each stage was done, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: Counter[str] = Counter()
        for module, name in (
            (stages, "load_model"),
            (stages, "calibrate"),
            (methods, "eigenbasis"),
        ):
            monkeypatch.setattr(module, name, self._counting(name, getattr(module, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **named: Any) -> Any:
            self.done[name] += 1
            return real(*args, **named)

        return counting


@pytest.mark.parametrize("keep", ["none", "statistics", "bases"])
def test_a_grid_makes_each_shared_stage_once(
    settings: Settings,
    model_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    keep: str,
) -> None:
    common = [a for a in settings("opt") if not a.startswith(("model", "dataset="))]
    models = f"{model_folder('llama')},{model_folder('llama', 1)}"
    counts = Counts(monkeypatch)
    stages.release_model()
    code, out, err = run_main(
        capsys,
        *("-m", *common, "dataset=[ptb]", "ratio=0.1,0.3", "model=hf", f"model.name={models}"),
        *("method=nsvd_i,svd,asvd_i", "report=false", f"cache.keep={keep}"),
    )
    assert code == 0, err
    layers, metrics = 2 * 7, 2
    expected = {"load_model": 2, "calibrate": 2, "eigenbasis": 2 * layers * metrics}
    assert counts.done == expected
    # The table: as typed, the last axis fastest.
    rows = [line for line in out.splitlines() if "llama-" in line]
    typed = itertools.product(("0.1", "0.3"), ("llama-0", "llama-1"), ("NSVD-I", "SVD", "ASVD-I"))
    assert len(rows) == 12
    for row, (ratio, model, method) in zip(rows, typed, strict=True):
        words = row.lower().split()
        assert model in words
        assert ratio in words
        assert method.lower() in words or method.lower().replace("-", "_") in words


def test_every_config_of_a_grid_has_an_order() -> None:
    """Similarity records and cells in one grid."""
    configs: list[Config] = [compose("measure=similarity"), compose("method=svd"), compose()]
    assert sorted(grid_order(configs)) == [0, 1, 2]
