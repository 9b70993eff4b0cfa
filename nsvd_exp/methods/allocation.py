"""How a budget of stored numbers becomes the rank of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from nsvd_exp.errors import NsvdError

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
            NsvdError: the budget leaves a layer no rank; the message names it.
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
        ranks = {}
        for name, (m, n) in shapes.items():
            ranks[name] = storage.largest_rank(m, n, budget * m * n)
            if ranks[name] < 1:
                raise NsvdError(
                    f"{name}: ratio={float(1 - budget):g} leaves no rank for a {m} x {n} weight "
                    f"(rank 1 stores {storage.numbers(m, n, 1)} of its {m * n} numbers): use a "
                    "smaller ratio, or leave the layer dense with model.skip"
                )
        return ranks
