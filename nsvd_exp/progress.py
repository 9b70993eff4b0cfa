"""One way to follow long work: an `Observer` is told how far it is. Imports no torch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30

# Characters of a terminal that leave room for a bar, and for the time that a stage has taken.
WIDTH_WITH_BAR, WIDTH_WITH_TIME = 80, 100

Progress = Callable[[int, int], None]
"""Called with (done, of how many)."""


class Observer:
    """Who is told how a cell goes on. This one tells nobody."""

    def progress(self, stage: str) -> Progress | None:
        """A callback for the progress of a stage (`calibrate`, `decompose`, a dataset), or None."""
        return None

    def skipped(self, result: Mapping[str, Any]) -> None:
        """The cell was done already; this is its stored result."""

    def started(self) -> None:
        """The work on the cell begins."""

    def measured(self, measurement: Mapping[str, Any]) -> None:
        """A dataset's measurement is stored."""

    def finished(self, result: Mapping[str, Any]) -> None:
        """The cell is over, done or failed, and this result is stored."""

    def close(self) -> None:
        """Nothing follows: the cell is over, or was interrupted."""


class Observers(Observer):
    """Tells each of several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers: Sequence[Observer] = observers

    def progress(self, stage: str) -> Progress:
        updates = [update for o in self._observers if (update := o.progress(stage))]

        def all_of_them(done: int, total: int) -> None:
            for update in updates:
                update(done, total)

        return all_of_them

    def skipped(self, result: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.skipped(result)

    def started(self) -> None:
        for observer in self._observers:
            observer.started()

    def measured(self, measurement: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.measured(measurement)

    def finished(self, result: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.finished(result)

    def close(self) -> None:
        for observer in self._observers:
            observer.close()


class Pace:
    """How many cells of a grid have ended, and by those how long the others will take.

    Args:
        total: cells of the grid.
        clock: seconds that only go forward.

    Attributes:
        ended: how many cells have ended.
        stored: how many of the others are in the store already, and take no time.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.ended, self.stored = total, 0, 0
        self._clock = clock
        self._began = self._last = clock()
        self._worked = 0

    def end(self, has_worked: bool, was_stored: bool = False) -> None:
        """A cell has ended. One that was there already says nothing of how long a cell takes.

        Args:
            was_stored: whether it is one of those that `stored` counts.
        """
        self.ended += 1
        self.stored -= was_stored
        self._worked += has_worked
        self._last = self._clock()

    def seconds_left(self) -> float | None:
        """Seconds for the cells that are still to be done, None before the first was.

        Each is taken to need as long as those that have ended, and as many to go on side by side.
        """
        if not self._worked:
            return None
        return (self._last - self._began) / self._worked * (self.total - self.ended - self.stored)


def about(seconds: float | None) -> str:
    """`about 12 min left`; nothing where nothing is known, or no time is left."""
    if seconds is None or seconds < 1:
        return ""
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes:02} min left" if hours else f"about {minutes} min left"


class ProgressBars(Observer):
    """Shows a bar for each stage on stderr; without a terminal, a line in the log twice a minute.

    Args:
        bars: of rich.
        title: what is worked on, for the lines of the log.
        left: what is said of the time that is left.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        bars: rich.progress.Progress,
        title: str,
        left: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bars, self._title, self._left, self._clock = bars, title, left, clock

    @classmethod
    @contextmanager
    def showing(cls, title: str, left: Callable[[], str] = str) -> Iterator[ProgressBars]:
        """Bars are on screen inside, and gone afterwards.

        Args:
            title: what is worked on.
            left: what is said of the time that is left; it is asked whenever a bar moves.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        # The stream of now: stderr is turned away from libraries that have bars of their own.
        console = Console(file=sys.stderr, highlight=False)
        named = Column(no_wrap=False)  # folded where it is too long, so that no number is cut
        columns = [
            TextColumn(
                "{task.fields[title]}  {task.description}", markup=False, table_column=named
            ),
            *([BarColumn(bar_width=10)] if console.width >= WIDTH_WITH_BAR else []),
            MofNCompleteColumn(),
            *([TimeElapsedColumn()] if console.width >= WIDTH_WITH_TIME else []),
            TextColumn("{task.fields[left]}", markup=False),
        ]
        with Bars(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bars:
            yield cls(bars, title, left)

    def progress(self, stage: str) -> Progress:
        """A callback (done, of how many) for the bar of this stage."""
        task = self._bars.add_task(stage, total=None, title=self._title, left=self._left())
        said = self._clock()

        def update(done: int, total: int) -> None:
            nonlocal said
            left = self._left()
            self._bars.update(task, completed=done, total=total, visible=done < total, left=left)
            if self._bars.disable and self._clock() - said > SECONDS_BETWEEN_LINES:
                said = self._clock()
                line = f"{self._title}: {stage}, {done} of {total}"
                log.info("%s", ", ".join(filter(None, (line, left))))

        return update
