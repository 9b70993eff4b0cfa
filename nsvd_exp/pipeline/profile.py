"""How large versions of a model are in memory and how fast, in turns.

Of two that were measured one after the other, each would have had another hour of a machine that
others use as well. So a run of one follows a run of the other, and who comes first changes; the
median counts, and all runs are kept.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.blocks import kept_positions
from nsvd_exp.pipeline.generate import positions_of
from nsvd_exp.progress import Progress

Version = Callable[[], AbstractContextManager[object]]
"""Makes a context in which the model has the layers that are to be measured."""


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how often.

    Attributes:
        prefill: lengths of a prompt, in tokens; those beyond the model are left out.
        batches: rows that are continued at once.
        prompt: tokens of each row before it is continued.
        steps: tokens by which it is.
        repeat: runs that count, after one that does not.
    """

    prefill: tuple[int, ...] = (128, 512, 2048)
    batches: tuple[int, ...] = (1, 8, 32)
    prompt: int = 16
    steps: int = 32
    repeat: int = 7

    def __post_init__(self) -> None:
        numbers = (*self.prefill, *self.batches, self.prompt, self.steps, self.repeat)
        if not (self.prefill and self.batches and min(numbers) > 0):
            raise NsvdError(f"{self}: expected lengths, batches and counts > 0")


@dataclass(frozen=True)
class Speed:
    """Runs of one kind.

    Attributes:
        batch: rows.
        length: tokens of each row that a run goes through.
        flops: floating-point operations of a run; 0 where it did not fit.
        seconds: of each run; none where it did not fit into memory.
    """

    batch: int
    length: int
    flops: int
    seconds: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float | None:
        """By the median of the runs; None where it did not fit."""
        if not self.seconds:
            return None
        return self.batch * self.length / statistics.median(self.seconds)


@dataclass(frozen=True)
class Profile:
    """What was measured of one version of a model.

    Attributes:
        parameters: numbers it stores; a tied weight counts once.
        memory_bytes: of its parameters and buffers.
        step_bytes: of the weights that one step of decoding reads: all but an embedding of tokens
            that is not the output's too.
        peak_bytes: `memory_bytes` and the most that is needed beside them to continue one prompt;
            None where the system does not tell.
        prefill: by length, a prompt read until the logits of its last token.
        decode: by batch, tokens made one after the other, with a cache of keys and values.
    """

    parameters: int
    memory_bytes: int
    step_bytes: int
    peak_bytes: int | None
    prefill: tuple[Speed, ...]
    decode: tuple[Speed, ...]


@torch.no_grad()
def profiles(
    model: nn.Module,
    versions: Mapping[str, Version],
    protocol: Protocol,
    progress: Progress | None = None,
) -> dict[str, Profile]:
    """Measure each version of a model, in turns.

    Args:
        model: a causal language model of transformers, in eval mode; inside of a version's context
            it is that version.

    Raises:
        NsvdError: the model takes no prompt of these lengths, or keeps no cache.
    """
    limit = positions_of(model) or sys.maxsize
    lengths = [length for length in protocol.prefill if length <= limit]
    if not lengths or protocol.prompt + protocol.steps > limit:
        raise NsvdError(
            f"the model takes {limit} tokens, fewer than any prompt that is to be measured "
            f"({protocol}): give shorter ones"
        )
    sizes: dict[str, dict[str, Any]] = {}
    peak_ids = _ids(model, 1, min(lengths[0], limit - protocol.steps))
    for name, version in versions.items():
        with version():
            sizes[name] = _sizes(model)
            extra = _extra_memory(model, lambda: _decode(model, peak_ids, protocol.steps))
            total = None if extra is None else sizes[name]["memory_bytes"] + extra
            sizes[name]["peak_bytes"] = total
    runs = [("prefill", 1, length, _prefill_run(model, length)) for length in lengths]
    runs += [
        ("decode", batch, protocol.steps, _decode_run(model, batch, protocol))
        for batch in protocol.batches
    ]
    speeds: dict[str, dict[str, list[Speed]]] = {n: {"prefill": [], "decode": []} for n in versions}
    for done, (kind, batch, length, run) in enumerate(runs, 1):
        flops, seconds = _in_turns(run, versions, protocol.repeat)
        for name in versions:
            speed = Speed(batch, length, flops.get(name, 0), tuple(seconds.get(name, ())))
            speeds[name][kind].append(speed)
        if progress:
            progress(done, len(runs))
    return {
        name: Profile(
            **sizes[name],
            prefill=tuple(speeds[name]["prefill"]),
            decode=tuple(speeds[name]["decode"]),
        )
        for name in versions
    }


