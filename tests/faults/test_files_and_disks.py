"""Files that are damaged or exchanged, disks that are full, folders that cannot be used."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.cells import run
from helpers.configuration import compose
from helpers.faults import Fault, permissions, ran, stored_in, temporaries_under

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_similarity
from nsvd_exp.experiment.run_similarity import run_similarities
from nsvd_exp.experiment.session import Session
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.storage.files import DamagedError
from nsvd_exp.storage.results import CELL, SIMILARITY, read_result, result_paths
from nsvd_exp.storage.tensors import StatisticsFolder, load_tensors

pytestmark = pytest.mark.slow

Settings = Callable[..., list[str]]
Record = Callable[[str, Any], None]
METHODS = ("dense", "svd", "asvd_0", "asvd_i", "asvd_ii")


@pytest.fixture
def arguments(settings: Settings) -> list[str]:
    return [*settings(), "cache.keep=bases", "dataset=[ptb,c4]", "method=nsvd_i"]


@pytest.fixture
def store(arguments: list[str], tmp_path: Path) -> Path:
    """Five cells, two similarity records and what they share."""
    session = Session()
    for method in METHODS:
        assert run(*arguments, f"method={method}", session=session)["error"] is None
    run_similarities(plan_similarity(compose(*arguments)), session)
    return tmp_path / "results"


def cut(content: bytes, start: int, _: random.Random) -> bytes:
    return content[:start]


def zeroed(content: bytes, start: int, _: random.Random) -> bytes:
    return content[:start] + bytes(len(content[start : start + 64])) + content[start + 64 :]


def scribbled(content: bytes, start: int, generator: random.Random) -> bytes:
    lost = len(content[start : start + 64])
    return content[:start] + generator.randbytes(lost) + content[start + lost :]


def doubled(content: bytes, start: int, _: random.Random) -> bytes:
    """A part that was written twice."""
    return content[:start] + content[start : start + 64] + content[start:]


def missing(content: bytes, start: int, _: random.Random) -> bytes:
    return content[:start] + content[start + 64 :]


DAMAGES = (cut, zeroed, scribbled, doubled, missing)


def damaged(content: bytes) -> Iterator[bytes]:
    """The content, damaged at every sixteenth in each way; where that is a change."""
    generator = random.Random(0)
    for sixteenth, damage in itertools.product(range(16), DAMAGES):
        changed = damage(content, sixteenth * len(content) // 16, generator)
        if changed != content:
            yield changed


@pytest.mark.parametrize("kind", [CELL, SIMILARITY], ids=lambda kind: kind.folder)
def test_a_result_that_is_damaged_is_refused_by_name(
    kind: Any, store: Path, record_property: Record
) -> None:
    tried = 0
    for path in result_paths(store, kind):
        content = path.read_bytes()
        for changed in damaged(content):
            path.write_bytes(changed)
            with pytest.raises(NsvdError, match=str(path)):
                read_result(path, kind)
            (problem,) = read_contents(store).problems
            assert str(path) in problem
            tried += 1
        path.write_bytes(content)
    assert read_contents(store).problems == []
    record_property("tried", tried)
    assert tried > 150


CACHED = {
    "index": "cache/calibration/*/index.json",
    "statistics": "cache/calibration/*/*.safetensors",
    "basis": "cache/bases/*/*.safetensors",
    "note": "cache/*/*.json",
    "note of use": "cache/in_use/*.json",
}


@pytest.mark.parametrize("kind", CACHED)
def test_a_cache_file_that_is_damaged_is_made_again(
    kind: str, arguments: list[str], store: Path, record_property: Record
) -> None:
    session = Session()  # it keeps its note of use
    expected = run(*arguments, session=session)["datasets"]
    cell = next(path.parent for path in result_paths(store, CELL) if "nsvd_i" in str(path))
    path = sorted(store.glob(CACHED[kind]))[0]
    content = path.read_bytes()
    tried = 0
    for changed in damaged(content):
        shutil.rmtree(cell)
        path.write_bytes(changed)
        again = run(*arguments)
        assert again["error"] is None
        for name in expected:
            assert again["datasets"][name]["nll"] == pytest.approx(expected[name]["nll"], rel=1e-6)
        tried += 1
    record_property("tried", tried)
    assert tried >= 70


def flips(content: bytes, count: int) -> Iterator[bytes]:
    """The content with one bit flipped; `count` times at random."""
    for bit in random.Random(1).sample(range(8 * len(content)), min(count, 8 * len(content))):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_every_flipped_bit_is_found(store: Path, record_property: Record) -> None:
    """In results, in the index and in tensors; in white space of a header it changes nothing."""
    tried = harmless = 0
    for kind in (CELL, SIMILARITY):
        path = result_paths(store, kind)[0]
        content = path.read_bytes()
        for changed in flips(content, 10_000):
            path.write_bytes(changed)
            with pytest.raises(NsvdError, match=str(path)):
                read_result(path, kind)
            tried += 1
        path.write_bytes(content)
    (index,) = store.glob(CACHED["index"])
    folder, content = StatisticsFolder(index.parent, index.parent.name), index.read_bytes()
    expected = folder.load()
    for changed in flips(content, 2000):
        index.write_bytes(changed)
        try:
            found = folder.load()
        except DamagedError:
            pass
        else:
            harmless += 1
            assert (found.reads, found.record) == (expected.reads, expected.record)
        tried += 1
    path = sorted(store.glob(CACHED["basis"]))[0]
    tensors, about = load_tensors(path)
    content, whole = path.read_bytes(), {name: t.clone() for name, t in tensors.items()}
    del tensors  # a map of the file that is written to
    for changed in flips(content, 10_000):
        path.write_bytes(changed)
        try:
            again, said = load_tensors(path)
        except DamagedError:
            pass
        else:
            harmless += 1
            assert said == about
            assert all(bool((again[name] == whole[name]).all()) for name in whole)
        tried += 1
    record_property("tried", tried)
    record_property("harmless", harmless)


def test_results_in_the_place_of_others_are_refused(store: Path, record_property: Record) -> None:
    paths = [*result_paths(store, CELL), *result_paths(store, SIMILARITY)]
    contents = {path: path.read_bytes() for path in paths}
    pairs = list(itertools.permutations(paths, 2))
    for path, other in pairs:
        path.write_bytes(contents[other])
        (problem,) = read_contents(store).problems
        assert str(path) in problem
        path.write_bytes(contents[path])
    record_property("tried", len(pairs))


def test_cache_files_in_the_place_of_others_are_made_again(
    arguments: list[str], store: Path, record_property: Record
) -> None:
    run(*arguments, "method=asvd_i", "calibration.seed=4")
    expected = run(*arguments)["datasets"]
    cell = next(path.parent for path in result_paths(store, CELL) if "nsvd_i" in str(path))
    paths = sorted((store / "cache").rglob("*.safetensors"))
    pairs = random.Random(2).sample(list(itertools.permutations(paths, 2)), 80)
    for path, other in pairs:
        shutil.rmtree(cell)
        shutil.copy(other, path)
        again = run(*arguments)
        assert again["error"] is None
        for name in expected:
            assert again["datasets"][name]["nll"] == pytest.approx(expected[name]["nll"], rel=1e-6)
    record_property("tried", len(pairs))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def used_by(folder: Path) -> int:
    """Bytes of the blocks that all files take."""
    return int(subprocess.check_output(["du", "-s", "-B1", folder]).split()[0])


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.parametrize("memory", ["resident", "streamed"])
def test_a_disk_that_is_full_sooner_or_later(
    memory: str, arguments: list[str], tmp_path: Path, disk: Path, record_property: Record
) -> None:
    arguments = [*arguments, f"memory={memory}"]
    clean = ran([[*arguments, f"results_dir={tmp_path / 'clean'}"]])
    needed = used_by(tmp_path / "clean")
    states: dict[str, int] = {}
    for step in range(1, 17):
        folder = disk / str(step)
        cells = [[*arguments, f"results_dir={folder}"]]
        resize(disk, used_by(disk) + step * needed // 13)
        ((state, message),) = ran(cells).outcomes
        states[state] = states.get(state, 0) + 1
        if state != "done":
            assert "No space left" in message or "no room" in message or "full" in message
        assert stored_in(folder).items() <= clean.losses.items()
        assert temporaries_under(folder) == []
        resize(disk, 2**30)
        again = ran(cells)
        assert again.is_done, again.outcomes
        assert stored_in(folder) == clean.losses
        shutil.rmtree(folder)
    record_property("states", states)
    assert states["done"] >= 2
    assert sum(states.values()) - states["done"] >= 5


def test_files_that_cannot_grow(arguments: list[str], tmp_path: Path) -> None:
    """The largest file that may be written stands for a disk, where none can be mounted."""
    clean = ran([[*arguments, f"results_dir={tmp_path / 'clean'}"]])
    for size in (0, 1, 500, 1000, 3000, 6000, 12_000, 24_000, 48_000):
        folder = tmp_path / str(size)
        cells = [[*arguments, f"results_dir={folder}"]]
        ran(cells, Fault(largest_file=size))
        assert stored_in(folder).items() <= clean.losses.items()
        assert temporaries_under(folder) == []
        assert ran(cells).is_done
        assert stored_in(folder) == clean.losses


PLACES = {
    "cells": ("cells", 0o555, "cannot be written to: Permission denied"),
    "a cell": ("cells/*", 0o555, "cannot be written to: Permission denied"),
    "a cell, unreadable": ("cells/*", 0o000, "cannot be written to: Permission denied"),
    "a result": ("cells/*/result.json", 0o000, "cannot be read"),
    "the cache": ("cache", 0o555, ""),
    "bases": ("cache/bases", 0o555, "cannot be written"),
    "calibrations": ("cache/calibration", 0o555, "cannot be written"),
    "statistics": ("cache/calibration/*/", 0o555, ""),
    "statistics, unreadable": ("cache/calibration/*/", 0o000, ""),
    "a basis, unreadable": ("cache/bases/*/*q_proj.safetensors", 0o000, ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_read_or_written_is_one_message_or_done_without(
    place: str, arguments: list[str], tmp_path: Path, record_property: Record
) -> None:
    """Another cell, and more of the same one; as a user without root's rights."""
    pattern, mode, said = PLACES[place]
    store = tmp_path / "results"
    narrow = [*arguments, "dataset=[ptb]"]
    assert ran([narrow]).is_done
    before = stored_in(store)
    found = next(iter(store.glob(pattern)))
    other = [*arguments, "method=asvd_0", "calibration.seed=4"]
    with permissions(found, mode):
        subject = ran([arguments, other], Fault(is_subject=True))
    assert len(subject.outcomes) == 2, "it is a message, and not the end of the process"
    for state, message in subject.outcomes:
        record_property(state, message)
        assert state in ("done", "NsvdError", "failed")
        assert state == "done" or message
    assert any(said in message for _, message in subject.outcomes) or not said
    assert before.items() <= stored_in(store).items()
    assert ran([arguments]).is_done
    assert before.items() <= stored_in(store).items()
