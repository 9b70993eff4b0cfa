"""One process at a time, across processes and across machines that share a file system.

`FileLock` takes `flock`, which the kernel releases when the process that holds it dies, however it
dies. Over NFS, Linux (since 2.6.12) turns `flock` into a byte-range lock on the server, so it holds
between machines too; when a whole machine dies, the server frees its locks at the end of their
lease (NFS 4, about a minute and a half) or when it is up again (NFS 3). It does not hold on a mount
with `nolock` or `local_lock=flock`, and a file system without `flock` (Lustre unless mounted with
`-o flock`) is refused. Lock files stay where they are: to remove one in use would let two in.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from nsvd_exp.errors import NsvdError


@contextmanager
def hold(path: Path, title: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path` alone.

    Beside it stands a note of who holds it, for those who wait; it decides nothing, so that a note
    whose writer has died blocks nobody.

    Args:
        title: what the holder is at, for those who wait.
        on_wait: told once if another process holds it, which one, since when and at what.

    Raises:
        NsvdError: the file system has no locks.
    """
    lock = FileLock(path)
    note = path.with_name(f"{path.name}.owner")
    try:
        _acquire(lock, timeout=0)
    except Timeout:
        on_wait(f"waiting for {_holder(note, title)}")
        _acquire(lock)
    try:
        with suppress(OSError):  # on a full disk there is no note, and still a lock
            note.write_text(json.dumps(whoami() | {"title": title}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def held_by_another(path: Path) -> bool:
    """Whether a living process holds the lock file `path`; leaves it as it is."""
    lock = FileLock(path)
    try:
        _acquire(lock, timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def hold_until_exit(path: Path) -> FileLock:
    """Take a lock file that is nobody else's, until it is released or this process dies."""
    lock = FileLock(path)
    _acquire(lock, timeout=0)
    return lock


class ScratchFolder:
    """A folder that goes with this object; or, once its process is dead, with the next such object.

    Args:
        parent: where it stands.
        prefix: of its name, and of those whose process is dead.

    Attributes:
        path: of the folder.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        for lock in parent.glob(f"{prefix}*/.lock"):
            if not held_by_another(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)
        self._folder = TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = hold_until_exit(self.path / ".lock")


def whoami() -> dict[str, Any]:
    """This process, and the time (UTC), as a note says them."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _acquire(lock: FileLock, timeout: float | None = None) -> None:
    lock.acquire(timeout=timeout)
    if isinstance(lock, SoftFileLock):  # what it falls back to is not released by a death
        lock.release()
        raise NsvdError(
            f"the file system of {lock.lock_file} has no flock: mount it with flock, or put "
            "results_dir and cache_dir elsewhere"
        )


def _holder(note: Path, title: str) -> str:
    try:
        who = json.loads(note.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']} at {who['title']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process, which is at {title}"  # it is just taking or leaving the lock
