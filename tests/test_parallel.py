"""Several layers at a time: the same results, in the same order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.matrices import random_inputs, random_weight, statistics_of
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.bases import Bases, memory
from nsvd_exp.experiment.order import BasisGroup
from nsvd_exp.methods.base import Method, whitening_named
from nsvd_exp.models.batches import MOST_LAYERS, each_layer, layers_at_once
from nsvd_exp.pipeline.compress import compress
from nsvd_exp.storage.cache import Cache

SHAPES = [(24, 16), (16, 24), (20, 20), (9, 30), (30, 9), (12, 12)]


def made(device: str = "cpu") -> dict[str, nn.Linear]:
    layers = {}
    for number, (m, n) in enumerate(SHAPES):
        linear = nn.Linear(n, m, bias=False, dtype=torch.float64)
        linear.weight.data = random_weight(m, n, seed=number).to(device)
        layers[f"layer{number}"] = linear
    return layers


@pytest.fixture(autouse=True)
def no_bases() -> Iterator[None]:
    memory.clear()
    yield
    memory.clear()


def compressed(
    layers: dict[str, nn.Linear], bases: Bases | None, second: str, at_once: int | None = None
) -> list[Any]:
    """Everything that `compress` gives and says of these layers."""
    known = {name: statistics_of(random_inputs(w.in_features, 80)) for name, w in layers.items()}
    said: list[tuple[int, int]] = []
    found, table = compress(
        layers,
        dict.fromkeys(layers, 5),
        Method(whitening_named("cholesky"), second, "paper" if bases is None else "basis"),
        0.7,
        known,
        torch.float32,
        lambda done, of: said.append((done, of)),
        bases,
        at_once,
    )
    weights = [(name, w.left.weight.tolist(), w.right.weight.tolist()) for name, w in found.items()]
    return [weights, table, said]


@pytest.mark.parametrize("second", ["svd", "id"])
@pytest.mark.parametrize("keep", ["nothing", "bases", "paper"])
def test_layers_at_once_come_out_as_one_by_one(keep: str, second: str, tmp_path: Path) -> None:
    def work(folder: str, at_once: int = 3) -> list[Any]:
        if keep == "paper":
            return compressed(made(), None, second, at_once)
        cache = Cache(tmp_path / folder, "bases", limit=10**8) if keep == "bases" else None
        bases = Bases(
            BasisGroup("model", "calibration", folder, {"model": "m", "metric": "g"}), cache
        )
        return compressed(made(), bases, second, at_once)

    alone = work("alone", at_once=1)
    assert work("at once") == alone
    assert work("at once") == alone  # from memory
    if keep == "bases":
        memory.clear()
        assert work("at once") == alone  # from disk
        kept = [
            len(list((tmp_path / name).rglob("*.safetensors"))) for name in ("alone", "at once")
        ]
        assert kept == [len(SHAPES)] * 2


def test_several_are_at_work_at_a_time() -> None:
    meeting = threading.Barrier(3, timeout=60)
    assert list(each_layer(lambda name, _: (meeting.wait(), name)[1], made(), 3)) == list(made())


def test_an_error_names_the_first_layer_and_leaves_what_was_not_begun() -> None:
    begun: list[str] = []

    def work(name: str, _: nn.Linear) -> str:
        begun.append(name)
        if name == "layer1":
            raise NsvdError(f"{name} is bad")
        time.sleep(0.05)
        return name

    many = {f"layer{number}": next(iter(made().values())) for number in range(500)}
    done = each_layer(work, many, 3)
    assert next(done) == "layer0"
    with pytest.raises(NsvdError, match="layer1 is bad"):
        next(done)
    assert len(begun) < len(many)


def test_where_memory_runs_out_the_others_follow_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work(name: str, _: nn.Linear) -> str:
        alone = threading.current_thread() is threading.main_thread()
        if name != "layer0" and not alone:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return f"{name} alone" if alone else name

    caplog.set_level("INFO", "nsvd_exp")
    first, *others = made()
    assert list(each_layer(work, made(), 3)) == [first, *(f"{name} alone" for name in others)]
    assert "one by one" in caplog.text


def test_memory_that_runs_out_for_one_alone_is_an_error() -> None:
    def work(name: str, _: nn.Linear) -> str:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(each_layer(work, made(), 3))


@pytest.mark.parametrize(
    ("gigabytes", "count"), [(0.1, 1), (1, 1), (10, 2), (12, 2), (20, 4), (100, MOST_LAYERS)]
)
def test_on_a_gpu_as_many_as_its_memory_has_room_for(gigabytes: float, count: int) -> None:
    linear = nn.Linear(11008, 4096, device="meta")  # a shape on a device that is no CPU
    assert layers_at_once(linear, free=int(gigabytes * 1e9)) == count
    assert layers_at_once(nn.Linear(4, 4)) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("second", ["svd", "id"])
def test_on_streams_of_their_own_they_come_out_as_one_by_one(second: str) -> None:
    at_once = compressed(made("cuda"), None, second)
    assert compressed(made("cuda"), None, second, at_once=1) == at_once
