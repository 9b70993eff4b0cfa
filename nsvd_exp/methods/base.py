"""The methods: what each weighs the inputs by, and what its second stage does.

A method is a whitening (how stage (5a) weighs the inputs) and, for NSVD and NID, a second stage
(5b). Each whitening is one small class below: `metric` is what the eigenbasis route needs
(M = S Sᵀ), `factor` is the paper's own S and S⁻¹ (`solver=paper`). A method is a name for such a
pair, one file in `conf/method/`.

Notation, as in the paper: W (m x n) the weight, X (n x p) the calibration inputs, G = X Xᵀ,
P L Pᵀ = G its eigendecomposition.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.methods.linalg import (
    OutputBasis,
    eigenbasis,
    interpolative,
    singular_basis,
    split_rank,
    truncated_svd,
    weighed,
)
from nsvd_exp.methods.nested import Basis, Losses, Metrics

# SVD-LLM's shift of a Gram matrix that Cholesky refuses: by -lambda_min + 1e-6.
JITTER = 1e-6


@dataclass(frozen=True, kw_only=True)
class Means:
    """The first moments of one layer input X (n channels, p tokens).

    Attributes:
        abs_mean: (n,), mean absolute value of each channel.
        mean: (n,), mean of each channel.
        tokens: p.
    """

    abs_mean: Tensor
    mean: Tensor
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Statistics(Means):
    """What calibration knows of one layer input X (n channels, p tokens).

    Attributes:
        gram: (n, n), X Xᵀ, a sum over tokens, not a mean.
    """

    gram: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Statistics:
        """The same on `device` in `dtype`."""
        gram, abs_mean, mean = (t.to(device, dtype) for t in (self.gram, self.abs_mean, self.mean))
        return Statistics(gram=gram, abs_mean=abs_mean, mean=mean, tokens=self.tokens)


@dataclass(frozen=True)
class Calibration:
    """The statistics of all layers, each distinct layer input once.

    Attributes:
        inputs: by the name of the input, which is that of the first layer that reads it.
        reads: of each layer, the name of the input that it reads.
        record: what a result says of the tokens that the statistics were made from.
    """

    inputs: Mapping[str, Statistics]
    reads: Mapping[str, str]
    record: dict[str, Any] = field(default_factory=dict)

    def of(self, layer: str) -> Statistics:
        """The statistics of the input that the layer reads."""
        return self.inputs[self.reads[layer]]

    @property
    def nbytes(self) -> int:
        """Bytes of the Gram matrices, which are nearly all that a calibration takes."""
        return sum(statistics.gram.nbytes for statistics in self.inputs.values())


@dataclass(frozen=True)
class Factor:
    """The paper's whitening matrix: S and its (pseudo-)inverse, each (n, n), (n,) or None for I.

    Attributes:
        shift: what had to be added to the diagonal to make S invertible, 0 almost always.
    """

    S: Tensor | None
    inverse: Tensor | None
    shift: float = 0.0


class Whitening:
    """How stage one weighs the inputs: M = S Sᵀ. Subclass it for a method of your own.

    `metric` suffices: the paper's route then takes the Cholesky factor of M.

    Attributes:
        calibrated: whether it looks at the statistics at all.
    """

    calibrated = True

    def metric(self, statistics: Statistics) -> Tensor | None:
        """M: (n, n) positive semidefinite, (n,) a diagonal, or None, the identity."""
        raise NotImplementedError

    def factor(self, statistics: Statistics) -> Factor:
        """S and S⁻¹ with S Sᵀ = M, as `solver=paper` multiplies them."""
        M = self.metric(statistics)
        if M is None:
            return Factor(None, None)
        if M.ndim == 1:
            return _diagonal_factor(M.sqrt())
        return _cholesky_factor(M)

    def basis(self, W: Tensor, statistics: Statistics) -> OutputBasis:
        """Output directions of W (m, n), leading first."""
        # A Gram matrix of p tokens has rank p at most; a diagonal metric has no such bound.
        M = self.metric(statistics)
        return eigenbasis(W, M, statistics.tokens if M is not None and M.ndim == 2 else None)


class Identity(Whitening):
    """SVD: M = I. The best rank k of W itself (Theorem 1). Needs no calibration."""

    calibrated = False

    def metric(self, statistics: Statistics) -> None:
        return None


class AbsMean(Whitening):
    """ASVD-0 (equation 4): S = diag(mean |x_i|), M = S²."""

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.abs_mean.square()


class Cholesky(Whitening):
    """ASVD-I = SVD-LLM (Theorem 2): M = G, S its Cholesky factor.

    Truncating W S leaves the loss ||(W - Ŵ) X||_F² = sum of the squared discarded singular values.
    """

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.gram


class Eigen(Cholesky):
    """ASVD-II (Theorem 3): M = G, S = P L^(1/2), with the pseudo-inverse where G is singular."""

    def factor(self, statistics: Statistics) -> Factor:
        values, P = torch.linalg.eigh(statistics.gram)
        return _eigen_factor(P, values, values.clamp(min=0).sqrt(), statistics.tokens)


class Scalar(Whitening):
    """ASVD-III, first reading of Theorem 4: S = g P with g = sqrt(lambda_max), so M = g² I.

    g cancels, and what is left is plain SVD.
    """

    def metric(self, statistics: Statistics) -> None:
        return None

    def factor(self, statistics: Statistics) -> Factor:
        values, P = torch.linalg.eigh(statistics.gram)
        scale = values[-1].sqrt() if values[-1] > 0 else torch.ones_like(values[-1])
        return Factor(P * scale, P.T / scale)


class Spectral(Whitening):
    """ASVD-III, second reading of Theorem 4: S = g P L, so M = g² G²; g cancels.

    Its basis comes from the singular vectors of W G: in W G² Wᵀ the condition of G would stand to
    the fourth power.
    """

    def metric(self, statistics: Statistics) -> Tensor:
        return statistics.gram @ statistics.gram

    def factor(self, statistics: Statistics) -> Factor:
        values, P = torch.linalg.eigh(statistics.gram)
        return _eigen_factor(P, values, values[-1].sqrt() * values, statistics.tokens)

    def basis(self, W: Tensor, statistics: Statistics) -> OutputBasis:
        return singular_basis(W @ statistics.gram, W, statistics.tokens)


WHITENINGS: dict[str, type[Whitening]] = {
    "identity": Identity,
    "abs_mean": AbsMean,
    "cholesky": Cholesky,
    "eigen": Eigen,
    "scalar": Scalar,
    "spectral": Spectral,
}


def whitening_named(name: str) -> Whitening:
    """The whitening of this name, or the class that a dotted path names.

    Raises:
        NsvdError: there is none, or it is not a `Whitening`.
    """
    if name in WHITENINGS:
        return WHITENINGS[name]()
    module, _, attribute = name.rpartition(".")
    if not module:
        raise unknown_name("whitening", name, WHITENINGS)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NsvdError(f"method.whitening={name} cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Whitening)):
        raise NsvdError(
            f"method.whitening={name} is no subclass of nsvd_exp.methods.base.Whitening"
        )
    return found()


@dataclass(frozen=True)
class Factors:
    """A rank-k approximation Ŵ = left @ right.

    Attributes:
        left: (m, k); right: (k, n). The first k1 columns (rows) are stage one.
        k1, k2: ranks of the stages; k2 = 0 for methods of one stage.
        seen: see `OutputBasis`; None where solver=paper.
        shift: see `Factor`.
        losses: where they follow from the basis; None where solver=paper.
    """

    left: Tensor
    right: Tensor
    k1: int
    k2: int
    seen: int | None = None
    shift: float = 0.0
    losses: Losses | None = None


@dataclass(frozen=True)
class Method:
    """A method, ready to factorise.

    Attributes:
        whitening: stage (5a).
        second: stage (5b): `svd`, `id` or None.
        solver: `basis` (eigenvectors) or `paper` (factor, SVD, inverse).
    """

    whitening: Whitening
    second: str | None = None
    solver: str = "basis"

    def metric(self, statistics: Statistics | None) -> Tensor | None:
        """M = S Sᵀ of stage one, as `Whitening.metric` gives it."""
        return self.whitening.metric(cast(Statistics, statistics))

    def factorise(self, W: Tensor, k: int, k1: float, statistics: Statistics | None) -> Factors:
        """The rank-k factors of W.

        Args:
            W: (m, n), any floating dtype; computed and returned in float64.
            k: rank, 1 <= k <= min(m, n).
            k1: fraction of k for stage one; methods of one stage ignore it.
            statistics: of the inputs of W; None will do where the whitening looks at none.
        """
        # float64: in float32 the loss of a real layer came out 11% above the optimum (Gram
        # condition 1.7e6), because W M Wᵀ squares the spectrum.
        W = W.double()
        if statistics is not None:
            statistics = statistics.to(W.device, W.dtype)
        if self.solver == "basis":
            basis = self.basis(W, statistics)
            metrics = self.metrics(None if statistics is None else lambda: statistics)
            return self.truncate(basis, k, k1, metrics, W.device)
        return self._by_paper(W, *self._ranks(k, k1), self._known(statistics))

    def basis(self, W: Tensor, statistics: Statistics | None) -> Basis:
        """The output basis of stage one, which serves every k and k1; arguments in float64."""
        return Basis.of(W, *self.directions(W, statistics))

    def directions(self, W: Tensor, statistics: Statistics | None) -> tuple[OutputBasis, bool]:
        """The output directions of stage one, and whether its metric is the Gram matrix."""
        known = self._known(statistics)
        is_gram = statistics is not None and self.metric(known) is known.gram
        return self.whitening.basis(W, known), is_gram

    def metrics(
        self, statistics: Callable[[], Statistics] | None, calibration: str | None = None
    ) -> Metrics:
        """What the losses are measured by.

        Args:
            statistics: in float64, called when they are needed; None without calibration.
            calibration: a name for what they were made from.
        """
        if statistics is None:
            return Metrics(lambda: self.metric(None))
        return Metrics(lambda: self.metric(statistics()), lambda: statistics().gram, calibration)

    def truncate(
        self, basis: Basis, k: int, k1: float, metrics: Metrics, device: torch.device
    ) -> Factors:
        """The rank-k factors in this basis, on `device` in the precision of the basis."""
        k1_rank, k2_rank = self._ranks(k, k1)
        left, right, losses = basis.truncate(k1_rank, k2_rank, self.second, metrics, device)
        return Factors(left, right, k1_rank, k2_rank, basis.seen, losses=losses)

    def _ranks(self, k: int, k1: float) -> tuple[int, int]:
        return split_rank(k, k1) if self.second else (k, 0)

    def _known(self, statistics: Statistics | None) -> Statistics:
        if statistics is None and self.whitening.calibrated:
            raise ValueError("this method needs calibration statistics")
        return cast(Statistics, statistics)

    def _by_paper(self, W: Tensor, k1: int, k2: int, statistics: Statistics) -> Factors:
        factor = self.whitening.factor(statistics)
        left, right = truncated_svd(weighed(W, factor.S), k1)
        right = weighed(right, factor.inverse)
        if k2:
            residual = W - left @ right
            if self.second == "id":
                columns, coefficients = interpolative(residual, k2)
                second = residual[:, columns], coefficients
            else:
                second = truncated_svd(residual, k2)
            left, right = torch.cat([left, second[0]], dim=1), torch.cat([right, second[1]])
        return Factors(left, right, k1, k2, shift=factor.shift)


def _diagonal_factor(d: Tensor) -> Factor:
    # A channel that is always 0 has no inverse; the public ASVD code adds the same 1e-6.
    shift = JITTER if bool((d == 0).any()) else 0.0
    return Factor(d + shift, 1 / (d + shift), shift)


def _cholesky_factor(M: Tensor) -> Factor:
    """Cholesky of M; where it is not positive definite, of M + (-lambda_min + 1e-6) I (SVD-LLM)."""
    S, failed = torch.linalg.cholesky_ex(M)
    shift = 0.0
    if bool(failed):
        shift = -float(torch.linalg.eigvalsh(M)[0]) + JITTER
        S, failed = torch.linalg.cholesky_ex(M + shift * torch.eye(len(M)).to(M))
    if bool(failed):
        raise NsvdError(
            f"the Gram matrix is not positive definite, not even after a shift by {shift:.3g}: "
            "use solver=basis, or asvd_ii, nsvd_ii, nid_ii in place of their Cholesky siblings"
        )
    eye = torch.eye(len(M)).to(M)
    return Factor(S, torch.linalg.solve_triangular(S, eye, upper=False), shift)


def _eigen_factor(P: Tensor, values: Tensor, d: Tensor, tokens: int) -> Factor:
    """S = P diag(d) and its pseudo-inverse.

    The eigenvalues of G (ascending) that are of rounding size count as zero, and so do all but the
    largest `tokens`.
    """
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    kept[: max(len(values) - tokens, 0)] = False
    zero = torch.zeros_like(d)
    return Factor(P * torch.where(kept, d, zero), torch.where(kept, 1 / d, zero)[:, None] * P.T)
