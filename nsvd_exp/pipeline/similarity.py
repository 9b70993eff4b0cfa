"""How alike two sets of activations are, layer by layer (the paper's Figure 1 and Table 2).

The paper compares "activations between the calibration set and each evaluation set" by their
cosine and does not say which vector stands for a set of activations. Three readings, each of one
layer's inputs X (n channels, p tokens): the mean of each channel, its mean absolute value, and the
Gram matrix X Xᵀ, flattened. A cosine does not see a factor, so p cancels in each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from nsvd_exp.methods.statistics import Calibration, Means, Statistics
from nsvd_exp.pipeline.inputs import MeanAccumulator, Sums


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
    layers: Iterable[str], calibration: Calibration, evaluation: Sums[MeanAccumulator]
) -> list[dict[str, Any]]:
    """One row per layer: `name`, `n` and the similarities of its inputs.

    A layer that saw no token of the evaluation has no similarity: None by each statistic.
    """
    rows = []
    compared: dict[tuple[str, str], dict[str, float | None]] = {}  # by both inputs
    for name in layers:
        statistics, read = calibration.of(name), evaluation.reads.get(name)
        values: dict[str, float | None] = {"mean": None, "abs_mean": None, "gram": None}
        if read is not None:
            pair = calibration.reads[name], read
            if pair not in compared:
                compared[pair] = compare(statistics, evaluation.inputs[read].statistics())
            values = compared[pair]
        rows.append({"name": name, "n": len(statistics.mean), **values})
    return rows
