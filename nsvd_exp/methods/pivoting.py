"""A product of rank k as k of its own rows and combinations of them: k (m + n - k) numbers.

With Q (m, k) an orthonormal basis of the columns of P (m, n) and J any k rows for which Q_J is
invertible, every row of P is a combination of those in J, exactly:

    P = Q QᵀP,    P_J = Q_J QᵀP,    hence    P = (Q Q_J⁻¹) P_J,

and (Q Q_J⁻¹) is the identity in the rows J. The rows are chosen so that no entry of the rest, T,
exceeds a bound: an exchange of the rows i and j multiplies |det Q_J| by |T_ij|, so that exchanges
of entries above 1 end.

References: arXiv 2501.19090 (the number of parameters); M. Gu and S. Eisenstat, "Efficient
algorithms for computing a strong rank-revealing QR factorization", 1996 (exchanges).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nsvd_exp.methods.linalg import leading_columns

LARGEST = 2.0
"""An entry of T above this is exchanged."""
# Beside the largest row of the product: what is smaller decides nothing about which rows are kept.
NEGLIGIBLE = 1e-6


class Pivots(NamedTuple):
    """The rows of a product that are kept, and what makes the others of them.

    Attributes:
        kept: (k,) and
        others: (m - k,), indices of rows.
        T: (m - k, k); the rows `others` are T times the rows `kept`.
    """

    kept: Tensor
    others: Tensor
    T: Tensor


def pivot(left: Tensor, lengths: Tensor, largest: float = LARGEST) -> Pivots:
    """Choose k rows of a product left @ right that the others are combinations of.

    Pivoted QR of the rows under the metric of a method, followed by exchanges. The product may be
    of a rank below k: the combinations are those of a basis that contains its columns.

    Args:
        left: (m, k), float64, k <= m.
        lengths: (k,), of the rows of `right` under that metric, which are taken for orthogonal.
            They decide which rows are kept, and change nothing of what the product is.
        largest: the largest |T_ij| that is left, > 1.
    """
    k = left.shape[1]
    Q, B = torch.linalg.qr(left)
    # Row i of Q C is as long as row i of the product; positive definite where the product is not.
    under = (B * lengths.square()) @ B.T
    size = under.diagonal().max()
    size = torch.where(size > 0, size, torch.ones_like(size))
    C = torch.linalg.cholesky(under + NEGLIGIBLE**2 * size * torch.eye(k).to(under))
    kept = leading_columns((Q @ C).T, k)
    is_other = torch.ones(len(Q), dtype=torch.bool, device=Q.device)
    is_other[kept] = False
    others = is_other.nonzero().flatten()
    _exchange(Q, kept, others, largest)
    return Pivots(kept, others, _combinations(Q, kept, others))


def _combinations(Q: Tensor, kept: Tensor, others: Tensor) -> Tensor:
    """T (m - k, k) = Q_others Q_kept⁻¹."""
    return torch.linalg.solve(Q[kept], Q[others], left=False)


def _exchange(Q: Tensor, kept: Tensor, others: Tensor, largest: float) -> None:
    """Exchange rows, in place, until no entry of T is above `largest`."""
    while len(others):
        T = _combinations(Q, kept, others)
        if float(T.abs().max()) <= largest:
            return
        while True:
            place = int(T.abs().argmax())
            i, j = place // T.shape[1], place % T.shape[1]
            if abs(float(T[i, j])) <= largest:
                break  # but for the rounding of the updates: looked at once more
            kept[j], others[i] = others[i].clone(), kept[j].clone()
            # Row j of Q_kept is T_i of what it was: a change of rank one, and so is its inverse.
            change = T[i].clone()
            change[j] -= 1
            pivot_entry = change[j] + 1
            T[i] = 0
            T[i, j] = 1
            T -= torch.outer(T[:, j] / pivot_entry, change)
