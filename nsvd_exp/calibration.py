"""One pass of the dense model: the first and second moments of every layer input.

Layers that read the same tensor (q, k, v; gate, up) share one set of statistics.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.layers import decoder_blocks
from nsvd_exp.methods import Means, Statistics
from nsvd_exp.perplexity import in_batches
from nsvd_exp.progress import Progress
from nsvd_exp.store import write_atomically

# Of what `Calibration.save` writes.
FORMAT = "2"
HALF = (torch.float16, torch.bfloat16)


class MeanAccumulator:
    """Running sums over the inputs of one layer, of the width of the first input, in float64."""

    def __init__(self, x: Tensor) -> None:
        self.abs_sum, self.sum = torch.zeros(2, x.shape[-1], dtype=torch.float64, device=x.device)
        self.tokens = 0

    def add(self, x: Tensor) -> None:
        """Add inputs x (*, channels)."""
        x = x.reshape(-1, x.shape[-1])
        self.abs_sum += x.abs().sum(0, dtype=torch.float64)
        self.sum += x.sum(0, dtype=torch.float64)
        self.tokens += len(x)

    def is_finite(self) -> bool:
        """Whether no sum is NaN or Inf."""
        return bool(torch.isfinite(self.abs_sum).all())

    def statistics(self) -> Means:
        """The means, on the CPU."""
        abs_mean, mean = ((s / self.tokens).cpu() for s in (self.abs_sum, self.sum))
        return Means(abs_mean=abs_mean, mean=mean, tokens=self.tokens)


class GramAccumulator(MeanAccumulator):
    """The same with the Gram matrix.

    Precision: half-precision inputs are multiplied as they are with float32 accumulation (their
    products are exact in float32) and summed over batches in float32, which halves the memory of
    the Gram matrices; wider inputs are summed in float64.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        channels, dtype = x.shape[-1], torch.float32 if x.dtype in HALF else torch.float64
        self.gram = torch.zeros(channels, channels, dtype=dtype, device=x.device)

    def add(self, x: Tensor) -> None:
        """Add inputs x (*, channels)."""
        super().add(x)
        self.gram += gram(x.reshape(-1, x.shape[-1]))

    def is_finite(self) -> bool:
        """Whether no sum is NaN or Inf."""
        return super().is_finite() and bool(torch.isfinite(self.gram).all())

    def statistics(self) -> Statistics:
        """What `nsvd_exp.methods` works with, on the CPU."""
        return Statistics(gram=self.gram.cpu(), **vars(super().statistics()))


A = TypeVar("A", bound=MeanAccumulator)


def gram(x: Tensor) -> Tensor:
    """xᵀx (n, n) of x (p, n), in float32 for half precision, else in the dtype of x."""
    if x.dtype in HALF:
        if x.is_cuda:
            return torch.mm(x.T, x, out_dtype=torch.float32)
        x = x.float()
    return x.T @ x


