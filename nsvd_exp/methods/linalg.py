"""Output bases, truncated SVD and interpolative decomposition: tensors in, tensors out.

For any invertible whitening S with M = S Sᵀ,

    trunc_k(W S) S⁻¹ = U_k U_kᵀ W,    U_k = the k leading eigenvectors of W M Wᵀ,

so a method of the SVD type is a choice of k orthonormal output directions (the columns of U_k), and
its two factors are U_k (m x k) and U_kᵀ W (k x n). W M Wᵀ squares the spectrum of W S, therefore
everything here is meant for float64 (`nsvd_exp.methods.factorise` sees to it).

References: NSVD (arXiv 2503.17101), Theorems 1 to 4, equations (5a), (5b); G. Golub and
C. Van Loan, Matrix Computations, 4th ed., sections 2.4 (Eckart-Young) and 5.4 (pivoted QR).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError


def weighed(W: Tensor, M: Tensor | None) -> Tensor:
    """W M for M full (n x n), diagonal (n) or the identity (None)."""
    if M is None:
        return W
    return W * M if M.ndim == 1 else W @ M


class Eigenbasis(NamedTuple):
    """A basis of the outputs of W, most important direction first.

    Attributes:
        U: (m, r) with r = min(m, n); its columns span those of W.
        energy: (r,), the diagonal of Uᵀ (W M Wᵀ) U, which is 0 elsewhere: what of ||W S||_F² lies
            in each direction.
        seen: how many of them calibration saw, the rank of W M Wᵀ; the rest is ordered by W alone.
        is_orthonormal: whether UᵀU = I, so that the coordinates of W are UᵀW. A metric of the
            outputs N = H² turns the orthonormal basis of H W into one of W, by H⁻¹.
    """

    U: Tensor
    energy: Tensor
    seen: int
    is_orthonormal: bool = True

    def coordinates(self, W: Tensor) -> Tensor:
        """C (r, n) with U C = W (m, n)."""
        return coordinates_in(self.U, W, self.is_orthonormal)


def coordinates_in(U: Tensor, W: Tensor, is_orthonormal: bool) -> Tensor:
    """C (r, n) with U C = W (m, n), where the columns of U (m, r) span those of W."""
    if is_orthonormal:
        return U.T @ W
    Q, R = torch.linalg.qr(U)
    return torch.linalg.solve_triangular(R, Q.T @ W, upper=True)


def roots(N: Tensor) -> tuple[Tensor, Tensor]:
    """H and H⁻¹ with H H = N for N (m, m) symmetric and positive definite, or (m,) a diagonal."""
    if N.ndim == 1:
        root = N.sqrt()
        return root, 1 / root
    values, V = torch.linalg.eigh((N + N.T) / 2)
    root = values.clamp(min=float(values[-1]) * torch.finfo(N.dtype).eps).sqrt()
    return (V * root) @ V.T, (V / root) @ V.T


def weighed_rows(N: Tensor | None, W: Tensor) -> Tensor:
    """N W for N full (m x m), diagonal (m) or the identity (None)."""
    return weighed(W.T, N).T


def two_sided_basis(W: Tensor, N: Tensor, M: Tensor | None, rank: int | None = None) -> Eigenbasis:
    """L⁻ᵀ times the eigenvectors of LᵀW M WᵀL, with N = L Lᵀ: best under both metrics.

    L is the Cholesky factor, which takes a small part of what a symmetric root takes.

    Args:
        W: (m, n).
        N: (m, m) or (m,), positive definite.
        M, rank: as of `eigenbasis`.

    Raises:
        NsvdError: N is not positive definite.
    """
    if N.ndim == 1:
        root = N.sqrt()
        found = eigenbasis(root[:, None] * W, M, rank)
        return found._replace(U=found.U / root[:, None], is_orthonormal=False)
    L, failed = torch.linalg.cholesky_ex(N)
    if bool(failed):
        raise NsvdError("the metric of the outputs is not positive definite: use more damping")
    found = eigenbasis(L.T @ W, M, rank)
    U = torch.linalg.solve_triangular(L.T, found.U, upper=True)
    return found._replace(U=U, is_orthonormal=False)


def eigenbasis(W: Tensor, M: Tensor | None, rank: int | None = None) -> Eigenbasis:
    """The eigenvectors of W M Wᵀ, leading first; the first k give the best rank k under M.

    Where W M Wᵀ is singular (fewer tokens than channels), its null space is ordered by W Wᵀ, which
    is the limit of M + eps I: what calibration never saw is kept by its own size.

    Args:
        W: (m, n).
        M: (n, n), symmetric and positive semidefinite; (n,), a diagonal; or None, the identity.
        rank: a bound on the rank of M that is known beforehand. A Gram matrix summed in float32
            has full rank by its rounding, whatever the number of its tokens.
    """
    m, n = W.shape
    # A tall W is reduced to its n x n triangle first: no m x m problem with m > n.
    Q, R = torch.linalg.qr(W) if m > n else (None, W)
    C = weighed(R, M) @ R.T
    energy, V = torch.linalg.eigh((C + C.T) / 2)
    energy, V = energy.flip(0), V.flip(1)
    seen = int((energy > energy[0] * len(energy) * torch.finfo(W.dtype).eps).sum())
    seen = min(seen, len(energy) if rank is None else rank)
    if seen < len(energy):
        tail = V[:, seen:].T @ R
        rotation = torch.linalg.eigh(tail @ tail.T).eigenvectors.flip(1)
        V = torch.cat([V[:, :seen], V[:, seen:] @ rotation], dim=1)
        # Off its diagonal the turned block is of rounding size, as the block itself is.
        energy = torch.cat([energy[:seen], ((C @ V[:, seen:]) * V[:, seen:]).sum(0)])
    return Eigenbasis(V if Q is None else Q @ V, energy.clamp(min=0), seen)


def singular_basis(A: Tensor, W: Tensor, rank: int | None = None) -> Eigenbasis:
    """The left singular vectors of A = W S, for an S whose square would lose the spectrum's tail.

    Args:
        A: (m, n).
        W: (m, n), the weight itself.
        rank: a bound on the rank of S that is known beforehand, as in `eigenbasis`.
    """
    U, s, _ = torch.linalg.svd(A, full_matrices=False)
    seen = int((s > s[0] * max(A.shape) * torch.finfo(A.dtype).eps).sum())
    seen = min(seen, len(s) if rank is None else rank)
    if seen < len(s):
        # Beyond the rank of A the vectors are arbitrary: take the rest of W's range, by its size.
        U = U[:, :seen]
        rest = W - U @ (U.T @ W)
        tail = torch.linalg.svd(rest, full_matrices=False).U[:, : len(s) - seen]
        U = torch.linalg.qr(torch.cat([U, tail], dim=1)).Q
    return Eigenbasis(U, (U.T @ A).square().sum(1), seen)


def leading_eigenvectors(B: Tensor, k: int) -> Tensor:
    """(s, k): the k leading eigenvectors of the symmetric B (s, s), leading first.

    On a CPU by LAPACK's syevr, which turns back only the vectors that are asked for: the same
    tridiagonal form as all of them need, hence as exact, and half the time on one thread for k / s
    of a few hundredths (`benchmarks/linalg.py`). From a third of them on, and on CUDA, where
    nothing else has been measured, all of them, in float64.
    """
    s = len(B)
    if B.is_cuda or 3 * k > s:
        return torch.linalg.eigh(B).eigenvectors.flip(1)[:, :k]
    _, vectors = scipy.linalg.eigh(
        B.numpy(), subset_by_index=(s - k, s - 1), driver="evr", check_finite=False
    )
    return torch.from_numpy(vectors).flip(1)


def interpolative(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Column interpolative decomposition: k columns of A and their coefficients.

    QR with column pivoting, A P = Q R, gives A ~ A[:, J] T with T = R11⁻¹ [R11 R12] Pᵀ. Pivots that
    are zero up to rounding get zero coefficients, so k may exceed the rank of A.

    Args:
        A: (r, n).
        k: 1 <= k <= min(r, n).

    Returns:
        J: (k,) indices of the columns; T: (k, n), on the columns J the identity (where k exceeds
        the rank of A, with zeros at its end).
    """
    J, R = _pivots(A, k)
    diagonal = R[range(k), J].abs()
    rank = int((diagonal > diagonal[0] * max(A.shape) * torch.finfo(A.dtype).eps).sum())
    T = torch.zeros_like(R)
    T[:rank] = torch.linalg.solve_triangular(R[:rank, J[:rank]], R[:rank], upper=True)
    T[:, J[:rank]] = torch.eye(k, rank, dtype=A.dtype, device=A.device)
    return J, T


