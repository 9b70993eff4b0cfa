"""Temporary files and folders that go with their process, or with the next one that sees them.

Each is locked by the process that made it as long as it needs it. The kernel lets go of the lock
when the process dies, however it dies: what nobody has locked is of a dead process. A folder is
locked by a file of its own in it, so that what else stands there may be replaced. Imports no torch.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
# Folders of files that are being written, each in the folder where its file will be.
TEMPORARY = ".*.tmp"


def make_temporary(folder: Path, prefix: str) -> tuple[int, Path]:
    """A new file, and its descriptor: as long as that is open, `remove_dead` spares the file.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=prefix)
        # Before it is locked, another process may take it for one of a dead process.
        if _take(handle, Path(name), without_locks=True):
            return handle, Path(name)
        os.close(handle)


def remove_dead(temporaries: Iterable[Path]) -> None:
    """Remove what a dead process made: files of `make_temporary`, folders of `ScratchFolder`.

    What a living process holds stays, and what cannot be removed.
    """
    for path in temporaries:
        with suppress(OSError), _of_the_dead(path) as is_dead:
            if is_dead and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif is_dead:
                path.unlink()


def is_dead(temporary: Path) -> bool:
    """Whether the process is dead that made a file or folder which `remove_dead` would remove."""
    with suppress(OSError), _of_the_dead(temporary) as found:
        return found
    return False


@contextmanager
def _of_the_dead(path: Path) -> Iterator[bool]:
    """Whether nobody holds a file, or the lock in a folder; nobody else takes it inside."""
    lock = path / ".lock" if path.is_dir() else path
    if lock != path and not lock.exists():
        lock.touch()  # its process died, or is just about to make it and will look again
    handle = os.open(lock, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        yield _take(handle, lock)
    finally:
        os.close(handle)


def _take(handle: int, path: Path, without_locks: bool = False) -> bool:
    """Take the lock of an open file, until it is closed; False if it is held, or the file gone.

    Args:
        without_locks: the answer on a file system that has none.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_FLOCK:
            return without_locks
        raise
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def temporaries_in(folder: Path) -> list[Path]:
    """What `write_atomically` has in a folder, itself alone, for files that are not whole yet."""
    return list(folder.glob(TEMPORARY))


def make_temporary_folder(parent: Path, prefix: str, suffix: str = "") -> tuple[int, Path]:
    """A new folder, and the descriptor of its lock, as of `make_temporary`.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix, suffix=suffix))
        # Before it is locked, another process may take it for one of a dead process.
        with suppress(FileNotFoundError):
            lock = folder / ".lock"
            handle = os.open(lock, os.O_RDWR | os.O_CREAT)
            if _take(handle, lock, without_locks=True):
                return handle, folder
            os.close(handle)
