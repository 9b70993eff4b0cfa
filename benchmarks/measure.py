"""What the benchmarks share: what a command costs, the machine, how figures are kept."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import nsvd_exp
from nsvd_exp.experiment.provenance import LIBRARIES, git_state, hardware

ROOT = Path(nsvd_exp.__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks"
# Columns that the tables need: a number cut short would be another number.
WIDTH = 170


@dataclass(frozen=True)
class Cost:
    """What a process cost.

    Attributes:
        seconds: from its start to its end, the interpreter's own start included.
        peak_bytes: the most memory it held.
        written_bytes: what it gave to `write`; None where the system does not count it.
    """

    seconds: float
    peak_bytes: int
    written_bytes: int | None


def run(*arguments: str) -> Cost:
    """Run `python ARGUMENTS` in a fresh process, with the package that this process uses.

    Raises:
        RuntimeError: it failed; the message holds the end of its output.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT, env=env
        )
        # The ended process stays until wait4: its counters are read in between.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - start
        written = _written_bytes(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _say(f"{seconds:6.1f} s  {' '.join(map(_short, arguments))}")
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{output.read()[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_maxrss * unit, written)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _short(argument: str) -> str:
    """The argument without the folders of its path."""
    return re.sub(r"/\S*/", "", argument)


def _written_bytes(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return None
    return int(re.findall(r"^wchar: (\d+)", text, re.MULTILINE)[0])


def seconds_of(work: Callable[[], object]) -> float:
    """Wall seconds of one call in this process; a GPU is waited for."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_cost(costs: Sequence[Cost]) -> Cost:
    """A cost with the median of each number."""
    written = [cost.written_bytes for cost in costs if cost.written_bytes is not None]
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        int(statistics.median(cost.peak_bytes for cost in costs)),
        int(statistics.median(written)) if written else None,
    )


@dataclass(frozen=True)
class Figure:
    """A figure that has a target.

    Attributes:
        name: what is measured.
        value: None where it was not measured; `note` says why then.
        limit: the target.
        at_most: whether the value should be at most, or at least, the limit.
        unit: of value and limit; empty for a ratio.
        note: how it was measured, and what it is made of.
        repetitions: the value of each repetition, where there are several.
    """

    name: str
    value: float | None
    limit: float
    at_most: bool
    note: str
    unit: str = ""
    repetitions: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def row(self) -> list[str]:
        """The figure as a row of the table of targets."""
        unit = f" {self.unit}" if self.unit else ""
        value = "not measured" if self.value is None else f"{self.value:.3g}{unit}"
        target = f"{'<=' if self.at_most else '>='} {self.limit:g}{unit}"
        met = {True: "yes", False: "no", None: "–"}[self.met]
        return [self.name, value, target, met, self.note]

    def record(self) -> dict[str, Any]:
        """The figure as the JSON file holds it."""
        return asdict(self) | {"met": self.met}


TARGET_HEADINGS = ("figure", "measured", "target", "met", "how")


@dataclass(frozen=True)
class Sheet:
    """A table for the terminal and for Markdown."""

    title: str
    headings: Sequence[str]
    rows: list[list[str]]

    def rich(self) -> Table:
        """The table as rich prints it."""
        table = Table(title=self.title, title_justify="left")
        for heading in self.headings[:-1]:
            table.add_column(heading, no_wrap=True)
        table.add_column(self.headings[-1])
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [" | ".join(row) for row in (self.headings, ["---"] * len(self.headings))]
        lines += [" | ".join(row) for row in self.rows]
        return f"## {self.title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"


class Machine:
    """The hardware, versions and load of a measurement; no host name, no path."""

    def __init__(self, device: str) -> None:
        self._device, self._load = device, os.getloadavg()

    def record(self) -> dict[str, Any]:
        """Hardware, versions, and the load average (1, 5, 15 minutes) at both ends."""
        return {
            "nsvd_exp": nsvd_exp.__version__,
            "git": git_state(),
            "python": platform.python_version(),
            "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
            "device": self._device,
            "hardware": hardware(self._device),
            "threads": torch.get_num_threads(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "load_before": [round(value, 2) for value in self._load],
            "load_after": [round(value, 2) for value in os.getloadavg()],
        }


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    libraries = machine["libraries"]
    before, after = ("/".join(map(str, machine[name])) for name in ("load_before", "load_after"))
    return (
        f"{machine['hardware']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"Python {machine['python']}, torch {libraries['torch']}, "
        f"transformers {libraries['transformers']}; load average {before} before, {after} after"
    )


def show(sheets: Iterable[Sheet], machine: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=max(Console().width, WIDTH), highlight=False)
    console.print(machine_line(machine), markup=False)
    for sheet in sheets:
        console.print(sheet.rich())


def keep(out: Path, name: str, record: dict[str, Any], sheets: Iterable[Sheet]) -> Path:
    """Write `<name>-<hardware>.json` and `.md` into the folder `out`.

    Returns:
        The JSON file.
    """
    machine = record["machine"]
    hardware = re.sub(r"\((R|TM)\)|@.*", "", machine["hardware"], flags=re.IGNORECASE)
    words = [name, hardware, *([f"{machine['cores']} cores"] if machine["device"] == "cpu" else [])]
    stem = "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{stem}.json"
    path.write_text(json.dumps(rounded(record), indent=1, allow_nan=False) + "\n", "utf-8")
    text = f"# {record['command']}\n\n{record['date']}. {machine_line(machine)}.\n\n"
    text += "\n".join(sheet.markdown() for sheet in sheets)
    path.with_suffix(".md").write_text(text, "utf-8")
    return path


def rounded(value: Any) -> Any:
    """The value with its floats to five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else value
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
