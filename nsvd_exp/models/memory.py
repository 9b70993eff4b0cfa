"""What memory a pass takes, and what is said where there is too little of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nsvd_exp.errors import OutOfMemoryError
from nsvd_exp.models.layers import decoder_blocks

# Of a GPU's free memory, the part that a batch may fill: what it needs is only estimated.
FREE_PART = 0.8
SAID = ("DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory: on a CPU, and from CUDA's libraries, it says so in the text of
    a RuntimeError alone."""
    known = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in SAID)
    return known or said


@contextmanager
def memory_to(work: str, device: object) -> Iterator[None]:
    """Say in one message which `work` there was too little memory for.

    Raises:
        OutOfMemoryError: so it was inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{device} has too little memory to {work}") from None


def token_bytes(model: nn.Module) -> int:
    """An upper estimate of the bytes that a forward pass holds for each token.

    The inputs and outputs of all Linears of the largest block, twice: what stands between them
    (attention, activation functions) is of the same widths.
    """
    widths = [
        sum(
            module.in_features + module.out_features
            for module in block.modules()
            if isinstance(module, nn.Linear)
        )
        for block in decoder_blocks(model)[1]
    ]
    return 2 * max(widths) * next(model.parameters()).element_size()


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a GPU: the driver's, and what torch keeps unused."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept
