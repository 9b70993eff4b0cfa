"""Several layers at a time: the same results, in the same order."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import OUT_OF_MEMORY
from helpers.command_line import Log
from helpers.matrices import calibration_of, linears
from helpers.methods import compressed, every_method, every_solver
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.bases import BasisMemory, SharedBases
from nsvd_exp.experiment.bases_plan import BasesOf
from nsvd_exp.methods import NID, NSVD, Method
from nsvd_exp.models.batches import MOST_LAYERS, each_layer, layers_at_once
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.compress import Compressor
from nsvd_exp.storage.cache import Cache

SHAPES = {
    f"layer{number}": shape
    for number, shape in enumerate([(24, 16), (16, 24), (20, 20), (9, 30), (30, 9), (12, 12)])
}
LAYERS = linears(SHAPES, torch.float64)
CALIBRATION = calibration_of(SHAPES)

two_methods = pytest.mark.parametrize("method", [NSVD(k1=0.7), NID(k1=0.7)], ids=["svd", "id"])


def work(method: Method, at_once: int | None, **options: Any) -> Any:
    """All that comes out: the factors as lists, and the table."""
    factors, table = compressed(method, CALIBRATION, SHAPES, 5, at_once=at_once, **options)
    return [factor.tolist() for factor in factors], table


@every_method
@every_solver
def test_layers_at_once_come_out_as_one_by_one(method: Method, solver: str) -> None:
    assert work(method, 3, solver=solver) == work(method, 1, solver=solver)


@two_methods
@pytest.mark.parametrize("keeps", [True, False])
def test_layers_at_once_share_bases_as_one_by_one(
    method: Method, keeps: bool, tmp_path: Path
) -> None:
    def bases(memory: BasisMemory, folder: str) -> SharedBases:
        cache = Cache(tmp_path / folder, "bases", limit=10**8) if keeps else None
        which = BasesOf("model", "calibration", "k", True, {"model": "m", "metric": "g"})
        return SharedBases(which, memory, cache)

    alone = work(method, 1, bases=bases(BasisMemory(), "alone"))
    memory = BasisMemory()
    for held in (memory, memory, BasisMemory()):  # made, from memory, and from disk or made again
        assert work(method, 3, bases=bases(held, "at once")) == alone
    kept = [len(list((tmp_path / name).rglob("*.safetensors"))) for name in ("alone", "at once")]
    assert kept == [len(SHAPES) if keeps else 0] * 2


def test_several_are_at_work_at_a_time_and_progress_is_told_layer_by_layer() -> None:
    meeting = threading.Barrier(3, timeout=60)
    assert list(each_layer(lambda name, _: (meeting.wait(), name)[1], LAYERS, 3)) == list(LAYERS)
    ranks, said = dict.fromkeys(SHAPES, 5), []
    compressor = Compressor(NSVD(), ranks, CALIBRATION, Factors(), torch.float32, at_once=3)
    compressor.compress(LAYERS, lambda done, of: said.append((done, of)))
    assert said == [(done, 6) for done in range(1, 7)]


def test_an_error_names_the_first_layer_and_leaves_what_was_not_begun() -> None:
    begun: list[str] = []

    def work(name: str, _: nn.Linear) -> str:
        begun.append(name)
        if name == "layer1":
            raise NsvdError(f"{name} is bad")
        time.sleep(0.05)
        return name

    many = {f"layer{number}": LAYERS["layer0"] for number in range(500)}
    done = each_layer(work, many, 3)
    assert next(done) == "layer0"
    with pytest.raises(NsvdError, match="layer1 is bad"):
        next(done)
    assert len(begun) < len(many)


def test_where_memory_runs_out_the_others_follow_one_by_one(caplog: Log) -> None:
    def work(name: str, _: nn.Linear) -> str:
        alone = threading.current_thread() is threading.main_thread()
        if name != "layer0" and not alone:
            raise OUT_OF_MEMORY
        return f"{name} alone" if alone else name

    caplog.set_level("INFO", "nsvd_exp")
    first, *others = LAYERS
    assert list(each_layer(work, LAYERS, 3)) == [first, *(f"{name} alone" for name in others)]
    assert "one by one" in caplog.text


def test_memory_that_runs_out_for_one_alone_is_an_error() -> None:
    def work(name: str, _: nn.Linear) -> str:
        raise OUT_OF_MEMORY

    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(each_layer(work, LAYERS, 3))


@pytest.mark.parametrize(
    ("gigabytes", "count"), [(0.1, 1), (1, 1), (10, 2), (12, 2), (20, 4), (100, MOST_LAYERS)]
)
def test_on_a_gpu_as_many_as_its_memory_has_room_for(gigabytes: float, count: int) -> None:
    linear = nn.Linear(11008, 4096, device="meta")  # a shape on a device that is no CPU
    assert layers_at_once(linear, free=int(gigabytes * 1e9)) == count
    assert layers_at_once(nn.Linear(4, 4)) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@two_methods
def test_on_streams_of_their_own_they_come_out_as_one_by_one(method: Method) -> None:
    at_once, alone = (work(method, count, device="cuda") for count in (None, 1))
    assert at_once == alone
