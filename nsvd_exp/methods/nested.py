"""Nested methods: k1 directions under one metric, then the residual by k - k1 (equation 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.asvd import CholeskyASVD
from nsvd_exp.methods.base import Method, SecondStage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TruncatedSVD(SecondStage):
    """NSVD's second stage: the best rank k2 of the residual (equation 5b)."""

    is_projection: ClassVar[bool] = True

    def approximate(
        self, A: Tensor, k: int, products: Callable[[], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        from nsvd_exp.methods.linalg import leading_eigenvectors, truncated_svd

        if products is None:
            return truncated_svd(A, k)
        left = leading_eigenvectors(products(), k)
        return left, left.T @ A


@dataclass(frozen=True)
class ColumnID(SecondStage):
    """NID's second stage: k2 columns of the residual, and the others as combinations of them."""

    def approximate(
        self, A: Tensor, k: int, products: Callable[[], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        from nsvd_exp.methods.linalg import interpolative

        columns, coefficients = interpolative(A, k)
        return A[:, columns], coefficients


@dataclass(frozen=True)
class NSVD(Method):
    """The nested decomposition of the paper (arXiv 2503.17101, equations 5a and 5b).

    Stage one keeps k1 directions under the metric of `first`; stage two approximates the residual
    by rank k - k1. NSVD-I has the metric of ASVD-I, NSVD-II that of ASVD-II.

    Attributes:
        k1: fraction of the rank that stage one gets, 0 < k1 <= 1; k1 = 1 is `first` alone.
        first: the method of stage one.
        second: what approximates the residual.
    """

    k1: float = 0.95
    first: Method = field(default_factory=CholeskyASVD)
    second: SecondStage = field(default_factory=TruncatedSVD)

    def __post_init__(self) -> None:
        if not 0 < self.k1 <= 1:
            raise NsvdError(f"k1={self.k1}: expected 0 < k1 <= 1, a fraction of the rank")
        if self.first.second_stage() is not None:
            name = type(self.first).__name__
            raise NsvdError(f"first={name} is nested itself: expected a method of one stage")

    def first_stage(self) -> Method:
        return self.first

    def second_stage(self) -> SecondStage:
        return self.second

    def ranks(self, k: int) -> tuple[int, int]:
        """floor(k1 k), held between 1 and k - 1, and the rest; k1 = 1, or k = 1, is not split."""
        if self.k1 == 1 or k == 1:
            return k, 0
        first = math.floor(Fraction(repr(float(self.k1))) * k)  # the decimal that was typed
        first = min(max(first, 1), k - 1)
        return first, k - first


@dataclass(frozen=True)
class NID(NSVD):
    """NSVD with an interpolative second stage: columns of the residual in place of its SVD."""

    second: SecondStage = field(default_factory=ColumnID)
