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
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.progress import Pace, about
from nsvd_exp.storage.files import held_by_another

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from nsvd_exp.cli.launchers.task import Task


@dataclass(frozen=True)
class Turn:
    """A job's place among those of its grid.

    Attributes:
        number, total: it is the `number`th of so many that are begun.
        waits: whether it waits where another process is at the same cell, or leaves it for later.
        seconds_left: for this and all jobs after it, as far as is known.
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
        self._files: dict[int, Path | None] = {}
        self._here: list[Path | None] = []  # the lock files of the jobs that are handed out
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
            self._here.append(self._lock_file(task))
            number = min(self._pace.ended + len(self._here), self._pace.total)
            turn = Turn(number, self._pace.total, is_held, self._pace.seconds_left())
            return replace(task, turn=turn)

    def is_over(self, task: Task, returned: JobReturn) -> bool:
        """Whether a job has ended; one that another process was at is left for later."""
        became = returned.return_value
        is_over = not (isinstance(became, Outcome) and became.state == BUSY)
        with self._guard:
            self._here.remove(self._lock_file(task))
            if not is_over:
                self._left.append(task)
        return is_over

    def lost(self, task: Task) -> None:
        """The process of a job has died."""
        with self._guard:
            self._here.remove(self._lock_file(task))

    def _is_held(self, index: int) -> bool:
        file = self._lock_file(self._left[index])
        return file is not None and (file in self._here or _is_locked(file))

    def _lock_file(self, task: Task) -> Path | None:
        if task.number not in self._files:
            self._files[task.number] = lock_file(task.config)
        return self._files[task.number]


def lock_file(config: Config) -> Path | None:
    """The file that a process locks while it is at this cell; None for other jobs than a cell's."""
    if config.measure == "similarity":
        return None
    try:
        return plan_cell(config, is_measured=False).file.folder / ".lock"
    except Exception:  # the job itself will say why it cannot be planned
        return None


def _is_locked(file: Path) -> bool:
    try:
        return file.exists() and held_by_another(file)
    except (NsvdError, OSError):  # the job itself will say why nothing can be locked there
        return False
