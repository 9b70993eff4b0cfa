"""What waiting OpenMP threads cost where another process uses the same cores.

    python benchmarks/contention.py

Runs the same eigenproblems in a process of its own, alone and beside a busy one, with threads that
spin while they wait (the library's default) and threads that sleep (what `nsvd_exp` sets).
"""

from __future__ import annotations

import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

WORK = """
import time, torch
torch.manual_seed(0)
A = torch.randn(20, 192, 192, dtype=torch.float64)
torch.linalg.eigh(A[0])
start = time.perf_counter()
for a in A:
    torch.linalg.eigh(a @ a.T)
print(time.perf_counter() - start)
"""
BUSY = "import torch\nx = torch.randn(2000, 2000)\nwhile True: x @ x"
POLICIES = {"ACTIVE": "spin", "PASSIVE": "sleep"}


def seconds(policy: str) -> float:
    """Seconds of 20 eigenproblems of size 192 in a fresh process."""
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    done = subprocess.run(
        [sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Print the table."""
    table = Table(title="20 symmetric eigenproblems, 192 x 192, float64: seconds")
    for heading in ("threads that wait", "alone", "beside a busy process"):
        table.add_column(heading, justify="right")
    alone = {policy: seconds(policy) for policy in POLICIES}
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        beside = {policy: seconds(policy) for policy in POLICIES}
    finally:
        busy.kill()
    for policy, name in POLICIES.items():
        table.add_row(name, f"{alone[policy]:.3f}", f"{beside[policy]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
