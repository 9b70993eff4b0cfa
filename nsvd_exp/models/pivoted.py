"""From a product of two factors to its pivoted form: rows of it, and combinations of them."""

from __future__ import annotations

import torch
from torch import Tensor

from nsvd_exp.methods.pivoting import pivot
from nsvd_exp.models.lowrank import PivotedLinear


def pivoted_linear(
    left: Tensor, right: Tensor, lengths: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> tuple[PivotedLinear, dict[str, float]]:
    """The layer of a product left @ right, (m, k) and (k, n), rounded once to `dtype`.

    Returns:
        The layer, and how far its product is from that of the factors, ||P - P'||_F / ||P||_F:
        `pivot_error` of its float64 numbers, `pivot_rounded` of its rounded ones, beside
        `factors_rounded`, of factors rounded to the same dtype; and `pivot_largest`, the
        largest of its combinations.
    """
    left, right = left.double(), right.double()
    found = pivot(left, lengths.to(left.device, left.dtype))
    place = torch.cat([found.kept, found.others]).argsort()
    product, rows = left @ right, left[found.kept] @ right
    T, rounded = found.T.to(dtype), rows.to(dtype)

    def error(made: Tensor) -> float:
        length = float(product.norm())
        return float((made - product).norm()) / length if length > 0 else 0.0

    layer = PivotedLinear(T, rounded, place, None if bias is None else bias.to(dtype))
    about = {
        "pivot_error": error(torch.cat([rows, found.T @ rows])[place]),
        "pivot_rounded": error(torch.cat([rounded.double(), T.double() @ rounded.double()])[place]),
        "factors_rounded": error(left.to(dtype).double() @ right.to(dtype).double()),
        "pivot_largest": float(found.T.abs().max()) if found.T.numel() else 0.0,
    }
    return layer, about
