"""Laws of the methods that weigh the outputs, too, and of the allocation by what errors cost."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import pytest
import torch
from helpers.matrices import random_inputs, random_weight, statistics_of
from helpers.methods import METHODS, SOLVERS, best, every_shape, every_solver, over
from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import (
    ASVD,
    FWSVD,
    KFAC,
    NID,
    NSVD,
    SVD,
    CholeskyASVD,
    Fisher,
    Method,
    RidgeASVD,
    WeightedKFAC,
)
from nsvd_exp.methods.allocation import Spectrum
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import relative_loss
from nsvd_exp.methods.mixing import mixed_statistics
from nsvd_exp.methods.reference import losses_by_definition
from nsvd_exp.methods.statistics import Calibration, OutputGradients, Statistics
from nsvd_exp.models.storage import Factors, Pivoted
from nsvd_exp.pipeline.compress import Compressor, nats_of

Shape = tuple[int, int]
SINGLE: dict[str, Method] = {
    "KFAC": KFAC(),
    "KFAC with ridge": KFAC(damping=0.5, ridge=0.3),
    "KFAC to identity": KFAC(damping=0.01, ridge=0.1, target="identity"),
    "weighted KFAC": WeightedKFAC(),
    "weighted KFAC with ridge": WeightedKFAC(ridge=0.3),
    "FWSVD": FWSVD(),
}
NESTED: dict[str, Method] = {
    "NSVD on KFAC": NSVD(k1=0.6, first=KFAC()),
    "NID on KFAC": NID(k1=0.6, first=KFAC(ridge=0.1)),
    "NSVD on weighted KFAC": NSVD(k1=0.6, first=WeightedKFAC()),
    "NSVD on FWSVD": NSVD(k1=0.6, first=FWSVD()),
}
every_single = over("method", SINGLE)
every_one = over("method", SINGLE | NESTED)


def gradients_of(g: Tensor, x: Tensor) -> OutputGradients:
    """What is known of gradients g (tokens, m) where the inputs are x (tokens, n)."""
    squares = g.square()
    size = float(squares.mean())
    w = squares.mean(1) / (size or 1)
    return OutputGradients(
        mean_square=squares.mean(0),
        covariance=g.T @ g / len(g),
        weighted_gram=x.T @ (w[:, None] * x),
        size=size,
        tokens=len(g),
    )


def known(shape: Shape, seed: int = 1) -> tuple[Tensor, Statistics]:
    """A weight (m, n), and the statistics of its inputs and of the gradients at its output."""
    X = random_inputs(shape[1], 300, seed)
    gradients = gradients_of(0.01 * random_inputs(shape[0], 200, seed + 5).T, X.T[:200])
    statistics = statistics_of(X)
    return random_weight(*shape), dataclasses.replace(statistics, gradients=gradients)


def with_white_gradients(statistics: Statistics, m: int) -> Statistics:
    white = OutputGradients(
        mean_square=torch.full((m,), 0.3).double(),
        covariance=0.3 * torch.eye(m).double(),
        weighted_gram=100 / statistics.tokens * statistics.gram,
        size=0.3,
        tokens=100,
    )
    return dataclasses.replace(statistics, gradients=white)


def approximate(
    method: Method, W: Tensor, k: int, statistics: Statistics, solver: str = "basis"
) -> Tensor:
    factors = factorise(method, W, k, statistics, solver)
    assert factors.left.shape == (W.shape[0], k)
    return factors.left @ factors.right


def distance(A: Tensor, B: Tensor) -> float:
    return float(torch.linalg.matrix_norm(A - B) / torch.linalg.matrix_norm(B))


def root(N: Tensor) -> Tensor:
    """H with H H = N for a matrix or a diagonal."""
    values, V = torch.linalg.eigh(N.diag() if N.ndim == 1 else N)
    return (V * values.sqrt()) @ V.T


@every_shape
@every_solver
def test_white_gradients_make_them_methods_of_one_side(shape: Shape, solver: str) -> None:
    """F = c I is ASVD-I, or ASVD with its ridge; equal rows are plain SVD."""
    W, statistics = known(shape)
    white = with_white_gradients(statistics, shape[0])
    pairs = (
        (KFAC(damping=0.7), CholeskyASVD()),
        (KFAC(ridge=0.3), RidgeASVD(ridge=0.3)),
        (WeightedKFAC(), CholeskyASVD()),
        (WeightedKFAC(ridge=0.3), RidgeASVD(ridge=0.3)),
        (FWSVD(), SVD()),
        (NSVD(k1=0.6, first=KFAC()), NSVD(k1=0.6)),
    )
    for method, one_sided in pairs:
        expected = approximate(one_sided, W, 8, statistics, solver)
        assert distance(approximate(method, W, 8, white, solver), expected) < 1e-9
    # However large they are, a damping far above them leaves one side.
    expected = approximate(CholeskyASVD(), W, 8, statistics, solver)
    damped = approximate(KFAC(damping=1e9), W, 8, statistics, solver)
    assert distance(damped, expected) < 1e-6


@every_single
@every_shape
@every_solver
def test_one_stage_truncates_what_both_metrics_weigh(
    method: Method, shape: Shape, solver: str
) -> None:
    """H⁻¹ trunc_k(H W S) S⁻¹, which loses the discarded spectrum of H W S."""
    W, statistics = known(shape)
    M, N = method.metric(statistics), method.output_metric(statistics)
    H = root(N)
    S = torch.eye(shape[1]).double() if M is None else torch.linalg.cholesky(M)
    s = torch.linalg.svdvals(H @ W @ S)
    expected = torch.linalg.inv(H) @ best(H @ W @ S, 7) @ torch.linalg.inv(S)
    factors = factorise(method, W, 7, statistics, solver)
    assert distance(factors.left @ factors.right, expected) < 1e-9
    assert factors.losses.own == pytest.approx(float(s[7:].norm() / s.norm()), rel=1e-6)


@every_one
@every_shape
def test_the_solvers_agree_and_full_rank_reconstructs(method: Method, shape: Shape) -> None:
    W, statistics = known(shape)
    for k in (3, 8, 12):
        ours, papers = (approximate(method, W, k, statistics, solver) for solver in SOLVERS)
        assert distance(ours, papers) < 1e-9
    for solver in SOLVERS:
        assert distance(approximate(method, W, min(shape), statistics, solver), W) < 1e-9


@every_shape
def test_each_is_best_under_its_own_metrics(shape: Shape) -> None:
    W, statistics = known(shape)
    everything = SINGLE | NESTED | METHODS
    results = {name: approximate(m, W, 7, statistics) for name, m in everything.items()}
    for name, method in SINGLE.items():
        M, N = method.metric(statistics), method.output_metric(statistics)
        own = relative_loss(W, results[name], M, N)
        for other in results.values():
            assert own <= relative_loss(W, other, M, N) + 1e-9


@every_one
@every_shape
@every_solver
def test_losses_are_those_of_the_definition(method: Method, shape: Shape, solver: str) -> None:
    W, statistics = known(shape)
    factors = factorise(method, W, 9, statistics, solver)
    approximation = factors.left @ factors.right
    expected = losses_by_definition(method, W, approximation, statistics)
    for one, other in zip(
        dataclasses.astuple(factors.losses), dataclasses.astuple(expected), strict=True
    ):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    activation = (W - approximation) @ torch.linalg.cholesky(statistics.gram)
    of = W @ torch.linalg.cholesky(statistics.gram)
    assert expected.activation == pytest.approx(float(activation.norm() / of.norm()), rel=1e-6)


@pytest.mark.parametrize("name", ["NSVD on KFAC", "NSVD on FWSVD"])
@every_shape
@every_solver
def test_nested_methods_follow_equation_5_on_top(name: str, shape: Shape, solver: str) -> None:
    W, statistics = known(shape)
    method = NESTED[name]
    k1, k2 = method.ranks(10)
    first = approximate(method.first_stage(), W, k1, statistics, solver)
    expected = first + best(W - first, k2)
    assert distance(approximate(method, W, 10, statistics, solver), expected) < 1e-9


def test_where_all_tokens_cost_the_same_weighted_kfac_is_kfac() -> None:
    W, statistics = known((20, 30))
    X, g = random_inputs(30, 200, 1).T, random_inputs(20, 200, 6).T
    g /= g.norm(dim=1, keepdim=True)
    statistics = dataclasses.replace(statistics_of(X.T), gradients=gradients_of(g, X))
    for ridge in (0.0, 0.3):
        one, other = (kind(ridge=ridge) for kind in (KFAC, WeightedKFAC))
        expected = approximate(one, W, 8, statistics)
        assert distance(approximate(other, W, 8, statistics), expected) < 1e-9
        assert nats_of(one, statistics) == pytest.approx(nats_of(other, statistics))


def test_what_is_mixed_with_the_calibration_set_keeps_its_weight_beside_weighted_tokens() -> None:
    X, g = random_inputs(30, 200, 1).T, random_inputs(20, 200, 6).T
    own, other = statistics_of(X.T), statistics_of(random_inputs(30, 90, 3))
    mixed = mixed_statistics([(0.7, own), (0.3, other)])
    torch.testing.assert_close(
        mixed.mixed, 0.3 * mixed_statistics([(1.0, own), (1.0, other)]).mixed
    )
    # Tokens that cost the same: KFAC on the same mix. Others: a mix of their Gram matrix.
    same = gradients_of(g / g.norm(dim=1, keepdim=True), X)
    found = WeightedKFAC().gram(dataclasses.replace(mixed, gradients=same))
    torch.testing.assert_close(found, mixed.gram)
    weighed = gradients_of(g, X)
    expected = mixed_statistics(
        [(0.7, dataclasses.replace(own, gram=weighed.weighted_gram)), (0.3, other)]
    )
    found = WeightedKFAC().gram(dataclasses.replace(mixed, gradients=weighed))
    torch.testing.assert_close(found, expected.gram)


def test_weighted_tokens_lose_least_of_what_they_are_weighed_by() -> None:
    """With white outputs: sum of |g|² |E x|² over the tokens, as of an SVD of W X |g|."""
    W, X = random_weight(20, 30), random_inputs(30, 200, 1)
    lengths = torch.rand(200, generator=torch.Generator().manual_seed(2)).double() ** 4
    g = lengths[:, None] * random_inputs(20, 200, 6).T
    statistics = dataclasses.replace(statistics_of(X), gradients=gradients_of(g, X.T))
    weighed = X * g.norm(dim=1)
    expected = best(W @ weighed, 8) @ torch.linalg.pinv(weighed)
    found = approximate(WeightedKFAC(damping=1e9), W, 8, statistics)
    assert distance(found, expected) < 1e-6
    least = float(torch.linalg.svdvals(W @ weighed)[8:].square().sum())
    assert float(((W - found) @ weighed).square().sum()) == pytest.approx(least, rel=1e-6)
    other = approximate(KFAC(damping=1e9), W, 8, statistics)
    assert float(((W - other) @ weighed).square().sum()) > 1.05 * least
    # In nats of allocation=fisher: half the mean over tokens of the mean square of g times |E x|².
    nats = nats_of(WeightedKFAC(damping=1e-6), statistics)
    energy = float(statistics.gradients.weighted_gram.trace())
    assert nats * energy == pytest.approx(float(weighed.square().sum()) / 20 / 200 / 2, rel=1e-9)


@every_one
@every_solver
def test_the_scale_of_gradients_and_inputs_does_not_matter(method: Method, solver: str) -> None:
    W, statistics = known((20, 30))
    g = statistics.gradients
    scaled = dataclasses.replace(
        statistics,
        gram=1e6 * statistics.gram,
        gradients=dataclasses.replace(
            g,
            mean_square=1e-6 * g.mean_square,
            covariance=1e-6 * g.covariance,
            weighted_gram=1e6 * g.weighted_gram,
        ),
    )
    one, other = (approximate(method, W, 8, s, solver) for s in (statistics, scaled))
    assert distance(one, other) < 1e-8


@every_one
@every_solver
def test_outputs_that_cost_nothing_leave_finite_factors(method: Method, solver: str) -> None:
    W, statistics = known((20, 30))
    for dead in (torch.arange(20) % 3 == 0, torch.ones(20, dtype=torch.bool)):
        g = random_inputs(20, 200, 6).T * ~dead
        x = random_inputs(30, 200, 1).T
        without = dataclasses.replace(statistics, gradients=gradients_of(g, x))
        assert bool(approximate(method, W, 8, without, solver).isfinite().all())


@every_one
def test_a_pivoted_layer_is_the_same_product(method: Method) -> None:
    W, statistics = known((20, 30))
    calibration = Calibration({"a": statistics}, {"a": "a"}, {}, {"a": statistics.gradients})
    linear = torch.nn.Linear(30, 20, bias=False)
    linear.weight.data = W
    products = []
    for storage in (Factors(), Pivoted()):
        compressor = Compressor(method, {"a": 9}, calibration, storage, torch.float64)
        made, _ = compressor.compress({"a": linear})
        products.append(made["a"].weight)
    torch.testing.assert_close(*products, rtol=0, atol=1e-10)


def test_they_share_no_metric_with_methods_of_one_side() -> None:
    for method in (*SINGLE.values(), KFAC(ridge=0.0)):
        assert method.metric_name() is None
        assert method.reads_gradients
        wanted = {"covariance"} if isinstance(method, KFAC) else set()
        wanted |= {"weighted_gram"} if isinstance(method, WeightedKFAC) else set()
        assert method.reads_of_gradients == NSVD(first=method).reads_of_gradients == wanted
    assert not any(method.reads_gradients for method in METHODS.values())


@pytest.mark.parametrize(
    "one", [CholeskyASVD(), RidgeASVD(), SVD(), ASVD(), KFAC(), WeightedKFAC(), FWSVD()]
)
def test_discarded_energy_costs_half_the_mean_square_of_gradients(one: Method) -> None:
    """Of the Gram matrix, size / 2 times the mean squared error of a token's outputs."""
    W, statistics = known((20, 30))
    k, size = 8, statistics.gradients.size
    nats = nats_of(one, statistics)
    M, N = one.metric(statistics), one.output_metric(statistics)
    factors = factorise(one, W, k, statistics)
    lost = nats * factors.losses.own**2 * _total(W, M, N)
    error = factors.losses.activation**2 * _total(W, statistics.gram, None)
    if isinstance(one, CholeskyASVD):
        assert lost == pytest.approx(size / 2 * error / statistics.tokens, rel=1e-9)
    # The other metrics are put at the scale of the inputs: they cost about as much.
    assert 0.05 < lost / (size / 2 * error / statistics.tokens) < 20


