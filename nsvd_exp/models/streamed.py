"""A model of which one decoder block at a time is in memory: `memory=streamed`.

All rows go through a block before the next one is brought, so each pass reads the weights once.
What enters the blocks and what becomes of what leaves them is the model's own code (`chain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.blocks import BlockChain, Call
from nsvd_exp.models.hidden_states import HiddenStates
from nsvd_exp.models.layers import is_finite
from nsvd_exp.models.loading import to_dtype
from nsvd_exp.pipeline.calibrate import A, GramAccumulator, InputWatcher, statistics_of
from nsvd_exp.pipeline.evaluate import in_batches, positions_at_once, window_losses
from nsvd_exp.progress import Progress
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.tensors import StatisticsWriter

# Tokens of the first batch that `auto` tries: little beside the weights and statistics of a block.
AUTO_TOKENS = {"cpu": 512, "cuda": 8192}


class StreamedModel:
    """A dense causal language model in eval mode, whose weights are read when they are needed.

    Args:
        model: parameters on the meta device, in the dtype that they are to have.
        weights: by name of the parameter; read anew by each look.
        device: where blocks are brought to.
        folder: where hidden states that the host has no room for may stand.
        own: for what of the weights had to be written anew, and `scratch`; goes with this.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        device: torch.device,
        folder: Path,
        own: ScratchFolder | None = None,
    ) -> None:
        self.model, self.device, self.folder = model, device, folder
        self.chain = BlockChain(model)
        self._weights, self._own = weights, own
        self._sound: set[str] = set()
        for module in model.modules():  # few and small: rotary frequencies, scales
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))

    @property
    def scratch(self) -> Path:
        """A file for what is needed as long as this object; goes with it."""
        assert self._own is not None
        return self._own.path / "statistics.safetensors"

    def block_of(self, index: int, layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
        """Those of `layers` that are in this block."""
        inside = f"{self.chain.prefix}.{index}."
        return {name: layer for name, layer in layers.items() if name.startswith(inside)}

    def block(
        self, index: int, dtype: torch.dtype | None = None
    ) -> AbstractContextManager[nn.Module]:
        """Inside, the block has its weights, in its own dtype or in another one."""
        inside = f"{self.chain.prefix}.{index}."
        return self._brought(self.chain.blocks[index], lambda n: n.startswith(inside), dtype)

    def rest(self, dtype: torch.dtype | None = None) -> AbstractContextManager[nn.Module]:
        """Inside, all that is in no block has its weights: embeddings, last norm, head."""
        blocks = f"{self.chain.prefix}."
        return self._brought(self.model, lambda name: not name.startswith(blocks), dtype)

    @contextmanager
    def _brought(
        self, part: nn.Module, wanted: Callable[[str], bool], dtype: torch.dtype | None
    ) -> Iterator[nn.Module]:
        places = [
            (module, name, f"{prefix}.{name}" if prefix else name, parameter)
            for prefix, module in self.model.named_modules(remove_duplicate=False)
            for name, parameter in module.named_parameters(recurse=False)
        ]
        places = [place for place in places if wanted(place[2])]
        brought: dict[int, nn.Parameter] = {}
        try:
            for module, name, full_name, absent in places:
                if id(absent) not in brought:  # a tied weight is brought once
                    weight = self._weight(full_name, absent.shape).to(
                        device=self.device, dtype=dtype
                    )
                    brought[id(absent)] = nn.Parameter(weight, requires_grad=False)
                module._parameters[name] = brought[id(absent)]
            del brought
            yield part
        finally:
            for module, name, _, absent in places:
                module._parameters[name] = absent

    def _weight(self, name: str, shape: torch.Size) -> Tensor:
        if name not in self._sound:
            found = self._weights[name]
            if found.shape != shape:
                expected, came = tuple(shape), tuple(found.shape)
                raise NsvdError(f"the weight {name} has the shape {came}, where {expected} belongs")
            if not is_finite(found):
                raise NsvdError(f"the weight {name} holds NaN or Inf")
            del found
            self._sound.add(name)
        return self._weights[name]  # mapped anew: no page is in memory before it is used


class Flow:
    """Rows of tokens on their way through a streamed model, all of them after the same block.

    Args:
        batches: (rows, length) token ids each, on the device.
        rows: in all batches.
        dtype: of all the arithmetic.
    """

    def __init__(
        self, streamed: StreamedModel, batches: Iterable[Tensor], rows: int, dtype: torch.dtype
    ) -> None:
        self._streamed, self._chain = streamed, streamed.chain
        self._bounds: list[tuple[int, int]] = []
        self._calls: list[list[Call]] = []
        self._states: HiddenStates | None = None
        with streamed.rest(dtype):
            for ids in batches:
                if self._states is None:
                    self._run_first_block(ids, dtype)
                hidden, calls = self._chain.calls(ids)
                if self._states is None:
                    self._states = HiddenStates(rows, hidden, streamed.folder)
                start = self._bounds[-1][1] if self._bounds else 0
                self._states.put(start, hidden)
                self._bounds.append((start, start + len(ids)))
                self._calls.append(self._shared(calls))

    def _run_first_block(self, ids: Tensor, dtype: torch.dtype) -> None:
        """Learn the form in which blocks give their output."""
        hidden, call = self._chain.entered(ids)
        with self._streamed.block(0, dtype) as block:
            self._chain.hidden_of(call.on(block, hidden))

    def _shared(self, calls: list[Call]) -> list[Call]:
        """The same, holding no second copy of what the batch before is called with."""
        if not self._calls:
            return calls
        pairs = zip(calls, self._calls[-1], strict=True)
        return [before if call.equals(before) else call for call, before in pairs]

    @property
    def states(self) -> HiddenStates:
        """Where the hidden states are."""
        assert self._states is not None, "no row of tokens"
        return self._states

    def push(self, index: int) -> None:
        """Take all rows through this block, which has its weights."""
        block = self._chain.blocks[index]
        parts = self.states.each(self._bounds)
        for (start, _), calls, hidden in zip(self._bounds, self._calls, parts, strict=True):
            self.states.put(start, self._chain.hidden_of(calls[index].on(block, hidden)))

    def losses(self, ids: Tensor, batch: int | str, dtype: torch.dtype) -> list[float]:
        """nats of each row of ids (rows, length), once they have left the last block."""
        chain, device = self._chain, self._streamed.device

        def score(batches: Iterator[Tensor]) -> list[float]:
            losses: list[Tensor] = []
            stop = 0
            for part in batches:
                start, stop = stop, stop + len(part)
                hidden = self.states.get(start, stop)
                if not losses:
                    chain.refuse_unless_last(part, chain.output_of(hidden))
                losses.append(self._losses(part, chain.output_of(hidden)))
            return torch.cat(losses).tolist()

        with self._streamed.rest(dtype):
            return in_batches(score, ids, batch, device, tokens=AUTO_TOKENS[device.type])

    def _losses(self, ids: Tensor, output: Any) -> Tensor:
        model = self._streamed.model
        step = positions_at_once(model, ids)
        return window_losses(
            model, ids, step, lambda start, stop: self._chain.logits(ids, start, stop, output)
        )


@torch.no_grad()
def watch_streamed(
    streamed: StreamedModel,
    layers: Mapping[str, nn.Linear],
    rows: Tensor,
    accumulator: type[A],
    begin: Callable[[], Callable[[Mapping[str, nn.Linear], dict[str, A]], object]],
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> None:
    """As `calibration.watch`, handing over the sums of one block after the other.

    Args:
        begin: called when a pass begins, which is again where memory ran out; what it returns is
            called with the layers of a block and their sums, as `watch` returns them.

    Raises:
        NsvdError: as `watch`, or the blocks cannot be run one by one.
    """
    dtype, blocks = next(streamed.model.parameters()).dtype, streamed.chain.blocks

    def attempt(batches: Iterator[Tensor]) -> None:
        keep = begin()
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
    in_batches(attempt, rows, batch, device, tokens=AUTO_TOKENS[device.type])


def calibrate_streamed(
    streamed: StreamedModel,
    layers: Mapping[str, nn.Linear],
    samples: Tensor,
    path: Path,
    record: Mapping[str, Any],
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> None:
    """As `calibration.calibrate`, into a file for `Calibration.load`, block by block.

    Raises:
        NsvdError: as `calibrate`, or the blocks cannot be run one by one.
        OSError: the file cannot be written.
    """
    writer = StatisticsWriter(path, layers)
    with writer:

        def begin() -> Callable[[Mapping[str, nn.Linear], dict[str, GramAccumulator]], None]:
            writer.restart()
            return lambda inside, sums: writer.add(statistics_of(inside, sums))

        watch_streamed(streamed, layers, samples, GramAccumulator, begin, batch, progress)
        writer.finish(record)


Compressed = Callable[[int], AbstractContextManager[object]]


@torch.no_grad()
def window_nll_streamed(
    streamed: StreamedModel,
    windows: Tensor,
    dtype: torch.dtype,
    compressed: Compressed,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> list[float]:
    """As `perplexity.window_nll`.

    Args:
        dtype: of the evaluation.
        compressed: by number of the block, whose weights are there in the model's own dtype; inside
            the block is as it is to be evaluated.

    Raises:
        NsvdError: the blocks cannot be run one by one, or what `compressed` raises.
    """
    blocks = streamed.chain.blocks

    def attempt(batches: Iterator[Tensor]) -> list[float]:
        flow = Flow(streamed, batches, len(windows), dtype)
        for index in range(len(blocks)):
            with streamed.block(index) as block, compressed(index):
                to_dtype(block, dtype)
                flow.push(index)
            if progress:
                progress(index + 1, len(blocks) + 1)
        losses = flow.losses(windows, batch, dtype)
        if progress:
            progress(len(blocks) + 1, len(blocks) + 1)
        return losses

    device = streamed.device
    return in_batches(attempt, windows, batch, device, tokens=AUTO_TOKENS[device.type])
