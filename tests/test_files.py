"""Files that processes share: written as a whole, held by one process at a time, tidied up."""

from __future__ import annotations

import errno
import fcntl
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import (
    ScratchFolder,
    checksum,
    held_by_another,
    hold,
    write_atomically,
    write_text,
)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_text(path, "old")

    def half(file: Path) -> None:
        file.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names_in(path.parent) == {"file"}


def test_a_reader_never_sees_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write(file: Path) -> None:
        file.write_text("new")
        assert path.read_text() == "old"
        assert file.parent == path.parent, "a rename across file systems is no rename"

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert names_in(tmp_path) == {"file"}


def test_a_checksum_is_of_the_bytes_and_not_of_how_they_are_cut() -> None:
    assert checksum([b"12345", memoryview(b"6789")]) == checksum([b"123456789"]) == 0xCBF43926
    assert checksum([b"123456788"]) != checksum([b"123456789"])


def test_a_lock_is_free_after_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"

    def fail() -> None:
        with hold(path, "x", pytest.fail):
            assert held_by_another(path)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not held_by_another(path)
    assert names_in(tmp_path) == {"x.lock"}


HOLDER = """
import sys, time
from pathlib import Path
from nsvd_exp.storage.files import hold
with hold(Path(sys.argv[1]), "a long work", print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_lock_says_who_holds_it_and_a_killed_process_lets_go(tmp_path: Path) -> None:
    path, waited = tmp_path / "x.lock", []
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert held_by_another(path)

        def kill_holder(message: str) -> None:
            waited.append(message)
            holder.send_signal(signal.SIGKILL)

        with hold(path, "the next", kill_holder):
            assert holder.wait(timeout=60) == -signal.SIGKILL
    (said,) = waited
    assert said.startswith(f"waiting for process {holder.pid} on {socket.gethostname()}, since 20")
    assert said.endswith("at a long work")
    assert names_in(tmp_path) == {"x.lock"}


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.ENOSYS, NsvdError, r"x\.lock has no flock: mount it with flock"),
        (errno.ENOTSUP, NsvdError, "has no flock"),
        (errno.ENOLCK, NsvdError, "has no flock"),
        (errno.EIO, OSError, "the disk is broken"),  # another matter
    ],
)
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    message: str,
) -> None:
    def no_flock(*_: Any) -> None:
        raise OSError(number, "the disk is broken")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    with pytest.raises(error, match=message), hold(tmp_path / "x.lock", "x", pytest.fail):
        pytest.fail("it was held")


def test_a_scratch_folder_goes_with_its_object(tmp_path: Path) -> None:
    one, other = (ScratchFolder(tmp_path, ".scratch.") for _ in range(2))
    (one.path / "file").write_text("x")
    assert names_in(tmp_path) == {one.path.name, other.path.name}
    del one
    assert names_in(tmp_path) == {other.path.name}
