"""Laws of allocations: the budget, the optimum, and what stays dense."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.cells import run
from helpers.matrices import calibration_of, linears
from helpers.methods import METHODS, Squarest, every_method, over
from helpers.models import make_model

import nsvd_exp as nx
from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.methods import (
    SVD,
    Allocation,
    CholeskyASVD,
    EffectiveRank,
    Energy,
    SVDLLMv2,
    Uniform,
)
from nsvd_exp.methods.allocation import Spectrum, numbers_of_uniform
from nsvd_exp.methods.by_loss import Choice, spend
from nsvd_exp.methods.in_proportion import effective_rank
from nsvd_exp.models.layers import parameter_count
from nsvd_exp.models.storage import Factors, Pivoted, Storage
from nsvd_exp.pipeline.compress import Compressor, achieved_ratio, ranks_of

ALLOCATIONS: dict[str, Allocation] = {
    "uniform": Uniform(),
    "energy": Energy(multiple=1),
    "energy of 4": Energy(multiple=4),
    "energy within": Energy(floor=0.4, ceiling=0.9, multiple=2),
    "svdllm_v2": SVDLLMv2(),
    "effective_rank": EffectiveRank(),
    "own": Squarest(),
}
STORAGES: dict[str, Storage] = {"factors": Factors(), "pivoted": Pivoted()}
SHAPES = {
    f"blocks.{block}.{kind}": shape
    for block in range(3)
    for kind, shape in {"q": (24, 24), "up": (40, 24), "down": (24, 40)}.items()
}
TOTAL = sum(m * n for m, n in SHAPES.values())
RATIOS = (0.1, 0.33, 0.5)


def spectra(seed: int = 0, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> dict[str, Spectrum]:
    """Decaying energies, of unequal size and decay."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        size, decay = torch.rand(2, generator=generator, dtype=torch.float64)
        ranks = torch.arange(min(shape), dtype=torch.float64)
        found[name] = Spectrum(1e4 * 10 ** (2 * size) * torch.exp(-decay * ranks / 3))
    return found


def stored(ranks: Mapping[str, int], storage: Storage) -> int:
    return sum(storage.size(*SHAPES[name], k) for name, k in ranks.items())


