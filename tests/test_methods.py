"""Laws over all methods at once, and the two solvers against each other."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers.matrices import INPUTS, gram, random_inputs, random_weight, statistics_of
from helpers.methods import (
    METHODS,
    NESTED,
    SINGLE,
    SOLVERS,
    WHITENINGS,
    best,
    best_under,
    every_method,
    every_nested,
    every_shape,
    every_single,
    every_solver,
    over,
    with_k1,
)
from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import (
    ASVD,
    NSVD,
    SVD,
    CholeskyASVD,
    EigenASVD,
    Method,
    RidgeASVD,
    ScaledEigenASVD,
)
from nsvd_exp.methods.asvd import TARGETS
from nsvd_exp.methods.base import Losses
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import relative_loss
from nsvd_exp.methods.reference import JITTER, cholesky, losses_by_definition
from nsvd_exp.methods.statistics import Statistics

Shape = tuple[int, int]
RANKS = ((8, 0.75), (3, 0.5), (12, 0.95), (20, 0.1), (7, 1.0))


def approximate(
    method: Method, W: Tensor, k: int, statistics: Statistics | None, solver: str = "basis"
) -> Tensor:
    """The rank-k approximation of W, (m, n)."""
    factors = factorise(method, W, k, statistics, solver)
    assert factors.left.shape == (W.shape[0], k)
    assert factors.right.shape == (k, W.shape[1])
    assert factors.k1 + factors.k2 == k
    return factors.left @ factors.right


def known(shape: Shape) -> tuple[Tensor, Statistics]:
    """A weight (m, n) and the statistics of its inputs, whose Gram matrix is invertible."""
    return random_weight(*shape), statistics_of(random_inputs(shape[1], 300))


def distance(A: Tensor, B: Tensor) -> float:
    """||A - B||_F / ||B||_F."""
    return float(torch.linalg.matrix_norm(A - B) / torch.linalg.matrix_norm(B))


@every_method
@every_shape
def test_the_solvers_agree_where_the_gram_matrix_is_invertible(
    method: Method, shape: Shape
) -> None:
    W, statistics = known(shape)
    for k, k1 in RANKS:
        ours, papers = (
            approximate(with_k1(method, k1), W, k, statistics, solver) for solver in SOLVERS
        )
        assert distance(ours, papers) < 1e-11


@every_method
@every_shape
@every_solver
def test_full_rank_reconstructs(method: Method, shape: Shape, solver: str) -> None:
    W, statistics = known(shape)
    assert distance(approximate(method, W, min(shape), statistics, solver), W) < 1e-9


@every_nested
@every_shape
@every_solver
def test_k1_of_one_is_the_parent_method(method: NSVD, shape: Shape, solver: str) -> None:
    W, statistics = known(shape)
    parent = factorise(method.first, W, 8, statistics, solver)
    nested = factorise(with_k1(method, 1.0), W, 8, statistics, solver)
    assert (nested.k1, nested.k2) == (8, 0)
    assert torch.equal(nested.left, parent.left)
    assert torch.equal(nested.right, parent.right)


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
def test_rank_is_split_in_exact_decimals_and_held_inside(k: int, k1: float, ranks: Shape) -> None:
    assert all(with_k1(method, k1).ranks(k) == ranks for method in NESTED.values())
    assert all(method.ranks(k) == (k, 0) for method in SINGLE.values())


@every_single
@every_shape
@every_solver
def test_white_inputs_make_every_single_stage_method_plain_svd(
    method: Method, shape: Shape, solver: str
) -> None:
    W, n = random_weight(*shape), shape[1]
    white = Statistics(
        gram=7.0 * torch.eye(n, dtype=W.dtype),
        abs_mean=torch.full((n,), 0.8, dtype=W.dtype),
        mean=torch.zeros(n, dtype=W.dtype),
        tokens=100,
    )
    assert distance(approximate(method, W, 6, white, solver), best(W, 6)) < 1e-9


@every_shape
@pytest.mark.parametrize(
    ("solver", "inputs"), [("paper", "many tokens"), *(("basis", inputs) for inputs in INPUTS)]
)
def test_each_metric_is_best_under_itself(shape: Shape, solver: str, inputs: str) -> None:
    """Eckart-Young under M = S Sᵀ: nothing of the same rank has a smaller ||(W - Ŵ) S||_F."""
    W, statistics = random_weight(*shape), statistics_of(INPUTS[inputs](shape[1]))
    results = {name: approximate(m, W, 7, statistics, solver) for name, m in METHODS.items()}
    for name, method in SINGLE.items():
        M = method.metric(statistics)
        own = relative_loss(W, results[name], M)
        for other in results.values():
            assert own <= relative_loss(W, other, M) + 1e-9


@pytest.mark.parametrize("name", SINGLE)
@every_shape
@every_solver
def test_one_stage_truncates_what_its_definition_weighs(
    name: str, shape: Shape, solver: str
) -> None:
    """trunc_k(W S) S⁻¹, which loses the discarded spectrum of W S."""
    W, X = random_weight(*shape), random_inputs(shape[1], 300)
    S = WHITENINGS[name](X)
    s, expected = torch.linalg.svdvals(W @ S), best_under(S, W, 7)
    factors = factorise(SINGLE[name], W, 7, statistics_of(X), solver)
    assert distance(factors.left @ factors.right, expected) < 1e-9
    discarded = float(s[7:].norm() / s.norm())
    lost = float(torch.linalg.matrix_norm((W - expected) @ X) / torch.linalg.matrix_norm(W @ X))
    assert factors.losses.own == pytest.approx(discarded, rel=1e-6)
    assert factors.losses.activation == pytest.approx(lost, rel=1e-6)


@pytest.mark.parametrize("name", ["NSVD I", "NSVD II", "NSVD on SVD"])
@every_shape
@every_solver
def test_nsvd_follows_equation_5(name: str, shape: Shape, solver: str) -> None:
    """Stage (5a) is the first method; stage (5b) a plain truncated SVD of its residual."""
    W, statistics = known(shape)
    method = NESTED[name]
    k1, k2 = method.ranks(10)
    first = approximate(method.first_stage(), W, k1, statistics, solver)
    expected = first + best(W - first, k2)
    assert distance(approximate(method, W, 10, statistics, solver), expected) < 1e-10


def assert_alike(ours: Losses, theirs: Losses) -> None:
    """To 1e-10 of ||W S||²: to 1e-6 of a loss of 1%, to more of a larger one."""
    for one, other in zip(dataclasses.astuple(ours), dataclasses.astuple(theirs), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one**2 == pytest.approx(other**2, abs=1e-10)


@every_method
@every_shape
@over("inputs", INPUTS)
def test_losses_by_the_formula_are_the_losses_by_definition(
    method: Method, shape: Shape, inputs: object
) -> None:
    W, statistics = random_weight(*shape), statistics_of(inputs(shape[1]))
    for k, k1 in RANKS:
        with_this = with_k1(method, k1)
        for known_ones in (statistics, None)[: 1 if method.is_calibrated else 2]:
            factors = factorise(with_this, W, k, known_ones)
            approximation = factors.left @ factors.right
            by_definition = losses_by_definition(method, W, approximation, known_ones)
            assert_alike(factors.losses, by_definition)


@every_solver
def test_the_second_stage_trades_activation_loss_for_weight_loss(solver: str) -> None:
    W, statistics = known((24, 24))
    parent, nested = (factorise(NSVD(k1=k1), W, 10, statistics, solver).losses for k1 in (1, 0.5))
    assert nested.weight < parent.weight
    assert nested.activation > parent.activation


@pytest.mark.parametrize("name", ["NID I", "NID II", "NID on ASVD"])
@every_solver
def test_nid_takes_columns_of_the_residual(name: str, solver: str) -> None:
    W, statistics = known((20, 30))
    factors = factorise(METHODS[name], W, 10, statistics, solver)
    first = factors.k1
    residual = W - factors.left[:, :first] @ factors.right[:first]
    for column in factors.left[:, first:].T:
        assert float((residual.T - column).norm(dim=1).min()) < 1e-12


@every_method
@every_solver
def test_float32_weights_lose_no_accuracy(method: Method, solver: str) -> None:
    """The work is float64 whatever comes in: only the rounding of the weights themselves shows."""
    W, X = random_weight(20, 30).float(), random_inputs(30, 300).float()
    double = statistics_of(X.double())
    exact = approximate(method, W.double(), 8, double, solver)
    assert distance(approximate(method, W, 8, double, solver), exact) == 0
    assert distance(approximate(method, W, 8, statistics_of(X), solver), exact) < 1e-4


@every_method
@every_solver
def test_the_scale_of_the_inputs_does_not_matter(method: Method, solver: str) -> None:
    W, X = random_weight(20, 30), random_inputs(30, 300)
    one, other = (approximate(method, W, 8, statistics_of(s * X), solver) for s in (1, 1e3))
    assert distance(one, other) < 1e-9


@every_method
@every_solver
def test_dead_channels_leave_finite_factors(method: Method, solver: str) -> None:
    X = random_inputs(30, 300)
    X[[3, 17]] = 0
    W, statistics = random_weight(20, 30), statistics_of(X)
    approximation = approximate(method, W, 8, statistics, solver)
    assert bool(torch.isfinite(approximation).all())
    best = relative_loss(W, approximate(CholeskyASVD(), W, 8, statistics), statistics.gram)
    loss = relative_loss(W, approximation, statistics.gram)
    assert best - 1e-9 <= loss < 1


@pytest.mark.parametrize("target", TARGETS)
@over("inputs", INPUTS)
@every_solver
def test_a_ridge_of_zero_is_asvd_i(target: str, inputs: object, solver: str) -> None:
    W, statistics = random_weight(20, 30), statistics_of(inputs(30))
    one, other = (
        factorise(method, W, 8, statistics, solver)
        for method in (RidgeASVD(ridge=0, target=target), CholeskyASVD())
    )
    assert torch.equal(one.left, other.left)
    assert torch.equal(one.right, other.right)
    assert one.losses == other.losses
    assert RidgeASVD(ridge=0).metric_name() == CholeskyASVD().metric_name()


def test_a_growing_ridge_goes_from_asvd_i_to_what_it_is_drawn_to() -> None:
    """To the diagonal's method, or to plain SVD; the activation loss grows on the way."""
    W, statistics = known((20, 30))
    # ASVD of this has M = diag(G).
    square = dataclasses.replace(statistics, abs_mean=statistics.gram.diagonal().sqrt())
    ends = {"diagonal": (ASVD(), square), "identity": (SVD(), statistics)}
    for target, (method, of) in ends.items():
        losses = [
            factorise(RidgeASVD(ridge=ridge, target=target), W, 8, statistics).losses.activation
            for ridge in (0, 0.01, 0.1, 1, 10)
        ]
        assert losses == sorted(losses)
        found = approximate(RidgeASVD(ridge=1e9, target=target), W, 8, statistics)
        assert distance(found, approximate(method, W, 8, of)) < 1e-6


