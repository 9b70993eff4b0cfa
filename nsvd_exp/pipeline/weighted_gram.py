"""The Gram matrix of a layer's inputs with each token weighed by its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from nsvd_exp.pipeline.inputs import GramAccumulator

# This part of the tokens, the largest, counts as much as the next one: a few have gradients so
# large that nothing else would count.
CLIPPED = 0.01


class WeightedGram:
    """The sum of min(w, cap) x xᵀ, cap the largest w beyond the part CLIPPED of all tokens.

    Tokens that may be among the largest are held apart until all have been added, so that it does
    not matter in which batches they come.

    Args:
        x: (p, n), the first inputs.
        tokens: how many there will be, at most.
    """

    def __init__(self, x: Tensor, tokens: int) -> None:
        self._sum = GramAccumulator(x.float())
        self._most = int(CLIPPED * tokens) + 1
        # The largest so far, in descending order.
        self._w, self._x = x.new_zeros(0, dtype=torch.float32), x.new_zeros(0, x.shape[1]).float()
        self._tokens, self._weight = 0, 0.0

    def add(self, x: Tensor, w: Tensor) -> None:
        """Add inputs x (p, n) with weights w (p,) >= 0, float32."""
        self._tokens += len(w)
        w, x = torch.cat([self._w, w]), torch.cat([self._x, x.float()])
        order = w.argsort(descending=True, stable=True)
        largest, rest = order[: self._most], order[self._most :]
        self._put(x[rest], w[rest])
        self._w, self._x = w[largest], x[largest]

    def matrix(self) -> Tensor:
        """(n, n), of weights that are 1 in the mean, on the CPU; zeros where all were 0.

        Nothing may be added afterwards.
        """
        self._put(self._x, self._w.clamp(max=float(self._w[int(CLIPPED * self._tokens)])))
        mean = self._weight / self._tokens
        return self._sum.statistics().gram / (mean or 1.0)

    def _put(self, x: Tensor, w: Tensor) -> None:
        self._sum.add(x * w.sqrt()[:, None])
        self._weight += float(w.sum(dtype=torch.float64))
