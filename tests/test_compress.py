"""Ranks and the budget, a user's own classes, and what `Compressor` says of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
import torch
from helpers.matrices import calibration_of, linears
from helpers.methods import (
    METHODS,
    SHAPES,
    LongestColumns,
    Ridge,
    Squarest,
    compressed,
    every_method,
    every_solver,
)
from torch import Tensor

from nsvd_exp.config.classes import build
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.order import metric_of
from nsvd_exp.experiment.resolve import class_identity
from nsvd_exp.methods import NSVD, SVD, Allocation, CholeskyASVD, Method, SecondStage, Uniform
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.compress import Compressor, achieved_ratio, ranks_of

RATIOS = (0.01, 0.1, 0.33, 0.5, 0.55, 0.9)


def rank_of(m: int, n: int, ratio: float) -> int:
    budget = 1 - Fraction(repr(ratio))
    return Uniform().ranks({"layer": (m, n)}, budget, Factors())["layer"]


@pytest.mark.parametrize(
    ("m", "n", "ratio", "k"),
    [
        # The paper's LLaMA-7B ranks.
        *((4096, 4096, ratio / 10, k) for ratio, k in enumerate((1843, 1638, 1433, 1228, 1024), 1)),
        *((11008, 4096, r / 10, k) for r, k in enumerate((2686, 2388, 2089, 1791, 1492), 1)),
        (80, 80, 0.55, 18),  # in binary floats 17
        (10, 10, 0.8, 1),  # exactly 1; in binary floats 0
    ],
)
def test_rank_is_the_papers_floor_in_exact_decimals(m: int, n: int, ratio: float, k: int) -> None:
    assert rank_of(m, n, ratio) == rank_of(n, m, ratio) == k


@pytest.mark.parametrize(("m", "n"), [(64, 64), (48, 100), (100, 48)])
@pytest.mark.parametrize("ratio", RATIOS)
def test_rank_keeps_the_budget_and_uses_it_up(m: int, n: int, ratio: float) -> None:
    k, budget = rank_of(m, n, ratio), m * n * (1 - Fraction(repr(ratio)))
    assert k * (m + n) <= budget < (k + 1) * (m + n)
    assert k < min(m, n)


def test_a_rank_below_one_is_an_error() -> None:
    message = r"layer: ratio=0.99 leaves no rank for a 10 x 12 weight .*; use a smaller ratio"
    with pytest.raises(NsvdError, match=message):
        rank_of(10, 12, 0.99)


@pytest.mark.parametrize("allocation", [Uniform(), Squarest()])
@pytest.mark.parametrize("ratio", RATIOS[:-1])
def test_the_achieved_ratio_never_keeps_more_than_the_budget(
    ratio: float, allocation: Allocation
) -> None:
    layers, dense = linears(SHAPES, torch.float32), sum(m * n for m, n in SHAPES.values())
    ranks = ranks_of(layers, ratio, allocation, Factors())
    if allocation == Squarest():
        assert ranks["wide"] == ranks["tall"] == 1 < ranks["square"]
    made, table = Compressor(SVD(), ranks, None, Factors(), torch.float32).compress(layers)
    achieved = achieved_ratio(table, Factors(), dense + 1000)
    stored = sum(
        weight.numel() for layer in (layers | made).values() for weight in layer.parameters()
    )
    assert achieved["layers"] == pytest.approx(1 - stored / dense)
    assert achieved["layers"] >= ratio
    assert achieved["model"] == pytest.approx((dense - stored) / (dense + 1000))


@every_method
@every_solver
def test_the_row_of_a_layer_says_what_its_factors_are(method: Method, solver: str) -> None:
    calibration = calibration_of(SHAPES)
    factors, table = compressed(method, calibration, dtype=torch.float64, solver=solver)
    layers = linears(SHAPES, torch.float64)
    for (name, shape), right, left, row in zip(
        SHAPES.items(), factors[::2], factors[1::2], table, strict=True
    ):
        made = factorise(method, layers[name].weight.data, 9, calibration.of(name), solver)
        torch.testing.assert_close(left @ right, made.left @ made.right)
        losses, (k1, _) = made.losses, method.ranks(9)
        assert (row["name"], (row["m"], row["n"]), row["k"], row["k1"]) == (name, shape, 9, k1)
        assert (row["seen"], row["shift"]) == (made.seen, made.shift)
        assert row["weight_loss"] == pytest.approx(losses.weight)
        assert row["activation_loss"] == pytest.approx(losses.activation)
        assert row["discarded_energy"] == pytest.approx(losses.own**2)


def test_a_layer_that_cannot_be_compressed_is_named() -> None:
    with pytest.raises(NsvdError, match="tall: the calibration has no statistics of the layer"):
        compressed(CholeskyASVD(), calibration_of({"wide": SHAPES["wide"]}))
    layers = linears({"big": (20, 30)}, torch.float64)
    layers["big"].weight.data *= 1e6
    compressor = Compressor(SVD(), {"big": 9}, None, Factors(), torch.float16)
    with pytest.raises(NsvdError, match=r"big: its factors are not finite in torch\.float16"):
        compressor.compress(layers)


OWN: list[tuple[type, dict[str, Any], Any]] = [
    (Method, {"_target_": "helpers.methods.Ridge", "ridge": 0.3}, Ridge(ridge=0.3)),
    (SecondStage, {"_target_": "helpers.methods.LongestColumns"}, LongestColumns()),
    (Allocation, {"_target_": "helpers.methods.Squarest", "version": 2}, Squarest(version=2)),
]


@pytest.mark.parametrize(("base", "block", "expected"), OWN)
def test_a_class_of_ones_own_is_built_and_keyed_by_its_path_and_fields(
    base: type, block: dict[str, Any], expected: Any
) -> None:
    presentation = {"name": "mine", "title": "Mine", "order": 3, "plot": {"color": "red"}}
    built = build(base, block | presentation, "setting")
    assert built == expected
    identity = class_identity(built)
    assert identity["class"] == block["_target_"]
    assert identity["version"] == block.get("version", 1)
    raised = build(base, block | {"version": 7}, "setting")
    assert class_identity(raised) == identity | {"version": 7}


def test_a_method_takes_first_and_second_stages_of_ones_own() -> None:
    block = {
        "_target_": "nsvd_exp.methods.NSVD",
        "k1": 0.6,
        "first": {"_target_": "helpers.methods.Ridge", "ridge": 0.1},
        "second": "helpers.methods.LongestColumns",
    }
    built = build(Method, block, "method")
    assert built == METHODS["NSVD on own, with own"]
    assert class_identity(built) == {
        "class": "NSVD",
        "version": 1,
        "k1": "0.6",
        "first": {"class": "helpers.methods.Ridge", "version": 1, "ridge": "0.1"},
        "second": {"class": "helpers.methods.LongestColumns", "version": 1, "power": 1},
    }
    # Its bases are those of its first stage, and nobody else's.
    assert metric_of(built) == metric_of(Ridge()) == class_identity(Ridge())
    assert metric_of(NSVD()) == metric_of(CholeskyASVD()) == "gram"


class NoDataclass(CholeskyASVD):
    ridge: float = 0.1


@dataclass(frozen=True)
class Ordered(CholeskyASVD):
    order: int = 2


@dataclass(frozen=True)
class Picky(SVD):
    size: int = 1

    def __post_init__(self) -> None:
        if self.size > 3:
            raise ValueError(f"size={self.size}: expected at most 3")

    def metric(self, statistics: object) -> Tensor:
        raise NotImplementedError


RIDGE, PICKY = "helpers.methods.Ridge", f"{__name__}.Picky"
KIND = r"is not a frozen dataclass that is a subclass of nsvd_exp\.methods\.base\.Method"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, r"method names no class: give method\._target_=package\.module\.Class"),
        ({"_target_": "Ridge"}, "method=Ridge: expected a class by its dotted path"),
        ({"_target_": "no.such.Class"}, "no.such.Class cannot be imported: No module named 'no'"),
        ({"_target_": "helpers.methods.Rigde"}, "Rigde cannot be imported: .*has no attribute"),
        ({"_target_": f"{__name__}.NoDataclass"}, KIND),
        ({"_target_": f"{__name__}.Ordered"}, "has a field 'order', but .* another name"),
        ({"_target_": "helpers.methods.LongestColumns"}, KIND),
        ({"_target_": "nsvd_exp.methods.Method"}, KIND),
        ({"_target_": "math.sqrt"}, KIND),
        ({"_target_": RIDGE, "rigde": 1}, r"unknown .*'method\.rigde'.* mean method\.ridge"),
        ({"_target_": RIDGE, "ridge": "much"}, r"method\.ridge: Value 'much'.* to Float"),
        ({"_target_": PICKY, "size": 1.5}, r"method\.size: Value '1.5'.* to Integer"),
        ({"_target_": PICKY, "size": 4}, r"^method: size=4: expected at most 3"),
        ({"_target_": "nsvd_exp.methods.NSVD", "first": "helpers.methods.Squarest"}, KIND),
        ({"_target_": "nsvd_exp.methods.NSVD", "second": {"power": 2}}, "method.second names no"),
        ({"_target_": "nsvd_exp.methods.NSVD", "k1": 2}, r"^method: k1=2.0: expected 0 < k1 <= 1"),
    ],
)
def test_what_is_no_class_of_this_kind_is_refused(block: dict[str, Any], message: str) -> None:
    with pytest.raises(NsvdError, match=message) as caught:
        build(Method, block, "method")
    assert "\n" not in str(caught.value)
