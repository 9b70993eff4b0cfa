"""A model of which one block at a time is in memory gives the numbers of one that is all there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import CONFIGS, compose

from nsvd_exp.cells import plan_cell
from nsvd_exp.runner import run_cell
from nsvd_exp.stages import release_model
from nsvd_exp.store import Result

Settings = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """No model is left over from another test."""
    release_model()
    yield
    release_model()


def run(*overrides: str) -> Result:
    return run_cell(plan_cell(compose(*overrides)))


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("method", ["dense", "nsvd_i"])
def test_a_streamed_cell_is_the_resident_one(
    settings: Settings, architecture: str, method: str
) -> None:
    arguments = [
        *settings(architecture),
        f"method={method}",
        "evaluation.batch=4",
        "calibration.batch=5",
    ]
    resident = run(*arguments, "memory=resident")
    assert resident["status"] == "done", resident["error"]
    streamed = run(*arguments, "memory=streamed", arguments[3] + "-streamed")
    assert streamed["status"] == "done", streamed["error"]
    for name, number in resident["datasets"].items():
        other = streamed["datasets"][name]
        assert other["window_nll"] == number["window_nll"]
    assert streamed["layers"] == resident["layers"]
