"""Calibration: one pass of the dense model makes the statistics of every layer input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from nsvd_exp.errors import LayersError
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.models.layers import Layer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.inputs import GramAccumulator, Sums, watch
from nsvd_exp.progress import Progress


def calibrate(
    model: nn.Module | StreamedModel,
    layers: Mapping[str, Layer],
    samples: Tensor,
    batch: int | str = "auto",
    progress: Progress | None = None,
    add: Callable[[str, Statistics], object] | None = None,
) -> tuple[dict[str, Statistics], dict[str, str]]:
    """The `inputs` and `reads` of a `Calibration` of these layers, over `samples`.

    Args:
        model, layers, samples, batch, progress: as of `watch`.
        add: called with the name of each distinct layer input and its statistics, in place of
            returning them; of a streamed model, with the same names again where memory runs out.

    Raises:
        NsvdError: as `watch`; layers that saw no token (LayersError); and what `add` raises.
    """
    inputs: dict[str, Statistics] = {}
    reads: dict[str, str] = {}

    def keep(inside: Mapping[str, Layer], sums: Sums[GramAccumulator]) -> None:
        unseen = [name for name in inside if name not in sums.reads]
        if unseen:
            reason = "it saw no calibration token; take more calibration.samples"
            raise LayersError(dict.fromkeys(unseen, reason), layers)
        reads.update(sums.reads)
        for name, accumulator in sums.inputs.items():
            (add or inputs.__setitem__)(name, accumulator.statistics())

    watch(model, layers, samples, GramAccumulator, keep, batch, progress)
    return inputs, reads
