"""The layers that take the place of a Linear: y = Ŵ x + bias with Ŵ (m, n) of rank k."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """y = left (right x) + bias: a Linear whose weight is left @ right.

    Args:
        left: (m, k); right: (k, n); bias: (m,) or None. Kept in the dtype they come in.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        m, k = left.shape
        n = right.shape[1]
        self.in_features, self.out_features, self.rank = n, m, k
        self.right = _linear(right)
        self.left = _linear(left, bias)

    @classmethod
    def empty(cls, m: int, n: int, k: int, bias: bool, dtype: torch.dtype) -> LowRankLinear:
        """The layer on the meta device, to be filled by a checkpoint."""

        def numbers(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        return cls(numbers(m, k), numbers(k, n), numbers(m) if bias else None)

    @property
    def weight(self) -> Tensor:
        """left @ right, (m, n): for model code that looks at a Linear's weight."""
        return self.left.weight @ self.right.weight

    @property
    def bias(self) -> Tensor | None:
        """(m,) or None: for the same code."""
        return self.left.bias

    def forward(self, x: Tensor) -> Tensor:
        """(*, n) to (*, m)."""
        return self.left(self.right(x))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


class PivotedLinear(nn.Module):
    """z = right x, y = (z, left z) in the order of the outputs, + bias: k rows of the weight stand
    as they are, the other m - k are combinations of them.

    Args:
        left: (m - k, k), the combinations; right: (k, n), the rows; bias: (m,) or None. Kept in the
            dtype they come in.
        place: (m,), int64: where among (z, left z) each output stands.
    """

    place: Tensor

    def __init__(self, left: Tensor, right: Tensor, place: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        k, n = right.shape
        self.in_features, self.out_features, self.rank = n, k + len(left), k
        self.right, self.left = _linear(right), _linear(left)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("place", place)

    @classmethod
    def empty(cls, m: int, n: int, k: int, bias: bool, dtype: torch.dtype) -> PivotedLinear:
        """The layer on the meta device, to be filled by a checkpoint."""

        def nothing(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        place = nothing(m, dtype=torch.int64)
        return cls(nothing(m - k, k), nothing(k, n), place, nothing(m) if bias else None)

    @property
    def weight(self) -> Tensor:
        """(m, n): for model code that looks at a Linear's weight."""
        rows = self.right.weight
        return torch.cat([rows, self.left.weight @ rows])[self.place]

    def forward(self, x: Tensor) -> Tensor:
        """(*, n) to (*, m)."""
        z = self.right(x)
        y = torch.cat([z, self.left(z)], dim=-1).index_select(-1, self.place)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A Linear of these tensors: its shape first, without initialisation or a second copy.

    Row by row in memory, as a checkpoint holds a weight: a product of a transposed view may be
    rounded in another order, and a model that is loaded again has to give the same numbers.
    """
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return linear
