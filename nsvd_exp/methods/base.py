"""What a method is: the statistics it reads, the metric it minimises under, the factors it gives.

Notation, as in the paper: W (m x n) the weight of a Linear, X (n x p) the calibration inputs,
G = X Xᵀ, P L Pᵀ = G its eigendecomposition, S a whitening matrix of the inputs and M = S Sᵀ its
metric. This module imports torch only where a tensor is computed with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.statistics import GRADIENTS, TENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nsvd_exp.methods.linalg import Eigenbasis
    from nsvd_exp.methods.statistics import Statistics


@dataclass(frozen=True)
class Whitening:
    """The paper's whitening matrix: S and its (pseudo-)inverse, each (n, n), (n,) or None for I.

    Attributes:
        shift: what had to be added to the diagonal to make S invertible; 0 almost always.
    """

    S: Tensor | None
    inverse: Tensor | None
    shift: float = 0.0


@dataclass(frozen=True)
class Losses:
    """||(W - Ŵ) S||_F / ||W S||_F, which is 0 where W S itself is 0.

    Attributes:
        weight: with S = I.
        own: with the S of the method's first stage.
        activation: with S = X, the calibration inputs (equation 3); None without calibration.
    """

    weight: float
    own: float
    activation: float | None = None


@dataclass(frozen=True)
class Factors:
    """A rank-k approximation Ŵ = left @ right.

    Attributes:
        left: (m, k).
        right: (k, n). Its first k1 rows, and the first k1 columns of `left`, are stage one's.
        k1, k2: ranks of the two stages; k2 = 0 for methods of one stage.
        lengths: (k,), of each row of `right` under the metric of stage one: ||row S||.
        losses: what the approximation loses.
        seen: how many output directions calibration has seen; None where `solver=paper`.
        shift: what had to be added to the diagonal of a singular whitening matrix; 0 almost always.
    """

    left: Tensor
    right: Tensor
    k1: int
    k2: int
    lengths: Tensor
    losses: Losses
    seen: int | None = None
    shift: float = 0.0


@dataclass(frozen=True)
class SecondStage:
    """Stage two (equation 5b): a rank-k2 approximation of what stage one leaves over.

    Subclass it as a frozen dataclass; its fields are part of the method's identity.

    Attributes:
        version: raise it when the code behind a class of your own changes a number.
        is_projection: whether the approximation of A is left @ leftᵀ @ A with orthonormal columns
            in `left`; its losses then follow from the spectrum.
    """

    version: int = field(default=1, kw_only=True)
    is_projection: ClassVar[bool] = False

    def approximate(
        self, A: Tensor, k: int, products: Callable[[], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The factors (r, k) and (k, n) of an approximation of A.

        Args:
            A: (r, n), float64: the residual, or its coordinates in an orthonormal basis, where it
                has the same lengths and angles.
            k: 1 <= k <= min(r, n).
            products: gives A Aᵀ (r, r) where the caller has it at hand.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Method:
    """A low-rank method: which k output directions of a weight W (m, n) are kept.

    For S with M = S Sᵀ, trunc_k(W S) S⁻¹ = U_k U_kᵀ W, with U_k the k leading eigenvectors of
    W M Wᵀ: a method of the SVD type is its metric M, and that of the outputs, N, if it has one
    (`nsvd_exp.methods.two_sided`). Subclass it as a frozen dataclass and define `metric`; its
    fields, and nothing else, are its identity in the key of a result.

    Attributes:
        needs: names of the `Statistics` that the method reads; empty: M is the identity, and the
            method needs no calibration.
        version: raise it when the code behind a class of your own changes a number.
    """

    version: int = field(default=1, kw_only=True)
    needs: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __init_subclass__(cls) -> None:
        """A class with a metric of its own inherits nothing that is true of another metric only."""
        super().__init_subclass__()
        has_own = not {"metric", "output_metric", "gram"}.isdisjoint(vars(cls))
        for name in ("metric_name", "basis", "whitening"):
            if has_own and name not in vars(cls):
                setattr(cls, name, getattr(Method, name))

    def metric(self, statistics: Statistics) -> Tensor | None:
        """M: (n, n) positive semidefinite, (n,) a diagonal, or None, the identity."""
        raise NotImplementedError

    def gram(self, statistics: Statistics) -> Tensor:
        """(n, n), the Gram matrix of the inputs with its tokens as the method weighs them."""
        return statistics.gram

    def output_metric(self, statistics: Statistics) -> Tensor | None:
        """N: (m, m) positive definite, (m,) a positive diagonal, or None, the identity."""
        return None

    def metric_name(self) -> str | None:
        """A name that all methods with this metric give; None: the metric is this class's own."""
        return None

    def basis(self, W: Tensor, statistics: Statistics) -> Eigenbasis:
        """The output directions of W (m, n), leading first; all in float64."""
        from nsvd_exp.methods.linalg import eigenbasis, two_sided_basis

        N = self.output_metric(statistics)
        if N is not None:
            return two_sided_basis(W, N, self.metric(statistics))
        return eigenbasis(W, self.metric(statistics))

    def whitening(self, statistics: Statistics) -> Whitening | None:
        """S and S⁻¹ with S Sᵀ = M, as `solver=paper` multiplies them; None: a Cholesky factor."""
        return None

    def first_stage(self) -> Method:
        """The method whose metric stage one minimises under: itself, unless it is nested."""
        return self

    def second_stage(self) -> SecondStage | None:
        """What works on the residual of stage one; None for methods of one stage."""
        return None

    def ranks(self, k: int) -> tuple[int, int]:
        """The ranks of stage one and stage two, which sum to k."""
        return k, 0

    @property
    def is_calibrated(self) -> bool:
        """Whether the method reads any statistics of the activations."""
        return bool(self.first_stage().needs)

    @property
    def reads_gradients(self) -> bool:
        """Whether the method reads the gradients at a layer's output."""
        return GRADIENTS in self.first_stage().needs

    @property
    def reads_of_gradients(self) -> frozenset[str]:
        """The tensors of those gradients that it reads, of TENSORS."""
        return self.first_stage().needs & TENSORS

    def require(self, statistics: object) -> None:
        """Raises an NsvdError where the method reads statistics and there are none."""
        if statistics is None and self.is_calibrated:
            raise NsvdError(f"{type(self).__name__} weighs by activations: it needs a calibration")
