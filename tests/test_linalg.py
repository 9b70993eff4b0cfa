"""Laws of ranks, bases and interpolative decomposition."""

from __future__ import annotations

import pytest
import torch
from helpers.matrices import random_inputs, random_weight

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.linalg import (
    eigenbasis,
    interpolative,
    rank_for_ratio,
    relative_loss,
    reorder_tail,
    singular_basis,
    split_rank,
    truncated_svd,
)

SHAPES = [(20, 30), (30, 20), (24, 24)]


@pytest.mark.parametrize(
    ("m", "n", "ratio", "k"),
    [
        # The paper's LLaMA-7B ranks.
        (4096, 4096, 0.1, 1843),
        (4096, 4096, 0.2, 1638),
        (4096, 4096, 0.3, 1433),
        (4096, 4096, 0.4, 1228),
        (4096, 4096, 0.5, 1024),
        (11008, 4096, 0.1, 2686),
        (11008, 4096, 0.2, 2388),
        (11008, 4096, 0.3, 2089),
        (11008, 4096, 0.4, 1791),
        (11008, 4096, 0.5, 1492),
        (80, 80, 0.55, 18),  # in binary floats 17
        (10, 10, 0.8, 1),  # exactly 1; in binary floats 0
    ],
)
def test_rank_is_the_papers_floor_in_exact_decimals(m: int, n: int, ratio: float, k: int) -> None:
    assert rank_for_ratio(m, n, ratio) == k
    assert rank_for_ratio(n, m, ratio) == k


@pytest.mark.parametrize(("m", "n"), [(64, 64), (48, 100), (100, 48)])
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.33, 0.5, 0.9])
def test_rank_keeps_the_budget_and_uses_it_up(m: int, n: int, ratio: float) -> None:
    k = rank_for_ratio(m, n, ratio)
    budget = m * n * (1 - ratio)
    assert k * (m + n) <= budget + 1e-9 < (k + 1) * (m + n)
    assert k < min(m, n)


def test_a_rank_below_one_is_an_error() -> None:
    with pytest.raises(NsvdError, match=r"ratio=0.99 leaves no rank for a 10 x 12 weight.*skip"):
        rank_for_ratio(10, 12, 0.99)


@pytest.mark.parametrize(
    ("k", "k1", "ranks"),
    [
        (100, 1.0, (100, 0)),
        (100, 0.95, (95, 5)),
        (20, 0.55, (11, 9)),
        (10, 0.999, (9, 1)),
        (10, 0.01, (1, 9)),
        (1, 0.5, (1, 0)),
        (100, 0.29, (29, 71)),  # 0.29 * 100 is 28.999999999999996 in binary floats
    ],
)
def test_rank_is_split_in_exact_decimals_and_held_inside(
    k: int, k1: float, ranks: tuple[int, int]
) -> None:
    assert split_rank(k, k1) == ranks


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_eigenbasis_is_orthonormal_and_complete(m: int, n: int) -> None:
    W, X = random_weight(m, n), random_inputs(n, 200)
    for M in (None, X.abs().mean(1).square(), X @ X.T):
        basis = eigenbasis(W, M)
        r = min(m, n)
        assert basis.U.shape == (m, r)
        torch.testing.assert_close(basis.U.T @ basis.U, torch.eye(r, dtype=W.dtype))
        torch.testing.assert_close(basis.U @ (basis.U.T @ W), W)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_loss_is_the_discarded_spectrum(m: int, n: int) -> None:
    """Theorem 2: ||(W - Ŵ) X||_F² is the sum of the squared discarded singular values of W S."""
    W, X = random_weight(m, n), random_inputs(n, 200)
    S = torch.linalg.cholesky(X @ X.T)
    spectrum = torch.linalg.svdvals(W @ S)
    basis = eigenbasis(W, X @ X.T)
    for k in (1, 5, 12):
        approximation = basis.U[:, :k] @ (basis.U[:, :k].T @ W)
        loss = torch.linalg.matrix_norm((W - approximation) @ X)
        torch.testing.assert_close(loss, torch.linalg.vector_norm(spectrum[k:]))
        relative = relative_loss(W, approximation, X @ X.T)
        assert relative == pytest.approx(float(loss / torch.linalg.matrix_norm(W @ X)), rel=1e-8)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_bases_are_nested(m: int, n: int) -> None:
    """The leading k directions do not depend on k: one eigenproblem serves every ratio and k1."""
    W, X = random_weight(m, n), random_inputs(n, 200)
    basis = eigenbasis(W, X @ X.T)
    turned = reorder_tail(basis.U, basis.U.T @ W, 7)
    torch.testing.assert_close(turned[:, :7], basis.U[:, :7], rtol=0, atol=0)
    # The tail is the best one: what is left of the residual is its discarded spectrum (Theorem 1).
    residual = W - turned[:, :7] @ (turned[:, :7].T @ W)
    kept = turned[:, 7:10]
    rest = torch.linalg.matrix_norm(residual - kept @ (kept.T @ residual))
    best = torch.linalg.vector_norm(torch.linalg.svdvals(residual)[3:])
    torch.testing.assert_close(rest, best)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_singular_metric_is_the_limit_of_a_shifted_one(m: int, n: int) -> None:
    """Fewer tokens than channels: what calibration never saw is kept by its own size."""
    W, X = random_weight(m, n), random_inputs(n, 6)
    G = X @ X.T
    U = eigenbasis(W, G).U[:, :12]
    distances = []
    for shift in (1e-3, 1e-5):
        V = eigenbasis(W, G + shift * torch.eye(n, dtype=W.dtype)).U[:, :12]
        distances.append(float(torch.linalg.matrix_norm(U @ U.T - V @ V.T)))
    assert distances[1] < 1e-4
    assert distances[1] < distances[0] / 50  # falls in proportion to the shift


