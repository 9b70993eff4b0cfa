"""Laws over all methods at once, and the two solvers against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.matrices import gram, random_inputs, random_weight, statistics_of
from helpers.methods import METHODS

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.base import JITTER, Method, Statistics, Whitening, whitening_named
from nsvd_exp.methods.linalg import relative_loss, truncated_svd

SHAPES = [(20, 30), (30, 20), (24, 24)]
SOLVERS = ["basis", "paper"]

SINGLE = [name for name, (_, second) in METHODS.items() if second is None]
NESTED = [name for name in METHODS if name not in SINGLE]

every_method = pytest.mark.parametrize("name", METHODS)
every_shape = pytest.mark.parametrize(("m", "n"), SHAPES)
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def approximate(
    name: str, solver: str, W: torch.Tensor, k: int, k1: float, statistics: Statistics
) -> torch.Tensor:
    """The rank-k approximation of W, (m, n)."""
    whitening, second = METHODS[name]
    factors = Method(whitening_named(whitening), second, solver).factorise(W, k, k1, statistics)
    assert factors.left.shape == (W.shape[0], k)
    assert factors.right.shape == (k, W.shape[1])
    assert factors.k1 + factors.k2 == k
    return factors.left @ factors.right


def distance(A: torch.Tensor, B: torch.Tensor) -> float:
    """||A - B||_F / ||B||_F."""
    return float(torch.linalg.matrix_norm(A - B) / torch.linalg.matrix_norm(B))


@every_method
@every_shape
def test_the_solvers_agree_where_the_gram_matrix_is_invertible(name: str, m: int, n: int) -> None:
    W, statistics = random_weight(m, n), statistics_of(random_inputs(n, 300))
    for k, k1 in ((8, 0.75), (3, 0.5), (12, 0.95)):
        ours = approximate(name, "basis", W, k, k1, statistics)
        papers = approximate(name, "paper", W, k, k1, statistics)
        assert distance(ours, papers) < 1e-9


@every_method
@every_shape
@every_solver
def test_full_rank_reconstructs(name: str, m: int, n: int, solver: str) -> None:
    W, statistics = random_weight(m, n), statistics_of(random_inputs(n, 300))
    assert distance(approximate(name, solver, W, min(m, n), 0.8, statistics), W) < 1e-9


@pytest.mark.parametrize("name", NESTED)
@every_solver
def test_k1_of_one_is_the_parent_method(name: str, solver: str) -> None:
    whitening, second = METHODS[name]
    W, statistics = random_weight(20, 30), statistics_of(random_inputs(30, 300))
    parent = Method(whitening_named(whitening), None, solver).factorise(W, 8, 0.5, statistics)
    nested = Method(whitening_named(whitening), second, solver).factorise(W, 8, 1.0, statistics)
    assert (nested.k1, nested.k2) == (8, 0)
    torch.testing.assert_close(nested.left, parent.left, rtol=0, atol=0)
    torch.testing.assert_close(nested.right, parent.right, rtol=0, atol=0)


@pytest.mark.parametrize("name", SINGLE)
@every_solver
def test_white_inputs_make_every_single_stage_method_plain_svd(name: str, solver: str) -> None:
    W = random_weight(20, 30)
    white = Statistics(
        gram=7.0 * torch.eye(30, dtype=W.dtype),
        abs_mean=torch.full((30,), 0.8, dtype=W.dtype),
        mean=torch.zeros(30, dtype=W.dtype),
        tokens=100,
    )
    left, right = truncated_svd(W, 6)
    assert distance(approximate(name, solver, W, 6, 1.0, white), left @ right) < 1e-9


@every_shape
@every_solver
def test_each_whitening_is_best_under_its_own_metric(m: int, n: int, solver: str) -> None:
    """Eckart-Young under M = S Sᵀ: nothing of the same rank has a smaller ||(W - Ŵ) S||_F."""
    W, statistics = random_weight(m, n), statistics_of(random_inputs(n, 300))
    results = {name: approximate(name, solver, W, 7, 1.0, statistics) for name in SINGLE}
    for name in SINGLE:
        M = whitening_named(METHODS[name][0]).metric(statistics)
        own = relative_loss(W, results[name], M)
        for other in results.values():
            assert own <= relative_loss(W, other, M) + 1e-9


@pytest.mark.parametrize("name", ["nsvd_i", "nsvd_ii"])
@every_shape
def test_nsvd_follows_equation_5(name: str, m: int, n: int) -> None:
    """Stage (5a) by Cholesky, SVD and inverse; stage (5b) by a plain SVD of the residual."""
    W, X = random_weight(m, n), random_inputs(n, 300)
    S = torch.linalg.cholesky(X @ X.T)
    U, s, Vh = torch.linalg.svd(W @ S, full_matrices=False)
    first = (U[:, :6] * s[:6]) @ Vh[:6] @ torch.linalg.inv(S)
    U, s, Vh = torch.linalg.svd(W - first, full_matrices=False)
    expected = first + (U[:, :4] * s[:4]) @ Vh[:4]
    assert distance(approximate(name, "basis", W, 10, 0.6, statistics_of(X)), expected) < 1e-10


@every_solver
def test_the_second_stage_trades_activation_loss_for_weight_loss(solver: str) -> None:
    W, statistics = random_weight(24, 24), statistics_of(random_inputs(24, 300))
    parent = approximate("asvd_i", solver, W, 10, 1.0, statistics)
    nested = approximate("nsvd_i", solver, W, 10, 0.5, statistics)
    assert relative_loss(W, nested) < relative_loss(W, parent)
    assert relative_loss(W, nested, statistics.gram) > relative_loss(W, parent, statistics.gram)


def test_nid_takes_columns_of_the_residual() -> None:
    W, statistics = random_weight(20, 30), statistics_of(random_inputs(30, 300))
    method = Method(whitening_named("cholesky"), "id")
    factors = method.factorise(W, 10, 0.6, statistics)
    residual = W - factors.left[:, :6] @ factors.right[:6]
    for column in factors.left[:, 6:].T:
        distances = (residual.T - column).norm(dim=1)
        assert float(distances.min()) < 1e-12


@every_method
@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_weights_lose_no_accuracy(name: str, solver: str) -> None:
    """The work is float64 whatever comes in: only the rounding of the weights themselves shows."""
    W = random_weight(20, 30).float()
    X = random_inputs(30, 300).float()
    single = statistics_of(X)
    double = statistics_of(X.double())
    exact = approximate(name, solver, W.double(), 8, 0.75, double)
    assert distance(approximate(name, solver, W, 8, 0.75, double), exact) == 0
    assert distance(approximate(name, solver, W, 8, 0.75, single), exact) < 1e-4


def test_singular_gram_both_solvers_agree_on_what_calibration_saw() -> None:
    """Fewer tokens than channels: the same W S, but ASVD-II drops what it never saw."""
    W, X = random_weight(20, 30), random_inputs(30, 12)
    statistics = statistics_of(X)
    for name in ("asvd_i", "asvd_ii"):
        ours = approximate(name, "basis", W, 8, 1.0, statistics)
        papers = approximate(name, "paper", W, 8, 1.0, statistics)
        assert distance(ours @ X, papers @ X) < 1e-4
    seen = torch.linalg.svd(X, full_matrices=False).U
    unseen = torch.eye(30, dtype=W.dtype) - seen @ seen.T
    dropped = approximate("asvd_ii", "paper", W, 8, 1.0, statistics) @ unseen
    kept = approximate("asvd_ii", "basis", W, 8, 1.0, statistics) @ unseen
    assert torch.linalg.matrix_norm(dropped) < 1e-6 * torch.linalg.matrix_norm(W)
    assert torch.linalg.matrix_norm(kept) > 0.1 * torch.linalg.matrix_norm(W)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("name", "solver", "k"),
    [
        # Not asvd_i by the paper's route: Cholesky takes the rounding for rank, or shifts.
        *((name, "basis", 26) for name in ("asvd_i", "asvd_ii", "asvd_iii spectral", "nsvd_ii")),
        *((name, "paper", 16) for name in ("asvd_ii", "asvd_iii spectral", "nsvd_ii")),
    ],
)
def test_the_rounding_of_a_gram_matrix_is_no_rank(
    name: str, solver: str, k: int, dtype: torch.dtype
) -> None:
    """20 tokens in 40 channels, multiplied in float32: its rank is 20 all the same."""
    X = random_inputs(40, 20).to(dtype)
    exact = statistics_of(X.double())
    rounded = replace(exact, gram=gram(X.T))
    assert int((torch.linalg.eigvalsh(rounded.gram.double()).abs() > 0).sum()) > 20
    W = random_weight(32, 40)
    ours = approximate(name, solver, W, k, 0.9, rounded)
    assert distance(ours, approximate(name, solver, W, k, 0.9, exact)) < 1e-3


def test_what_calibration_saw_is_counted() -> None:
    W, X = random_weight(20, 30), random_inputs(30, 6)
    method = Method(whitening_named("cholesky"))
    assert method.factorise(W, 8, 1.0, statistics_of(X)).seen == 6
    assert method.factorise(W, 8, 1.0, statistics_of(random_inputs(30, 300))).seen == 20


@every_method
@every_solver
def test_dead_channels_leave_finite_factors(name: str, solver: str) -> None:
    X = random_inputs(30, 300)
    X[[3, 17]] = 0
    W, statistics = random_weight(20, 30), statistics_of(X)
    approximation = approximate(name, solver, W, 8, 0.75, statistics)
    assert bool(torch.isfinite(approximation).all())
    best = relative_loss(W, approximate("asvd_i", "basis", W, 8, 1.0, statistics), statistics.gram)
    loss = relative_loss(W, approximation, statistics.gram)
    assert best - 1e-9 <= loss < 1


def test_the_shift_of_a_singular_cholesky_is_recorded() -> None:
    X = random_inputs(30, 300)
    X[3] = 0
    method = Method(whitening_named("cholesky"), None, "paper")
    factors = method.factorise(random_weight(20, 30), 8, 1.0, statistics_of(X))
    # -lambda_min of rounding size, plus SVD-LLM's 1e-6.
    assert factors.shift == pytest.approx(JITTER, rel=1e-2)
    regular = method.factorise(random_weight(20, 30), 8, 1.0, statistics_of(random_inputs(30, 300)))
    assert regular.shift == 0


@every_method
@every_solver
def test_the_scale_of_the_inputs_does_not_matter(name: str, solver: str) -> None:
    W, X = random_weight(20, 30), random_inputs(30, 300)
    a = approximate(name, solver, W, 8, 0.75, statistics_of(X))
    b = approximate(name, solver, W, 8, 0.75, statistics_of(1e3 * X))
    assert distance(a, b) < 1e-9


def test_a_method_that_looks_at_activations_needs_them() -> None:
    W = random_weight(6, 6)
    Method(whitening_named("identity")).factorise(W, 2, 1.0, None)
    with pytest.raises(ValueError, match="calibration statistics"):
        Method(whitening_named("cholesky")).factorise(W, 2, 1.0, None)


class RootMeanSquare(Whitening):
    """A whitening of a user's own: the root mean square of each channel."""

    def metric(self, statistics: Statistics) -> torch.Tensor:
        return statistics.gram.diagonal() / statistics.tokens


