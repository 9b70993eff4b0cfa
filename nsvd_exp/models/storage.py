"""How a rank-k product is stored: what it costs, and the layer that computes with it.

It stands among the models, and not among the methods, because it makes a module. Importing it
imports no torch, so that a grid can be planned without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

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

    def size(self, m: int, n: int, k: int) -> int:
        """Numbers that a layer of this rank takes, which is dense where the rank is min(m, n)."""
        return m * n if k == min(m, n) else self.numbers(m, n, k)

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

    def stored(
        self,
        left: Tensor,
        right: Tensor,
        lengths: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The same layer, rounded once to `dtype`, and what the table of layers says of its form.

        Args:
            lengths: (k,), of the rows of `right` under the metric of the method.
        """
        rounded = (None if t is None else t.to(dtype) for t in (left, right, bias))
        return self.linear(*rounded), {}  # type: ignore[arg-type]

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


@dataclass(frozen=True)
class Pivoted(Storage):
    """k rows of the product as they are, and the others as combinations of them: k (m + n - k)
    numbers, and the places of the rows (arXiv 2501.19090; `nsvd_exp.methods.pivoting`).

    Exact at any rank, up to rounding. At min(m, n) it takes as many numbers as the weight itself.
    """

    name: ClassVar[str] = "pivoted"

    def numbers(self, m: int, n: int, k: int) -> int:
        return k * (m + n - k)

    def largest_rank(self, m: int, n: int, numbers: Fraction) -> int:
        """The largest k <= min(m, n) with k (m + n - k) <= numbers, which grows with k up to there:
        k <= ((m + n) - sqrt((m + n)² - 4 numbers)) / 2, in whole numbers."""
        whole = math.floor(numbers)
        if whole >= m * n:
            return min(m, n)
        s = m + n
        k = (s - math.isqrt(s * s - 4 * whole)) // 2 if whole > 0 else 0
        return k if self.numbers(m, n, k) <= whole else k - 1

    def linear(self, left: Tensor, right: Tensor, bias: Tensor | None) -> nn.Module:
        lengths = right.double().norm(dim=1)
        return self.stored(left, right, lengths, bias, right.dtype)[0]

    def stored(
        self,
        left: Tensor,
        right: Tensor,
        lengths: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[nn.Module, dict[str, Any]]:
        """The layer, and how far its product is from that of the factors."""
        from nsvd_exp.models.pivoted import pivoted_linear

        return pivoted_linear(left, right, lengths, bias, dtype)

    def empty(self, m: int, n: int, k: int, bias: bool, dtype: torch.dtype) -> nn.Module:
        from nsvd_exp.models.lowrank import PivotedLinear

        return PivotedLinear.empty(m, n, k, bias, dtype)
