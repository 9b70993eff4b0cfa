"""Which job of a grid comes next, where other processes may be at the same grid."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nsvd_exp.cli.outcome import BUSY, Outcome
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.order import next_job, sharing_group
from nsvd_exp.experiment.plan import plan_cell, plan_similarity
from nsvd_exp.experiment.zeroshot import plan_zeroshot
from nsvd_exp.progress import Pace, about
from nsvd_exp.storage.files import held_by_another
from nsvd_exp.storage.results import Result, ResultFile

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from nsvd_exp.cli.launchers.task import Task


@dataclass(frozen=True)
class Turn:
    """A job's place among those of its grid.

    Attributes:
        number, total: it is the `number`th of so many that are begun.
        waits: whether it waits where another process is at the same job, or leaves it for later.
        seconds_left: for this job and all that are to be done after it, as far as is known.
    """

    number: int
    total: int
    waits: bool = True
    seconds_left: float | None = None

    def __str__(self) -> str:
        return f"cell {self.number} of {self.total}"

    def countdown(self, clock: Callable[[], float] = time.monotonic) -> Callable[[], str]:
        """Says from now on how much time is left."""
        began = clock()

        def left() -> str:
            seconds = self.seconds_left
            return about(None if seconds is None else seconds - (clock() - began))

        return left


class Turns:
    """Hands out the jobs of a grid, so that processes that do it together are at different cells.

    Threads may share it.

    Args:
        tasks: in the order that they are best run.
        pace: how the grid goes on.
    """

    def __init__(self, tasks: Sequence[Task], pace: Pace) -> None:
        self._pace = pace
        self._left = list(tasks)
        self._groups = {task.number: sharing_group(task.config) for task in tasks}
        self._files: dict[int, list[Path]] = {}
        self._here: list[Path] = []  # the lock files of the jobs that are handed out
        self._begun = 0
        self._guard = threading.Lock()

    def __len__(self) -> int:
        """How many jobs are to be handed out."""
        return len(self._left)

    def take(self, after: Task | None = None) -> Task:
        """The job to do next, which is one of those that are left.

        Args:
            after: what the same process has done last.
        """
        with self._guard:
            groups = [self._groups[task.number] for task in self._left]
            own = None if after is None else self._groups[after.number]
            index, is_held = next_job(groups, self._is_held, own)
            task = self._left.pop(index)
            self._here += self._lock_files(task)
            self._begun += 1
            number = min(self._pace.ended + self._begun, self._pace.total)
            turn = Turn(number, self._pace.total, is_held, self._pace.seconds_left())
            return replace(task, turn=turn)

    def is_over(self, task: Task, returned: JobReturn) -> bool:
        """Whether a job has ended; one that another process was at is left for later."""
        became = returned.return_value
        is_over = not (isinstance(became, Outcome) and became.state == BUSY)
        with self._guard:
            self._let_go(task)
            if not is_over:
                self._left.append(task)
        return is_over

    def lost(self, task: Task) -> None:
        """The process of a job has died."""
        with self._guard:
            self._let_go(task)

    def _let_go(self, task: Task) -> None:
        self._begun -= 1
        for file in self._lock_files(task):
            self._here.remove(file)

    def _is_held(self, index: int) -> bool:
        files = self._lock_files(self._left[index])
        return any(file in self._here or _is_locked(file) for file in files)

    def _lock_files(self, task: Task) -> list[Path]:
        if task.number not in self._files:
            self._files[task.number] = lock_files(task.config)
        return self._files[task.number]


def lock_files(config: Config) -> list[Path]:
    """The files that a process locks while it is at this job: one per result."""
    _, files = _planned(config)
    return [file.folder / ".lock" for file in files]


def is_stored(config: Config) -> bool:
    """Whether all that this job asks for is in the store, so that nothing is to be done."""
    is_done, files = _planned(config)
    try:
        return bool(files) and all(is_done(file.read()) for file in files)
    except NsvdError:  # the job itself will say what is wrong with the file
        return False


def _planned(config: Config) -> tuple[Callable[[Result | None], bool], list[ResultFile]]:
    """What says whether a result of this job is done, and the files of its results."""
    try:
        if config.measure == "similarity":
            records = plan_similarity(config)
            return records.is_done, records.files
        plan = plan_zeroshot(config) if config.measure == "zeroshot" else plan_cell(config)
        return plan.is_done, [plan.file]
    except Exception:  # the job itself will say why it cannot be planned
        return bool, []


def _is_locked(file: Path) -> bool:
    try:
        return file.exists() and held_by_another(file)
    except (NsvdError, OSError):  # the job itself will say why nothing can be locked there
        return False
