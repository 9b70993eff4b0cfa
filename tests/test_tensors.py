"""Tensors on disk come back as they were, or are said to be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.matrices import random_inputs, statistics_of
from torch import Tensor

from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.storage.files import DamagedError
from nsvd_exp.storage.tensors import FORMAT, StatisticsFolder, load_tensors, save_tensors

TENSORS = {
    "a": torch.arange(600, dtype=torch.float64).view(20, 30),
    "transposed": torch.arange(6, dtype=torch.float32).view(2, 3).T,
    "half": torch.arange(5, dtype=torch.bfloat16),
    "empty": torch.empty(0, 3),
    "number": torch.tensor(7),
}
ABOUT = {"seen": 3, "of": [1.5, None, "重み"]}


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    save_tensors(path, TENSORS, ABOUT)
    tensors, about = load_tensors(path)
    assert about == ABOUT
    assert tensors.keys() == TENSORS.keys()
    assert all(same(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def replacing(old: str, new: str) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)  # safetensors says how long its header is
    return lambda content: content.replace(old.encode(), new.encode(), 1)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-8],
    "cut in its header": lambda content: content[:20],
    "a bit of a tensor": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "no safetensors": lambda content: b"PK" + content,
    "another version": replacing(f'"format":"{FORMAT}"', '"format":"0"'),
    "a name": replacing('"half":{', '"hals":{'),
    "a shape": replacing('"shape":[20,30]', '"shape":[30,20]'),
    "a dtype": replacing('"dtype":"BF16"', '"dtype":"F16" '),
    "what is said": replacing("seen", "sewn"),
    "its checksum": replacing('"checksum":"', '"checksun":"'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_said_to_be_damaged(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_tensors(path, TENSORS, ABOUT)
    content = path.read_bytes()
    path.write_bytes(DAMAGE[damage](content))
    assert path.read_bytes() != content
    with pytest.raises(DamagedError, match=str(path)):
        load_tensors(path)


def test_any_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """In the header, where a bit of white space is no change, and in the data."""
    path = tmp_path / "file"
    save_tensors(path, TENSORS, ABOUT)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    bits = [*range(0, 8 * start, 5), *range(8 * start, 8 * len(content), 301)]
    assert len(bits) > 700
    found = 0
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            tensors, about = load_tensors(path)
        except DamagedError:
            found += 1
        else:
            assert bit < 8 * start
            assert about == ABOUT
            assert all(same(tensors[name], TENSORS[name]) for name in TENSORS)
    assert found > 0.97 * len(bits)


def test_a_file_of_something_else_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_tensors(path, TENSORS, ABOUT)
    assert load_tensors(path, {"seen": 3})[1] == ABOUT
    for of in ({"seen": 4}, {"seen": 3, "layer": "q"}):
        with pytest.raises(DamagedError, match=str(path)):
            load_tensors(path, of)


def test_a_file_that_is_not_there_counts_as_damaged(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="is missing"):
        load_tensors(tmp_path / "file")


# As a forward pass makes it: o reads an input of its own, q and k share one.
READS = {"q": "q", "k": "q", "o": "o"}
RECORD = {"samples": 7, "bos": False}


def calibration() -> Calibration:
    inputs = {name: statistics_of(random_inputs(6, 50, seed)) for seed, name in enumerate("qo")}
    return Calibration(inputs, READS, RECORD)


def written(path: Path) -> StatisticsFolder:
    folder = StatisticsFolder(path, "c")
    folder.save(calibration())
    return folder


def test_statistics_come_back_as_they_were_written(tmp_path: Path) -> None:
    found, expected = written(tmp_path / "s").load(), calibration()
    assert (found.reads, found.record) == (READS, RECORD)
    assert list(found.inputs) == ["q", "o"]
    assert found.nbytes == expected.nbytes == 2 * 6 * 6 * 8
    for layer in READS:
        ours, theirs = found.of(layer), expected.of(layer)
        assert ours.tokens == theirs.tokens
        for field in ("gram", "abs_mean", "mean"):
            assert same(getattr(ours, field), getattr(theirs, field))
    with pytest.raises(KeyError):
        found.inputs["k"]
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"q.safetensors", "o.safetensors", "index.json"}


def test_with_its_index_a_folder_is_complete(tmp_path: Path) -> None:
    folder, known = StatisticsFolder(tmp_path / "s"), calibration()
    assert not folder.is_complete
    for name, statistics in known.inputs.items():
        folder.add(name, statistics)
        assert not folder.is_complete
    folder.finish(known.reads, known.record)
    assert folder.is_complete
    folder.add("q", known.of("q"))  # a pass that begins again
    assert not folder.is_complete
    with pytest.raises(DamagedError, match=r"index\.json is missing"):
        folder.load()


def test_what_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    class Full(dict[str, Statistics]):
        def items(self) -> object:  # type: ignore[override]
            yield from super().items()
            raise OSError("No space left on device")

    folder = StatisticsFolder(tmp_path / "s")
    with pytest.raises(OSError, match="No space"):
        folder.save(Calibration(Full(calibration().inputs), READS))
    assert list(tmp_path.iterdir()) == []


def edit_index(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


INDEX_DAMAGE: dict[str, Callable[[Path], object]] = {
    "a file is gone": lambda folder: (folder / "o.safetensors").unlink(),
    "a file of another input": lambda folder: (folder / "q.safetensors").replace(
        folder / "o.safetensors"
    ),
    "a file is cut off": lambda folder: (folder / "o.safetensors").write_bytes(b"x"),
    "another file in its place": lambda folder: save_tensors(
        folder / "o.safetensors", {"U": torch.eye(2)}, {"key": "c", "layer": "o", "tokens": 3}
    ),
    "who reads what": lambda folder: edit_index(folder / "index.json", '"k": "q"', '"k": "o"'),
    "the record": lambda folder: edit_index(folder / "index.json", "7", "8"),
    "the index is cut off": lambda folder: edit_index(folder / "index.json", "}", ""),
    "no index": lambda folder: (folder / "index.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_damaged_statistics_are_said_to_be_damaged(damage: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    INDEX_DAMAGE[damage](folder.path)
    with pytest.raises(DamagedError):
        folder.load()


def test_statistics_of_another_calibration_or_of_other_layers_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    with pytest.raises(DamagedError, match="of another calibration"):
        StatisticsFolder(folder.path, "d").load()
    assert folder.load(widths=dict.fromkeys(READS, 6)).reads == READS
    for widths in ({"q": 7}, {"v": 6}):
        with pytest.raises(DamagedError, match="has no statistics of"):
            folder.load(widths=widths)
    for name in "qo":  # another calibration's file of the same input
        (tmp_path / "t" / f"{name}.safetensors").unlink(missing_ok=True)
    other = StatisticsFolder(tmp_path / "t", "d")
    other.save(calibration())
    (other.path / "q.safetensors").replace(folder.path / "q.safetensors")
    with pytest.raises(DamagedError, match=r"q\.safetensors: is of"):
        folder.load()


def test_what_was_just_written_is_not_read_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    path = folder.path / "o.safetensors"
    path.write_bytes(DAMAGE["a bit of a tensor"](path.read_bytes()))
    with pytest.raises(DamagedError, match="checksum"):
        folder.load()
    assert folder.load(check=False).reads == READS


def test_the_index_can_be_read_by_people(tmp_path: Path) -> None:
    index = json.loads((written(tmp_path / "s").path / "index.json").read_text())
    assert {"reads": READS, "record": RECORD}.items() <= index.items()
