"""Several layers at a time on a GPU, most of which one eigenproblem leaves idle."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from nsvd_exp.models.memory import FREE_PART, free_bytes, is_out_of_memory

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST = 4


def each_layer(work: Callable[[str, nn.Linear], T], layers: Mapping[str, nn.Linear]) -> Iterator[T]:
    """`work(name, linear)` of each layer, in their order; on a GPU several of them at a time.

    Each has a thread and a stream of its own, and its result is ready when it comes out. The first
    error ends it: layers that were not begun are left. Where memory runs out, the layers that have
    not come out yet follow one by one.
    """
    items = list(layers.items())
    count = min(map(fitting, layers.values()), default=1)
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


def fitting(linear: nn.Linear) -> int:
    """How many layers like this one are worked on at once: on a CPU, whose libraries have threads
    of their own, one; on a GPU as many as its free memory has room for, up to MOST."""
    device = linear.weight.device
    if device.type == "cpu":
        return 1
    m, n = linear.weight.shape
    # Float64: the weight and what it is multiplied to, the metric, an eigenproblem. An estimate.
    needed = 8 * (4 * m * n + 2 * n * n + 4 * min(m, n) ** 2)
    return min(max(int(FREE_PART * free_bytes(device)) // needed, 1), MOST)


def _at_once(
    work: Callable[[str, nn.Linear], T], items: list[tuple[str, nn.Linear]], count: int
) -> Iterator[T]:
    for device in {linear.weight.device for _, linear in items}:
        _prepare(device)
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(count):
        places.put(place)

    def on_a_stream(item: tuple[str, nn.Linear]) -> T:
        place = places.get()
        try:
            return _on_stream(place, work, *item)
        finally:
            places.put(place)

    with ThreadPoolExecutor(count) as threads:
        yield from threads.map(on_a_stream, items)


@functools.cache
def _prepare(device: torch.device) -> None:
    """Load what a GPU's linear algebra needs: torch does so at its first use, which two threads may
    not make at once."""
    if device.type == "cuda":
        torch.linalg.eigh(torch.eye(2, dtype=torch.float64, device=device))


@functools.cache
def _stream(device: torch.device, place: int) -> torch.cuda.Stream:
    # Always the same few: torch keeps the memory that was used on a stream for that stream.
    return torch.cuda.Stream(device)


def _on_stream(place: int, work: Callable[[str, nn.Linear], T], name: str, linear: nn.Linear) -> T:
    device = linear.weight.device
    if device.type == "cpu":
        return work(name, linear)
    stream = _stream(device, place)
    # What was queued before may still write the weights, or read memory that this stream gets.
    stream.wait_stream(torch.cuda.default_stream(device))
    with torch.cuda.stream(stream):
        result = work(name, linear)
        stream.synchronize()
    return result
