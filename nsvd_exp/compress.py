"""Layers and their statistics to two-factor layers, and the table by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.layers import LowRankLinear
from nsvd_exp.linalg import rank_for_ratio, relative_loss
from nsvd_exp.methods import Factors, Method, Statistics
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
) -> tuple[dict[str, LowRankLinear], list[dict[str, Any]]]:
    """Factorise every layer; the model itself stays as it is.

    Args:
        statistics: by layer; None for a method that looks at no activations.
        dtype: of the factors and biases. They are rounded to it once, from float64.

    Returns:
        The two-factor layers by name, and a row a layer as in `results/README.md`.

    Raises:
        NsvdError: a layer's factors cannot be made or are not finite; the message names it.
    """
    compressed: dict[str, LowRankLinear] = {}
    table = []
    for name, linear in layers.items():
        W = linear.weight.data.double()
        known = statistics[name].to(W.device, W.dtype) if statistics else None
        try:
            factors = method.factorise(W, ranks[name], k1, known)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
        table.append(_row(name, W, factors, method, known))
        left, right = factors.left.to(dtype), factors.right.to(dtype)
        if not (left.isfinite().all() and right.isfinite().all()):
            raise NsvdError(f"{name}: its factors are not finite in {dtype}: try another dtype")
        bias = None if linear.bias is None else linear.bias.data.to(dtype)
        compressed[name] = LowRankLinear(left, right, bias)
        if progress:
            progress(len(table), len(layers))
    return compressed, table


def _row(
    name: str, W: Tensor, factors: Factors, method: Method, statistics: Statistics | None
) -> dict[str, Any]:
    approximation = factors.left @ factors.right
    activation_loss = relative_loss(W, approximation, statistics.gram) if statistics else None
    weight_loss = relative_loss(W, approximation)
    M = method.metric(statistics)
    if M is None:
        own_loss = weight_loss
    elif activation_loss is not None and statistics is not None and M is statistics.gram:
        own_loss = activation_loss
    else:
        own_loss = relative_loss(W, approximation, M)
    return {
        "name": name,
        "m": W.shape[0],
        "n": W.shape[1],
        "k": factors.k1 + factors.k2,
        "k1": factors.k1,
        "activation_loss": activation_loss,
        "weight_loss": weight_loss,
        "discarded_energy": own_loss**2,
        "seen": factors.seen,
        "shift": factors.shift,
    }


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
