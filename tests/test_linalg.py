"""Laws of bases, truncated SVD and interpolative decomposition."""

from __future__ import annotations

import pytest
import torch
from helpers.matrices import random_inputs, random_weight
from helpers.methods import every_shape

from nsvd_exp.methods.linalg import (
    eigenbasis,
    interpolative,
    leading_eigenvectors,
    relative_loss,
    singular_basis,
)


@every_shape
def test_eigenbasis_is_orthonormal_and_complete(shape: tuple[int, int]) -> None:
    m, n = shape
    W, X = random_weight(m, n), random_inputs(n, 200)
    for M in (None, X.abs().mean(1).square(), X @ X.T):
        basis = eigenbasis(W, M)
        r = min(m, n)
        assert basis.U.shape == (m, r)
        torch.testing.assert_close(basis.U.T @ basis.U, torch.eye(r, dtype=W.dtype))
        torch.testing.assert_close(basis.U @ (basis.U.T @ W), W)


@every_shape
def test_singular_metric_is_the_limit_of_a_shifted_one(shape: tuple[int, int]) -> None:
    """Fewer tokens than channels: what calibration never saw is kept by its own size."""
    m, n = shape
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


@every_shape
def test_interpolative_keeps_its_columns_and_is_near_the_optimum(shape: tuple[int, int]) -> None:
    m, n = shape
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


def test_relative_loss_of_nothing_is_zero() -> None:
    Z = torch.zeros(3, 4, dtype=torch.float64)
    assert relative_loss(Z, Z) == 0
    W = random_weight(3, 4)
    assert relative_loss(W, W) == 0
    assert relative_loss(W, Z) == pytest.approx(1)


@pytest.mark.parametrize(("size", "k"), [(60, 3), (60, 40), (5, 1), (5, 5)])
def test_leading_eigenvectors_are_those_of_the_whole(size: int, k: int) -> None:
    A = random_weight(size, size)
    B = A @ A.T
    ours = leading_eigenvectors(B, k)
    every = torch.linalg.eigh(B).eigenvectors.flip(1)[:, :k]
    torch.testing.assert_close(ours @ ours.T, every @ every.T)
    captured = [(B @ V * V).sum(0) for V in (ours, every)]
    torch.testing.assert_close(*captured)
