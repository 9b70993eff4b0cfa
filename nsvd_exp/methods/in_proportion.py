"""Allocations of other papers, which keep numbers in a proportion that each layer's spectrum says.

Both work inside each type of layer: all query projections share what uniform ranks would give them.
Where a rule leaves nothing of a layer, it keeps rank 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.allocation import (
    Allocation,
    Shapes,
    Spectrum,
    Storage,
    Uniform,
    numbers_of_uniform,
    refuse,
    uniform_ranks,
)

STEPS = 60  # of a bisection in floats
Wanted = dict[str, float]
"""Numbers that each layer would keep, but for rounding."""


@dataclass(frozen=True)
class InProportion(Allocation):
    """Keeps numbers in proportion to `wanted`. Subclass it and define that."""

    reads_spectra: ClassVar[bool] = True

    def wanted(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum],
    ) -> Wanted:
        """Of the layers of one type: how many numbers each keeps, up to a common factor."""
        raise NotImplementedError

    def check(self, shapes: Shapes, budget: Fraction, storage: Storage) -> None:
        for of_type in by_type(shapes):
            least = sum(storage.numbers(*shape, 1) for shape in of_type.values())
            if numbers_of_uniform(of_type, budget, storage) < least:
                refuse(list(of_type), of_type, budget, storage)

    def ranks(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum] | None = None,
    ) -> dict[str, int]:
        self.check(shapes, budget, storage)
        assert spectra is not None
        ranks: dict[str, int] = {}
        for of_type in by_type(shapes):
            ranks |= self.ranks_of_type(of_type, budget, storage, spectra)
        return {name: ranks[name] for name in shapes}

    def ranks_of_type(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum],
    ) -> dict[str, int]:
        """The ranks of the layers of one type."""
        available = numbers_of_uniform(shapes, budget, storage)
        return _within(self.wanted(shapes, budget, storage, spectra), shapes, available, storage)


@dataclass(frozen=True)
class SVDLLMv2(InProportion):
    """The fraction of a layer that is removed is in proportion to 1 / log(loss), the loss being
    ||(W - Ŵ) S||_F at uniform ranks (SVD-LLM V2, arXiv 2503.12340, Algorithm 1).

    It depends on the number of calibration tokens, over which the loss is a sum.
    """

    def wanted(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum],
    ) -> Wanted:
        removed = {}
        for name, k in uniform_ranks(shapes, budget, storage).items():
            loss = math.sqrt(float(spectra[name].energy[k:].sum()))
            if loss <= 1:
                raise NsvdError(
                    f"allocation=svdllm_v2 divides by the logarithm of each layer's loss, and that "
                    f"of {name} is {loss:.3g}: take more calibration.samples, or another allocation"
                )
            removed[name] = 1 / math.log(loss)
        mean = sum(removed.values()) / len(removed)
        ratio = float(1 - budget)
        kept = {name: max(1 - ratio * part / mean, 0.0) for name, part in removed.items()}
        return {name: kept[name] * m * n for name, (m, n) in shapes.items()}


@dataclass(frozen=True)
class EffectiveRank(InProportion):
    """Ranks that minimise sum_l R_l / k_l at the budget: k_l in proportion to sqrt(R_l / (m + n)),
    R_l the exponential of the entropy of the energies (D-Rank, arXiv 2509.25622, without its groups
    of layers and its shift of rank from queries and keys to values).

    Attributes:
        fallback: whether a type of layer in which uniform ranks discard less energy in all keeps
            them, as in the authors' code (github.com/Rainbow0427/D_rank).
    """

    fallback: bool = True

    def ranks_of_type(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum],
    ) -> dict[str, int]:
        ranks = super().ranks_of_type(shapes, budget, storage, spectra)
        if not self.fallback:
            return ranks
        uniform = Uniform().ranks(shapes, budget, storage)

        def discarded(ranks: dict[str, int]) -> float:
            return sum(float(spectra[name].energy[k:].sum()) for name, k in ranks.items())

        return ranks if discarded(ranks) < discarded(uniform) else uniform

    def wanted(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum],
    ) -> Wanted:
        return {
            name: math.sqrt(effective_rank(spectra[name].energy.tolist()) * (m + n))
            for name, (m, n) in shapes.items()
        }


def effective_rank(energy: list[float]) -> float:
    """exp of the entropy of energies as parts of their sum: between 1 and their number."""
    total = sum(energy)
    parts = [value / total for value in energy if value > 0] if total > 0 else []
    return math.exp(-sum(part * math.log(part) for part in parts))


def by_type(shapes: Shapes) -> list[dict[str, tuple[int, int]]]:
    """The layers of each type: those whose names differ in the number of their block alone."""
    types: dict[str, dict[str, tuple[int, int]]] = {}
    for name, shape in shapes.items():
        kind = re.sub(r"(?<=\.)\d+(?=\.)", "*", name, count=1)
        types.setdefault(kind, {})[name] = shape
    return list(types.values())


def _within(wanted: Wanted, shapes: Shapes, available: int, storage: Storage) -> dict[str, int]:
    """The largest ranks, 1 at least, whose numbers are in this proportion and `available` in all at
    most; that has to be enough for rank 1 of each."""

    def ranks(factor: float) -> dict[str, int]:
        return {
            name: max(1, storage.largest_rank(m, n, Fraction(min(factor * wanted[name], m * n))))
            for name, (m, n) in shapes.items()
        }

    def numbers(factor: float) -> int:
        return sum(storage.numbers(*shapes[name], k) for name, k in ranks(factor).items())

    low, high = 0.0, 1.0
    largest = max((m * n / wanted[name] for name, (m, n) in shapes.items() if wanted[name]))
    while numbers(high) <= available and high < largest:
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if numbers(middle) <= available else (low, middle)
    return ranks(low)
