"""How much is worked on at once, and what happens where memory runs out.

Rows of tokens go through a model in batches that fit. On a GPU several layers are factorised at a
time, since one eigenproblem leaves most of it idle.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from nsvd_exp.errors import OutOfMemoryError
from nsvd_exp.models.layers import Layer, decoder_blocks, is_layer, shape_of
from nsvd_exp.progress import Progress

T = TypeVar("T")

log = logging.getLogger(__name__)

# Tokens of the first batch that `auto` tries, by type of device. A resident model: enough to fill a
# GPU, little enough for a laptop. A streamed one: little beside one block and its statistics.
RESIDENT_TOKENS = {"cpu": 4096, "cuda": 65536}
STREAMED_TOKENS = {"cpu": 512, "cuda": 8192}
# The part of a GPU's free memory that a batch may fill: what it needs is only estimated.
FREE_PART = 0.8
# Layers that are factorised at a time, at most.
MOST_LAYERS = 4
OUT_OF_MEMORY = (
    *("DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "CUDA error: out of memory"),
    "unable to mmap",  # where the address space of the process is limited (ulimit -v)
)


def in_batches(
    work: Callable[[Iterator[Tensor]], T],
    rows: Tensor,
    batch: int | str,
    device: torch.device,
    progress: Progress | None = None,
    tokens: int | None = None,
) -> T:
    """Run `work` over the batches of `rows` (rows, length), on `device`.

    With `batch` = `auto`, a run that ends for want of memory is started again from the beginning
    with half the batch, down to one row.

    Args:
        tokens: how many the first batch holds that `auto` tries; None for RESIDENT_TOKENS.

    Raises:
        OutOfMemoryError: one row, or `batch` of them, are too many.
    """
    auto = batch == "auto"
    tokens = tokens or RESIDENT_TOKENS[device.type]
    size = max(1, tokens // rows.shape[1]) if auto else int(batch)
    # From pinned memory a GPU copies while it computes.
    source = rows.pin_memory() if device.type == "cuda" else rows

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(rows), size):
            yield source[start : start + size].to(device, non_blocking=True)
            if progress:
                progress(min(start + size, len(rows)), len(rows))

    while True:
        try:
            return work(batches())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not auto or size == 1:
                raise OutOfMemoryError(
                    f"{device} has too little memory for {size} windows of {rows.shape[1]} tokens"
                ) from None
        torch.cuda.empty_cache()
        size = max(1, min(size, len(rows)) // 2)


def fitting_tokens(model: nn.Module, device: torch.device) -> int:
    """The tokens of a resident model's first batch: on a GPU no more than its free memory should
    have room for."""
    limit = RESIDENT_TOKENS[device.type]
    if device.type == "cpu":
        return limit
    # The inputs and outputs of all Linears of the largest block, twice: what stands between them
    # (attention, activation functions) is of the same widths.
    widths = [1]
    for block in decoder_blocks(model)[1]:
        widths.append(sum(sum(shape_of(module)) for module in block.modules() if is_layer(module)))
    token_bytes = 2 * max(widths) * next(model.parameters()).element_size()
    return min(limit, int(FREE_PART * free_bytes(device) / token_bytes))


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a GPU: the driver's, and what torch keeps unused."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a CPU and CUDA's libraries say so in a RuntimeError's text alone."""
    known = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    return known or said


@contextmanager
def memory_to(work: str, device: object) -> Iterator[None]:
    """Raises an OutOfMemoryError that names the `work` if memory runs out inside."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{device} has too little memory to {work}") from None


def each_layer(
    work: Callable[[str, Layer], T],
    layers: Mapping[str, Layer],
    at_once: int | None = None,
) -> Iterator[T]:
    """`work(name, linear)` of each layer, in their order, several of them at a time.

    Each has a thread and, on a GPU, a stream of its own, and its result is ready when it comes out.
    The first error ends the work: layers that were not begun are left. Where memory runs out, the
    layers whose results have not come out yet follow one by one.

    Args:
        at_once: how many at a time; None for as many as fit (`layers_at_once`).
    """
    items = list(layers.items())
    count = at_once or min(map(layers_at_once, layers.values()), default=1)
    done = 0
    if count > 1:
        try:
            for result in _at_once(work, items, count):
                done += 1
                yield result
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.info("out of memory with %d layers at a time: one by one", count)
        torch.cuda.empty_cache()
    for name, linear in items[done:]:
        yield work(name, linear)


def layers_at_once(linear: Layer, free: int | None = None) -> int:
    """How many layers like this one are worked on at once: on a CPU, whose libraries have threads
    of their own, one; on a GPU as many as fit into the `free` bytes, up to MOST_LAYERS."""
    device = linear.weight.device
    if device.type == "cpu":
        return 1
    m, n = shape_of(linear)
    # Float64: the weight and what it is multiplied to, the metric, an eigenproblem. An estimate.
    needed = 8 * (4 * m * n + 2 * n * n + 4 * min(m, n) ** 2)
    free = free_bytes(device) if free is None else free
    return min(max(int(FREE_PART * free) // needed, 1), MOST_LAYERS)


def _at_once(
    work: Callable[[str, Layer], T], items: list[tuple[str, Layer]], count: int
) -> Iterator[T]:
    for device in {linear.weight.device for _, linear in items}:
        _prepare(device)
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(count):
        places.put(place)

    def on_a_stream(item: tuple[str, Layer]) -> T:
        name, linear = item
        place = places.get()
        try:
            with _own_stream(linear.weight.device, place):
                return work(name, linear)
        finally:
            places.put(place)

    with ThreadPoolExecutor(count) as threads:
        yield from threads.map(on_a_stream, items)


@functools.cache
def _prepare(device: torch.device) -> None:
    """Load a GPU's linear algebra; torch does so at its first use, and no two threads may."""
    if device.type == "cuda":
        torch.linalg.eigh(torch.eye(2, dtype=torch.float64, device=device))


@functools.cache
def _stream(device: torch.device, place: int) -> torch.cuda.Stream:
    # Always the same few: torch keeps the memory that was used on a stream for that stream.
    return torch.cuda.Stream(device)


@contextmanager
def _own_stream(device: torch.device, place: int) -> Iterator[None]:
    if device.type == "cpu":
        yield
        return
    stream = _stream(device, place)
    # What was queued before may still write the weights, or read memory that this stream gets.
    stream.wait_stream(torch.cuda.default_stream(device))
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()
