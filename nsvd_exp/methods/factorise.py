"""One weight, one method, one rank: the factors, by either solver."""

from __future__ import annotations

from torch import Tensor

from nsvd_exp.methods.base import Factors, Method
from nsvd_exp.methods.reference import factorise_as_the_paper
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.methods.truncation import OutputBasis


def factorise(
    method: Method,
    W: Tensor,
    k: int,
    statistics: Statistics | None = None,
    solver: str = "basis",
) -> Factors:
    """The rank-k factors of W, in float64.

    Args:
        W: (m, n), any floating dtype.
        k: rank, 1 <= k <= min(m, n).
        statistics: of the inputs of W; methods that are not calibrated need none.
        solver: `basis`, the eigenvectors of W M Wᵀ; or `paper`, whitening, SVD and inverse.

    Raises:
        NsvdError: the method needs statistics and has none.
    """
    # float64: W M Wᵀ squares the spectrum. In float32 the loss of a real layer came out 11%
    # above the optimum (condition of its Gram matrix: 1.7e6).
    method.require(statistics)
    W = W.double()
    known = None if statistics is None else statistics.to(W.device, W.dtype)
    if solver == "paper":
        return factorise_as_the_paper(method, W, k, known)
    basis = OutputBasis.of(W, method, known)
    return basis.truncate(method, k, None if known is None else lambda: known, W.device)