def _total(W: Tensor, M: Tensor | None, N: Tensor | None) -> float:
    """tr(N W M Wᵀ)."""
    if M is None:
        M = torch.eye(W.shape[1]).double()
    M = M.diag() if M.ndim == 1 else M
    N = torch.eye(len(W)).double() if N is None else N
    N = N.diag() if N.ndim == 1 else N
    return float((N @ W @ M @ W.T).trace())


def test_fisher_loses_fewer_nats_than_any_other_way_to_spend_the_budget() -> None:
    shapes = {f"blocks.{block}.q": (6, 6) for block in range(3)}
    generator = torch.Generator().manual_seed(0)
    spectra = {}
    for name in shapes:
        energy = torch.rand(6, generator=generator).double().sort(descending=True).values
        spectra[name] = Spectrum(energy, float(torch.rand(1, generator=generator)))

    def nats(ranks: tuple[int, ...]) -> float:
        pairs = zip(spectra.values(), ranks, strict=True)
        return sum(s.nats * float(s.energy[k:].sum()) for s, k in pairs)

    for budget in (Fraction(1, 2), Fraction(7, 10)):
        found = Fisher(multiple=1, ceiling=0.99).ranks(shapes, budget, Factors(), spectra)
        limit = 3 * Factors().largest_rank(6, 6, budget * 36)
        ways = [w for w in itertools.product((1, 2), repeat=3) if sum(w) <= limit]
        assert nats(tuple(found.values())) == pytest.approx(min(map(nats, ways)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KFAC(damping=0), "damping=0: expected a number > 0"),
        (lambda: KFAC(ridge=-1), "ridge=-1: expected a number >= 0"),
        (lambda: KFAC(target="mean"), "unknown target 'mean'"),
    ],
)
def test_a_field_out_of_range_is_refused(make: object, message: str) -> None:
    with pytest.raises(NsvdError, match=message):
        make()  # type: ignore[operator]


