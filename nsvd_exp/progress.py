"""One way to follow long work: an `Observer` is told how far it is. Imports no torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30

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


class ProgressBars(Observer):
    """Shows a bar for each stage on stderr; without a terminal, a line in the log twice a minute.

    Args:
        bars: of rich.
        clock: seconds that only go forward.
    """

    def __init__(
        self, bars: rich.progress.Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bars, self._clock = bars, clock

    @classmethod
    @contextmanager
    def showing(cls, title: str) -> Iterator[ProgressBars]:
        """Bars are on screen inside, and gone afterwards."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True, highlight=False)
        columns = (TextColumn(f"{title}  {{task.description}}"), BarColumn(), MofNCompleteColumn())
        with Bars(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bars:
            yield cls(bars)

    def progress(self, stage: str) -> Progress:
        """A callback (done, of how many) for the bar of this stage."""
        task = self._bars.add_task(stage, total=None)
        said = self._clock()

        def update(done: int, total: int) -> None:
            nonlocal said
            self._bars.update(task, completed=done, total=total, visible=done < total)
            if self._bars.disable and self._clock() - said > SECONDS_BETWEEN_LINES:
                said = self._clock()
                log.info("%s: %d of %d", stage, done, total)

        return update
