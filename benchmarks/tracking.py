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
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from rich.console import Console
from rich.table import Table

from nsvd_exp.progress import Observer, Progress

CELLS = {"first of a process": 0.3, "second": 0.4}


class Timed(Observer):
    """Passes on what it is told, and sums the seconds that the other observer takes."""

    def __init__(self, other: Observer) -> None:
        self.other, self.seconds = other, 0.0

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        found = call(*arguments)
        self.seconds += time.perf_counter() - start
        return found

    def progress(self, stage: str) -> Progress | None:
        update = self._timed(self.other.progress, stage)
        return update and (lambda done, total: self._timed(update, done, total))

    def started(self) -> None:
        self._timed(self.other.started)

    def measured(self, measurement: Mapping[str, Any]) -> None:
        self._timed(self.other.measured, measurement)

    def finished(self, result: Mapping[str, Any]) -> None:
        self._timed(self.other.finished, result)

    def close(self) -> None:
        self._timed(self.other.close)


def measure_here(cache: str) -> dict[str, Any]:
    """Seconds of two cells, one after the other in this process, and inside the tracker."""
    import wandb
    from runs import planned

    from nsvd_exp.experiment.run import run_cell
    from nsvd_exp.experiment.session import Session
    from nsvd_exp.tracking.cell import CellTracker
    from nsvd_exp.tracking.session import WandbSession

    session, wandb_session, cells = Session(), WandbSession(), []
    with tempfile.TemporaryDirectory() as results:
        settings = [f"cache_dir={cache}", f"results_dir={results}", "tracking.mode=offline"]
        for ratio in CELLS.values():
            plan = planned("method=nsvd_i", f"ratio={ratio}", *settings)
            start = time.perf_counter()
            with closing(Timed(CellTracker(plan, None, wandb_session))) as observer:
                run_cell(plan, session, observer)
            cells.append({"inside": observer.seconds, "cell": time.perf_counter() - start})
        wandb.teardown()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cells": cells, "helper": used.ru_utime + used.ru_stime}


def measure(cache: str) -> dict[str, Any]:
    """`measure_here` in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--here", cache],
        env={k: v for k, v in os.environ.items() if not k.startswith("WANDB_")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--here", metavar="CACHE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(options.here)))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(folder)  # calibrates
        runs = [measure(folder) for _ in range(options.repeat)]
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
