"""Makes low-rank layers of Linears and the statistics of their inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import Allocation, Method
from nsvd_exp.methods.base import Calibration, Factors, Statistics
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import Eigenbasis
from nsvd_exp.methods.truncation import OutputBasis, directions
from nsvd_exp.models.batches import each_layer
from nsvd_exp.models.layers import Layer, shape_of, weight_of
from nsvd_exp.models.storage import Storage
from nsvd_exp.progress import Progress


class BasisProvider(Protocol):
    """Where output bases come from when they are shared with other cells."""

    def get(self, layer: str, W: Tensor, make: Callable[[], Eigenbasis]) -> OutputBasis:
        """The basis of a layer with weight W (m, n); `make` gives its directions where need be."""


def ranks_of(
    layers: Mapping[str, Layer], ratio: float, allocation: Allocation, storage: Storage
) -> dict[str, int]:
    """The rank of each layer when a fraction `ratio` of all their numbers is to be removed.

    Raises:
        LayersError: layers are left without a rank; the message names all of them.
    """
    shapes = {name: shape_of(layer) for name, layer in layers.items()}
    # The decimal number that was typed: 0.55 is 55/100, which no binary float is.
    return allocation.ranks(shapes, 1 - Fraction(repr(float(ratio))), storage)


@dataclass(frozen=True)
class Compressor:
    """Makes low-rank layers, of all layers of a model or of some at a time.

    Attributes:
        ranks: by layer.
        calibration: None for a method that reads no activations.
        dtype: of the factors and biases. They are rounded to it once, from float64 or from what
            `bases` holds.
        solver: `basis` or `paper`.
        bases: shared with other cells; None, or with `solver=paper`: every layer has its own.
        at_once: how many layers are worked on at a time; None for as many as fit.
    """

    method: Method
    ranks: Mapping[str, int]
    calibration: Calibration | None
    storage: Storage
    dtype: torch.dtype
    solver: str = "basis"
    bases: BasisProvider | None = None
    at_once: int | None = None

    def compress(
        self, layers: Mapping[str, Layer], progress: Progress | None = None
    ) -> tuple[dict[str, nn.Module], list[dict[str, Any]]]:
        """Factorise every layer; the model itself stays as it is.

        Returns:
            The low-rank layers by name, and a table with a row per layer (`docs/stored-files.md`).

        Raises:
            NsvdError: a layer's factors cannot be made or are not finite; the message names it.
        """
        self.method.require(self.calibration)
        compressed: dict[str, nn.Module] = {}
        table = []
        replacements = each_layer(self._replacement, layers, self.at_once)
        for name, (low_rank, row) in zip(layers, replacements, strict=True):
            compressed[name] = low_rank
            table.append(row)
            if progress:
                progress(len(table), len(layers))
        return compressed, table

    def _replacement(self, name: str, linear: Layer) -> tuple[nn.Module, dict[str, Any]]:
        W = weight_of(linear)
        try:
            factors = self._factorise(name, W)
        except NsvdError as error:
            raise NsvdError(f"{name}: {error}") from None
        left, right = factors.left.to(self.dtype), factors.right.to(self.dtype)
        if not (left.isfinite().all() and right.isfinite().all()):
            raise NsvdError(
                f"{name}: its factors are not finite in {self.dtype}: try another dtype"
            )
        bias = None if linear.bias is None else linear.bias.data.to(self.dtype)
        return self.storage.linear(left, right, bias), _row(name, W, factors)

    def _factorise(self, name: str, W: Tensor) -> Factors:
        """The factors of W (m, n), in the basis that `bases` has or that is made for them."""
        known, calibration = None, self.calibration
        if calibration is not None:
            # Read when it is first needed: a cell whose bases are at hand may not need it.
            known = functools.cache(lambda: calibration.of(name).to(W.device, torch.float64))

        def statistics() -> Statistics | None:
            return None if known is None else known()

        if self.bases is None or self.solver == "paper":
            return factorise(self.method, W, self.ranks[name], statistics(), self.solver)
        basis = self.bases.get(name, W, lambda: directions(W.double(), self.method, statistics()))
        return basis.truncate(self.method, self.ranks[name], known, W.device)


def _row(name: str, W: Tensor, factors: Factors) -> dict[str, Any]:
    """The row of the table for one layer with weight W (m, n)."""
    losses = factors.losses
    return {
        "name": name,
        "m": W.shape[0],
        "n": W.shape[1],
        "k": factors.k1 + factors.k2,
        "k1": factors.k1,
        "activation_loss": losses.activation,
        "weight_loss": losses.weight,
        "discarded_energy": losses.own**2,
        "seen": factors.seen,
        "shift": factors.shift,
    }


def achieved_ratio(
    table: Sequence[Mapping[str, Any]], storage: Storage, dense_parameters: int
) -> dict[str, float]:
    """Fraction of parameters removed: of the compressed weights, and of the whole model.

    Args:
        table: as `Compressor.compress` returns it.
        dense_parameters: parameters of the dense model.
    """
    kept = sum(storage.numbers(row["m"], row["n"], row["k"]) for row in table)
    weights = sum(row["m"] * row["n"] for row in table)
    return {
        "layers": 1 - kept / weights,
        "model": (weights - kept) / dense_parameters,
    }
