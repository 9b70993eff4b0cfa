"""Several layers at a time on a GPU, most of which one eigenproblem leaves idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from nsvd_exp.memory import FREE_PART, free_bytes

T = TypeVar("T")

MOST = 4


def each_layer(work: Callable[[str, nn.Linear], T], layers: Mapping[str, nn.Linear]) -> Iterator[T]:
    """`work(name, linear)` of each layer, in their order; on a GPU several of them at a time.

    Each has a thread and a stream of its own, and its result is ready when it comes out. The first
    error ends it: layers that were not begun are left.
    """
    count = min(map(fitting, layers.values()), default=1)
    if count == 1:
        for name, linear in layers.items():
            yield work(name, linear)
        return
    with ThreadPoolExecutor(count) as threads:
        yield from threads.map(lambda item: _on_a_stream(work, *item), layers.items())


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


def _on_a_stream(work: Callable[[str, nn.Linear], T], name: str, linear: nn.Linear) -> T:
    device = linear.weight.device
    if device.type == "cpu":
        return work(name, linear)
    stream = torch.cuda.Stream(device)
    # What was queued before may still write the weights, or read memory that this stream gets.
    stream.wait_stream(torch.cuda.default_stream(device))
    with torch.cuda.stream(stream):
        result = work(name, linear)
        stream.synchronize()
    return result
