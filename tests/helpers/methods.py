"""Every method with its settings, a user's own classes among them, for laws over all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from helpers.matrices import linears
from nsvd_exp.methods import (
    ASVD,
    NID,
    NSVD,
    SVD,
    Allocation,
    CholeskyASVD,
    EigenASVD,
    Method,
    RidgeASVD,
    ScaledEigenASVD,
    SecondStage,
)
from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.compress import Compressor


@dataclass(frozen=True)
class Ridge(EigenASVD):
    """A user's method: another metric, M = G + ridge mean(diag G) I, under an inherited class."""

    ridge: float = 0.1

    def metric(self, statistics: Statistics) -> Tensor:
        G = statistics.gram
        return G + self.ridge * G.diagonal().mean() * torch.eye(len(G)).to(G)


@dataclass(frozen=True)
class LongestColumns(SecondStage):
    """A user's second stage: the residual, projected onto its longest columns."""

    power: int = 1
    is_projection: ClassVar[bool] = True

    def approximate(
        self, A: Tensor, k: int, products: Callable[[], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        left = torch.linalg.qr(A[:, A.norm(dim=0).topk(k).indices]).Q
        return left, left.T @ A


@dataclass(frozen=True)
class Squarest(Allocation):
    """A user's allocation: all of the budget that rank 1 leaves goes to the squarest layer."""

    def ranks(
        self,
        shapes: Mapping[str, tuple[int, int]],
        budget: Fraction,
        storage: Any,
        spectra: Mapping[str, Tensor] | None = None,
    ) -> dict[str, int]:
        ranks = dict.fromkeys(shapes, 1)
        squarest = min(shapes, key=lambda name: abs(shapes[name][0] - shapes[name][1]))
        spent = sum(storage.numbers(*shapes[name], 1) for name in shapes if name != squarest)
        total = budget * sum(m * n for m, n in shapes.values())
        ranks[squarest] = storage.largest_rank(*shapes[squarest], total - spent)
        return ranks


SINGLE: dict[str, Method] = {
    "SVD": SVD(),
    "ASVD alpha 0": ASVD(alpha=0),
    "ASVD": ASVD(),
    "ASVD alpha 0.5": ASVD(alpha=0.5),
    "CholeskyASVD": CholeskyASVD(),
    "EigenASVD": EigenASVD(),
    "ScaledEigenASVD scalar": ScaledEigenASVD(),
    "ScaledEigenASVD spectral": ScaledEigenASVD(reading="spectral"),
    "RidgeASVD diagonal": RidgeASVD(),
    "RidgeASVD identity": RidgeASVD(ridge=0.3, target="identity"),
    "own": Ridge(),
}
NESTED: dict[str, Method] = {
    "NSVD I": NSVD(k1=0.75),
    "NSVD II": NSVD(k1=0.75, first=EigenASVD()),
    "NID I": NID(k1=0.75),
    "NID II": NID(k1=0.75, first=EigenASVD()),
    "NSVD on SVD": NSVD(k1=0.5, first=SVD()),
    "NID on ASVD": NID(k1=0.3, first=ASVD(alpha=0.5)),
    "NSVD on ridge": NSVD(k1=0.7, first=RidgeASVD(ridge=0.3)),
    "NID on ridge": NID(k1=0.7, first=RidgeASVD()),
    "NSVD on own, with own": NSVD(k1=0.6, first=Ridge(), second=LongestColumns()),
}
METHODS = SINGLE | NESTED


def eigen(X: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
    """P diag(scale(eigenvalues of X Xᵀ))."""
    values, P = torch.linalg.eigh(X @ X.T)
    return P * scale(values)


WHITENINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "SVD": lambda X: torch.eye(len(X), dtype=X.dtype),
    "ASVD alpha 0": lambda X: torch.eye(len(X), dtype=X.dtype),
    "ASVD": lambda X: X.abs().mean(1).diag(),
    "ASVD alpha 0.5": lambda X: X.abs().mean(1).sqrt().diag(),
    "CholeskyASVD": lambda X: torch.linalg.cholesky(X @ X.T),
    "EigenASVD": lambda X: eigen(X, lambda L: L.sqrt()),
    "ScaledEigenASVD scalar": lambda X: eigen(X, lambda L: L.max().sqrt()),
    "ScaledEigenASVD spectral": lambda X: eigen(X, lambda L: L.max().sqrt() * L),
    "RidgeASVD diagonal": lambda X: torch.linalg.cholesky(X @ X.T + 0.1 * X.square().sum(1).diag()),
    "RidgeASVD identity": lambda X: eigen(X, lambda L: (L + 0.3 * L.mean()).sqrt()),
    "own": lambda X: eigen(X, lambda L: (L + 0.1 * L.mean()).sqrt()),
}
"""S (n, n) of X (n, p) by its definition (equation 4, Theorems 1 to 4)."""


def best(A: Tensor, k: int) -> Tensor:
    """trunc_k(A)."""
    U, s, Vh = torch.linalg.svd(A, full_matrices=False)
    return (U[:, :k] * s[:k]) @ Vh[:k]


def best_under(S: Tensor, W: Tensor, k: int) -> Tensor:
    """trunc_k(W S) S⁻¹, as the paper writes it."""
    return best(W @ S, k) @ torch.linalg.inv(S)


SOLVERS = ("basis", "paper")
SHAPES = {"wide": (20, 30), "tall": (30, 20), "square": (24, 24)}


def over(name: str, values: Mapping[str, Any]) -> pytest.MarkDecorator:
    """A test for each of the values."""
    return pytest.mark.parametrize(name, values.values(), ids=values.keys())


every_method, every_single, every_nested = (
    over("method", methods) for methods in (METHODS, SINGLE, NESTED)
)
every_shape = over("shape", SHAPES)
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def with_k1(method: Method, k1: float) -> Method:
    """The method with another k1, where it has one."""
    return dataclasses.replace(method, k1=k1) if method.second_stage() else method


def compressed(
    method: Method,
    calibration: Calibration | None,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    rank: int = 9,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **options: Any,
) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """All factors and the table of `linears`, each compressed to this rank.

    Args:
        options: `solver`, `bases` and `at_once` of the `Compressor`.
    """
    layers, ranks = linears(shapes, dtype, device), dict.fromkeys(shapes, rank)
    compressor = Compressor(method, ranks, calibration, Factors(), dtype, **options)
    made, table = compressor.compress(layers)
    return [weight for layer in made.values() for weight in layer.parameters()], table
