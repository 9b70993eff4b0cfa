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
BUSY = """
import torch
network = torch.nn.Sequential(*[torch.nn.Linear(192, 192) for _ in range(20)])
x = torch.randn(4096, 192)
while True:
    network(x).sum().backward()
"""
SETTINGS = {
    "the default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def seconds(setting: dict[str, str], repeat: int) -> str:
    """Median and maximum over fresh processes, each of 20 eigenproblems of size 192."""
    runs = []
    for _ in range(repeat):
        done = subprocess.run(
            [sys.executable, "-c", WORK],
            env=os.environ | setting,
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(float(done.stdout))
    return f"{statistics.median(runs):.2f}, {max(runs):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    table = Table(title="20 eigenproblems, 192 x 192, float64: seconds, median and maximum")
    for heading in ("threads wait by", "alone", "beside a busy process"):
        table.add_column(heading)
    alone = {name: seconds(setting, repeat) for name, setting in SETTINGS.items()}
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        beside = {name: seconds(setting, repeat) for name, setting in SETTINGS.items()}
    finally:
        busy.kill()
    for name in SETTINGS:
        table.add_row(name, alone[name], beside[name])
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
