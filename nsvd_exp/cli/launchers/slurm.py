"""Slurm through submitit: the grid is a job array, one job for each cell.

submitit asks `sacct` what became of a job, which answers nothing where Slurm keeps no accounts;
`squeue`, which answers everywhere, is asked here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn

from nsvd_exp.cli import terminal as display
from nsvd_exp.cli.launchers.task import Ended, Task, lost, require, run_task
from nsvd_exp.errors import NsvdError

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

# What submitit calls the same for every kind of cluster; all else is Slurm's own.
GENERAL = ("timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb")

NOT_ENDED = {
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
    "RESIZING", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
}  # fmt: skip


def check() -> None:
    """Make sure that jobs can be submitted from here.

    Raises:
        NsvdError: they cannot.
    """
    require("submitit", "slurm")
    if shutil.which("sbatch") is None:
        raise NsvdError(
            "hydra/launcher=slurm: there is no sbatch here; type the command on a machine that "
            "submits to the cluster"
        )


def run(tasks: Sequence[Task], check_s: float, settings: Mapping[str, Any]) -> Ended:
    """Submit all tasks and wait for them. If interrupted, cancel those that have not ended.

    Args:
        check_s: seconds between two looks at `squeue`.
        settings: of submitit; None: Slurm's default.

    Raises:
        NsvdError: Slurm does not take the jobs.
    """
    folder = tasks[0].folder.parent / "slurm"
    jobs = _submit(tasks, folder, settings)
    waiting = {job.job_id: (job, task) for job, task in zip(jobs, tasks, strict=True)}
    queue = _Queue(jobs[0].job_id.partition("_")[0], check_s)
    display.stderr().print(f"{len(jobs)} jobs submitted: squeue --job {queue.array}")
    try:
        while waiting:
            time.sleep(min(1.0, check_s))
            files = set(os.listdir(folder))  # makes a network's file system look
            for name in [n for n, (j, _) in waiting.items() if j.paths.result_pickle.name in files]:
                job, task = waiting.pop(name)
                yield task, _returned(job, task)
            for name, state in queue.dead(waiting).items():
                job, task = waiting.pop(name)
                yield task, lost(task, f"Slurm job {name} ended as {state}", job.paths.stdout)
    finally:
        if waiting:
            subprocess.run(["scancel", queue.array], check=False)


def _submit(
    tasks: Sequence[Task], folder: Path, settings: Mapping[str, Any]
) -> list[submitit.Job[JobReturn]]:
    import submitit

    given = {name: value for name, value in settings.items() if value is not None}
    if "cpus_per_task" in given:
        threads = f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{given['cpus_per_task']}}}"
        given["setup"] = [threads, *given.get("setup", ())]
    # In place of the shell: a shell that ends before its child leaves one that Slurm may not find.
    python = f"exec {shlex.quote(sys.executable)}"
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_python=python)
    try:
        executor.update_parameters(
            name="nsvd_exp",
            stderr_to_stdout=True,
            slurm_use_srun=False,  # srun would give the process one core
            **{n if n in GENERAL else f"slurm_{n}": value for n, value in given.items()},
        )
    except (AssertionError, TypeError, ValueError) as error:  # how submitit refuses a setting
        raise NsvdError(f"hydra/launcher=slurm: {error}") from None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit would print the message too
            return executor.map_array(run_task, tasks)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        asked = ", ".join(f"{n}={'null' if v is None else v}" for n, v in settings.items())
        raise NsvdError(
            f"{error}\nAsked of Slurm, as hydra.launcher.NAME=VALUE (null: its default): {asked}"
        ) from None


def _returned(job: submitit.Job[JobReturn], task: Task) -> JobReturn:
    import submitit

    try:
        return job.result()
    except submitit.core.utils.UncompletedJobError:
        return lost(task, f"Slurm job {job.job_id} broke off", job.paths.stdout)


class _Queue:
    """What Slurm says of a job array, asked every `check_s` seconds."""

    def __init__(self, array: str, check_s: float) -> None:
        self.array = array
        self._check_s = check_s
        self._asked = time.monotonic()
        self._ended: dict[str, str] = {}

    def dead(self, waiting: Collection[str]) -> dict[str, str]:
        """The states of those jobs that had ended by the look before this one.

        They have left no result, which may take a while to be seen through a network.
        """
        if time.monotonic() - self._asked < self._check_s:
            return {}
        self._asked = time.monotonic()
        states = states_of(self.array)
        if states is None:
            return {}
        before = self._ended
        now = {name: states.get(name, "unknown") for name in waiting}
        self._ended = {n: state for n, state in now.items() if state not in NOT_ENDED}
        return {name: state for name, state in self._ended.items() if name in before}


def states_of(array: str) -> dict[str, str] | None:
    """The state of each job that Slurm still knows of; None if it does not answer."""
    form = "--Format=JobArrayID:40 ,State:40 ,exit_code:20 "
    command = ["squeue", "--noheader", "--array", "--states=all", form, f"--job={array}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        lines = (line.split() for line in asked.stdout.splitlines())
        return {name: _with_signal(state, int(status)) for name, state, status in lines}
    if "Invalid job id" in asked.stderr:
        return {}  # ended long ago: Slurm has forgotten the whole array
    log.warning("squeue: %s", asked.stderr.strip())
    return None


def _with_signal(state: str, status: int) -> str:
    """The state, and the signal in the wait status of a process, or of the shell around it."""
    if state != "FAILED":
        return state
    killed = os.WIFSIGNALED(status)
    number = os.WTERMSIG(status) if killed else os.WEXITSTATUS(status) - 128
    return f"FAILED ({signal.Signals(number).name})" if number in set(signal.Signals) else state