def test_singular_basis_goes_on_where_the_factor_has_no_rank() -> None:
    W, X = random_weight(20, 30), random_inputs(30, 6)
    basis = singular_basis(W @ (X @ X.T), W)
    torch.testing.assert_close(basis.U.T @ basis.U, torch.eye(20, dtype=W.dtype))
    seen = torch.linalg.svd(W @ X, full_matrices=False).U
    torch.testing.assert_close(seen @ (seen.T @ basis.U[:, :6]), basis.U[:, :6])
    # The rest of W's range, leading first.
    tail = (basis.U.T @ W)[6:].norm(dim=1)
    assert bool((tail[:-1] >= tail[1:] - 1e-12).all())


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_interpolative_keeps_its_columns_and_is_near_the_optimum(m: int, n: int) -> None:
    A = random_weight(m, n)
    columns, T = interpolative(A, 8)
    assert len(set(columns.tolist())) == 8
    approximation = A[:, columns] @ T
    torch.testing.assert_close(approximation[:, columns], A[:, columns])
    error = torch.linalg.matrix_norm(A - approximation)
    optimum = torch.linalg.vector_norm(torch.linalg.svdvals(A)[8:])
    assert optimum <= error <= 2 * optimum


def test_a_few_pivots_are_the_first_of_all() -> None:
    """Both ways of `interpolative`: 7 of 60 rows by Gram-Schmidt, 8 and more by LAPACK."""
    A = random_weight(60, 80)
    few, T = interpolative(A, 7)
    more, _ = interpolative(A, 8)
    assert few.tolist() == more[:7].tolist()
    fitted = torch.linalg.lstsq(A[:, few], A).solution
    torch.testing.assert_close(T, fitted)


@pytest.mark.parametrize("rows", [12, 80])
def test_interpolative_of_a_matrix_without_that_rank(rows: int) -> None:
    A = random_weight(rows, 3) @ random_weight(3, 90, seed=1)
    columns, T = interpolative(A, 6)
    torch.testing.assert_close(A[:, columns] @ T, A)
    assert not T[3:].any()
    columns, T = interpolative(torch.zeros(rows, 90, dtype=torch.float64), 3)
    assert not T.any()


def test_interpolative_of_columns_of_very_unequal_length() -> None:
    """What is left of a short column is found behind the rounding of the long ones."""
    A = random_weight(100, 120) * torch.logspace(0, -11, 120, dtype=torch.float64)
    few, _ = interpolative(A, 12)
    every, _ = interpolative(A, 100)
    assert few.tolist() == every[:12].tolist()


def test_truncated_svd_of_full_rank_reconstructs() -> None:
    A = random_weight(9, 14)
    left, right = truncated_svd(A, 9)
    torch.testing.assert_close(left @ right, A)


def test_relative_loss_of_nothing_is_zero() -> None:
    Z = torch.zeros(3, 4, dtype=torch.float64)
    assert relative_loss(Z, Z) == 0
    W = random_weight(3, 4)
    assert relative_loss(W, W) == 0
    assert relative_loss(W, Z) == pytest.approx(1)
