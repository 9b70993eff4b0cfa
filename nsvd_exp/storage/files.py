"""Files that several processes share: locks, files written as a whole, checksums, scratch folders.

Locks hold across processes, and across machines that share a file system. `FileLock` takes `flock`,
which the kernel releases when the process that holds it dies, however it dies. Over NFS, Linux
(since 2.6.12) turns `flock` into a byte-range lock on the server, so it holds between machines too;
when a whole machine dies, the server frees its locks at the end of their lease (NFS 4, about a
minute and a half) or when it is up again (NFS 3). It does not hold on a mount with `nolock` or
`local_lock=flock`, and a file system without `flock` (Lustre unless mounted with `-o flock`) is
refused. Lock files stay where they are: to remove one in use would let two processes in.

Imports no torch.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.temporary import NO_FLOCK, make_temporary_folder, remove_dead

# Of a name that becomes part of a path. A file system takes 255 bytes, and more is added to it.
LONGEST_NAME, LONGEST_NAME_BYTES = 100, 200
LARGEST_READ = 2**30


class DamagedError(Exception):
    """A file that this program keeps for itself is missing, damaged or of another version.

    What it held can be made again.
    """


def checksum(parts: Iterable[bytes | memoryview]) -> int:
    """CRC-32 of the bytes of all parts, one after the other."""
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return found


def path_component(kind: str, name: str) -> str:
    """`name`, if it can be one component of a path: the one rule for names that a user gives.

    Args:
        kind: of what has the name, for messages.

    Raises:
        NsvdError: it is empty or too long, begins with a dot, or holds a separator or a character
            that cannot be printed.
    """
    problem = None
    if not name:
        problem = "is empty"
    elif name.startswith("."):
        problem = "begins with a dot"
    elif "/" in name or "\\" in name:
        problem = "holds a separator of paths"
    elif not name.isprintable():
        problem = "holds a character that cannot be printed"
    elif len(name) > LONGEST_NAME or len(name.encode()) > LONGEST_NAME_BYTES:
        problem = f"is longer than {LONGEST_NAME} characters or {LONGEST_NAME_BYTES} bytes"
    if problem:
        raise NsvdError(f"the {kind} name {name[:40]!r} {problem}, and cannot be part of a path")
    return name


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Waits for nobody, as reading a FIFO would.

    Raises:
        OSError: it is not there, cannot be read, is of another kind, or is above LARGEST_READ.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > LARGEST_READ:
            raise OSError(errno.EFBIG, "it is too large", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file in a temporary folder beside `path`, then rename it to `path`.

    It may do so in any way, also by renaming another file, as safetensors does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, folder = make_temporary_folder(path.parent, f".{path.name}.", ".tmp")
    try:
        temporary = folder / path.name
        write(temporary)
        temporary.chmod(0o644)  # some writers make private files; a store is shared
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        _discard(lock, folder)


def write_text(path: Path, text: str) -> None:
    """Replace the file by this text, in UTF-8 and as a whole."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def hold(path: Path, title: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path` alone.

    Beside it stands a note of who holds it, for those who wait. It decides nothing, so a note whose
    writer has died blocks nobody.

    Args:
        title: what the holder does, for those who wait.
        on_wait: called once if another process holds the lock, with a message that says which one,
            since when and what it does.

    Raises:
        NsvdError: the file system has no locks.
    """
    note = path.with_name(f"{path.name}.owner")
    try:
        lock = take(path)
    except Timeout:
        on_wait(f"waiting for {_holder(note, title)}")
        lock = take(path, timeout=-1)
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
    try:
        take(path).release()
    except Timeout:
        return True
    return False


def take(path: Path, timeout: float = 0) -> FileLock:
    """Take the lock file `path`, until it is released, or its object or this process ends.

    Args:
        timeout: seconds to wait for it; -1 waits as long as it takes.

    Raises:
        Timeout: another process holds it.
        NsvdError: the file system has no locks.
    """
    # A lock that only consists in the file being there would outlive the death of its holder.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        raise NsvdError(
            f"the file system of {path} has no flock: mount it with flock, or put results_dir and "
            "cache_dir elsewhere"
        ) from None
    return lock


class ScratchFolder:
    """A folder that is removed with this object; if the process is killed, by the next such object.

    Args:
        parent: the folder it is made in.
        prefix: of its name, and of the names of those whose process is dead.

    Attributes:
        path: the folder.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        remove_dead(parent.glob(f"{prefix}*"))
        handle, self.path = make_temporary_folder(parent, prefix)
        self._remove = weakref.finalize(self, _discard, handle, self.path)

    def remove(self) -> None:
        """Remove it now."""
        self._remove()


def _discard(lock: int, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is damaged, or something else."""
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def whoami() -> dict[str, Any]:
    """This process and the time (UTC): `host`, `pid`, `since`."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(note: Path, title: str) -> str:
    try:
        who = json.loads(note.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}, since {who['since']} at {who['title']}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process, which is at {title}"  # it is just taking or leaving the lock
