"""How a rank-k product is stored: what it costs, and the layer that computes with it.

It stands among the models, and not among the methods, because it makes a module. Importing it
imports no torch, so that a grid can be planned without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Storage:
    """A form in which a rank-k product left @ right is stored. Subclass it as a frozen dataclass.

    Attributes:
        name: what a saved model calls this form; empty for one that no saved model knows.
        version: raise it when the code behind a class of your own changes a number.
    """

    name: ClassVar[str] = ""
    version: int = field(default=1, kw_only=True)

    def numbers(self, m: int, n: int, k: int) -> int:
        """Numbers that a rank-k product of an (m, n) weight takes."""
        raise NotImplementedError

    def largest_rank(self, m: int, n: int, numbers: Fraction) -> int:
        """The largest rank of an (m, n) weight that takes at most so many numbers; 0 if none."""
        raise NotImplementedError

    def linear(self, left: Tensor, right: Tensor, bias: Tensor | None) -> nn.Module:
        """The layer y = left (right x) + bias, in the dtype of its arguments.

        Args:
            left: (m, k).
            right: (k, n).
            bias: (m,) or None.
        """
        raise NotImplementedError

    def empty(self, m: int, n: int, k: int, bias: bool, dtype: torch.dtype) -> nn.Module:
        """The layer of an (m, n) weight with all it holds on the meta device, to be filled."""
        raise NotImplementedError


@dataclass(frozen=True)
class Factors(Storage):
    """The two factors as they are: k (m + n) numbers."""

    name: ClassVar[str] = "factors"

    def numbers(self, m: int, n: int, k: int) -> int:
        return k * (m + n)

    def largest_rank(self, m: int, n: int, numbers: Fraction) -> int:
        return min(math.floor(numbers / (m + n)), m, n)

    def linear(self, left: Tensor, right: Tensor, bias: Tensor | None) -> nn.Module:
        from nsvd_exp.models.lowrank import LowRankLinear

        return LowRankLinear(left, right, bias)

    def empty(self, m: int, n: int, k: int, bias: bool, dtype: torch.dtype) -> nn.Module:
        from nsvd_exp.models.lowrank import LowRankLinear

        return LowRankLinear.empty(m, n, k, bias, dtype)
