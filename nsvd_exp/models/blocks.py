"""A model block by block: its own forward pass, with the decoder blocks taken out of it.

Nothing here knows an architecture. Stubs stand in for the blocks, and the model's own code makes
what enters the first block, what each block is called with, and the logits of what left the last.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.layers import decoder_blocks, replaced


class _StopError(Exception):
    """Ends a forward pass from inside it."""


class _Stub(nn.Module):
    """Stands in the place of a block: has its attributes, and answers a call with `answer`."""

    def __init__(self, block: nn.Module, answer: Callable[..., Any]) -> None:
        super().__init__()
        self._block = (block,)  # in a tuple it is no submodule
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._block[0], name)

    def forward(self, *args: Any, **named: Any) -> Any:
        return self._answer(args, named)


@dataclass(frozen=True)
class Call:
    """What a block is called with besides the hidden states: masks, positions."""

    args: tuple[Any, ...]
    named: dict[str, Any]

    def on(self, block: nn.Module, hidden: Tensor) -> Any:
        """The block's output for `hidden`, in the form in which the block gives it."""
        return block(hidden, *self.args, **self.named)

    def equals(self, other: Call) -> bool:
        """Whether both are the same to a block."""
        return _equal((self.args, self.named), (other.args, other.named))


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return isinstance(a, bool | int | float | str) and a == b


class BlockChain:
    """The decoder blocks of a causal language model in eval mode, `model(input_ids=).logits`.

    Args:
        way_out: what a refusal ends with.
    """

    def __init__(self, model: nn.Module, way_out: str = "use memory=resident") -> None:
        self.model, self._way_out = model, way_out
        self.prefix, self.blocks = decoder_blocks(model)
        self._is_tuple: bool | None = None  # how blocks give their output, once one has been run

    def hidden_of(self, output: Any) -> Tensor:
        """The hidden states in a block's output; an NsvdError if it passes on more than these."""
        self._is_tuple = isinstance(output, tuple)
        hidden, more = (output[0], output[1:]) if self._is_tuple else (output, ())
        if not isinstance(hidden, Tensor) or any(item is not None for item in more):
            raise self.refusal("pass more than hidden states from one to the next")
        return hidden

    def calls(self, ids: Tensor, count: int | None = None) -> tuple[Tensor, list[Call]]:
        """What enters the first block for `ids` (rows, length), and the call of each block.

        No block is run. For all calls one must have been run before (`hidden_of`).

        Args:
            count: the calls of so many blocks; None for all.

        Raises:
            NsvdError: the model does something to the hidden states between its blocks, or calls
                them in another order.
        """
        count = count or len(self.blocks)
        calls: list[Call] = []
        entering: list[Tensor] = []

        def answer(index: int, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            hidden, call = _split(args, named)
            if index != len(calls) or (entering and hidden is not entering[0]):
                raise self.refusal("are not all there is between its first and its last block")
            entering.append(hidden)
            calls.append(call)
            if len(calls) == count:
                raise _StopError
            return self.output_of(hidden)

        try:
            with self._stubbed(answer):
                self.model(input_ids=ids, use_cache=False)
        except _StopError:
            return entering[0], calls
        raise self.refusal("are not all run")

    @contextmanager
    def _stubbed(self, answer: Callable[..., Any]) -> Iterator[None]:
        """Inside, block number i answers a call with `answer(i, args, named)`."""
        stubs = nn.ModuleList(
            _Stub(block, lambda args, named, index=index: answer(index, args, named))
            for index, block in enumerate(self.blocks)
        )
        with replaced(self.model, {self.prefix: stubs}):
            yield

    def refusal(self, problem: str) -> NsvdError:
        """The error of a model whose blocks have this problem."""
        return NsvdError(
            f"the blocks '{self.prefix}' of {type(self.model).__name__} {problem}, so they cannot "
            f"be run one by one: {self._way_out}"
        )

    def output_of(self, hidden: Tensor) -> Any:
        """`hidden` in the form in which blocks give it, once one has been run (`hidden_of`)."""
        return (hidden,) if self._is_tuple else hidden

    def logits(
        self, ids: Tensor, output: Any, start: int, stop: int, others: float = torch.nan
    ) -> Tensor:
        """The logits (rows, stop - start, vocabulary) of these positions of ids (rows, length).

        No block is run.

        Args:
            output: of the last block.
            others: fills the output of all other blocks; it matters only if the model looks at it.
        """
        hidden = output[0] if isinstance(output, tuple) else output
        nowhere = hidden.new_full((1, 1, 1), others).expand_as(hidden)
        other = (nowhere, *output[1:]) if isinstance(output, tuple) else nowhere
        last = len(self.blocks) - 1
        with self._stubbed(lambda index, *_: output if index == last else other):
            return logits_at(self.model, ids, start, stop)

    def ends_with_last_block(self, ids: Tensor, output: Any) -> bool:
        """Whether the logits of ids (rows, length) need the last block's output and no other's."""
        without_others, with_others = (
            bool(self.logits(ids, output, 0, 1, others).isnan().any())
            for others in (torch.nan, 0.0)
        )
        return with_others or not without_others

    @contextmanager
    def keeping(self) -> Iterator[list[Any]]:
        """The list holds the last block's output in the forward pass inside."""
        kept: list[Any] = []
        handle = self.blocks[-1].register_forward_hook(
            lambda module, args, output: kept.append(output)
        )
        try:
            yield kept
        finally:
            handle.remove()


def _split(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Call]:
    if args:
        return args[0], Call(args[1:], named)
    rest = dict(named)
    return rest.pop("hidden_states"), Call((), rest)


def chooses_positions(model: nn.Module) -> bool:
    """Whether the model's forward can make the logits of chosen positions alone.

    A model that is spread over several devices is not asked to: the positions and its hidden states
    would be on different devices.
    """
    devices = {parameter.device for parameter in model.parameters() if not parameter.is_meta}
    return len(devices) <= 1 and "logits_to_keep" in inspect.signature(model.forward).parameters


def kept_positions(model: nn.Module, ids: Tensor, start: int, stop: int) -> dict[str, Tensor]:
    """The arguments that make a forward pass over ids (rows, length) skip all other logits."""
    if not chooses_positions(model):
        return {}
    return {"logits_to_keep": torch.arange(start, stop, device=ids.device)}


def logits_at(model: nn.Module, ids: Tensor, start: int, stop: int) -> Tensor:
    """The logits (rows, stop - start, vocabulary) of these positions of ids (rows, length)."""
    kept = kept_positions(model, ids, start, stop)
    logits = model(input_ids=ids, use_cache=False, **kept).logits
    return logits if kept else logits[:, start:stop]