Run = Callable[[], float]
"""Does the work once; the seconds that it took."""


def _in_turns(
    run: Run, versions: Mapping[str, Version], repeat: int
) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Operations and seconds of each version; nothing at all where one does not fit."""
    flops: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    try:
        for name, version in versions.items():
            with version(), FlopCounterMode(display=False) as counter:
                run()
            flops[name] = counter.get_total_flops()
        order = list(versions)
        for _ in range(repeat):
            for name in order:
                with versions[name]():
                    seconds[name].append(run())
            order.reverse()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {}, {}
    return flops, seconds


def _prefill_run(model: nn.Module, length: int) -> Run:
    ids = _ids(model, 1, length)

    def run() -> float:
        start = _now(model)
        model(input_ids=ids, use_cache=True, **kept_positions(model, ids, length - 1, length))
        return _now(model) - start

    return run


def _decode_run(model: nn.Module, batch: int, protocol: Protocol) -> Run:
    ids = _ids(model, batch, protocol.prompt)
    return lambda: _decode(model, ids, protocol.steps)


def _decode(model: nn.Module, ids: Tensor, steps: int) -> float:
    """Continue the rows of ids (rows, length) by so many tokens; the seconds from the first on."""
    last = ids.shape[1] - 1
    output = model(input_ids=ids, use_cache=True, **kept_positions(model, ids, last, last + 1))
    known = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"  # as older transformers call it
    cache = output.get(name)
    if cache is None:
        raise NsvdError(f"{type(model).__name__} keeps no cache of keys and values to decode with")
    token = output.logits[:, -1:].argmax(-1).to(ids.device)
    start = _now(model)
    for _ in range(steps):
        logits = model(input_ids=token, use_cache=True, **{name: cache}).logits
        token = logits[:, -1:].argmax(-1).to(ids.device)
    return _now(model) - start


def _now(model: nn.Module) -> float:
    """The clock, once the GPUs have done what was asked of them."""
    for device in _gpus(model):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _gpus(model: nn.Module) -> set[torch.device]:
    return {p.device for p in model.parameters() if p.device.type == "cuda"}


def _ids(model: nn.Module, rows: int, length: int) -> Tensor:
    """Random token ids (rows, length), always the same, where the model reads them."""
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(embeddings.num_embeddings, (rows, length), generator=generator)
    return ids.to(embeddings.weight.device)


def _sizes(model: nn.Module) -> dict[str, Any]:
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    is_read = output is None or output.weight is embeddings.weight
    parameters = list(model.parameters())
    weights = _bytes(parameters)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "memory_bytes": _bytes([*parameters, *model.buffers()]),
        "step_bytes": weights if is_read else weights - _bytes([embeddings.weight]),
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of memory; what several tensors share counts once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _extra_memory(model: nn.Module, work: Callable[[], object]) -> int | None:
    """The bytes that work needs at once beyond those in use before; None where nobody tells."""
    gpus = _gpus(model)
    work()  # once for what is made at first use and stays
    gc.collect()
    if gpus:
        before = {gpu: torch.cuda.memory_allocated(gpu) for gpu in gpus}
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        work()
        return sum(torch.cuda.max_memory_allocated(gpu) - before[gpu] for gpu in gpus)
    if not _forget_host_peak():
        return None
    before_host = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before_host)


def _forget_host_peak() -> bool:
    """Hand unused memory back and begin to count the peak anew; whether the system lets us."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else work is done in memory that was kept
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    """Bytes, by the kernel's account of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
