"""Cells in processes of their own, which may die at any moment: for the tests of faults.

The processes are forked from a server that has imported everything, so that one costs milliseconds.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers  # noqa: F401
from transformers.models.llama import modeling_llama  # noqa: F401

from helpers.configuration import compose
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.progress import Observer, Progress
from nsvd_exp.report.model.measurements import read_contents

SERVER = multiprocessing.get_context("forkserver")

STAGES = ("load", "calibrate", "decompose", "evaluate")
Cells = Sequence[Sequence[str]]
"""The arguments of each cell, as they are typed."""


@dataclass(frozen=True)
class Fault:
    """What is the matter with a process.

    Attributes:
        dies_at: the number of the file operation under `folder` at which it is killed.
        largest_file: bytes that no file of it may exceed, as on a full disk.
        is_subject: whether permissions hold for it, although it may run as root.
    """

    folder: str = ""
    dies_at: int | None = None
    largest_file: int | None = None
    is_subject: bool = False


@dataclass
class Ran:
    """What became of a process.

    Attributes:
        stages: when each was entered, in seconds since the start.
        operations: how many files it has opened, renamed, removed or locked under the folder.
        outcomes: of each cell: its status, or the exception, and its message.
        losses: nats of the windows, by method and dataset.
    """

    stages: list[tuple[str, float]] = field(default_factory=list)
    measured: int = 0
    operations: int = 0
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    losses: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def last_stage(self) -> str | None:
        return self.stages[-1][0] if self.stages else None

    @property
    def is_done(self) -> bool:
        return bool(self.outcomes) and all(state == "done" for state, _ in self.outcomes)


@functools.cache
def _start_server() -> None:
    """Start the process that the others are forked from, which imports this module."""
    SERVER.set_forkserver_preload([__name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # it is told of no other way
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


class Running:
    """A process that does cells, one after the other."""

    def __init__(self, cells: Cells, fault: Fault = Fault()) -> None:
        _start_server()
        self._receiver, sender = SERVER.Pipe(duplex=False)
        self.process = SERVER.Process(target=_work, args=(cells, fault, sender))
        self.process.start()
        self.start = time.perf_counter()
        sender.close()
        self.ran = Ran()

    def until(self, stage: str) -> bool:
        """Wait until it is in a stage; False if it ends before."""
        while self._receive():
            if self.ran.last_stage == stage:
                return True
        return False

    def end(self, signal_number: int | None = None) -> Ran:
        """Wait for its end, or bring it about by a signal."""
        if signal_number is not None and self.process.pid is not None:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.process.pid, signal_number)
        while self._receive():
            pass
        self.process.join(60)
        assert self.process.exitcode is not None, "it hangs"
        return self.ran

    def _receive(self) -> bool:
        try:
            assert self._receiver.poll(60), "it hangs"
            kind, value = self._receiver.recv()
        except EOFError:
            return False
        if kind == "stage":
            self.ran.stages.append((value, time.perf_counter() - self.start))
        elif kind == "cell":
            state, message, losses = value
            self.ran.outcomes.append((state, message))
            self.ran.losses |= losses
        elif kind == "measured":
            self.ran.measured += 1
        else:
            self.ran.operations = value
        return True


def ran(cells: Cells, fault: Fault = Fault()) -> Ran:
    """A process that does these cells, to its end."""
    return Running(cells, fault).end()


def _work(cells: Cells, fault: Fault, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    operations = _count_operations(fault)
    if fault.largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest_file,) * 2)
    if fault.is_subject:
        _obey_permissions()
    session = Session()
    for arguments in cells:
        try:
            telling = _Telling(sender, "memory=streamed" in arguments)
            result = run_cell(plan_cell(compose(*arguments)), session, telling)
        except Exception as error:
            sender.send(("cell", (type(error).__name__, str(error), {})))
            continue
        losses = {(result["method"], d): n["window_nll"] for d, n in result["datasets"].items()}
        message = (result["error"] or {}).get("message", "")
        sender.send(("cell", (result["status"], message, losses)))
    sender.send(("operations", operations()))


class _Telling(Observer):
    """Tells the parent process which stage the cell is in.

    With memory=streamed each block is first decomposed and then evaluated: after the one follows
    the other.
    """

    def __init__(self, sender: Connection, is_streamed: bool) -> None:
        self._sender = sender
        self._next = {"decompose": "evaluate", "evaluate": "decompose"} if is_streamed else {}

    def _tell(self, stage: str) -> None:
        self._sender.send(("stage", stage))

    def started(self) -> None:
        self._tell("load")

    def progress(self, stage: str) -> Progress:
        stage = stage if stage in STAGES else "evaluate"
        self._tell("decompose" if self._next and stage == "evaluate" else stage)
        return lambda done, total: self._tell(self._next.get(stage, stage))

    def measured(self, measurement: Any) -> None:
        self._sender.send(("measured", None))


def _count_operations(fault: Fault) -> Callable[[], int]:
    """Count operations on files under the fault's folder, and die at the one it says."""
    count = 0
    watched = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod"}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in watched and event != "fcntl.flock":
            return
        if event in watched and not str(args[0]).startswith(fault.folder):
            return
        count += 1
        if count == fault.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if fault.folder:
        sys.addaudithook(hook)
    return lambda: count


def _obey_permissions() -> None:
    """Give up what lets root read and write what permissions forbid (Linux)."""
    if os.geteuid() != 0:
        return

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    class Data(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]

    libc, header, data = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0), (Data * 2)()
    assert libc.capget(ctypes.byref(header), data) == 0
    data[0].effective &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), data) == 0


def stored_in(results_dir: Path) -> dict[tuple[str, str], list[float]]:
    """The losses that are stored, by method and dataset; all of the store can be read."""
    contents = read_contents(results_dir)
    assert contents.problems == []
    return {(m.row.method, m.dataset): m.stored["window_nll"] for m in contents.measurements}


def temporaries_under(results_dir: Path) -> list[Path]:
    """What a process that was killed may have left."""
    patterns = (".*.tmp", ".streamed.*", ".hidden.*")
    return [path for pattern in patterns for path in results_dir.rglob(pattern)]


@contextmanager
def permissions(path: Path, mode: int) -> Iterator[None]:
    """Other permissions of a file or folder inside."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)
