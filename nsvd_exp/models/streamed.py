"""A model of which one decoder block at a time is in memory: `memory=streamed`.

All rows go through a block before the next one is brought, so each pass reads the weights once.
What enters the blocks, and what becomes of what leaves them, is up to the model's own code
(`BlockChain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.blocks import BlockChain, Call
from nsvd_exp.models.hidden_states import HOST_BYTES, HiddenStates
from nsvd_exp.models.layers import Layer, is_finite
from nsvd_exp.storage.files import ScratchFolder


class StreamedModel:
    """A dense causal language model in eval mode, whose weights are read when they are needed.

    Args:
        model: parameters on the meta device, in the dtype that they are to have.
        weights: by name of the parameter; each is read anew whenever it is looked up.
        device: where blocks are brought to.
        folder: where hidden states are kept that the host has no room for.
        own: a folder for weights that had to be written anew, and for `scratch`; it is removed with
            this object.
        host_bytes: hidden states that take more than this are kept in a file.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        device: torch.device,
        folder: Path,
        own: ScratchFolder | None = None,
        host_bytes: int = HOST_BYTES,
    ) -> None:
        self.model, self.device = model, device
        self.folder, self.host_bytes = folder, host_bytes
        self.chain = BlockChain(model)
        self._weights, self._own = weights, own
        self._sound: set[str] = set()
        for module in model.modules():  # few and small: rotary frequencies, scales
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))

    @property
    def scratch(self) -> Path:
        """A folder for statistics that are needed as long as this object; it is removed with it."""
        assert self._own is not None
        return self._own.path / "statistics"

    def block_of(self, index: int, layers: Mapping[str, Layer]) -> dict[str, Layer]:
        """Those of `layers` that are in this block."""
        inside = f"{self.chain.prefix}.{index}."
        return {name: layer for name, layer in layers.items() if name.startswith(inside)}

    def block(
        self, index: int, dtype: torch.dtype | None = None
    ) -> AbstractContextManager[nn.Module]:
        """A context in which the block has its weights, in its own dtype or in another one."""
        inside = f"{self.chain.prefix}.{index}."
        return self._brought(self.chain.blocks[index], lambda n: n.startswith(inside), dtype)

    def rest(self, dtype: torch.dtype | None = None) -> AbstractContextManager[nn.Module]:
        """A context in which what is in no block has its weights: embeddings, last norm, head."""
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
        brought: dict[nn.Parameter, nn.Parameter] = {}  # a tied weight is brought once
        try:
            for module, name, full_name, absent in places:
                if absent not in brought:
                    weight = self._weight(full_name, absent.shape).to(
                        device=self.device, dtype=dtype
                    )
                    brought[absent] = nn.Parameter(weight, requires_grad=False)
                module._parameters[name] = brought[absent]
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

    Attributes:
        states: the hidden states of all rows.
    """

    def __init__(
        self, streamed: StreamedModel, batches: Iterable[Tensor], rows: int, dtype: torch.dtype
    ) -> None:
        self._chain = streamed.chain
        self._bounds: list[tuple[int, int]] = []
        self._calls: list[list[Call]] = []
        start = 0
        with streamed.rest(dtype):
            for ids in batches:
                if start == 0:
                    hidden, (call,) = self._chain.calls(ids, 1)
                    with streamed.block(0, dtype) as block:
                        self._chain.hidden_of(call.on(block, hidden))
                    self.states = HiddenStates(rows, hidden, streamed.folder, streamed.host_bytes)
                hidden, calls = self._chain.calls(ids)
                self.states.put(start, hidden)
                self._bounds.append((start, start + len(ids)))
                self._calls.append(self._shared(calls))
                start += len(ids)

    def _shared(self, calls: list[Call]) -> list[Call]:
        """These calls; where one equals that of the batch before, the object from there."""
        if not self._calls:
            return calls
        pairs = zip(calls, self._calls[-1], strict=True)
        return [before if call.equals(before) else call for call, before in pairs]

    def push(self, index: int) -> None:
        """Take all rows through this block, which has its weights."""
        block = self._chain.blocks[index]
        parts = self.states.each(self._bounds)
        for (start, _), calls, hidden in zip(self._bounds, self._calls, parts, strict=True):
            self.states.put(start, self._chain.hidden_of(calls[index].on(block, hidden)))
