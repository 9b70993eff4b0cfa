"""Processes of this machine, one for each GPU, each of which does one job after another.

A process is kept for many jobs because the model stays loaded in it. Where one dies, the job it was
at is lost, and a new process takes the next.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue

from hydra.core.utils import JobReturn
from hydra.types import TaskFunction

from nsvd_exp.cli.launchers.task import Ended, Task, bound_bases, how_it_ended, lost, run_quietly
from nsvd_exp.cli.turns import Turns
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.devices import cuda_devices, memory_for_bases
from nsvd_exp.progress import Pace

PROCESSES_WITHOUT_GPU = 2

# A fork of a process that has used OpenMP or CUDA does not work.
_context = multiprocessing.get_context("spawn")


class DeathError(Exception):
    """The process of a job is no more; the message says how it ended."""


class Worker:
    """A place for one process at a time.

    Attributes:
        environment: the variables that give the process its GPU and its share of the cores.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._last: Task | None = None
        self._start()

    def _start(self) -> None:
        self._connection, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, self.environment))
        self._process.start()
        theirs.close()

    def run(self, task: Task) -> JobReturn:
        """Do one job.

        Raises:
            DeathError: the process did, before it was through.
        """
        if not self._process.is_alive():
            self._start()
        try:
            self._connection.send(task)
            returned: JobReturn = self._connection.recv()
            return returned
        except (EOFError, ConnectionError):
            self._process.join()
            raise DeathError(how_it_ended(self._process.exitcode or 0)) from None

    def run_next(self, turns: Turns) -> tuple[Task, JobReturn | DeathError]:
        """Do one job of those that are left, to its end or the end of this process."""
        while True:
            task = self._last = turns.take(after=self._last)
            try:
                returned = self.run(task)
            except DeathError as death:
                turns.lost(task)
                return task, death
            if turns.is_over(task, returned):
                return task, returned

    def stop(self) -> None:
        """End the process, whatever it is at."""
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    """The life of a worker's process, until the parent ends it."""
    os.environ.update(environment)  # before torch is imported, by the first job
    faulthandler.enable()  # a crash leaves the Python stack in the job's output
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    own: TaskFunction | None = None
    while True:
        task = connection.recv()
        own = own or task.function  # what the first job has learnt serves those after it
        connection.send(run_quietly(replace(task, function=own)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run(
    tasks: Sequence[Task], environments: Sequence[dict[str, str]], pace: Pace | None = None
) -> Ended:
    """Run all tasks, one at a time in each process.

    Args:
        environments: the variables of each process (see `environments_for`).
        pace: how the grid goes on; None: nobody asks.
    """
    workers = [Worker(environment) for environment in environments]
    bound_bases(tasks, memory_for_bases(len(workers)))
    turns = Turns(tasks, pace or Pace(len(tasks)))
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def run_one() -> tuple[Task, JobReturn | DeathError]:
        worker = free.get()
        try:
            return worker.run_next(turns)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(len(workers))
    try:
        for future in as_completed([threads.submit(run_one) for _ in tasks]):
            task, returned = future.result()
            if isinstance(returned, DeathError):
                returned = lost(task, str(returned))
            yield task, returned
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()


def environments_for(tasks: Sequence[Task], n_jobs: int | None) -> list[dict[str, str]]:
    """The variables of each process on this machine: see `environments`.

    Raises:
        NsvdError: a task asks for a GPU by its number.
    """
    devices = {str(task.composed.device) for task in tasks}
    gpus = gpus_for(devices, os.environ.get("CUDA_VISIBLE_DEVICES"), cuda_devices())
    return environments(n_jobs, gpus, _cores(), len(tasks))


def environments(
    n_jobs: int | None, gpus: Sequence[str], cores: int, tasks: int
) -> list[dict[str, str]]:
    """The variables of each process: its GPU, and OpenMP threads for its share of the cores.

    Args:
        n_jobs: processes at a time; None: one for each GPU, or `PROCESSES_WITHOUT_GPU`.
        gpus: names of the GPUs, as CUDA_VISIBLE_DEVICES takes them; more processes than GPUs share.
        tasks: never more processes than these.
    """
    count = min(n_jobs or len(gpus) or PROCESSES_WITHOUT_GPU, tasks)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))
    shares = [{"OMP_NUM_THREADS": threads} for _ in range(count)]
    if gpus:
        for number, share in enumerate(shares):
            share["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return shares


def gpus_for(devices: Set[str], visible: str | None, count: int) -> list[str]:
    """Names of the GPUs for tasks: all that this process may use; none if they are to use the CPU.

    Args:
        devices: what the tasks ask for.
        visible: CUDA_VISIBLE_DEVICES, if it is set.
        count: how many GPUs this process may use.

    Raises:
        NsvdError: a task asks for a GPU by its number.
    """
    for device in devices:
        if ":" in device:
            raise NsvdError(
                f"device={device}: hydra/launcher=local gives each process a GPU of its own; "
                "use device=cuda, and CUDA_VISIBLE_DEVICES to say which ones"
            )
    if devices == {"cpu"}:
        return []
    names = visible.split(",") if visible else [str(n) for n in range(count)]
    return names[:count]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
