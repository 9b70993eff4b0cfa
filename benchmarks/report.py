"""What a report of a large store costs.

    python benchmarks/report.py [--cells 1220] [--repeat 3]

The store is made of the published cells of results/tiny, under as many names of models as it takes.
Every report is made in a fresh process, from the start of the interpreter to its end.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import cell_file, read_all

PUBLISHED = Path(__file__).parents[1] / "results" / "tiny"


def make_store(folder: Path, cells: int) -> None:
    """Store copies of the published cells, whose models have names of their own."""
    published = list(read_all(PUBLISHED))
    copies = ((number, result) for number in itertools.count() for result in published)
    for number, result in itertools.islice(copies, cells):
        identity = result["identity"] | {"model": {"sha256": f"{number:064x}"}}
        file = cell_file(folder, result["method"], identity)
        own = {"key": digest(identity), "identity": identity, "model": f"tiny-{number:02}"}
        file.write(result | own)


def report_of(store: Path, out: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that one report takes."""
    before, start = _processor(), time.perf_counter()
    command = [sys.executable, "-m", "nsvd_exp.report", str(store), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, _processor() - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the seconds of each report, the median and the size of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1220)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder) / "results", Path(folder) / "report"
        make_store(store, options.cells)
        print(f"{options.cells} cells; load average {os.getloadavg()[0]:.1f}")
        walls = []
        for _ in range(options.repeat):
            wall, processor = report_of(store, out)
            walls.append(wall)
            print(f"{wall:6.2f} s, of which {processor:.2f} s of the processor")
        page = (out / "index.html").stat().st_size
        print(f"median {statistics.median(walls):.2f} s; the page has {page / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
