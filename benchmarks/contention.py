"""What waiting OpenMP threads cost where another process uses the same cores.

    python benchmarks/contention.py [--repeat 5]

The same eigenproblems in fresh processes, alone and beside one that trains a small network, with
threads that spin while they wait as long as the library's default says, for a short while (what
`nsvd_exp` sets), and not at all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

FIRST_STAGE = """
import time, torch
torch.manual_seed(0)
A = torch.randn(20, 192, 192, dtype=torch.float64)
torch.linalg.eigh(A[0])
start = time.perf_counter()
for a in A:
    torch.linalg.eigh(a @ a.T)
print(time.perf_counter() - start)
"""
SECOND_STAGE = """
import time, scipy.linalg, torch
torch.manual_seed(0)
A = torch.randn(20, 340, 340, dtype=torch.float64)
def leading(a):
    scipy.linalg.eigh(a.numpy(), subset_by_index=(331, 339), driver="evr", check_finite=False)
leading(A[0])
start = time.perf_counter()
for a in A:
    leading(a @ a.T)
print(time.perf_counter() - start)
"""
BUSY = """
import torch
network = torch.nn.Sequential(*[torch.nn.Linear(192, 192) for _ in range(20)])
x = torch.randn(4096, 192)
while True:
    network(x).sum().backward()
"""
# What the threads of torch and those of SciPy's own OpenBLAS are told.
FIRST_SETTINGS = {
    "the default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
SECOND_SETTINGS = {
    "the default": {"GOMP_SPINCOUNT": "1000"},
    "OPENBLAS_THREAD_TIMEOUT=4": {"GOMP_SPINCOUNT": "1000", "OPENBLAS_THREAD_TIMEOUT": "4"},
}


def seconds(work: str, setting: dict[str, str], repeat: int) -> str:
    """Median and maximum seconds over fresh processes."""
    runs = []
    for _ in range(repeat):
        done = subprocess.run(
            [sys.executable, "-c", work],
            env=os.environ | setting,
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(float(done.stdout))
    return f"{statistics.median(runs):.2f}, {max(runs):.2f}"


def show(title: str, work: str, settings: dict[str, dict[str, str]], repeat: int) -> None:
    """Print the table of one kind of work."""
    table = Table(title=f"{title}: seconds, median and maximum")
    for heading in ("threads wait by", "alone", "beside a busy process"):
        table.add_column(heading)
    alone = {name: seconds(work, setting, repeat) for name, setting in settings.items()}
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        beside = {name: seconds(work, setting, repeat) for name, setting in settings.items()}
    finally:
        busy.kill()
    for name in settings:
        table.add_row(name, alone[name], beside[name])
    Console(width=90).print(table)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    show("20 eigenproblems of size 192, by torch", FIRST_STAGE, FIRST_SETTINGS, repeat)
    show("9 vectors of 20 of size 340, by SciPy", SECOND_STAGE, SECOND_SETTINGS, repeat)


if __name__ == "__main__":
    main()
