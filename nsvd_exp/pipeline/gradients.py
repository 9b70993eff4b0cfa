"""Gradients of the loss at the outputs of a model's layers, in one pass backwards.

The hidden states in front of every block are kept from a pass forwards. The loss is then taken back
through one block after the other, last first, each of which is run once more for it. So activations
and sums of one block are in memory at a time, whether or not all weights are. Weights get no
gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.methods.statistics import COVARIANCE, TENSORS, WEIGHTED_GRAM, OutputGradients
from nsvd_exp.models.batches import STREAMED_TOKENS, in_batches
from nsvd_exp.models.blocks import BlockChain, Call, chooses_positions
from nsvd_exp.models.hidden_states import HiddenStates
from nsvd_exp.models.layers import Layer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.pipeline.evaluate import positions_at_once
from nsvd_exp.pipeline.gradient_sums import GradientAccumulator, WeightedGram
from nsvd_exp.progress import Progress

WAY_OUT = "choose a method and an allocation that need no gradients"

Add = Callable[[str, OutputGradients], object]
"""Called with the name of each layer and its gradients."""


def output_gradients(
    model: nn.Module | StreamedModel,
    layers: Mapping[str, Layer],
    samples: Tensor,
    add: Add,
    labels: str = "model",
    seed: int = 3,
    tensors: Collection[str] = TENSORS,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> None:
    """Make the gradients of all `layers` over `samples`.

    The loss is that of each next token, summed; a gradient is one of this sum, for each token.

    Args:
        model: dense, in eval mode.
        samples: (rows, length) token ids.
        add: is called with each layer, those of the last block first; again from the beginning
            where memory runs out.
        labels: `model`, next tokens drawn from the model's own predictions, whose gradients have
            the Fisher information for their covariance; or `text`, the tokens of the samples.
        seed: of what is drawn.
        tensors: of TENSORS, which to make for each layer.
        batch: samples at a time; `auto` starts large and halves it when memory runs out.

    Raises:
        NsvdError: the blocks cannot be run one by one, have no gradients, or a gradient is not
            finite; layers that saw no token (LayersError).
    """
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(samples.shape, generator=generator)
    parts = _Streamed(model) if isinstance(model, StreamedModel) else _Resident(model)

    def attempt(batches: Iterator[Tensor]) -> None:
        work = _Backwards(parts, layers, samples, add, tensors, progress)
        with _without_weight_gradients(parts.chain.model):
            work.forwards(batches)
            work.from_loss(labels, chance)
            work.through_blocks()

    in_batches(attempt, samples, batch, parts.device, tokens=STREAMED_TOKENS[parts.device.type])


class _Resident:
    """A model in memory, as `_Backwards` asks for it."""

    def __init__(self, model: nn.Module) -> None:
        self.chain, self.device = BlockChain(model, WAY_OUT), next(model.parameters()).device
        self.folder, self.host_bytes = Path(), 2**62  # never in a file

    def block(self, index: int) -> AbstractContextManager[nn.Module]:
        return nullcontext(self.chain.blocks[index])

    def rest(self) -> AbstractContextManager[object]:
        return nullcontext()


class _Streamed:
    """A streamed model, as `_Backwards` asks for it."""

    def __init__(self, streamed: StreamedModel) -> None:
        self._streamed = streamed
        self.chain, self.device = BlockChain(streamed.model, WAY_OUT), streamed.device
        self.folder, self.host_bytes = streamed.folder, streamed.host_bytes

    def block(self, index: int) -> AbstractContextManager[nn.Module]:
        return self._streamed.block(index)

    def rest(self) -> AbstractContextManager[object]:
        return self._streamed.rest()


class _Backwards:
    """One pass forwards and one backwards over all samples, block by block."""

    def __init__(
        self,
        parts: _Resident | _Streamed,
        layers: Mapping[str, Layer],
        samples: Tensor,
        add: Add,
        tensors: Collection[str],
        progress: Progress | None,
    ) -> None:
        self._parts, self._layers, self._samples = parts, layers, samples
        self._add, self._tensors, self._progress = add, tensors, progress
        self._bounds: list[tuple[int, int]] = []
        self._calls: list[list[Call]] = []
        self._count = len(parts.chain.blocks)

    @torch.no_grad()
    def forwards(self, batches: Iterator[Tensor]) -> None:
        """Keep the hidden states in front of each block and behind the last."""
        chain, start = self._parts.chain, 0
        with self._parts.rest():
            for ids in batches:
                if start == 0:
                    hidden, (call,) = chain.calls(ids, 1)
                    with self._parts.block(0) as block:
                        chain.hidden_of(call.on(block, hidden))
                    self._states = [self._room(hidden) for _ in range(self._count + 1)]
                hidden, calls = chain.calls(ids)
                self._states[0].put(start, hidden)
                self._bounds.append((start, start + len(ids)))
                self._calls.append(calls)
                start += len(ids)
        for index in range(self._count):
            with self._parts.block(index) as block:
                for (start, stop), calls in zip(self._bounds, self._calls, strict=True):
                    hidden = self._states[index].get(start, stop)
                    after = chain.hidden_of(calls[index].on(block, hidden))
                    self._states[index + 1].put(start, after)
            self._tell(index + 1)

    def from_loss(self, labels: str, chance: Tensor) -> None:
        """The gradients behind the last block, in place of the hidden states there.

        Args:
            chance: (rows, length), uniform in [0, 1): what labels are drawn with.
        """
        states, chain = self._states[-1], self._parts.chain
        with self._parts.rest():
            for start, stop in self._bounds:
                ids = self._samples[start:stop].to(self._parts.device)
                hidden = states.get(start, stop).clone().requires_grad_()
                if start == 0 and not self._ends_here(ids, hidden):
                    raise chain.refusal("are not all there is behind its logits")
                at_once = positions_at_once(chain.model, ids)
                at_once = at_once if chooses_positions(chain.model) else ids.shape[1]
                last = ids.shape[1] - 1
                for first in range(0, last, at_once):
                    end = min(first + at_once, last)
                    with torch.enable_grad():
                        logits = chain.logits(ids, chain.output_of(hidden), first, end).float()
                        targets = ids[:, first + 1 : end + 1]
                        if labels == "model":
                            drawn = chance[start:stop, first:end].to(logits.device)
                            targets = draw(logits.detach(), drawn)
                        loss = cross_entropy(
                            logits.flatten(0, 1), targets.flatten(), reduction="sum"
                        )
                    self._back(loss, None, hidden)
                states.put(start, _gradient(hidden))

    @torch.no_grad()
    def _ends_here(self, ids: Tensor, hidden: Tensor) -> bool:
        chain = self._parts.chain
        return chain.ends_with_last_block(ids, chain.output_of(hidden.detach()))

    def through_blocks(self) -> None:
        """Take the gradients back through one block after the other, and add up those inside."""
        behind, chain = self._states.pop(), self._parts.chain
        prefix = chain.prefix
        for index in reversed(range(self._count)):
            states = self._states.pop()
            inside = {n: x for n, x in self._layers.items() if n.startswith(f"{prefix}.{index}.")}
            sums: dict[str, GradientAccumulator] = {}
            with self._parts.block(index) as block, self._watching(inside, sums):
                for (start, stop), calls in zip(self._bounds, self._calls, strict=True):
                    hidden = states.get(start, stop).clone().requires_grad_()
                    with torch.enable_grad():
                        output = chain.hidden_of(calls[index].on(block, hidden))
                    self._back(output, behind.get(start, stop), hidden)
                    behind.put(start, _gradient(hidden))
            self._keep(inside, sums)
            self._tell(2 * self._count - index)

    def _back(self, output: Tensor, gradient: Tensor | None, hidden: Tensor) -> None:
        if not output.requires_grad:
            raise self._parts.chain.refusal("do not say how their output depends on their input")
        output.backward(gradient, inputs=[hidden])

    def _keep(self, inside: Mapping[str, Layer], sums: dict[str, GradientAccumulator]) -> None:
        unseen = [name for name in inside if name not in sums]
        if unseen:
            reason = "it saw no token with a gradient; take more calibration.gradient_samples"
            raise LayersError(dict.fromkeys(unseen, reason), self._layers)
        for name in inside:
            try:
                found = sums.pop(name).gradients()
            except NsvdError as error:
                raise NsvdError(f"{name}: {error}") from None
            self._add(name, found)

    @contextmanager
    def _watching(
        self, inside: Mapping[str, Layer], sums: dict[str, GradientAccumulator]
    ) -> Iterator[None]:
        """The gradients at the outputs of these layers are added to `sums` inside."""

        def add(name: str, g: Tensor, x: Tensor | None, version: int) -> None:
            if x is not None and x._version != version:
                raise NsvdError(f"{name}: its input is changed in place before gradients reach it")
            if name not in sums:
                tokens = self._samples.numel()
                weighted = None if x is None else WeightedGram(x.flatten(0, -2), tokens)
                sums[name] = GradientAccumulator(g, COVARIANCE in self._tensors, weighted)
            sums[name].add(g, x)

        def hook(name: str) -> Callable[..., None]:
            def watch(_: nn.Module, args: Any, named: dict[str, Any], output: Tensor) -> None:
                if output.requires_grad:
                    x = (args[0] if args else named["input"]).detach()
                    kept = x if WEIGHTED_GRAM in self._tensors else None
                    version = x._version
                    output.register_hook(lambda g: add(name, g, kept, version))

            return watch

        handles = [
            layer.register_forward_hook(hook(name), with_kwargs=True)
            for name, layer in inside.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _room(self, hidden: Tensor) -> HiddenStates:
        parts = self._parts
        # The limit is that of all of them together.
        limit = parts.host_bytes // (self._count + 1)
        return HiddenStates(len(self._samples), hidden, parts.folder, limit)

    def _tell(self, done: int) -> None:
        if self._progress:
            self._progress(done, 2 * self._count)


def draw(logits: Tensor, chance: Tensor) -> Tensor:
    """Token ids (rows, positions) drawn from logits (rows, positions, vocabulary), float32.

    Args:
        chance: (rows, positions), uniform in [0, 1).
    """
    reached = logits.softmax(-1).cumsum(-1)
    wanted = chance * reached[..., -1]
    ids = torch.searchsorted(reached, wanted[..., None], right=True)[..., 0]
    return ids.clamp(max=logits.shape[-1] - 1)


def _gradient(hidden: Tensor) -> Tensor:
    gradient = hidden.grad
    return torch.zeros_like(hidden) if gradient is None else gradient


@contextmanager
def _without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, no weight asks for a gradient."""
    asking = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
