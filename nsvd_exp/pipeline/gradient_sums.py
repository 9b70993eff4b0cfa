"""What is summed of the gradients at the output of one layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.statistics import COVARIANCE, WEIGHTED_GRAM, OutputGradients
from nsvd_exp.pipeline.inputs import HALF, GramAccumulator

# A few tokens have gradients hundreds of times as large as the others. This part of the tokens, the
# largest, counts as much as the next one: in their mean size, and as weights of a Gram matrix.
CLIPPED, CLIPPED_WEIGHTS = 0.001, 0.01


class WeightedGram:
    """The sum of min(w, cap) x xᵀ, cap the largest w beyond a part CLIPPED_WEIGHTS of the tokens.

    Tokens that may be among the largest are held apart until all have been added, so that it does
    not matter in which batches they come.

    Args:
        x: (p, n), the first inputs.
        tokens: how many there will be, at most.
    """

    def __init__(self, x: Tensor, tokens: int) -> None:
        self._sum = GramAccumulator(x.float())
        self._most = int(CLIPPED_WEIGHTS * tokens) + 1
        # The largest so far, in descending order.
        self._w, self._x = x.new_zeros(0, dtype=torch.float32), x.new_zeros(0, x.shape[1]).float()
        self._tokens = 0
        self._weight = x.new_zeros((), dtype=torch.float64)  # read once: a GPU is not waited for

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
        self._put(self._x, self._w.clamp(max=float(self._w[int(CLIPPED_WEIGHTS * self._tokens)])))
        mean = float(self._weight) / self._tokens
        return self._sum.statistics().gram / (mean or 1.0)

    def _put(self, x: Tensor, w: Tensor) -> None:
        self._sum.add(x * w.sqrt()[:, None])
        self._weight += w.sum(dtype=torch.float64)


class GradientAccumulator:
    """Sums over the gradients at the output of one layer.

    Args:
        g: (*, m), the first of them.
        has_covariance: whether to sum their products.
        weighted: sums products of the layer's inputs; None where they are not wanted.
    """

    def __init__(
        self, g: Tensor, has_covariance: bool = False, weighted: WeightedGram | None = None
    ) -> None:
        self._squares = torch.zeros(g.shape[-1], dtype=torch.float64, device=g.device)
        self._sizes: list[Tensor] = []
        self._products = GramAccumulator(g) if has_covariance else None
        self._weighted = weighted
        self._dtype = torch.float32 if g.dtype in HALF else torch.float64

    def add(self, g: Tensor, x: Tensor | None = None) -> None:
        """Add gradients g (*, m), and the layer's inputs x (*, n) there if they are wanted."""
        g = g.detach().reshape(-1, g.shape[-1])
        squares = g.float().square()
        self._squares += squares.sum(0, dtype=torch.float64)
        size = squares.mean(1)
        self._sizes.append(size)
        if self._products is not None:
            self._products.add(g)
        if self._weighted is not None:
            assert x is not None
            self._weighted.add(x.reshape(-1, x.shape[-1]), size)

    def gradients(self) -> OutputGradients:
        """What is known of them, on the CPU; an NsvdError if it is not finite."""
        sizes = torch.cat(self._sizes).double().sort().values
        tokens = len(sizes)
        if not math.isfinite(float(self._squares.sum())):
            raise NsvdError("its gradients are NaN or Inf: try another dtype")
        clipped = int(CLIPPED * tokens)
        size = float(sizes.clamp(max=float(sizes[tokens - 1 - clipped])).mean())
        products = {}
        if self._products is not None:
            products[COVARIANCE] = self._products.statistics().gram / tokens
        if self._weighted is not None:
            products[WEIGHTED_GRAM] = self._weighted.matrix().to(self._dtype)
        mean_square = (self._squares / tokens).cpu()
        return OutputGradients(mean_square=mean_square, size=size, tokens=tokens, **products)
