"""What offline W&B tracking adds to a cell of the bundled default.

    python benchmarks/tracking.py [--repeat 5]

`method=nsvd_i`, eight datasets, calibration statistics at hand. Each run is a fresh process with
two cells, because the first pays for importing wandb and for starting its helper process. Counted
is the time inside the tracker, in the very run that it is compared with, and the processor time of
the helper.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from rich.console import Console
from rich.table import Table

WORK = """
import json, resource, sys, time
from nsvd_exp.cli import main as cli
from nsvd_exp.tracking import runs as tracking

inside = 0.0
cells = []


def timed(function):
    def wrapper(*arguments):
        global inside
        start = time.perf_counter()
        found = function(*arguments)
        inside += time.perf_counter() - start
        return timed(found) if callable(found) else found

    return wrapper


for name in ("started", "progress", "measured", "finished"):
    setattr(tracking.CellTracker, name, timed(getattr(tracking.CellTracker, name)))
real = cli.run


def run(*arguments):
    global inside
    inside, start = 0.0, time.perf_counter()
    found = real(*arguments)
    cells.append({"inside": inside, "cell": time.perf_counter() - start})
    return found


cli.run = run
cli.main(sys.argv[1:])
import wandb

wandb.teardown()
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"cells": cells, "helper": used.ru_utime + used.ru_stime}))
"""
CELLS = ("first of a process", "second")


def measure(folder: str) -> dict[str, object]:
    """Seconds of two cells, one after the other in a fresh process, and inside the observer."""
    with tempfile.TemporaryDirectory() as results:
        settings = [f"cache_dir={folder}", f"results_dir={results}", "report=false"]
        grid = ["-m", "method=nsvd_i", "ratio=0.3,0.4", "tracking.mode=offline"]
        done = subprocess.run(
            [sys.executable, "-c", WORK, *settings, *grid],
            env={k: v for k, v in os.environ.items() if not k.startswith("WANDB_")},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as folder:
        measure(folder)  # calibrates
        runs = [measure(folder) for _ in range(repeat)]
    table = Table(title="One cell of the default, medians")
    for heading in ("cell", "seconds", "of them in the tracker", "share"):
        table.add_column(heading)
    for number, name in enumerate(CELLS):
        cells = [run["cells"][number] for run in runs]
        seconds, inside = (statistics.median(c[k] for c in cells) for k in ("cell", "inside"))
        share = statistics.median(c["inside"] / c["cell"] for c in cells)
        table.add_row(name, f"{seconds:.2f}", f"{inside:.2f}", f"{share:.1%}")
    console = Console(width=90)
    console.print(table)
    helper = statistics.median(run["helper"] for run in runs)
    console.print(f"processor time of the helper process, both cells: {helper:.2f} s")


if __name__ == "__main__":
    main()
