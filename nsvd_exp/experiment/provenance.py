"""What a number was made with: enough to see why two runs differ. Imports no torch by itself."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from nsvd_exp.models.devices import gpus_of

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "safetensors")


def environment(device: str) -> dict[str, Any]:
    """Versions, git commit and hardware; `device` is a resolved one."""
    return {
        "nsvd_exp": metadata.version("nsvd_exp"),
        "git": git_state(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "device": device,
        "hardware": hardware(device),
        "threads": sys.modules["torch"].get_num_threads(),
    }


def hardware(device: str) -> str:
    """The names of the GPUs, or of the processor."""
    gpus = gpus_of(device)
    if gpus:
        cuda = sys.modules["torch"].cuda
        return " + ".join(str(cuda.get_device_name(gpu)) for gpu in gpus)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this code runs from, and whether it has changes; None outside one.

    What lies in `results/` is no code, and no change.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--", ".", ":!results")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


def reset_peak_memory(device: str) -> None:
    """Count a GPU's peak memory from now on."""
    for gpu in gpus_of(device):
        sys.modules["torch"].cuda.reset_peak_memory_stats(gpu)


def peak_memory(device: str) -> dict[str, int | None]:
    """Bytes: the most this process held on the host so far, and of tensors on GPUs in this cell.

    The GPUs' is the sum of the most each held, None on a CPU. `reset_peak_memory` begins a cell;
    the host's cannot be reset.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    cuda = sys.modules["torch"].cuda
    gpus = gpus_of(device) if cuda.is_initialized() else []
    held = sum(cuda.max_memory_allocated(gpu) for gpu in gpus) if gpus else None
    return {"host_bytes": host, "device_bytes": held}
