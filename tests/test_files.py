"""Files that processes share: written as a whole, held by one process at a time, tidied up."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.data.sources import locate_dataset
from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import (
    ScratchFolder,
    checksum,
    held_by_another,
    hold,
    path_component,
    read_regular,
    write_atomically,
    write_text,
)
from nsvd_exp.storage.results import cell_file, similarity_file
from nsvd_exp.storage.temporary import is_dead, remove_dead, temporaries_in


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
        assert file.parent.parent == path.parent, "a rename across file systems is no rename"

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


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../a",
        "/a",
        "a\\b",
        "a\nb",
        "a\x00b",
        "\x1b[31m",
        "\udcff",
        "\u202e",  # writes backwards from here on
        "a" * 101,
        "字" * 67,  # 201 bytes
    ],
)
def test_a_name_that_cannot_be_part_of_a_path_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NsvdError, match=r"the method name .* cannot be part of a path"):
        path_component("method", name)
    with pytest.raises(NsvdError, match="the method name"):
        cell_file(tmp_path, name, {"method": None})
    with pytest.raises(NsvdError, match="the dataset name"):
        similarity_file(tmp_path, name, {})
    with pytest.raises(NsvdError, match="the dataset name"):
        locate_dataset(DatasetConfig(name=name, title="", hub=""), "test", str(tmp_path))


@pytest.mark.parametrize("name", ["nsvd_i", "a" * 100, "my method (2)", "方法", "a.b", "-x", "é~$"])
def test_other_names_are_what_they_are(name: str, tmp_path: Path) -> None:
    assert path_component("method", name) == name
    file = cell_file(tmp_path, name, {"method": None})
    with file.lock(pytest.fail):
        assert file.folder.parent == tmp_path / "cells"


def test_a_number_with_too_many_digits_for_a_folder_is_one_message(tmp_path: Path) -> None:
    identity = {"method": {"k1": "0." + 300 * "0" + "1"}, "ratio": "0.3"}
    with pytest.raises(NsvdError, match="has too long a name for a folder"):
        cell_file(tmp_path, "nsvd_i", identity)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x00\xff")
    assert read_regular(path) == b"\x00\xff"
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link") == b"\x00\xff"
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="no regular file"):
            read_regular(other)


WRITER = """
import sys, time
from pathlib import Path
from nsvd_exp.storage.files import write_atomically
def write(path):
    other = path.with_name("other")  # as safetensors does: the file is not the one that was opened
    other.write_text("half")
    other.replace(path)
    print(path.parent.name, flush=True)
    time.sleep(60)
write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.slow
def test_a_temporary_file_stays_as_long_as_its_process_lives(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        remove_dead(temporaries_in(tmp_path))
        assert names_in(tmp_path) == {name}
        assert not is_dead(tmp_path / name)
        writer.kill()
    assert is_dead(tmp_path / name)
    assert names_in(tmp_path) == {name}
    remove_dead(temporaries_in(tmp_path))
    assert names_in(tmp_path) == set()


def test_writers_and_who_tidies_up_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """A new temporary file, not locked yet, looks like one of a dead process."""
    done = threading.Event()

    def tidy() -> None:
        while not done.is_set():
            remove_dead([*temporaries_in(tmp_path), *tmp_path.glob(".scratch.*")])

    threads = [threading.Thread(target=tidy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(60):
            write_text(tmp_path / "file", str(number))
            assert (tmp_path / "file").read_text() == str(number)
            scratch = ScratchFolder(tmp_path, ".scratch.")
            (scratch.path / "file").write_text("x")
            assert (scratch.path / "file").read_text() == "x"
    finally:
        done.set()
        for thread in threads:
            thread.join()
    del scratch
    assert names_in(tmp_path) == {"file"}


def test_an_empty_scratch_folder_of_a_dead_process_goes_too(tmp_path: Path) -> None:
    (tmp_path / ".scratch.xyz").mkdir()
    scratch = ScratchFolder(tmp_path, ".scratch.")
    assert names_in(tmp_path) == {scratch.path.name}
