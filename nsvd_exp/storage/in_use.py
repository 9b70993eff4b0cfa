"""Which entries of a `cache_dir` the living processes use, for all of them to see.

    cache_dir/in_use/<host>-<pid>-*.lock    held by a `Pin` as long as it lives, and beside it
                            .json           which entries it uses

Imports no torch.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from nsvd_exp.storage.files import held_by_another, read_object, take, whoami


class Pin:
    """Which entries are in use here, for other processes to see."""

    def __init__(self, folder: Path) -> None:
        who = whoami()
        name = f"{who['host']}-{who['pid']}-{uuid.uuid4().hex[:8]}"
        self._note = folder / "in_use" / f"{name}.json"
        self._note.parent.mkdir(exist_ok=True)
        self._used: dict[str, str] = {}
        self._pid = os.getpid()
        self._who = f"process {who['pid']} on {who['host']}"
        self._lock = take(self._note.with_suffix(".lock"))

    def use(self, kind: str, key: str) -> None:
        """Note the entry in place of the last one of its kind; called under `.lock`."""
        if self._used.get(kind) != key:
            used = self._used | {kind: key}
            self._note.write_text(json.dumps({"who": self._who, "used": used}), encoding="utf-8")
            self._used = used

    def release(self) -> None:
        """Nothing is in use here any more."""
        if os.getpid() != self._pid:  # a forked process ends: the pin is its parent's
            return
        self._note.unlink(missing_ok=True)
        self._note.with_suffix(".lock").unlink(missing_ok=True)
        self._lock.release()


def users_of(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """The living processes, each with the entries it uses, by kind; tidies up after the dead."""
    users = []
    for lock in (folder / "in_use").glob("*.lock"):
        note = lock.with_suffix(".json")
        if held_by_another(lock):
            noted = read_object(note)
            used = noted.get("used")
            who = str(noted.get("who", lock.stem))
            users.append((who, used if isinstance(used, dict) else {}))
        else:
            note.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    return users
