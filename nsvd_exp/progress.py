"""How long-running code says how far it is. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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

    def measured(self, number: Mapping[str, Any]) -> None:
        """A dataset's number is stored."""

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

    def measured(self, number: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.measured(number)

    def finished(self, result: Mapping[str, Any]) -> None:
        for observer in self._observers:
            observer.finished(result)

    def close(self) -> None:
        for observer in self._observers:
            observer.close()
