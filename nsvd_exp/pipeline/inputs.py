"""The inputs of a model's layers in one pass over tokens: their first and second moments.

Layers that read the same tensor (q, k, v; gate, up) share one set of sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.statistics import Means, Statistics
from nsvd_exp.models.batches import STREAMED_TOKENS, fitting_tokens, in_batches
from nsvd_exp.models.blocks import kept_positions
from nsvd_exp.models.layers import Layer, decoder_blocks, is_finite
from nsvd_exp.models.streamed import Flow, StreamedModel
from nsvd_exp.progress import Progress

HALF = (torch.float16, torch.bfloat16)
# Rows of a Gram matrix that one product makes, up to the diagonal: on a CPU (`benchmarks/gram.py`),
# and on a GPU, whose products have to be larger to be fast.
PANEL, GPU_PANEL, ALIGNED = 256, 1024, 128
# Rows that a CPU sums at once: where dtypes differ, it copies its operands first.
ROWS = 128


class MeanAccumulator:
    """Running sums over the inputs of one layer, of the width of the first input, in float64."""

    def __init__(self, x: Tensor) -> None:
        self.abs_sum, self.sum = torch.zeros(2, x.shape[-1], dtype=torch.float64, device=x.device)
        self.tokens = 0

    def add(self, x: Tensor) -> None:
        """Add inputs x (*, channels)."""
        x = x.reshape(-1, x.shape[-1])
        self.tokens += len(x)
        for part in [x] if x.is_cuda else x.split(ROWS):
            self.abs_sum += part.abs().sum(0, dtype=torch.float64)
            self.sum += part.sum(0, dtype=torch.float64)

    def is_finite(self) -> bool:
        """Whether no sum is NaN or Inf."""
        return is_finite(self.abs_sum)

    def statistics(self) -> Means:
        """The means, on the CPU."""
        abs_mean, mean = ((s / self.tokens).cpu() for s in (self.abs_sum, self.sum))
        return Means(abs_mean=abs_mean, mean=mean, tokens=self.tokens)


class GramAccumulator(MeanAccumulator):
    """Running sums with the Gram matrix, Σ x xᵀ, of the inputs of one layer.

    Precision: half-precision inputs are multiplied as they are with float32 accumulation (their
    products are exact in float32) and summed over batches in float32, which halves the memory of
    the Gram matrices; wider inputs are summed in float64.

    Of a wide matrix only the panels up to the diagonal are multiplied and summed.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        channels, dtype = x.shape[-1], torch.float32 if x.dtype in HALF else torch.float64
        self._lower = torch.zeros(channels, channels, dtype=dtype, device=x.device)

    def add(self, x: Tensor) -> None:
        super().add(x)
        x = x.reshape(-1, x.shape[-1])
        if x.dtype in HALF and not x.is_cuda:
            x = x.float()
        for start, stop in self._panels():
            panel = product(x[:, start:stop], x[:, :stop])
            for total, part in zip(
                self._lower[start:stop, :stop].split(ROWS), panel.split(ROWS), strict=True
            ):
                total += part

    def is_finite(self) -> bool:
        return super().is_finite() and is_finite(self._lower)

    def statistics(self) -> Statistics:
        """The means and the Gram matrix, on the CPU."""
        for start, stop in self._panels():
            self._lower[:start, start:stop] = self._lower[start:stop, :start].T
        return Statistics(gram=self._lower.cpu(), **vars(super().statistics()))

    def _panels(self) -> Iterator[tuple[int, int]]:
        """Equal parts (start, stop) of the rows."""
        n = len(self._lower)
        count = -(-n // (GPU_PANEL if self._lower.is_cuda else PANEL))
        # A GPU is fast where operands begin at multiples of 16 bytes.
        size = -(-n // count // ALIGNED) * ALIGNED if self._lower.is_cuda else -(-n // count)
        return ((start, min(start + size, n)) for start in range(0, n, size))


A = TypeVar("A", bound=MeanAccumulator)


def product(a: Tensor, b: Tensor) -> Tensor:
    """aᵀb (m, n) of a (p, m), b (p, n): in float32 for half precision on a GPU, else in theirs."""
    if a.dtype in HALF:
        return torch.mm(a.T, b, out_dtype=torch.float32)
    return a.T @ b


@dataclass(frozen=True)
class Sums(Generic[A]):
    """The sums of all layer inputs, each distinct input once.

    Attributes:
        inputs: by the name of the input, which is that of the first layer that reads it.
        reads: of each layer that saw a token, the name of the input that it reads.
    """

    inputs: dict[str, A]
    reads: dict[str, str]


class InputWatcher(Generic[A]):
    """Forward pre-hooks that add every distinct layer input once.

    Two layers read the same input if they get the same memory, unchanged, within one forward pass
    of a decoder block; references are held until its end, so that no memory is reused meanwhile.

    Args:
        layers: the Linears to watch, by name.
        blocks: the decoder blocks that hold them.
    """

    def __init__(
        self, layers: Mapping[str, Layer], blocks: Iterable[nn.Module], accumulator: type[A]
    ) -> None:
        self._accumulators: dict[str, A] = {}  # by leader
        self._leader: dict[str, str] = {}  # of each layer, the first one that read the same input
        self._tokens: Counter[str] = Counter()  # that each layer has read
        self._layers, self._blocks, self._accumulator = layers, blocks, accumulator
        self._seen: dict[tuple[int, ...], tuple[str, Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are on the layers inside, and off afterwards."""
        handles = [
            layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name, layer in self._layers.items()
        ]
        handles += [block.register_forward_hook(self._forget) for block in self._blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def sums(self) -> Sums[A]:
        """All sums; an NsvdError if one is not finite, or two layers share only some inputs."""
        for name, accumulator in self._accumulators.items():  # in the order of the forward pass
            if not accumulator.is_finite():
                raise NsvdError(
                    f"the input of {name} is NaN or Inf: "
                    "try another dtype (float16 overflows at 65504), or check the checkpoint"
                )
        for name, leader in self._leader.items():
            if self._tokens[name] != self._accumulators[leader].tokens:
                raise NsvdError(
                    f"{name} shares some of its inputs with {leader}, but not all of them: leave "
                    "one of them dense with model.skip"
                )
        reads = {name: self._leader[name] for name in self._layers if name in self._leader}
        return Sums(self._accumulators, reads)

    def _forget(self, *_: object) -> None:
        self._seen.clear()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            x = inputs[0] if inputs else named["input"]
            self._tokens[name] += x.numel() // x.shape[-1]
            leader, _x = self._seen.setdefault(_place(x), (name, x))
            if self._leader.setdefault(name, leader) != leader:
                raise NsvdError(
                    f"{name} shares its input with {leader} in this pass, but with "
                    f"{self._leader[name]} in an earlier one: leave it dense with model.skip"
                )
            if leader == name:
                if name not in self._accumulators:
                    self._accumulators[name] = self._accumulator(x)
                self._accumulators[name].add(x)

        return hook


def _place(x: Tensor) -> tuple[int, ...]:
    """Where x stands in memory, and how often what stands there was changed."""
    # An inference tensor counts no changes, and cannot be changed where it is one.
    changes = 0 if x.is_inference() else x._version
    return x.data_ptr(), changes, *x.shape, *x.stride()


Keep = Callable[[Mapping[str, Layer], Sums[A]], object]
"""Called with layers and the sums of their inputs."""


@torch.no_grad()
def watch(
    model: nn.Module | StreamedModel,
    layers: Mapping[str, Layer],
    rows: Tensor,
    accumulator: type[A],
    keep: Keep[A],
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> None:
    """Sum the inputs of `layers` over `rows`.

    Args:
        model: dense, in eval mode.
        rows: (rows, length) token ids.
        keep: of all layers; or, of a streamed model, of those of one block after the other, from
            the first block again where memory runs out.
        batch: rows of one forward pass; `auto` starts large and halves it when memory runs out.

    Raises:
        NsvdError: a layer's input is not finite, two layers share some of their inputs and not
            others, or the blocks of a streamed model cannot be run one by one.
    """
    if isinstance(model, StreamedModel):
        _watch_block_by_block(model, layers, rows, accumulator, keep, batch, progress)
        return

    def attempt(batches: Iterator[Tensor]) -> InputWatcher[A]:
        watcher = InputWatcher(layers, decoder_blocks(model)[1], accumulator)
        with watcher.watching():
            for ids in batches:
                # Nobody looks at the logits: as few as there can be.
                model(input_ids=ids, use_cache=False, **kept_positions(model, ids, 0, 1))
        return watcher

    # From the beginning with a smaller batch: a pass that broke off has added some layers already.
    device = next(model.parameters()).device
    tokens = fitting_tokens(model, device) if batch == "auto" else None
    keep(layers, in_batches(attempt, rows, batch, device, progress, tokens).sums())


def _watch_block_by_block(
    streamed: StreamedModel,
    layers: Mapping[str, Layer],
    rows: Tensor,
    accumulator: type[A],
    keep: Keep[A],
    batch: int | str,
    progress: Progress | None,
) -> None:
    dtype, blocks = next(streamed.model.parameters()).dtype, streamed.chain.blocks

    def attempt(batches: Iterator[Tensor]) -> None:
        flow = Flow(streamed, batches, len(rows), dtype)
        for index in range(len(blocks)):
            inside = streamed.block_of(index, layers)
            with streamed.block(index) as block:
                watcher = InputWatcher(inside, [block], accumulator)
                with watcher.watching():
                    flow.push(index)
            keep(inside, watcher.sums())
            del watcher  # its sums end before those of the next block begin
            if progress:
                progress(index + 1, len(blocks))

    device = streamed.device
    in_batches(attempt, rows, batch, device, tokens=STREAMED_TOKENS[device.type])
