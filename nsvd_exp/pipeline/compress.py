"""Layers and their statistics to two-factor layers, and the table by layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.bases import Bases
from nsvd_exp.methods.base import Factors, Method, Statistics
from nsvd_exp.methods.linalg import rank_for_ratio, relative_loss
from nsvd_exp.methods.nested import Losses
from nsvd_exp.models.batches import each_layer
from nsvd_exp.models.layers import LowRankLinear
from nsvd_exp.progress import Progress


def ranks_for(layers: Mapping[str, nn.Linear], ratio: float) -> dict[str, int]:
    """The rank of each layer at this ratio.

    Raises:
        NsvdError: a rank below 1; the message names the layer.
    """
    ranks = {}
    for name, linear in layers.items():
        try:
            ranks[name] = rank_for_ratio(linear.out_features, linear.in_features, ratio)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
    return ranks


def compress(
    layers: Mapping[str, nn.Linear],
    ranks: Mapping[str, int],
    method: Method,
    k1: float,
    statistics: Mapping[str, Statistics] | None,
    dtype: torch.dtype,
    progress: Progress | None = None,
    bases: Bases | None = None,
    at_once: int | None = None,
) -> tuple[dict[str, LowRankLinear], list[dict[str, Any]]]:
    """Factorise every layer; the model itself stays as it is.

    Args:
        statistics: by layer; None for a method that looks at no activations.
        dtype: of the factors and biases. They are rounded to it once, from float64 or from what
            `bases` holds.
        bases: shared with other cells; `solver=paper` has none.
        at_once: layers at a time; None for as many as fit.

    Returns:
        The two-factor layers by name, and a row a layer as in `results/README.md`.

    Raises:
        NsvdError: a layer's factors cannot be made or are not finite; the message names it.
    """

    def replacement(name: str, linear: nn.Linear) -> tuple[LowRankLinear, dict[str, Any]]:
        work = _Layer(name, linear.weight.data, statistics)
        try:
            factors = work.factorise(method, ranks[name], k1, bases)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
        left, right = factors.left.to(dtype), factors.right.to(dtype)
        if not (left.isfinite().all() and right.isfinite().all()):
            raise NsvdError(f"{name}: its factors are not finite in {dtype}: try another dtype")
        bias = None if linear.bias is None else linear.bias.data.to(dtype)
        return LowRankLinear(left, right, bias), work.row(factors, method)

    compressed: dict[str, LowRankLinear] = {}
    table = []
    replacements = each_layer(replacement, layers, at_once)
    for name, (low_rank, row) in zip(layers, replacements, strict=True):
        compressed[name] = low_rank
        table.append(row)
        if progress:
            progress(len(table), len(layers))
    return compressed, table


class _Layer:
    """One weight (m, n) and the statistics of its inputs, brought to float64 when they are needed:
    a cell whose bases are at hand needs neither."""

    def __init__(self, name: str, W: Tensor, statistics: Mapping[str, Statistics] | None) -> None:
        self.name, self._W, self._statistics = name, W, statistics

    @functools.cached_property
    def W(self) -> Tensor:  # noqa: N802
        return self._W.double()

    @functools.cached_property
    def known(self) -> Statistics | None:
        if self._statistics is None:
            return None
        return self._statistics[self.name].to(self._W.device, torch.float64)

    def factorise(self, method: Method, k: int, k1: float, bases: Bases | None) -> Factors:
        """The factors, in the basis that `bases` has or that is made for them."""
        if bases is None or method.solver == "paper":
            return method.factorise(self.W, k, k1, self.known)
        basis = bases.get(self.name, self._W, lambda: method.directions(self.W, self.known))
        known = None if self._statistics is None else lambda: cast(Statistics, self.known)
        metrics = method.metrics(known, bases.group.calibration)
        return method.truncate(basis, k, k1, metrics, self._W.device)

    def row(self, factors: Factors, method: Method) -> dict[str, Any]:
        """The row of the table."""
        losses = factors.losses or self._losses(factors.left @ factors.right, method)
        return {
            "name": self.name,
            "m": self._W.shape[0],
            "n": self._W.shape[1],
            "k": factors.k1 + factors.k2,
            "k1": factors.k1,
            "activation_loss": losses.activation,
            "weight_loss": losses.weight,
            "discarded_energy": losses.own**2,
            "seen": factors.seen,
            "shift": factors.shift,
        }

    def _losses(self, approximation: Tensor, method: Method) -> Losses:
        """By their definitions, for factors that come from no basis."""
        gram = None if self.known is None else self.known.gram
        weight = relative_loss(self.W, approximation)
        activation = None if gram is None else relative_loss(self.W, approximation, gram)
        M = method.metric(self.known)
        if M is None:
            own = weight
        elif M is gram and activation is not None:
            own = activation
        else:
            own = relative_loss(self.W, approximation, M)
        return Losses(weight, own, activation)


def achieved_ratio(table: list[dict[str, Any]], dense_parameters: int) -> dict[str, float]:
    """Fraction of parameters removed: of the compressed weights, and of the whole model.

    Args:
        table: as `compress` returns it.
        dense_parameters: parameters of the dense model.
    """
    kept = sum(row["k"] * (row["m"] + row["n"]) for row in table)
    weights = sum(row["m"] * row["n"] for row in table)
    return {
        "layers": 1 - kept / weights,
        "model": (weights - kept) / dense_parameters,
    }
