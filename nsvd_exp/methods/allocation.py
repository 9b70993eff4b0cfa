"""How a budget of stored numbers becomes the rank of each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from nsvd_exp.errors import LayersError

if TYPE_CHECKING:
    from torch import Tensor


class Storage(Protocol):
    """What an allocation asks of `nsvd_exp.models.storage.Storage`, which describes both."""

    def numbers(self, m: int, n: int, k: int) -> int: ...

    def largest_rank(self, m: int, n: int, numbers: Fraction) -> int: ...


@dataclass(frozen=True)
class Allocation:
    """Shares a budget out over the layers. Subclass it as a frozen dataclass.

    Attributes:
        version: raise it when the code behind a class of your own changes a number.
    """

    version: int = field(default=1, kw_only=True)

    def ranks(
        self,
        shapes: Mapping[str, tuple[int, int]],
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Tensor] | None = None,
    ) -> dict[str, int]:
        """The rank of each layer.

        Args:
            shapes: (m, n) of each layer's weight.
            budget: the fraction of all their numbers that may be stored, 0 < budget < 1.
            storage: what a rank costs.
            spectra: by layer, the energy of each output direction, leading first, for an
                allocation that looks at them.

        Raises:
            LayersError: the budget leaves layers no rank; the message names all of them.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Allocation):
    """Every layer keeps the same fraction of its own numbers, as in the paper and in SVD-LLM.

    With two factors, k = floor(m n (1 - ratio) / (m + n)).
    """

    def ranks(
        self,
        shapes: Mapping[str, tuple[int, int]],
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Tensor] | None = None,
    ) -> dict[str, int]:
        ranks = {
            n: storage.largest_rank(*shape, budget * math.prod(shape))
            for n, shape in shapes.items()
        }
        reasons = {
            name: _no_rank(*shapes[name], budget, storage) for name, k in ranks.items() if k < 1
        }
        if reasons:
            raise LayersError(reasons, shapes)
        return ranks


def _no_rank(m: int, n: int, budget: Fraction, storage: Storage) -> str:
    """Why an (m, n) weight has no rank within this budget."""
    weight = f"a {m} x {n} weight (rank 1 stores {storage.numbers(m, n, 1)} of its {m * n} numbers)"
    if storage.numbers(m, n, 1) >= m * n:
        return f"no ratio leaves a rank for {weight}"
    ratio = float(1 - budget)
    return f"ratio={ratio:g} leaves no rank for {weight}; use a smaller ratio"