def test_a_damping_below_the_rounding_of_a_covariance_is_refused() -> None:
    W, statistics = known((20, 30))
    F = 2 * torch.ones(20, 20).double() - torch.eye(20).double()  # 19 eigenvalues of -1
    broken = dataclasses.replace(statistics.gradients, covariance=F)
    without = dataclasses.replace(statistics, gradients=broken)
    with pytest.raises(NsvdError, match="not positive definite: use more damping"):
        factorise(KFAC(damping=1e-9), W, 8, without)


@every_single
def test_without_gradients_they_say_what_is_missing(method: Method) -> None:
    W, statistics = known((20, 30))
    plain = dataclasses.replace(statistics, gradients=None)
    with pytest.raises(NsvdError, match="weighs by gradients: it needs a calibration with"):
        factorise(method, W, 8, plain)
    if isinstance(method, KFAC):
        lean = dataclasses.replace(statistics.gradients, covariance=None)
        without = dataclasses.replace(statistics, gradients=lean)
        with pytest.raises(NsvdError, match="needs the covariance of the gradients"):
            factorise(method, W, 8, without)
    if isinstance(method, WeightedKFAC):
        lean = dataclasses.replace(statistics.gradients, weighted_gram=None)
        without = dataclasses.replace(statistics, gradients=lean)
        with pytest.raises(NsvdError, match="needs the Gram matrix that gradients weigh"):
            factorise(method, W, 8, without)