def test_a_whitening_of_ones_own_by_dotted_path() -> None:
    whitening = whitening_named(f"{__name__}.RootMeanSquare")
    W, X = random_weight(20, 30), random_inputs(30, 300)
    statistics = statistics_of(X)
    ours, papers = (
        Method(whitening, None, solver).factorise(W, 8, 1.0, statistics) for solver in SOLVERS
    )
    assert distance(ours.left @ ours.right, papers.left @ papers.right) < 1e-9
    d = X.square().mean(1).sqrt()
    left, right = truncated_svd(W * d, 8)
    assert distance(ours.left @ ours.right, left @ (right / d)) < 1e-9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("choleski", "unknown whitening 'choleski'. Did you mean cholesky"),
        ("no.such.module", "cannot be imported"),
        ("math.sqrt", "no subclass of nsvd_exp.methods.base.Whitening"),
    ],
)
def test_unknown_whitenings_are_refused(name: str, message: str) -> None:
    with pytest.raises(NsvdError, match=message):
        whitening_named(name)


def test_the_reference_route_holds_to_machine_precision_on_good_input() -> None:
    """Cholesky + SVD + inverse against the eigenbasis, Gram condition below 100."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(48, 4000, generator=generator, dtype=torch.float64)
    W = torch.randn(40, 48, generator=generator, dtype=torch.float64) / math.sqrt(48)
    a = approximate("asvd_i", "basis", W, 20, 1.0, statistics_of(X))
    b = approximate("asvd_i", "paper", W, 20, 1.0, statistics_of(X))
    assert distance(a, b) < 1e-12
