"""What calibration knows of a layer: statistics of its inputs, gradients at its output.

Notation as in `nsvd_exp.methods.base`. This module imports torch for its types alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsvd_exp.errors import NsvdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

GRADIENTS = "gradients"
"""Among the needs of a method: the gradients at a layer's output."""
COVARIANCE, WEIGHTED_GRAM = "covariance", "weighted_gram"
"""Also among them: tensors of these gradients that are made only where they are needed."""
TENSORS = frozenset({COVARIANCE, WEIGHTED_GRAM})


@dataclass(frozen=True, kw_only=True)
class Means:
    """The first moments of one layer input X (n channels, p tokens).

    Attributes:
        abs_mean: (n,), mean absolute value of each channel.
        mean: (n,), mean of each channel.
        tokens: p.
    """

    abs_mean: Tensor
    mean: Tensor
    tokens: int


@dataclass(frozen=True, kw_only=True)
class OutputGradients:
    """What is known of the gradients g of the loss at one layer's output (m channels, p tokens).

    Attributes:
        mean_square: (m,), mean g_i² of each channel, in nats² per squared unit of the output.
        covariance: (m, m), mean g gᵀ; None where nobody needed it.
        weighted_gram: (n, n), sum of w x xᵀ over the tokens x of the layer's input, w in proportion
            to the mean square of a token's g, the largest hundredth clipped, and 1 in the mean;
            None where nobody needed it.
        size: mean over tokens of the mean square of g, the largest few clipped: half of it is how
            many nats one unit of squared output error costs, for each token and channel.
        tokens: p.
    """

    mean_square: Tensor
    size: float
    tokens: int
    covariance: Tensor | None = None
    weighted_gram: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        named = {name: getattr(self, name) for name in ("mean_square", *sorted(TENSORS))}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def to(self, device: torch.device, dtype: torch.dtype) -> OutputGradients:
        """The same on `device`, in `dtype`."""
        moved: dict[str, Any] = {n: tensor.to(device, dtype) for n, tensor in self.tensors.items()}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Statistics(Means):
    """What calibration knows of one layer input X (n channels, p tokens).

    Attributes:
        gram: (n, n), X Xᵀ, a sum over tokens, not a mean.
        mixed: (n, n), the part of `gram` that comes from what is mixed with the calibration set;
            None where nothing is.
        gradients: those at the output of the layer that they are asked for; None where there are
            none.
    """

    gram: Tensor
    mixed: Tensor | None = None
    gradients: OutputGradients | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Statistics:
        """The statistics on `device`, in `dtype`."""
        found = {name: getattr(self, name) for name in ("abs_mean", "mean", "gram", "mixed")}
        found["gradients"] = self.gradients
        moved: dict[str, Any] = {
            name: value if value is None else value.to(device, dtype)
            for name, value in found.items()
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration pass.

    Attributes:
        inputs: the statistics of each distinct layer input, named by the first layer that reads it.
        reads: the name of the input that each layer reads.
        record: what a result says of the tokens that it was made from.
        gradients: those at the output of each layer; empty where nobody needed them.
    """

    inputs: Mapping[str, Statistics]
    reads: Mapping[str, str]
    record: Mapping[str, Any] = field(default_factory=dict)
    gradients: Mapping[str, OutputGradients] = field(default_factory=dict)

    def of(self, layer: str) -> Statistics:
        """The statistics of the input that a layer reads; an NsvdError if it has none."""
        if layer not in self.reads:
            raise NsvdError(f"the calibration has no statistics of the layer {layer}")
        found = self.inputs[self.reads[layer]]
        if not self.gradients:
            return found
        return replace(found, gradients=self.gradients[layer])

    @property
    def nbytes(self) -> int:
        """Bytes of all Gram matrices, which are all but all of it."""
        return sum(statistics.gram.nbytes for statistics in self.inputs.values())
