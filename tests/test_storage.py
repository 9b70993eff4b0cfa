"""Laws of the forms in which a product is stored: what they cost, and that they lose nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import transformers
from helpers.matrices import calibration_of, linears, random_weight
from helpers.methods import SHAPES, every_method, every_solver, over
from helpers.models import make_model
from torch import Tensor, nn

import nsvd_exp as nx
from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import SVD, Method
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import weighed
from nsvd_exp.methods.pivoting import pivot
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.models.layers import find_linears, parameter_count
from nsvd_exp.models.lowrank import PivotedLinear
from nsvd_exp.models.storage import Factors, Pivoted, Storage
from nsvd_exp.pipeline.compress import Compressor

STORAGES: dict[str, Storage] = {"factors": Factors(), "pivoted": Pivoted()}
every_storage = over("storage", STORAGES)
HALF = (torch.bfloat16, torch.float16, torch.float32)


def product(m: int, n: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Factors (m, k) with orthonormal columns and (k, n), of a decaying spectrum."""
    U, s, Vh = torch.linalg.svd(random_weight(m, n, seed), full_matrices=False)
    return U[:, :k], s[:k, None] * Vh[:k]


def stored(
    storage: Storage, left: Tensor, right: Tensor, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, dict[str, float]]:
    return storage.stored(left, right, right.norm(dim=1), None, dtype)


@every_storage
@pytest.mark.parametrize(("m", "n"), [(7, 7), (5, 12), (12, 5), (1, 9)])
def test_the_largest_rank_is_the_largest_that_fits(storage: Storage, m: int, n: int) -> None:
    for numbers in (Fraction(part, 3) for part in range(3 * m * n + 4)):
        fitting = [k for k in range(1, min(m, n) + 1) if storage.numbers(m, n, k) <= numbers]
        assert storage.largest_rank(m, n, numbers) == max(fitting, default=0)


def test_pivoted_storage_has_a_larger_rank_at_the_same_size() -> None:
    budget = Fraction(7, 10) * 4096 * 4096
    assert Factors().largest_rank(4096, 4096, budget) == 1433
    assert Pivoted().largest_rank(4096, 4096, budget) == 1852
    assert Pivoted().numbers(30, 20, 20) == 30 * 20


@every_storage
@over("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_is_the_product_of_its_factors_and_takes_its_numbers(
    storage: Storage, shape: tuple[int, int], has_bias: bool
) -> None:
    left, right = product(*shape, 7)
    bias = random_weight(shape[0], 1).flatten() if has_bias else None
    x = random_weight(shape[1], 6).T.reshape(2, 3, -1)
    layer = storage.linear(left, right, bias)
    weight = left @ right
    torch.testing.assert_close(layer(x), x @ weight.T + (0 if bias is None else bias))
    torch.testing.assert_close(layer.weight, weight)
    assert (layer.out_features, layer.in_features, layer.rank) == (*shape, 7)
    biases = shape[0] if has_bias else 0
    assert parameter_count(layer) == storage.numbers(*shape, 7) + biases


@pytest.mark.parametrize("dtype", HALF)
def test_an_empty_layer_has_the_names_shapes_and_dtypes_of_a_full_one(dtype: torch.dtype) -> None:
    left, right = product(9, 14, 4)
    for has_bias in (True, False):
        bias = torch.ones(9).double() if has_bias else None
        made, _ = Pivoted().stored(left, right, right.norm(dim=1), bias, dtype)
        empty = Pivoted().empty(9, 14, 4, has_bias, dtype)
        described = [
            {name: (t.shape, t.dtype) for name, t in layer.state_dict().items()}
            for layer in (made, empty)
        ]
        assert described[0] == described[1]
        assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
        empty.load_state_dict(made.state_dict(), assign=True)
        x = torch.randn(3, 14).to(dtype)
        assert torch.equal(empty(x), made(x))


@every_method
@every_solver
def test_pivoted_rows_are_those_of_the_factors(method: Method, solver: str) -> None:
    """At equal rank, of every method: lossless but for rounding, with small combinations."""
    calibration, layers = calibration_of(SHAPES), linears(SHAPES, torch.float64)
    ranks = dict.fromkeys(SHAPES, 9)
    compressor = Compressor(method, ranks, calibration, Pivoted(), torch.float64, solver)
    made, table = compressor.compress(layers)
    for row in table:
        name = row["name"]
        W = layers[name].weight.data
        factors = factorise(method, W, 9, calibration.of(name), solver)
        expected = factors.left @ factors.right
        torch.testing.assert_close(made[name].weight, expected, rtol=0, atol=1e-11)
        assert row["pivot_error"] < 1e-13
        assert row["pivot_largest"] <= 2
        by_definition = lengths(method, factors.right, calibration.of(name))
        # S is g P in one reading of the paper, which is no other metric than I.
        scaled = [one / one.max() for one in (factors.lengths, by_definition)]
        torch.testing.assert_close(*scaled, rtol=0, atol=1e-6)


def lengths(method: Method, right: Tensor, statistics: Statistics) -> Tensor:
    """Of each row under the metric of stage one, by their definition."""
    M = method.first_stage().metric(statistics)
    return (weighed(right, M) * right).sum(1).clamp(min=0).sqrt()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("m", "n", "k"), [(96, 64, 20), (64, 96, 50), (200, 200, 80)])
def test_the_rounding_of_pivoted_rows_stays_within_its_bound(
    m: int, n: int, k: int, dtype: torch.dtype
) -> None:
    """Each number is off by u of itself at most: rows by u |R|, the others by (2u + u²) |T| |R|."""
    left, right = product(m, n, k)
    layer, about = stored(Pivoted(), left, right, dtype)
    P, u = left @ right, torch.finfo(dtype).eps / 2
    found = pivot(left, right.norm(dim=1))
    rows = P[found.kept].abs()
    bound = torch.cat([u * rows, (2 * u + u * u) * (found.T.abs() @ rows)])
    # float16 has an absolute spacing below 2**-14, too.
    spacing = torch.finfo(dtype).smallest_normal * u * (m * n * k) ** 0.5
    measured = float(torch.linalg.matrix_norm(layer.double().weight - P))
    assert measured == pytest.approx(about["pivot_rounded"] * float(P.norm()), rel=1e-9)
    assert 0 < measured <= float(bound.norm()) + spacing
    # What users will see: a few times the rounding of two factors, far below any truncation.
    assert about["pivot_rounded"] < 6 * about["factors_rounded"] < 12 * u


def hard_product(m: int, k: int) -> Tensor:
    """(m, k), rows for which pivoted QR alone leaves large combinations (Kahan's matrix)."""
    c = 0.3
    s = (1 - c * c) ** 0.5
    K = torch.diag(s ** torch.arange(k).double()) @ (
        torch.eye(k).double() - c * torch.ones(k, k).double().triu(1)
    )
    K = K * (1 - 1e-9 * torch.arange(k).double())  # so that pivoting keeps its order
    extra = random_weight(m - k, k) * 0.05 * s ** (k - 1)
    return torch.cat([K.T, extra])


def test_exchanges_make_large_combinations_small() -> None:
    left = hard_product(60, 40)
    lengths = torch.ones(40).double()
    loose = pivot(left, lengths, largest=float("inf"))
    assert float(loose.T.abs().max()) > 2
    for largest in (2.0, 1.1):
        found = pivot(left, lengths, largest)
        assert float(found.T.abs().max()) <= largest
        torch.testing.assert_close(found.T @ left[found.kept], left[found.others])
        assert sorted([*found.kept.tolist(), *found.others.tolist()]) == list(range(60))
    assert set(found.kept.tolist()) != set(loose.kept.tolist())


def test_the_rows_that_are_kept_are_the_large_ones_under_the_metric() -> None:
    left, right = torch.eye(5).double()[:, :2], torch.eye(2, 6).double()
    left[2:] = 0.1
    for large in (0, 1):
        lengths = torch.tensor([1.0, 1.0]).double()
        lengths[large] = 100
        assert pivot(left, lengths).kept.tolist() == [large, 1 - large]
    assert right.shape == (2, 6)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.ones(12, 4), torch.ones(4, 9)),
        (torch.randn(12, 4) * torch.tensor([1.0, 0, 1, 0]), torch.randn(4, 9)),
        (torch.randn(12, 4), torch.randn(4, 9) * torch.tensor([[1.0], [0], [1], [0]])),
        (torch.zeros(12, 4), torch.zeros(4, 9)),
    ],
    ids=["equal columns", "zero columns", "zero rows", "zero"],
)
def test_a_product_of_a_lower_rank_is_stored_as_well(left: Tensor, right: Tensor) -> None:
    left, right = left.double(), right.double()
    layer, about = stored(Pivoted(), left, right)
    torch.testing.assert_close(layer.weight, left @ right, rtol=0, atol=1e-13)
    assert about["pivot_largest"] <= 2
    assert about["pivot_error"] < 1e-13


def test_a_weight_of_low_rank_compresses_to_itself() -> None:
    layers = linears({"low": (30, 20)}, torch.float64)
    left, right = product(30, 20, 3)
    layers["low"].weight.data = left @ right
    made, table = Compressor(SVD(), {"low": 9}, None, Pivoted(), torch.float64).compress(layers)
    torch.testing.assert_close(made["low"].weight, left @ right, rtol=0, atol=1e-13)
    assert table[0]["pivot_largest"] <= 2


def test_what_is_not_finite_is_named() -> None:
    layers = linears({"big": (20, 30)}, torch.float64)
    layers["big"].weight.data *= 1e6
    compressor = Compressor(SVD(), {"big": 9}, None, Pivoted(), torch.float16)
    with pytest.raises(NsvdError, match=r"big: its factors are not finite in torch\.float16"):
        compressor.compress(layers)


def gpt2() -> transformers.PreTrainedModel:
    config = transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["llama", "opt", "gpt_neox", "gpt2"])
def test_a_model_is_stored_smaller_than_asked_and_generates(name: str) -> None:
    """With biases, and with GPT-2's transposed weights."""
    model = gpt2() if name == "gpt2" else make_model(name)
    dense = parameter_count(model)
    ids = torch.arange(8)[None]
    reports = {}
    for kind, storage in STORAGES.items():
        report = nx.compress(model, nx.methods.SVD(), 0.3, storage=storage)
        reports[kind] = report
        saved = sum(row["m"] * row["n"] for row in report.layers) * report.achieved_ratio["layers"]
        assert parameter_count(model) == dense - round(saved)
        assert report.achieved_ratio["layers"] >= 0.3
        generated = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert generated.shape == (1, 12)
        if kind == "pivoted":
            layers = [model.get_submodule(row["name"]) for row in report.layers]
            assert all(isinstance(layer, PivotedLinear) for layer in layers)
            with pytest.raises(NsvdError, match="low-rank already"):
                find_linears(model, [])
            model.to(torch.bfloat16)
            assert all(layer.place.dtype == torch.int64 for layer in layers)
            model.to(torch.float32)
        report.restore()
    assert all(
        more["k"] > fewer["k"] and more["weight_loss"] < fewer["weight_loss"]
        for more, fewer in zip(reports["pivoted"].layers, reports["factors"].layers, strict=True)
    )