class InputWatcher(Generic[A]):
    """Forward pre-hooks that add every distinct layer input once.

    Two layers read the same input if they get the same tensor object, unchanged, within one forward
    pass of a decoder block; references are held until its end, so that no address is reused
    meanwhile.

    Args:
        layers: the Linears to watch, by name.
        blocks: the decoder blocks that hold them.
        accumulator: what sums the inputs.

    Attributes:
        accumulators: by leader.
        leader: of each layer, the first one that read the same input.
        tokens: how many tokens each layer has read.
    """

    def __init__(
        self, layers: Mapping[str, nn.Linear], blocks: Iterable[nn.Module], accumulator: type[A]
    ) -> None:
        self.accumulators: dict[str, A] = {}
        self.leader: dict[str, str] = {}
        self.tokens: Counter[str] = Counter()
        self._layers, self._blocks, self._accumulator = layers, blocks, accumulator
        self._seen: dict[tuple[int, int], tuple[str, Tensor]] = {}

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

    def _forget(self, *_: object) -> None:
        self._seen.clear()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            x = inputs[0] if inputs else named["input"]
            self.tokens[name] += x.numel() // x.shape[-1]
            # An inference tensor counts no changes, and cannot be changed where it is one.
            identity = (id(x), 0 if x.is_inference() else x._version)
            leader, _x = self._seen.setdefault(identity, (name, x))
            if self.leader.setdefault(name, leader) != leader:
                raise NsvdError(
                    f"{name} shares its input with {leader} in this pass, but with "
                    f"{self.leader[name]} in an earlier one: leave it dense with model.skip"
                )
            if leader == name:
                if name not in self.accumulators:
                    self.accumulators[name] = self._accumulator(x)
                self.accumulators[name].add(x)

        return hook


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration pass.

    Attributes:
        statistics: by layer name; layers with the same input hold the same object.
        record: what to say in a result about the tokens it was made from.
    """

    statistics: dict[str, Statistics]
    record: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the Gram matrices, all but all that there is."""
        return sum({id(s): s.gram.nbytes for s in self.statistics.values()}.values())

    def save(self, path: Path) -> None:
        """Keep as safetensors, written beside `path` and renamed."""
        leaders: dict[int, str] = {}
        tensors: dict[str, Tensor] = {}
        layers: dict[str, str] = {}
        for name, s in self.statistics.items():
            leader = leaders.setdefault(id(s), name)
            layers[name] = leader
            if leader == name:
                tensors |= {
                    f"{name}/gram": s.gram,
                    f"{name}/abs_mean": s.abs_mean,
                    f"{name}/mean": s.mean,
                    f"{name}/tokens": torch.tensor(s.tokens),
                }
        metadata = {"layers": json.dumps(layers), "record": json.dumps(self.record)}
        metadata["format"] = FORMAT
        write_atomically(path, lambda file: safetensors.torch.save_file(tensors, file, metadata))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            SafetensorError, KeyError, ValueError: the file is damaged, or of another version.
        """
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']}, this program reads {FORMAT}")
            layers, record = json.loads(metadata["layers"]), json.loads(metadata["record"])
            by_leader = {
                leader: Statistics(
                    gram=file.get_tensor(f"{leader}/gram"),
                    abs_mean=file.get_tensor(f"{leader}/abs_mean"),
                    mean=file.get_tensor(f"{leader}/mean"),
                    tokens=int(file.get_tensor(f"{leader}/tokens")),
                )
                for leader in set(layers.values())
            }
        return cls({name: by_leader[leader] for name, leader in layers.items()}, record)


DAMAGED = (SafetensorError, KeyError, ValueError, TypeError)


@torch.no_grad()
def watch(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    rows: Tensor,
    accumulator: type[A],
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> dict[str, A]:
    """The sums of the input of each of `layers` over `rows`; shared inputs share theirs.

    Args:
        model: dense, in eval mode.
        rows: (rows, length) token ids.
        batch: rows a forward pass; `auto` starts large and halves when memory runs out.

    Returns:
        By name, without the layers that saw no token.

    Raises:
        NsvdError: a layer's input is not finite, or two layers share some of their inputs and not
            others.
    """

    def attempt(batches: Iterator[Tensor]) -> InputWatcher[A]:
        watcher = InputWatcher(layers, decoder_blocks(model)[1], accumulator)
        with watcher.watching():
            for ids in batches:
                model(input_ids=ids, use_cache=False)
        return watcher

    # From the beginning with a smaller batch: a pass that broke off has added some layers already.
    watcher = in_batches(attempt, rows, batch, next(model.parameters()).device, progress)
    _check(watcher)
    leader = watcher.leader
    return {name: watcher.accumulators[leader[name]] for name in layers if name in leader}


def _check(watcher: InputWatcher[A]) -> None:
    for name, accumulator in watcher.accumulators.items():  # in the order of the forward pass
        if not accumulator.is_finite():
            raise NsvdError(
                f"the input of {name} is NaN or Inf: "
                "try another dtype (float16 overflows at 65504), or check the checkpoint"
            )
    for name, leader in watcher.leader.items():
        if watcher.tokens[name] != watcher.accumulators[leader].tokens:
            raise NsvdError(
                f"{name} shares some of its inputs with {leader}, but not all of them: leave one "
                "of them dense with model.skip"
            )


def calibrate(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    samples: Tensor,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> dict[str, Statistics]:
    """The statistics of the input of each of `layers`, over `samples`; shared inputs share theirs.

    The arguments are those of `watch`.

    Raises:
        NsvdError: as `watch`, or a layer saw no token.
    """
    sums = watch(model, layers, samples, GramAccumulator, batch, progress)
    unseen = [name for name in layers if name not in sums]
    if unseen:
        raise NsvdError(
            f"{unseen[0]} saw no calibration token ({len(unseen)} such layers): "
            "more calibration.samples, or leave it dense with model.skip"
        )
    made = {id(accumulator): accumulator.statistics() for accumulator in sums.values()}
    return {name: made[id(accumulator)] for name, accumulator in sums.items()}
