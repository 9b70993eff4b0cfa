"""The hidden states of many rows, on the host or in a file, and on their way to a device."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.cache import HIDDEN
from nsvd_exp.storage.temporary import make_temporary

# Hidden states that take more than this are kept in a file. Those of LLaMA-7B take 4.3 GB
# (256 x 2048 tokens in half precision).
HOST_BYTES = 8 * 10**9


class HiddenStates:
    """Room for hidden states (rows, length, channels).

    Args:
        rows: how many there will be.
        like: (*, length, channels), on the device where they are worked on.
        folder: where the file is made; it has no name there, and ends with this object.
        host_bytes: hidden states that take more than this are kept in a file.

    Raises:
        NsvdError: there is no room for the file.
    """

    def __init__(self, rows: int, like: Tensor, folder: Path, host_bytes: int = HOST_BYTES) -> None:
        self.device = like.device
        shape = (rows, *like.shape[1:])
        size = rows * like[0].nbytes
        if size > host_bytes:
            self._all = _in_file(size, like.dtype, folder).view(shape)
        else:
            pinned = self.device.type == "cuda"
            self._all = torch.empty(shape, dtype=like.dtype, pin_memory=pinned)

    def put(self, start: int, hidden: Tensor) -> None:
        """Keep `hidden` as the rows from `start` on."""
        self._all[start : start + len(hidden)].copy_(hidden, non_blocking=True)

    def get(self, start: int, stop: int) -> Tensor:
        """These rows, on the device; on a CPU they are not copied."""
        return self._all[start:stop].to(self.device, non_blocking=True)

    def each(self, bounds: list[tuple[int, int]]) -> Iterator[Tensor]:
        """The rows of each bound (start, stop); what is `put` back meanwhile changes no later part.

        A GPU copies the next part while it works on this one.
        """
        if self.device.type == "cpu":
            yield from (self.get(*bound) for bound in bounds)
            return
        work, copies = torch.cuda.current_stream(self.device), _copy_stream(self.device)

        def fetch(bound: tuple[int, int]) -> Tensor:
            copies.wait_stream(work)  # an earlier block has put these rows
            with torch.cuda.stream(copies):
                return self.get(*bound)

        coming = fetch(bounds[0])
        for bound in [*bounds[1:], None]:
            part = coming
            work.wait_stream(copies)
            part.record_stream(work)
            if bound is not None:
                coming = fetch(bound)
            yield part


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    # Always the same one: torch keeps the memory that was used on a stream for that stream.
    return torch.cuda.Stream(device)


def _in_file(size: int, dtype: torch.dtype, folder: Path) -> Tensor:
    """A flat tensor of `size` bytes, mapped from a file that nothing but it holds."""
    try:
        handle, path = make_temporary(folder, HIDDEN)
    except OSError as error:
        raise NsvdError(f"cache_dir={folder} cannot be written to: {error}") from None
    try:
        # Now, because a mapped file that meets a full disk later on kills the process.
        os.posix_fallocate(handle, 0, size)
        return torch.from_file(str(path), shared=True, size=size // dtype.itemsize, dtype=dtype)
    except OSError as error:
        raise NsvdError(
            f"{folder} has no room for {size / 1e9:.1f} GB of hidden states ({error.strerror}): "
            "give another cache_dir"
        ) from None
    finally:
        path.unlink()
        os.close(handle)