@over("allocation", ALLOCATIONS)
@over("storage", STORAGES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_no_allocation_stores_more_than_uniform_ranks_do(
    allocation: Allocation, storage: Storage, ratio: float
) -> None:
    budget = 1 - Fraction(repr(ratio))
    uniform = numbers_of_uniform(SHAPES, budget, storage)
    assert uniform <= budget * TOTAL
    for seed in range(4):
        ranks = allocation.ranks(SHAPES, budget, storage, spectra(seed))
        assert list(ranks) == list(SHAPES)
        assert all(1 <= k <= min(SHAPES[name]) for name, k in ranks.items())
        assert stored(ranks, storage) <= (TOTAL if allocation == Squarest() else uniform)
        if not isinstance(allocation, Squarest):
            assert stored(ranks, storage) > 0.85 * uniform  # and uses it up


@over("storage", STORAGES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_energy_loses_less_than_every_other_allocation(storage: Storage, ratio: float) -> None:
    def lost(ranks: Mapping[str, int], known: Mapping[str, Spectrum]) -> float:
        energies = {name: known[name].energy for name in ranks}
        return sum(float(e[ranks[name] :].sum() / e.sum()) for name, e in energies.items())

    budget = 1 - Fraction(repr(ratio))
    for seed in range(4):
        known = spectra(seed)
        best, *others = (
            lost(allocation.ranks(SHAPES, budget, storage, known), known)
            for allocation in (Energy(multiple=1), Uniform(), SVDLLMv2(), EffectiveRank())
        )
        assert all(best < other for other in others)


def every_way(choices: Mapping[str, list[Choice]], budget: int) -> float:
    """The least loss of all combinations within the budget."""
    return min(
        sum(choice.loss for choice in way)
        for way in itertools.product(*choices.values())
        if sum(choice.numbers for choice in way) <= budget
    )


def some_choices(seed: int) -> dict[str, list[Choice]]:
    """Six choices for each of four layers, of any numbers and losses that fall."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in "abcd":
        costs = torch.randint(1, 9, (6,), generator=generator).cumsum(0).tolist()
        losses = torch.rand(6, generator=generator).cumsum(0).flip(0).tolist()
        points = enumerate(zip(costs, losses, strict=True), 1)
        found[name] = [Choice(k, cost, loss) for k, (cost, loss) in points]
    return found


def convex_choices(seed: int) -> dict[str, list[Choice]]:
    """The same, where each further number costs one and saves less than the one before."""
    found = {}
    for name, of_layer in some_choices(seed).items():
        saved = sorted(choice.loss for choice in of_layer)
        tails = [sum(saved[: 6 - place]) for place in range(6)]
        found[name] = [Choice(k, k, tails[k - 1]) for k in range(1, 7)]
    return found


@pytest.mark.parametrize("seed", range(10))
def test_what_is_spent_is_the_optimum_but_for_one_step(seed: int) -> None:
    """Against all combinations; where there is no hull to leave, the optimum itself."""
    for choices, is_convex in ((some_choices(seed), False), (convex_choices(seed), True)):
        least = sum(of_layer[0].numbers for of_layer in choices.values())
        most = sum(of_layer[-1].numbers for of_layer in choices.values())
        step = max(of_layer[0].loss - of_layer[-1].loss for of_layer in choices.values())
        for budget in range(least, most + 3):
            taken = spend(choices, budget)
            assert sum(choice.numbers for choice in taken.values()) <= budget
            loss, best = sum(c.loss for c in taken.values()), every_way(choices, budget)
            assert best - 1e-9 <= loss <= best + (1e-9 if is_convex else step)
        assert {choice.rank for choice in spend(choices, most).values()} == {6}
        assert {choice.rank for choice in spend(choices, least).values()} == {1}


def test_floor_ceiling_and_multiple_hold() -> None:
    for storage, ratio in itertools.product(STORAGES.values(), RATIOS[:2]):
        budget = 1 - Fraction(repr(ratio))
        for floor, ceiling, multiple in ((0.3, 0.95, 1), (0.0, 1.0, 8), (0.45, 1.0, 4)):
            allocation = Energy(floor=floor, ceiling=ceiling, multiple=multiple)
            ranks = allocation.ranks(SHAPES, budget, storage, spectra())
            for name, k in ranks.items():
                m, n = SHAPES[name]
                assert k % multiple == 0 or k == min(m, n)
                assert storage.numbers(m, n, k + multiple) > floor * m * n or k == min(m, n)
                assert storage.size(m, n, k) <= ceiling * m * n
    # A floor at the budget leaves no choice but uniform ranks.
    budget = Fraction(7, 10)
    fixed = Energy(floor=0.7, multiple=1).ranks(SHAPES, budget, Factors(), spectra())
    assert fixed == Uniform().ranks(SHAPES, budget, Factors())


def test_equal_spectra_of_equal_shapes_share_equally() -> None:
    shapes = {f"blocks.{block}.q": (24, 24) for block in range(4)}
    known = dict.fromkeys(shapes, Spectrum(torch.logspace(6, 0, 24, dtype=torch.float64)))
    for ratio, allocation in itertools.product(RATIOS, (SVDLLMv2(), EffectiveRank())):
        budget = 1 - Fraction(repr(ratio))
        found = allocation.ranks(shapes, budget, Factors(), known)
        assert found == Uniform().ranks(shapes, budget, Factors())


def test_svdllm_v2_follows_its_formula() -> None:
    shapes = {f"blocks.{block}.q": (240, 240) for block in range(3)}
    decays = enumerate(shapes, start=2)
    known = {n: Spectrum(torch.logspace(2 * d, d, 240, dtype=torch.float64)) for d, n in decays}
    ratio, k = 0.3, Factors().largest_rank(240, 240, Fraction(7, 10) * 240 * 240)
    found = SVDLLMv2().ranks(shapes, Fraction(7, 10), Factors(), known)
    inverse = {name: 1 / math.log(float(known[name].energy[k:].sum().sqrt())) for name in shapes}
    for name in shapes:
        removed = len(shapes) * ratio * inverse[name] / sum(inverse.values())
        assert abs(found[name] - (1 - removed) * 240 * 240 / 480) <= 1


def test_what_svdllm_v2_removes_as_a_whole_keeps_rank_1() -> None:
    """1 / log(loss) grows without bound as the loss comes down to 1."""
    shapes = {f"blocks.{block}.q": (240, 240) for block in range(3)}
    known = {name: Spectrum(torch.full((240,), 1e3, dtype=torch.float64)) for name in shapes}
    known["blocks.0.q"] = Spectrum(torch.full((240,), 1.01 / 180, dtype=torch.float64))
    assert set(Uniform().ranks(shapes, Fraction(1, 2), Factors()).values()) == {240 - 180}
    found = SVDLLMv2().ranks(shapes, Fraction(1, 2), Factors(), known)
    assert list(found.values()) == [1, 89, 89]  # of 180 in all


def test_effective_rank_is_the_number_of_equal_energies() -> None:
    assert effective_rank([3.0] * 5 + [0.0] * 4) == pytest.approx(5)
    assert effective_rank([0.0, 0.0]) == pytest.approx(1)
    shapes = {f"blocks.{block}.q": (200, 200) for block in range(2)}
    energies = [torch.ones(200, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)]
    energies[1][:50] = 1
    known = {name: Spectrum(e) for name, e in zip(shapes, energies, strict=True)}
    by_rule = EffectiveRank(fallback=False)
    one, other = by_rule.ranks(shapes, Fraction(1, 2), Factors(), known).values()
    assert one == pytest.approx(2 * other, abs=2)  # sqrt(200 / 50)


def test_effective_ranks_give_way_to_uniform_ranks_that_discard_less() -> None:
    """In each type of layer by itself."""
    shapes = {f"blocks.{block}.{kind}": (200, 200) for kind in "ab" for block in range(2)}
    flat, steep = torch.ones(200, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)
    steep[:60] = 1
    # Of a, the flat layer has the energy, so that ranks are better spent on it; of b, the other.
    sizes = {"blocks.0.a": 2.0, "blocks.1.a": 1.0, "blocks.0.b": 1e-6, "blocks.1.b": 1e6}
    known = {
        name: Spectrum(size * (flat if name.startswith("blocks.0") else steep))
        for name, size in sizes.items()
    }
    by_rule = EffectiveRank(fallback=False).ranks(shapes, Fraction(1, 2), Factors(), known)
    assert by_rule["blocks.0.a"] == by_rule["blocks.0.b"] == pytest.approx(65, abs=1)
    found = EffectiveRank().ranks(shapes, Fraction(1, 2), Factors(), known)
    assert list(found.values()) == [by_rule["blocks.0.a"], by_rule["blocks.1.a"], 50, 50]


@pytest.mark.parametrize(
    ("allocation", "ratio", "message"),
    [
        (Energy(floor=0.8), 0.3, "allocation.floor=0.8 cannot be met with ratio=0.3"),
        (Energy(ceiling=0.6), 0.3, "allocation.ceiling=0.6 cannot be met with ratio=0.3"),
        (Energy(multiple=16), 0.9, "ratio=0.9 leaves .* for 9 layers, the smallest ranks"),
        (EffectiveRank(), 0.99, "ratio=0.99 leaves no rank for a 24 x 24 weight"),
    ],
)  # fmt: skip
def test_a_ratio_that_cannot_be_met_is_refused_before_any_work(
    allocation: Allocation, ratio: float, message: str
) -> None:
    with pytest.raises(NsvdError, match=message):
        allocation.check(SHAPES, 1 - Fraction(repr(ratio)), Factors())


def test_a_loss_of_one_has_no_logarithm_to_divide_by() -> None:
    known = {name: Spectrum(torch.full((min(s),), 1e-3)) for name, s in SHAPES.items()}
    with pytest.raises(NsvdError, match=r"logarithm of each layer's loss.* blocks\.0\.q"):
        SVDLLMv2().ranks(SHAPES, Fraction(1, 2), Factors(), known)


@pytest.mark.parametrize(
    ("field", "value"), [("floor", -0.1), ("floor", math.nan), ("ceiling", 2.0), ("multiple", 0)]
)
def test_a_field_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(NsvdError, match=f"{field}={value}: expected"):
        Energy(**{field: value})


@every_method
def test_a_full_rank_stays_dense(method: nx.methods.Method) -> None:
    shapes = {"dense": (20, 30), "low": (30, 20)}
    layers = linears(shapes, torch.float32)
    ranks = {"dense": 20, "low": 9}
    calibration = calibration_of(shapes)
    for storage, solver in itertools.product(STORAGES.values(), ("basis", "paper")):
        compressor = Compressor(method, ranks, calibration, storage, torch.float32, solver)
        made, table = compressor.compress(layers)
        assert list(made) == ["low"]
        row = table[0]
        losses = [row[loss] for loss in ("activation_loss", "weight_loss", "discarded_energy")]
        assert (row["name"], row["k"], row["k1"], losses) == ("dense", 20, 20, [0, 0, 0])
        kept = 20 * 30 + storage.numbers(30, 20, 9)
        assert achieved_ratio(table, storage, 1200)["layers"] == pytest.approx(1 - kept / 1200)


@pytest.mark.parametrize("method", [SVD(), CholeskyASVD(), METHODS["NSVD I"]])
def test_a_spectrum_is_what_the_method_discards(method: nx.methods.Method) -> None:
    shapes = {"wide": (20, 30), "tall": (30, 20)}
    layers, calibration = linears(shapes, torch.float64), calibration_of(shapes)
    compressor = Compressor(method, {}, calibration, Factors(), torch.float64)
    for k in (1, 9, 15):
        first = dataclasses.replace(
            compressor, method=method.first_stage(), ranks=dict.fromkeys(shapes, k)
        )
        _, table = first.compress(layers)
        for row in table:
            energy = compressor.spectra(layers)[row["name"]].energy
            lost = float(energy[k:].sum() / energy.sum())
            assert row["discarded_energy"] == pytest.approx(lost, rel=1e-9)


def test_the_library_allocates_by_spectra_and_restores() -> None:
    model = make_model("llama")
    dense = parameter_count(model)
    allocation = nx.methods.Energy(multiple=2)
    report = nx.compress(model, nx.methods.SVD(), 0.3, allocation=allocation, storage=Pivoted())
    ranks = {row["name"]: row["k"] for row in report.layers}
    assert len(set(ranks.values())) > 2
    assert report.achieved_ratio["layers"] >= 0.3
    saved = round(report.achieved_ratio["model"] * dense)
    assert parameter_count(model) == dense - saved
    report.restore()
    assert parameter_count(model) == dense
    with pytest.raises(LayersError, match="leaves no rank"):
        nx.compress(model, nx.methods.SVD(), 0.99)


@pytest.mark.parametrize("allocation", ["energy", "effective_rank"])
def test_a_cell_has_the_same_ranks_resident_streamed_and_by_the_papers_route(
    settings: object, tmp_path: Path, allocation: str
) -> None:
    arguments = [*settings(), f"allocation={allocation}", "method=nsvd_i", "ratio=0.3"]  # type: ignore[operator]
    resident = run(*arguments)
    streamed = run(*arguments, "memory=streamed", f"results_dir={tmp_path}/s")
    keeping = run(*arguments, "cache.keep=bases", f"results_dir={tmp_path}/k")
    papers = run(*arguments, "solver=paper")
    ranks = [
        {row["name"]: row["k"] for row in cell["layers"]}
        for cell in (resident, streamed, keeping, papers)
    ]
    assert ranks[0] == ranks[1] == ranks[2] == ranks[3]
    assert len(set(ranks[0].values())) > 1
    assert resident["achieved_ratio"]["layers"] >= 0.3
    assert resident["key"] == streamed["key"] == keeping["key"] != papers["key"]
    values = [
        [cell["datasets"][name]["perplexity"] for name in ("wikitext2", "ptb", "c4")]
        for cell in (resident, streamed, keeping, papers)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[2] == values[0]
    assert values[3] == pytest.approx(values[0], rel=1e-3)


def test_ranks_of_layers_need_their_spectra_only_where_they_are_read() -> None:
    layers = linears({"a.0.q": (24, 24), "a.1.q": (24, 24)}, torch.float32)
    assert ranks_of(layers, 0.3, Uniform(), Factors()) == {"a.0.q": 8, "a.1.q": 8}
    assert not Uniform().reads_spectra
    assert Energy().reads_spectra
