"""Methods of one stage that weigh the weight by its activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.methods.base import Method, Whitening
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.methods.svd import IDENTITY

if TYPE_CHECKING:
    from torch import Tensor

    from nsvd_exp.methods.linalg import Eigenbasis

GRAM = "gram"
READINGS = ("scalar", "spectral")
TARGETS = ("diagonal", "identity")


@dataclass(frozen=True)
class ASVD(Method):
    """S = diag(mean |x|)^alpha (Yuan et al. 2023, arXiv 2312.05821); alpha = 1 is the paper's
    ASVD-0 (equation 4).

    Attributes:
        alpha: exponent of the mean absolute activation, alpha >= 0; 0 is plain SVD.
    """

    alpha: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"abs_mean"})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise NsvdError(f"alpha={self.alpha}: expected a number >= 0")

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.abs_mean.pow(2 * self.alpha)


@dataclass(frozen=True)
class CholeskyASVD(Method):
    """ASVD-I: M = G, S the Cholesky factor of G (Theorem 2; SVD-LLM, arXiv 2403.07378).

    Truncating W S leaves the loss ||(W - Ŵ) X||_F² = sum of the squared discarded singular values.
    """

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.gram

    def metric_name(self) -> str:
        return GRAM

    def basis(self, W: Tensor, statistics: Statistics) -> Eigenbasis:
        from nsvd_exp.methods.linalg import eigenbasis

        # The Gram matrix of p tokens has rank p at most.
        return eigenbasis(W, statistics.gram, statistics.tokens)


@dataclass(frozen=True)
class EigenASVD(CholeskyASVD):
    """ASVD-II: M = G, S = P L^(1/2), with the pseudo-inverse where G is singular (Theorem 3).

    The same approximation as ASVD-I where G is invertible.
    """

    def whitening(self, statistics: Statistics) -> Whitening:
        from nsvd_exp.methods.reference import eigen

        return eigen(statistics, lambda values: values.clamp(min=0).sqrt())


@dataclass(frozen=True)
class RidgeASVD(Method):
    """M = G + ridge * D: a Gram matrix drawn towards one of independent input channels, since its
    tokens say little of most pairs of them.

    D is diag(G), or, for `identity`, I times the mean of that diagonal. Either way ridge counts in
    the mean square of an input channel, whatever the number of tokens.

    Attributes:
        ridge: >= 0; 0 is ASVD-I.
        target: `diagonal` or `identity`.
    """

    ridge: float = 0.1
    target: str = "diagonal"

    def __post_init__(self) -> None:
        if not 0 <= self.ridge < float("inf"):
            raise NsvdError(f"ridge={self.ridge}: expected a number >= 0")
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)

    def metric(self, statistics: Statistics) -> Tensor:
        G = self.gram(statistics)
        if self.ridge == 0:
            return G
        d = G.diagonal()
        if self.target == "identity":
            d = d.mean().expand(len(d))
        return G + (self.ridge * d).diag()

    def metric_name(self) -> str | None:
        return GRAM if self.ridge == 0 else None

    def basis(self, W: Tensor, statistics: Statistics) -> Eigenbasis:
        if self.ridge == 0:
            return CholeskyASVD().basis(W, statistics)
        return super().basis(W, statistics)


@dataclass(frozen=True)
class ScaledEigenASVD(Method):
    """ASVD-III, whose Theorem 4 admits two readings of S, with g = sqrt(lambda_max).

    `scalar`: S = g P, so M = g² I; g cancels, and plain SVD is left. `spectral`: S = g P L, so
    M = g² G²; g cancels.

    Attributes:
        reading: `scalar` or `spectral`.
    """

    reading: str = "scalar"

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise unknown_name("reading", self.reading, READINGS)

    def metric(self, statistics: Statistics) -> Tensor | None:
        return None if self.reading == "scalar" else statistics.gram @ statistics.gram

    def metric_name(self) -> str:
        return IDENTITY if self.reading == "scalar" else "gram squared"

    def basis(self, W: Tensor, statistics: Statistics) -> Eigenbasis:
        """From the singular vectors of W G: W G² Wᵀ has the condition of G to the 4th power."""
        from nsvd_exp.methods.linalg import singular_basis

        if self.reading == "scalar":
            return super().basis(W, statistics)
        return singular_basis(W @ statistics.gram, W, statistics.tokens)

    def whitening(self, statistics: Statistics) -> Whitening:
        from nsvd_exp.methods.reference import eigen, scaled_eigenvectors

        if self.reading == "scalar":
            return scaled_eigenvectors(statistics)
        return eigen(statistics, lambda values: values[-1].sqrt() * values)