def test_singular_gram_both_solvers_agree_on_what_calibration_saw() -> None:
    """Fewer tokens than channels: the same W S, but ASVD-II drops what it never saw."""
    W, X = random_weight(20, 30), random_inputs(30, 12)
    results = {
        (method, solver): approximate(method, W, 8, statistics_of(X), solver)
        for method in (CholeskyASVD(), EigenASVD())
        for solver in SOLVERS
    }
    for method in (CholeskyASVD(), EigenASVD()):
        ours, papers = (results[method, solver] for solver in SOLVERS)
        assert distance(ours @ X, papers @ X) < 1e-4
    seen = torch.linalg.svd(X, full_matrices=False).U
    unseen = torch.eye(30, dtype=W.dtype) - seen @ seen.T
    kept, dropped = (results[EigenASVD(), solver] @ unseen for solver in SOLVERS)
    assert torch.linalg.matrix_norm(dropped) < 1e-6 * torch.linalg.matrix_norm(W)
    assert torch.linalg.matrix_norm(kept) > 0.1 * torch.linalg.matrix_norm(W)


SPECTRAL = ScaledEigenASVD(reading="spectral")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("method", "solver", "k"),
    [
        # Not CholeskyASVD by the paper's route: Cholesky takes the rounding for rank, or shifts.
        *((m, "basis", 26) for m in (CholeskyASVD(), EigenASVD(), SPECTRAL, METHODS["NSVD II"])),
        *((m, "paper", 16) for m in (EigenASVD(), SPECTRAL, METHODS["NSVD II"])),
    ],
)
def test_the_rounding_of_a_gram_matrix_is_no_rank(
    method: Method, solver: str, k: int, dtype: torch.dtype
) -> None:
    """20 tokens in 40 channels, multiplied in float32: its rank is 20 all the same."""
    X = random_inputs(40, 20).to(dtype)
    exact = statistics_of(X.double())
    rounded = dataclasses.replace(exact, gram=gram(X.T))
    assert int((torch.linalg.eigvalsh(rounded.gram.double()).abs() > 0).sum()) > 20
    W, method = random_weight(32, 40), with_k1(method, 0.9)
    ours, expected = (approximate(method, W, k, s, solver) for s in (rounded, exact))
    assert distance(ours, expected) < 1e-3


