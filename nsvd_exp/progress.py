"""How long-running code says how far it is. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, of how many)."""


class Observer:
    """Who is told how a cell goes on. This one tells nobody."""

    def progress(self, stage: str) -> Progress | None:
        """A callback for the progress of a stage (`calibrate`, `decompose`, a dataset), or None."""
        return None
