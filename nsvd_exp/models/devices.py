"""What this machine has: GPUs, of which the driver is asked, and memory. Imports no torch."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import sys
from pathlib import Path

from nsvd_exp.errors import NsvdError

ALL_GPUS = "cuda:all"
# Of the memory that a process may use: the rest is the model's.
SHARE_OF_BASES = 0.25


def resolve_device(device: str, count: int | None = None) -> str:
    """`auto` as `cuda` or `cpu`, and `cuda:all` where there is one GPU as `cuda`.

    Args:
        count: how many CUDA devices there are; None to ask the driver, unless `device` is `cpu`.

    Raises:
        NsvdError: CUDA is asked for where there is none.
    """
    if device == "cpu":
        return device
    count = cuda_devices() if count is None else count
    if device == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise NsvdError(
            f"device={device}, but there is no CUDA device here, or this torch is a CPU build: "
            "use device=cpu, or install a CUDA build of torch"
        )
    if device == ALL_GPUS:
        return ALL_GPUS if count > 1 else "cuda"
    index = int(device.removeprefix("cuda:")) if ":" in device else 0
    if index >= count:
        raise NsvdError(f"device={device}, but there are {count} CUDA devices, from cuda:0")
    return device


def gpus_of(device: str, count: int | None = None) -> list[str]:
    """The GPUs that a resolved device stands for, the one where tokens go first; none for a CPU.
    `count` is as in `resolve_device`."""
    if device == ALL_GPUS:
        return [f"cuda:{index}" for index in range(cuda_devices() if count is None else count)]
    return [] if device == "cpu" else [device]


@functools.lru_cache
def cuda_devices() -> int:
    """How many CUDA devices torch will find: asked of the driver, without importing torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return 0
    version = Path(spec.origin).with_name("version.py")
    if version.is_file() and re.search(r"^cuda.*= None$", version.read_text(), re.MULTILINE):
        return 0
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    usable = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if usable else 0


def memory_for_bases(processes: int = 1) -> int:
    """Bytes that the bases of one of so many processes may take, where nothing else is said."""
    return int(usable_memory() * SHARE_OF_BASES) // processes


def usable_memory() -> int:
    """Bytes of memory of the machine, or of the control group that the process is in (a job of
    Slurm, a container), whichever is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::")[2].strip()
    except OSError:
        own = "/"
    folder = Path("/sys/fs/cgroup") / own.lstrip("/")
    for place in (folder, *folder.parents):
        try:
            limits.append(int((place / "memory.max").read_text(encoding="utf-8")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits)