def test_what_calibration_saw_is_counted_and_the_shift_of_a_singular_cholesky_recorded() -> None:
    W, X = random_weight(20, 30), random_inputs(30, 300)
    dead = X * (torch.arange(30) != 3)[:, None]
    # -lambda_min of rounding size, plus SVD-LLM's 1e-6.
    for inputs, seen, shift in ((X[:, :6], 6, None), (X, 20, 0.0), (dead, 20, JITTER)):
        ours, papers = (
            factorise(CholeskyASVD(), W, 8, statistics_of(inputs), solver) for solver in SOLVERS
        )
        assert (ours.seen, papers.seen, ours.shift) == (seen, None, 0)
        assert shift is None or papers.shift == pytest.approx(shift, rel=1e-2)


def test_a_matrix_that_no_shift_makes_positive_definite_is_refused() -> None:
    huge = 2.0**60 * torch.eye(2, dtype=torch.float64).flip(0)  # 1e-6 is below its rounding
    with pytest.raises(NsvdError, match="not even after a shift"):
        cholesky(huge)


@every_method
@every_solver
def test_a_method_that_looks_at_activations_needs_them(method: Method, solver: str) -> None:
    W = random_weight(20, 30)
    if not method.is_calibrated:
        assert factorise(method, W, 8, None, solver).losses.activation is None
        return
    with pytest.raises(NsvdError, match=f"{type(method).__name__}.* needs a calibration"):
        factorise(method, W, 8, None, solver)


def test_methods_of_one_metric_share_its_name_and_no_others() -> None:
    """A class with another metric than its parent's does not share the name either."""
    _, statistics = known((20, 30))
    named = [(m.metric_name() or m, m.metric(statistics)) for m in SINGLE.values()]
    for name, M in named:
        for other_name, N in named:
            alike = M is N is None or (M is not None and N is not None and torch.equal(M, N))
            assert (name == other_name) == alike


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NSVD(k1=0), r"k1=0: expected 0 < k1 <= 1"),
        (lambda: NSVD(k1=1.5), r"k1=1.5: expected 0 < k1 <= 1"),
        (lambda: NSVD(first=NSVD()), "first=NSVD is nested itself: expected a method of one"),
        (lambda: ASVD(alpha=-1), r"alpha=-1: expected a number >= 0"),
        (lambda: ASVD(alpha=math.nan), r"alpha=nan: expected"),
        (lambda: ScaledEigenASVD(reading="scaler"), "unknown reading 'scaler'. Did you mean scal"),
    ],
)
def test_a_field_out_of_range_is_refused(make: object, message: str) -> None:
    with pytest.raises(NsvdError, match=message):
        make()
