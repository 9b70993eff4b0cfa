"""`cache_dir`: what is kept between processes, within a size, and never removed while in use.

    cache_dir/.lock                         held for a moment by who looks through the folder
    cache_dir/in_use/<host>-<pid>-*.lock    held by a `Cache` as long as it lives, and beside it
                            .json           which entries it uses
    cache_dir/<kind>/<key>.json             what an entry is of; its time is that of its last use
    cache_dir/<kind>/<key>*                 its files and folders
    cache_dir/.streamed.*, .hidden.*        what a streamed model needs for itself
    .*.tmp                                  folders of files that are being written

An entry is in use from `Cache.use` until the same `Cache` uses another of its kind, or ends. Who
removes entries looks at the living processes under `.lock`, which `use` takes too: an entry is
either seen to be in use, or gone before anybody looks for it. Imports no torch.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import hold, read_object, write_text
from nsvd_exp.storage.in_use import Pin, users_of
from nsvd_exp.storage.temporary import TEMPORARY, is_dead, remove_dead, temporaries_in

log = logging.getLogger(__name__)

STATISTICS, BASES = "calibration", "bases"
KINDS = (STATISTICS, BASES)
# What each value of `cache.keep` keeps.
KEPT: dict[str, tuple[str, ...]] = {"none": (), "statistics": (STATISTICS,), "bases": KINDS}

# How the names of temporary things in `cache_dir` itself begin: of the folder that a streamed model
# has for itself, and of the file of hidden states that the host has no room for.
SCRATCH = STREAMED, HIDDEN = ".streamed.", ".hidden."

# safetensors reports a full disk as an error of its own.
CANNOT_WRITE = (OSError, SafetensorError)
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Entry:
    """One thing that is kept.

    Attributes:
        about: `model`, `dtype`, `calibration`, `metric`, as far as the entry has them; empty where
            its note is gone.
        bytes: the size of all its files.
        used: when it was last used, in seconds since 1970.
        users: the living processes that use it, as `process PID on HOST`.
    """

    kind: str
    key: str
    about: dict[str, str]
    bytes: int
    used: float
    users: tuple[str, ...]


@dataclass(frozen=True)
class Temporary:
    """A file that is being written, or a folder that a streamed model uses.

    Attributes:
        bytes, used: as in `Entry`.
        is_dead: whether its process is dead, so that the next run removes it.
    """

    path: Path
    bytes: int
    used: float
    is_dead: bool


class Cache:
    """A `cache_dir` as this process uses it.

    All work of a process under the same settings shares one object: it warns of the same thing
    once, and what it uses is protected as long as it lives. Threads may share it. In a forked
    process it protects what that process uses, and leaves alone what its parent does.

    Args:
        folder: made when something is to be kept.
        keep: `none`, `statistics` or `bases`.
        limit: bytes that all entries may take together; None for no limit. A process looks again at
            what others have added once it has added a fiftieth of the limit itself.
    """

    def __init__(self, folder: Path, keep: str = "bases", limit: int | None = None) -> None:
        self.folder, self.limit = folder, limit
        self._kinds = KEPT[keep]
        self._room = 0  # bytes that can be written before the folder is looked at again
        self._counting = threading.Lock()  # of the room: threads may write at once
        self._said: set[str] = set()
        # By process: a forked one has a copy of its parent's pin, but not its lock.
        self._pins: dict[int, Pin] = {}

    def keeps(self, kind: str) -> bool:
        """Whether entries of this kind are kept."""
        return kind in self._kinds

    def use(self, kind: str, key: str, about: dict[str, str]) -> None:
        """From now on this entry is in use, and no longer the last one of its kind.

        Raises:
            NsvdError: the folder cannot be written to.
        """
        try:
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._pin().use(kind, key)
                note = self._note(kind, key)
                if not note.exists():
                    write_text(note, json.dumps(about, ensure_ascii=False))
                os.utime(note)
        except OSError as error:
            if error.errno not in FULL:
                raise NsvdError(f"cache_dir={self.folder} cannot be written to: {error}") from None
            self.say(f"the disk of cache_dir={self.folder} is full: what is used is not protected")

    def write(self, kind: str, size: int, write: Callable[[], object]) -> bool:
        """Write something of an entry in use, if there is room for it; warns if there is not.

        Args:
            size: about how many bytes it will take.
            write: writes it, under `folder`.

        Returns:
            Whether it was written to its end.
        """
        try:
            if not self._has_room(size):
                self.say(
                    f"{kind} is not kept: {self.folder} has no room for {size / 1e9:.3g} GB more "
                    f"within cache.limit_gb={(self.limit or 0) / 1e9:g}"
                )
                return False
            write()
        except CANNOT_WRITE as error:
            self.say(f"{kind} cannot be kept in {self.folder}: {error}")
            return False
        return True

    def say(self, message: str) -> None:
        """Warn, once of the same thing."""
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)

    def entries(self) -> list[Entry]:
        """All that is kept, least recently used first. Tidies up after dead processes."""
        if not self.folder.is_dir():
            return []
        with self._alone():
            return self._entries()

    def temporaries(self) -> list[Temporary]:
        """All temporary files and folders, whether or not their process is alive."""
        return [Temporary(path, *_status(path), is_dead(path)) for path in self._temporary_paths()]

    def tidy(self) -> None:
        """Remove the temporary files and folders of dead processes, as far as that can be done."""
        with suppress(OSError):
            remove_dead(self._temporary_paths())

    def _temporary_paths(self) -> list[Path]:
        own = [path for prefix in SCRATCH for path in self.folder.glob(f"{prefix}*")]
        folders = [self.folder / kind for kind in KINDS]
        folders += [path for folder in folders for path in _iterdir(folder) if path.is_dir()]
        return own + [path for folder in folders for path in temporaries_in(folder)]

    def remove(self, wanted: Callable[[Entry], bool]) -> tuple[list[Entry], list[Entry]]:
        """Remove the wanted entries that are not in use.

        Returns:
            The entries that are gone, and the wanted ones that are in use and stay.
        """
        if not self.folder.is_dir():
            return [], []
        with self._alone():
            found = [entry for entry in self._entries() if wanted(entry)]
            gone = [entry for entry in found if not entry.users]
            for entry in gone:
                self._remove(entry)
        return gone, [entry for entry in found if entry.users]

    def _has_room(self, size: int) -> bool:
        if self.limit is None:
            return True
        with self._counting:
            if size > self._room:
                self._room = self._make_room(size, self.limit)
            self._room -= size
            return self._room >= 0

    def _make_room(self, size: int, limit: int) -> int:
        """Remove entries, least recently used first, until `size` more fits; the room then."""
        with self._alone():
            entries = self._entries()
            total = sum(entry.bytes for entry in entries)
            written = (t for t in self.temporaries() if t.path.parent != self.folder)
            total += sum(temporary.bytes for temporary in written)
            for entry in entries:
                if total + size <= limit:
                    break
                if not entry.users:
                    self._remove(entry)
                    total -= entry.bytes
        return min(limit - total, size + limit // 50)

    def _alone(self) -> Any:
        return hold(self.folder / ".lock", "the list of the cache", lambda _: None)

    def _entries(self) -> list[Entry]:
        users = users_of(self.folder)
        found = []
        for kind in KINDS:
            files: dict[str, list[Path]] = {}
            for path in _iterdir(self.folder / kind):
                if not path.name.startswith("."):
                    files.setdefault(_key_of(path), []).append(path)
            for key, paths in files.items():
                using = tuple(who for who, used in users if used.get(kind) == key)
                note = self._note(kind, key)
                about = {name: str(value) for name, value in read_object(note).items()}
                used = max(_status(path)[1] for path in ([note] if note in paths else paths))
                size = sum(_status(path)[0] for path in paths)
                found.append(Entry(kind, key, about, size, used, using))
        return sorted(found, key=lambda entry: entry.used)

    def _remove(self, entry: Entry) -> None:
        # The note last: what a death leaves over is still an entry, and found again.
        note = self._note(entry.kind, entry.key)
        paths = [p for p in _iterdir(self.folder / entry.kind) if _key_of(p) == entry.key]
        for path in sorted(paths, key=lambda path: path == note):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _note(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"

    def _pin(self) -> Pin:
        pid = os.getpid()
        if pid not in self._pins:
            pin = self._pins[pid] = Pin(self.folder)
            weakref.finalize(self, pin.release)  # with this object, or at the end of the process
        return self._pins[pid]


def _key_of(path: Path) -> str:
    """The key that a file's name begins with."""
    return path.name.partition(".")[0]


def _iterdir(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def _status(path: Path) -> tuple[int, float]:
    """The bytes of a file, or of all files in a folder, and the time of the last change.

    Files that are being written there are not among them.
    """
    size, changed = 0, 0.0
    for file in [path, *_inside(path)]:
        with suppress(FileNotFoundError):  # a temporary file that was renamed meanwhile
            status = file.stat()
            size += status.st_size if file.is_file() else 0
            changed = max(changed, status.st_mtime)
    return size, changed


def _inside(path: Path) -> Iterator[Path]:
    """All files and folders in a folder, but for what is being written."""
    for inner in _iterdir(path):
        if not inner.match(TEMPORARY):
            yield inner
            yield from _inside(inner)
