"""How alike two sets of activations are, layer by layer (the paper's Figure 1 and Table 2).

The paper compares "activations between the calibration set and each evaluation set" by their
cosine and does not say which vector stands for a set of activations. Three readings, each of one
layer's inputs X (n channels, p tokens): the mean of each channel, its mean absolute value, and the
Gram matrix X Xᵀ, flattened. A cosine does not see a factor, so p cancels in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nsvd_exp.methods.base import Means, Statistics
from nsvd_exp.pipeline.calibrate import MeanAccumulator


def cosine(a: Tensor, b: Tensor) -> float | None:
    """The cosine between two tensors of one shape, flattened, in float64.

    None where one of them is 0 everywhere: it has no direction.
    """
    a, b = a.flatten().double(), b.flatten().double()
    length_a, length_b = float(a.norm()), float(b.norm())
    if length_a == 0 or length_b == 0:
        return None
    # Rounding alone leads beyond 1.
    return max(-1.0, min(1.0, float(a @ b) / length_a / length_b))


def compare(calibration: Statistics, evaluation: Means) -> dict[str, float | None]:
    """The similarity of one layer's inputs by each statistic.

    `gram` is None where the evaluation's inputs have no Gram matrix.
    """
    gram = evaluation.gram if isinstance(evaluation, Statistics) else None
    return {
        "mean": cosine(calibration.mean, evaluation.mean),
        "abs_mean": cosine(calibration.abs_mean, evaluation.abs_mean),
        "gram": None if gram is None else cosine(calibration.gram, gram),
    }


def compare_layers(
    calibration: Mapping[str, Statistics], evaluation: Mapping[str, MeanAccumulator]
) -> list[dict[str, Any]]:
    """A row a layer of `calibration`: `name`, `n` and the similarities of its inputs.

    A layer that saw no token of the evaluation has no similarity: None by each statistic.
    """
    rows = []
    compared: dict[int, dict[str, float | None]] = {}  # layers with the same input share their sums
    for name, statistics in calibration.items():
        sums = evaluation.get(name)
        if sums is None:
            values: dict[str, float | None] = {"mean": None, "abs_mean": None, "gram": None}
        elif id(sums) in compared:
            values = compared[id(sums)]
        else:
            values = compared[id(sums)] = compare(statistics, sums.statistics())
        rows.append({"name": name, "n": len(statistics.mean), **values})
    return rows


def gram_bytes(calibration: Mapping[str, Statistics]) -> int:
    """Bytes of all Gram matrices that a pass over these layers adds up; shared ones count once."""
    held = list(calibration.values())  # an address is not used again meanwhile
    distinct = {id(s): s.gram.nbytes for s in held}
    return sum(distinct.values())
