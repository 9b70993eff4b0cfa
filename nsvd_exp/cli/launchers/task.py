"""One job of a grid on its way to another process, and what is known when that process dies."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, read_write

from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.outcome import outcome
from nsvd_exp.cli.turns import Turn
from nsvd_exp.config.files import register
from nsvd_exp.config.schema import Config, job_config
from nsvd_exp.errors import NsvdError


@dataclass(frozen=True)
class Task:
    """One job of a grid.

    Attributes:
        composed: its configuration, Hydra's own part included.
        cwd: the folder where the command was typed: relative paths mean the same everywhere.
        checked: its configuration without Hydra's part, where that is known already.
        turn: its place in the grid, once it is its turn.
    """

    composed: DictConfig
    function: TaskFunction
    context: HydraContext
    cwd: str
    checked: Config | None = None
    turn: Turn | None = None

    @property
    def number(self) -> int:
        """Its number in Hydra's folders."""
        return int(self.composed.hydra.job.num)

    @property
    def folder(self) -> Path:
        """Where Hydra keeps the job's configuration and log."""
        sweep = self.composed.hydra.sweep
        return Path(self.cwd) / str(sweep.dir) / str(sweep.subdir)

    @property
    def config(self) -> Config:
        """The job's own configuration."""
        if self.checked is not None:
            return self.checked
        return job_config(self.composed)


Ended = Iterator[tuple[Task, JobReturn]]


def run_task(task: Task) -> JobReturn:
    """Run the job in this process, which may have run others before."""
    os.chdir(task.cwd)
    register()
    version.setbase("1.3")  # as in `cli.main`
    setup_globals()
    JobRuntime.instance().set("name", task.composed.hydra.job.name)
    function = task.function
    if isinstance(function, Jobs):
        function = functools.partial(function, turn=task.turn)
    return run_job(function, task.composed, "hydra.sweep.dir", "hydra.sweep.subdir", task.context)


def bound_bases(tasks: Iterable[Task], limit: int) -> None:
    """Hold each job's bases to so many bytes, if nothing else was typed: others run beside it."""
    for task in tasks:
        if task.composed.cache.memory_gb is None:
            with read_write(task.composed):
                task.composed.cache.memory_gb = round(limit / 1e9, 3)


def run_quietly(task: Task) -> JobReturn:
    """`run_task` with stdout and stderr of the process in `output.txt` of the job's folder."""
    task.folder.mkdir(parents=True, exist_ok=True)
    with (task.folder / "output.txt").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        return run_task(task)
    finally:
        sys.stdout.flush()


def lost(task: Task, reason: str, log: Path | None = None) -> JobReturn:
    """What Hydra is told of a job whose process died: a failed one."""
    message = f"{reason}; see {log or task.folder}. What it measured is kept"
    hydra = HydraConfig.instance()
    here = hydra.cfg
    hydra.set_config(task.composed)  # as the job itself would have had it
    try:
        became = outcome("failed", task.config, message=message)
    finally:
        hydra.cfg = here
    return JobReturn(status=JobStatus.COMPLETED, _return_value=became)


def how_it_ended(exitcode: int) -> str:
    """An exit code as `multiprocessing` gives it (-9: by SIGKILL), for people."""
    if exitcode >= 0:
        return f"its process ended with exit status {exitcode}"
    name = signal.Signals(-exitcode).name
    cause = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed ({name}{cause})"


def require(module: str, launcher: str) -> None:
    """Make sure that an engine is installed.

    Raises:
        NsvdError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise NsvdError(
            f"hydra/launcher={launcher} needs {module}, which is not installed: "
            f"pip install -e '.[{launcher}]'"
        )
