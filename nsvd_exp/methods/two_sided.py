"""Methods that weigh the outputs of a layer, too: by what an error in them costs the loss.

They minimise tr(N E M Eᵀ), E = W - Ŵ, with M (n, n) for the inputs and N (m, m) for the outputs,
which comes from the gradients g of the loss at the layer's output. With N = L Lᵀ, trunc_k(LᵀW S)
gives Ŵ = L⁻ᵀ U_k U_kᵀ LᵀW, U_k the k leading eigenvectors of LᵀW M WᵀL. N = I is the method with
M alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.asvd import RidgeASVD
from nsvd_exp.methods.base import Method
from nsvd_exp.methods.statistics import (
    COVARIANCE,
    GRADIENTS,
    WEIGHTED_GRAM,
    OutputGradients,
    Statistics,
)

if TYPE_CHECKING:
    from torch import Tensor

    from nsvd_exp.methods.linalg import Eigenbasis

# Beside the mean of N's diagonal: what weighs less is taken for this, so that H has an inverse.
LEAST = 1e-6


def gradients_of(method: Method, statistics: Statistics) -> OutputGradients:
    """The gradients at a layer's output; an NsvdError if the statistics have none."""
    if statistics.gradients is None:
        name = type(method).__name__
        raise NsvdError(f"{name} weighs by gradients: it needs a calibration with gradient_samples")
    return statistics.gradients


@dataclass(frozen=True)
class KFAC(RidgeASVD):
    """M as of `RidgeASVD`; N = F / mean(diag(F)) + damping I, F = mean g gᵀ: the loss to second
    order, with the curvature of a layer as a Kronecker product (Martens and Grosse 2015, arXiv
    1503.05671).

    Attributes:
        damping: > 0, beside the mean of F's diagonal, which is 1.
        ridge, target: as of `RidgeASVD`; 0 is the Gram matrix itself.
    """

    damping: float = 0.1
    ridge: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"gram", GRADIENTS, COVARIANCE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < float("inf"):
            raise NsvdError(f"damping={self.damping}: expected a number > 0")

    def output_metric(self, statistics: Statistics) -> Tensor:
        F = gradients_of(self, statistics).covariance
        if F is None:
            raise NsvdError("KFAC needs the covariance of the gradients, which was not calibrated")
        mean = F.diagonal().mean()
        if not mean > 0:
            return F.new_ones(len(F))  # no error at this output costs anything
        N = F / mean
        N.diagonal().add_(self.damping)
        return N

    def basis(self, W: Tensor, statistics: Statistics) -> Eigenbasis:
        from nsvd_exp.methods.linalg import two_sided_basis

        # The Gram matrix of p tokens has rank p at most.
        rank = statistics.tokens if self.ridge == 0 else None
        N = self.output_metric(statistics)
        return two_sided_basis(W, N, self.metric(statistics), rank)


@dataclass(frozen=True)
class WeightedKFAC(KFAC):
    """`KFAC` with the Gram matrix sum w x xᵀ, w the mean square of a token's gradient at the
    layer's output, the largest clipped: a token counts by what its errors cost the loss. With
    N = I that is half a step of alternating least squares towards the Kronecker product nearest to
    the curvature, mean (g gᵀ) ⊗ (x xᵀ) (Van Loan and Pitsianis 1993); `KFAC` takes g and x for
    independent.

    Its tokens are those that were taken backwards. What is mixed with the calibration set
    (`Statistics.mixed`) has the weight that it has there.
    """

    needs: ClassVar[frozenset[str]] = KFAC.needs | {WEIGHTED_GRAM}

    def gram(self, statistics: Statistics) -> Tensor:
        gradients = gradients_of(self, statistics)
        if gradients.weighted_gram is None:
            raise NsvdError(
                "WeightedKFAC needs the Gram matrix that gradients weigh, which was not calibrated"
            )
        # At the scale of the other Gram matrix, which is a sum over more tokens.
        scaled = gradients.weighted_gram * (statistics.tokens / gradients.tokens)
        if not scaled.trace() > 0:
            return statistics.gram  # no error costs anything
        if statistics.mixed is None:
            return scaled
        mixed = statistics.mixed / statistics.gram.trace()
        return (1 - mixed.trace()) * scaled + scaled.trace() * mixed


@dataclass(frozen=True)
class FWSVD(Method):
    """M = I; N = diag(mean g_i²) / its mean: rows weighed by their Fisher information (Hsu et al.
    2022, arXiv 2207.00112), with inputs and gradients taken for independent.
    """

    needs: ClassVar[frozenset[str]] = frozenset({GRADIENTS})

    def metric(self, statistics: Statistics) -> None:
        return None

    def output_metric(self, statistics: Statistics) -> Tensor:
        d = gradients_of(self, statistics).mean_square
        mean = d.mean()
        return (d / mean).clamp(min=LEAST) if mean > 0 else d.new_ones(len(d))
