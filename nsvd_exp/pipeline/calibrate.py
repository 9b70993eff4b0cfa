"""Calibration: one pass of the dense model makes the statistics of every layer input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from nsvd_exp.errors import LayersError
from nsvd_exp.methods.base import Statistics
from nsvd_exp.models.layers import Layer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.inputs import GramAccumulator, Sums, watch, watch_streamed
from nsvd_exp.progress import Progress


def calibrate(
    model: nn.Module,
    layers: Mapping[str, Layer],
    samples: Tensor,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> tuple[dict[str, Statistics], dict[str, str]]:
    """The `inputs` and `reads` of a `Calibration` of these layers, over `samples`.

    The arguments are those of `watch`.

    Raises:
        NsvdError: as `watch`, or a layer saw no token.
    """
    return statistics_of(layers, watch(model, layers, samples, GramAccumulator, batch, progress))


def calibrate_streamed(
    streamed: StreamedModel,
    layers: Mapping[str, Layer],
    samples: Tensor,
    add: Callable[[str, Statistics], object],
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> dict[str, str]:
    """As `calibrate`, with the statistics of one block after the other.

    Args:
        add: called with the name of each distinct layer input and its statistics. Where memory runs
            out, the pass starts again, and `add` is called with the same names again.

    Returns:
        The `reads` of a `Calibration`.

    Raises:
        NsvdError: as `calibrate`, or the blocks cannot be run one by one.
        Exception: whatever `add` raises.
    """
    reads: dict[str, str] = {}

    def keep(inside: Mapping[str, Layer], sums: Sums[GramAccumulator]) -> None:
        inputs, of_block = statistics_of(inside, sums)
        reads.update(of_block)
        for name, statistics in inputs.items():
            add(name, statistics)

    watch_streamed(streamed, layers, samples, GramAccumulator, keep, batch, progress)
    return reads


def statistics_of(
    layers: Iterable[str], sums: Sums[GramAccumulator]
) -> tuple[dict[str, Statistics], dict[str, str]]:
    """The `inputs` and `reads` of a `Calibration` of these layers.

    Raises:
        LayersError: layers have no sums: they saw no token.
    """
    unseen = [name for name in layers if name not in sums.reads]
    if unseen:
        reason = "it saw no calibration token; take more calibration.samples"
        raise LayersError(dict.fromkeys(unseen, reason), layers)
    inputs = {name: accumulator.statistics() for name, accumulator in sums.inputs.items()}
    return inputs, sums.reads
