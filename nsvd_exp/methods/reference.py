"""`solver=paper`: the paper's own route by a whitening matrix, a truncated SVD and its inverse.

The eigenbasis route (`nsvd_exp.methods.truncation`) gives the same approximation; the tests hold
the two together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.base import Factors, Losses, Method, Whitening
from nsvd_exp.methods.linalg import (
    relative_loss,
    roots,
    truncated_svd,
    weighed,
    weighed_rows,
)
from nsvd_exp.methods.statistics import Statistics

# SVD-LLM's shift of a Gram matrix that Cholesky refuses: by -lambda_min + 1e-6.
JITTER = 1e-6


def factorise_as_the_paper(
    method: Method, W: Tensor, k: int, statistics: Statistics | None
) -> Factors:
    """trunc_k1(W S) S⁻¹, and the second stage on what it leaves of W (equations 5a, 5b).

    Args:
        W: (m, n), float64.
        statistics: of its inputs, in float64; None: the metric is the identity.

    Raises:
        NsvdError: the metric has no Cholesky factor, not even after a shift.
    """
    first, second, (k1, k2) = method.first_stage(), method.second_stage(), method.ranks(k)
    whitening = Whitening(None, None)
    if statistics is not None:
        whitening = first.whitening(statistics) or cholesky(first.metric(statistics))
    N = None if statistics is None else first.output_metric(statistics)
    H, inverse = (None, None) if N is None else roots(N)
    left, right = truncated_svd(weighed(weighed_rows(H, W), whitening.S), k1)
    left, right = weighed_rows(inverse, left), weighed(right, whitening.inverse)
    if second is not None and k2:
        more = second.approximate(W - left @ right, k2)
        left, right = torch.cat([left, more[0]], dim=1), torch.cat([right, more[1]])
    losses = losses_by_definition(method, W, left @ right, statistics)
    lengths = weighed(right, whitening.S).norm(dim=1)
    return Factors(left, right, k1, k2, lengths, losses, shift=whitening.shift)


def losses_by_definition(
    method: Method, W: Tensor, approximation: Tensor, statistics: Statistics | None
) -> Losses:
    """The relative losses of an approximation (m, n) of W, from its difference to W."""
    weight = relative_loss(W, approximation)
    if statistics is None:
        return Losses(weight, weight)
    first = method.first_stage()
    M, N = first.metric(statistics), first.output_metric(statistics)
    own = relative_loss(W, approximation, M, N)
    return Losses(weight, own, relative_loss(W, approximation, statistics.gram))


def cholesky(M: Tensor | None) -> Whitening:
    """S with S Sᵀ = M: the square root of a diagonal, else the Cholesky factor.

    Where M is not positive definite, the factor is that of M + (-lambda_min + 1e-6) I (SVD-LLM).

    Args:
        M: (n, n), (n,) a diagonal, or None, the identity.

    Raises:
        NsvdError: M is not positive definite, not even after the shift.
    """
    if M is None:
        return Whitening(None, None)
    if M.ndim == 1:
        d = M.sqrt()
        # A channel that is always 0 has no inverse; the public ASVD code adds the same 1e-6.
        shift = JITTER if bool((d == 0).any()) else 0.0
        return Whitening(d + shift, 1 / (d + shift), shift)
    S, failed = torch.linalg.cholesky_ex(M)
    eye, shift = torch.eye(len(M)).to(M), 0.0
    if bool(failed):
        shift = -float(torch.linalg.eigvalsh(M)[0]) + JITTER
        S, failed = torch.linalg.cholesky_ex(M + shift * eye)
    if bool(failed):
        raise NsvdError(
            f"the Gram matrix is not positive definite, not even after a shift by {shift:.3g}: "
            "use solver=basis, or asvd_ii, nsvd_ii, nid_ii in place of their Cholesky siblings"
        )
    return Whitening(S, torch.linalg.solve_triangular(S, eye, upper=False), shift)


def eigen(statistics: Statistics, scale: Callable[[Tensor], Tensor]) -> Whitening:
    """S = P diag(d) and its pseudo-inverse, with d = scale(eigenvalues of G, ascending).

    Eigenvalues that are of rounding size count as zero, and so do all but the largest `tokens`.
    """
    values, P = torch.linalg.eigh(statistics.gram)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    kept[: max(len(values) - statistics.tokens, 0)] = False
    d, zero = scale(values), torch.zeros_like(values)
    S, inverse = torch.where(kept, d, zero), torch.where(kept, 1 / d, zero)
    return Whitening(P * S, inverse[:, None] * P.T)


def scaled_eigenvectors(statistics: Statistics) -> Whitening:
    """S = g P with g = sqrt(lambda_max) of G, and S⁻¹ = Pᵀ / g."""
    values, P = torch.linalg.eigh(statistics.gram)
    g = values[-1].sqrt() if values[-1] > 0 else torch.ones_like(values[-1])
    return Whitening(P * g, P.T / g)