def leading_columns(A: Tensor, k: int) -> Tensor:
    """(k,): the indices of the first k pivots of A (r, n) in QR with column pivoting."""
    return _pivots(A, k)[0]


def _pivots(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k pivots J (k,) and rows QᵀA (k, n)."""
    # LAPACK makes all pivots, which pays from so many on (`benchmarks/linalg.py`).
    return _all_pivots(A, k) if 8 * k > len(A) and not A.is_cuda else _first_pivots(A, k)


def _all_pivots(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k pivots J (k,) and rows QᵀA (k, n) by LAPACK's geqp3 (through SciPy)."""
    R, order = scipy.linalg.qr(A.numpy(), mode="r", pivoting=True, check_finite=False)
    rows = A.new_empty(k, A.shape[1])
    rows[:, order] = torch.from_numpy(R[:k])
    return torch.from_numpy(order[:k]).long(), rows


def _first_pivots(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k pivots by Gram-Schmidt, each column made orthogonal twice; ends at the k-th."""
    Q, R = A.new_zeros(k, A.shape[0]), A.new_zeros(k, A.shape[1])
    left = A.square().sum(0)  # the squared length of what is left of each column
    trusted = float(left.max())
    # What is shorter is rounding, and no direction: its row stays 0.
    shortest = trusted**0.5 * max(A.shape) * torch.finfo(A.dtype).eps
    pivots: list[int] = []
    for step in range(k):
        if float(left.max()) < trusted * torch.finfo(A.dtype).eps ** 0.5:
            # The differences below have lost half of their digits: from the columns themselves.
            left = (A - Q[:step].T @ R[:step]).square().sum(0)
            trusted = float(left.max())
        left[pivots] = -1.0
        pivots.append(int(left.argmax()))
        column = A[:, pivots[-1]] - Q[:step].T @ R[:step, pivots[-1]]
        column = column - Q[:step].T @ (Q[:step] @ column)
        length = column.norm()
        if length > shortest:
            Q[step] = column / length
            R[step] = Q[step] @ A
            left = left - R[step].square()
    return torch.tensor(pivots, device=A.device), R


def truncated_svd(A: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best rank k of A (Theorem 1), as U_k S_k^(1/2) (m, k) and S_k^(1/2) V_kᵀ (k, n)."""
    U, s, Vh = torch.linalg.svd(A, full_matrices=False)
    root = s[:k].sqrt()
    return U[:, :k] * root, root[:, None] * Vh[:k]


def root_of_part(rest: float, total: float) -> float:
    """sqrt(rest / total), the relative loss of an energy; 0 where the total is 0."""
    # Rounding can leave the rest of an all but perfect approximation a hair below zero.
    return math.sqrt(max(rest, 0.0) / total) if total > 0 else 0.0


def relative_loss(
    W: Tensor, approximation: Tensor, M: Tensor | None = None, N: Tensor | None = None
) -> float:
    """||H (W - Ŵ) S||_F / ||H W S||_F with M = S Sᵀ and N = H H; M = X Xᵀ and N = I give the
    activation loss, equation (3).

    It is 0 where H W S itself is 0.
    """
    rest, total = (
        float((weighed(A, M) * weighed_rows(N, A)).sum()) for A in (W - approximation, W)
    )
    return root_of_part(rest, total)
