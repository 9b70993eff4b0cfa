"""How a budget of stored numbers becomes the rank of each layer.

A rank of min(m, n) stands for a layer that stays dense, which takes m n numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Protocol

from nsvd_exp.errors import LayersError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, int]]
"""(m, n) of each layer's weight."""


class Storage(Protocol):
    """What an allocation asks of `nsvd_exp.models.storage.Storage`, which describes both."""

    def numbers(self, m: int, n: int, k: int) -> int: ...

    def largest_rank(self, m: int, n: int, numbers: Fraction) -> int: ...


@dataclass(frozen=True)
class Spectrum:
    """What a layer's outputs consist of, under the metric of a method's first stage.

    Attributes:
        energy: (r,), of each output direction, leading first: the first k of them are what a
            method of one stage keeps at rank k, and the sum of the others is its squared loss.
        nats: what one unit of discarded energy costs the loss of a token, to second order; None
            without gradients.
    """

    energy: Tensor
    nats: float | None = None


@dataclass(frozen=True)
class Allocation:
    """Shares a budget out over the layers. Subclass it as a frozen dataclass.

    Attributes:
        version: raise it when the code behind a class of your own changes a number.
        reads_spectra: whether `ranks` looks at the spectra, which are not known before all bases.
        reads_gradients: whether it looks at what they cost (`Spectrum.nats`).
    """

    version: int = field(default=1, kw_only=True)
    reads_spectra: ClassVar[bool] = False
    reads_gradients: ClassVar[bool] = False

    def ranks(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum] | None = None,
    ) -> dict[str, int]:
        """The rank of each layer.

        Args:
            shapes: (m, n) of each layer's weight.
            budget: the fraction of all their numbers that may be stored, 0 < budget < 1.
            storage: what a rank costs.
            spectra: by layer, for an allocation that reads them.

        Raises:
            LayersError: the budget leaves layers no rank; the message names all of them.
            NsvdError: the budget cannot be met.
        """
        raise NotImplementedError

    def check(self, shapes: Shapes, budget: Fraction, storage: Storage) -> None:
        """Raise what `ranks` would raise whatever the spectra are."""
        if not self.reads_spectra:
            self.ranks(shapes, budget, storage)


@dataclass(frozen=True)
class Uniform(Allocation):
    """Every layer keeps the same fraction of its own numbers, as in the paper and in SVD-LLM.

    With two factors, k = floor(m n (1 - ratio) / (m + n)).
    """

    def ranks(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum] | None = None,
    ) -> dict[str, int]:
        ranks = uniform_ranks(shapes, budget, storage)
        without_rank = [name for name, k in ranks.items() if k < 1]
        refuse(without_rank, shapes, budget, storage)
        return ranks


def numbers_of_uniform(shapes: Shapes, budget: Fraction, storage: Storage) -> int:
    """Numbers that `Uniform` stores, which no other allocation exceeds."""
    ranks = uniform_ranks(shapes, budget, storage)
    return sum(storage.numbers(*shapes[name], k) for name, k in ranks.items())


def refuse(names: list[str], shapes: Shapes, budget: Fraction, storage: Storage) -> None:
    """Raise a LayersError for these layers, if there are any: they have no rank."""
    if names:
        reasons = {name: _no_rank(*shapes[name], budget, storage) for name in names}
        raise LayersError(reasons, shapes)


def uniform_ranks(shapes: Shapes, budget: Fraction, storage: Storage) -> dict[str, int]:
    """The ranks of `Uniform`, 0 where the budget leaves a layer none."""
    return {
        name: storage.largest_rank(*shape, budget * math.prod(shape))
        for name, shape in shapes.items()
    }


def _no_rank(m: int, n: int, budget: Fraction, storage: Storage) -> str:
    """Why an (m, n) weight has no rank within this budget."""
    weight = f"a {m} x {n} weight (rank 1 stores {storage.numbers(m, n, 1)} of its {m * n} numbers)"
    if storage.numbers(m, n, 1) >= m * n:
        return f"no ratio leaves a rank for {weight}"
    ratio = float(1 - budget)
    return f"ratio={ratio:g} leaves no rank for {weight}; use a smaller ratio"
