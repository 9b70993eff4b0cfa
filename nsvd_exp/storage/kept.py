"""What a result keeps of each dataset or task: the current one by name, and earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nsvd_exp.storage.files import DamagedError

Entry = dict[str, Any]
"""A measurement or a score: it has a key and a name."""


@dataclass(frozen=True)
class Kept:
    """Entries of one kind in a stored result; those under `earlier` are not current any more.

    Attributes:
        table: the field of a result that holds the current ones, by name.
        name: the field of an entry that says its name.
        said: what an entry is called, for messages.
    """

    table: str
    name: str
    said: str

    def find(self, result: dict[str, Any] | None, name: str, key: str) -> Entry | None:
        """The entry of this name with this key, current or earlier; None where there is none."""
        if result is None:
            return None
        current = result[self.table].get(name)
        candidates = ([current] if current else []) + result["earlier"]
        return next((e for e in candidates if e[self.name] == name and e["key"] == key), None)

    def put(self, result: dict[str, Any], entry: Entry) -> None:
        """Make `entry` the current one of its name.

        One that was made otherwise has another key and moves to `earlier`; nothing is dropped.
        """
        name, key = entry[self.name], entry["key"]
        others = [e for e in result["earlier"] if (e[self.name], e["key"]) != (name, key)]
        previous = result[self.table].get(name)
        if previous is not None and previous["key"] != key:
            others.append(previous)
        result["earlier"] = others
        result[self.table][name] = entry

    def check(self, result: dict[str, Any], problem_of: Callable[[Entry], str | None]) -> None:
        """Refuse an entry under another name than its own, or with a problem.

        Raises:
            DamagedError: there is one.
        """
        for name, entry in result[self.table].items():
            if entry[self.name] != name:
                raise DamagedError(f"under {name} stands {self.said} {entry[self.name]}")
        for entry in (*result[self.table].values(), *result["earlier"]):
            problem = problem_of(entry)
            if problem:
                raise DamagedError(f"{entry[self.name]}: {problem}")


MEASUREMENTS = Kept("datasets", "dataset", "a measurement of")
TASK_SCORES = Kept("tasks", "task", "a score at")
