"""The table by layer: what each loss is, whatever the method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.matrices import random_inputs, random_weight, statistics_of
from torch import Tensor, nn

from nsvd_exp.methods.base import WHITENINGS, Method, Statistics
from nsvd_exp.methods.linalg import weighed
from nsvd_exp.pipeline.compress import compress

SHAPES = [(24, 16), (16, 24), (20, 20)]
RANK = 7


def row_of(W: Tensor, statistics: Statistics, method: Method) -> dict[str, Any]:
    """The row of one layer that holds W."""
    linear = nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    linear.weight.data = W
    layers = {"layer": linear}
    _, (row,) = compress(layers, {"layer": RANK}, method, 0.7, {"layer": statistics}, W.dtype)
    return row


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["basis", "paper"])
@pytest.mark.parametrize("name", sorted(WHITENINGS))
def test_one_stage_discards_the_tail_of_its_own_spectrum(
    name: str, solver: str, shape: tuple[int, int]
) -> None:
    W = random_weight(*shape)
    statistics = statistics_of(random_inputs(shape[1], 200))
    whitening = WHITENINGS[name]()
    row = row_of(W, statistics, Method(whitening, None, solver))
    S = whitening.factor(statistics).S
    energy = torch.linalg.svdvals(weighed(W, S)).square()
    expected = float(energy[RANK:].sum() / energy.sum())
    assert row["discarded_energy"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("second", ["svd", "id"])
@pytest.mark.parametrize("name", sorted(WHITENINGS))
def test_a_second_stage_discards_no_less_than_the_first_alone_would(name: str, second: str) -> None:
    W, statistics = random_weight(24, 16), statistics_of(random_inputs(16, 200))
    parent = row_of(W, statistics, Method(WHITENINGS[name]()))
    nested = row_of(W, statistics, Method(WHITENINGS[name](), second))
    assert nested["discarded_energy"] >= parent["discarded_energy"] * (1 - 1e-9)


@pytest.mark.parametrize("second", [None, "svd", "id"])
def test_under_the_gram_matrix_it_is_the_activation_loss_and_else_the_weight_loss(
    second: str | None,
) -> None:
    W, statistics = random_weight(24, 16), statistics_of(random_inputs(16, 200))
    for name, loss in (("cholesky", "activation_loss"), ("identity", "weight_loss")):
        row = row_of(W, statistics, Method(WHITENINGS[name](), second))
        assert row["discarded_energy"] == pytest.approx(row[loss] ** 2, rel=1e-10)
