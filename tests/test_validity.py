"""A result counts if it is as it was written, stands where it belongs, and fits together."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import make_cell, make_similarity

from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import (
    CELL,
    RESULT_VERSION,
    SIMILARITY,
    cell_file,
    read_result,
    result_paths,
)
from nsvd_exp.storage.validity import sealed

Edit = Callable[[dict[str, Any]], object]
DEEP = 200_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three cells, two of them sound throughout, and a similarity record."""
    for method, perplexity in (("dense", 4.0), ("svd", 9.0), ("asvd_i", 7.0)):
        sizes = {"datasets": {"ptb": perplexity}, "windows": 3, "length": 8}
        make_cell(tmp_path, method=method, version=RESULT_VERSION, **sizes)
    make_similarity(tmp_path, version=RESULT_VERSION)
    return tmp_path


def file_of(store: Path, name: str = "svd") -> Path:
    (path,) = (path for path in result_paths(store, CELL) if path.parent.name.startswith(name))
    return path


def edit(path: Path, change: Edit, seal: bool = True) -> None:
    """Change a stored result, with a checksum that is right for it or, as version 1, with none."""
    result = json.loads(path.read_text(encoding="utf-8"))
    change(result)
    if seal:
        path.write_bytes(sealed(result))
    else:
        del result["checksum"]
        path.write_text(json.dumps(result | {"version": 1}), encoding="utf-8")


def assert_refused(path: Path, said: str, kind: Any = CELL) -> None:
    """One message that names the file, from `read_result` and from the report; the rest is read."""
    with pytest.raises(NsvdError) as caught:
        read_result(path, kind)
    message = str(caught.value)
    assert str(path) in message
    assert said in message
    assert "\n" not in message
    contents = read_contents(path.parents[2])
    assert contents.problems == [message]
    assert len(contents.cells) + len(contents.similarities) == 3


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def huge(path: Path) -> None:
    os.truncate(path, 2**40)  # sparse: it takes no room


def writing(content: str | bytes) -> Callable[[Path], object]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda path: path.write_bytes(data)


ODD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (make_directory, "cannot be read: "),
    "a FIFO": (make_fifo, "cannot be read: it is no regular file"),
    "a device": (link_to("/dev/zero"), "cannot be read: it is no regular file"),
    "a loop of links": (link_to("result.json"), "cannot be read: "),
    "a terabyte": (huge, "cannot be read: it is too large"),
    "nested lists": (writing("[" * DEEP), "it is nested too deeply"),
    "nested objects": (writing('{"a":' * DEEP), "it is nested too deeply"),
    "nested in a field": (
        writing('{"version":1,"layers":' + "[" * DEEP + "]" * DEEP + "}"),
        "it is nested too deeply",
    ),
    "not UTF-8": (writing(b'{"version": 1, "model": "\xff"}'), "is damaged"),
    "UTF-16": (writing('{"version": 1}'.encode("utf-16")), "is damaged"),
    "NULs": (writing(bytes(4096)), "is damaged"),
    "empty": (writing(""), "is damaged"),
    "a long number": (writing('{"version": ' + "1" * 100_000 + "}"), "is damaged"),
    "a string": (writing('"result"'), "is damaged"),
}


@pytest.mark.parametrize("kind", [CELL, SIMILARITY], ids=lambda kind: kind.folder)
@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_is_one_message(store: Path, name: str, kind: Any) -> None:
    path = file_of(store) if kind is CELL else result_paths(store, SIMILARITY)[0]
    make, said = ODD_FILES[name]
    make(path)
    assert_refused(path, said, kind)


def test_any_flipped_bit_is_found(store: Path) -> None:
    """All bits of the ends, where the checksum and its name are, and 500 between them."""
    path = file_of(store)
    content = path.read_bytes()
    ends = [*range(400), *range(8 * len(content) - 400, 8 * len(content))]
    for bit in [*ends, *random.Random(0).sample(range(8 * len(content)), 500)]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(NsvdError, match=str(path)):
            read_result(path)


def test_a_file_that_was_cut_or_grew_is_found(store: Path) -> None:
    path = file_of(store)
    content = path.read_bytes()
    for changed in (*(content[:n] for n in range(0, len(content), 97)), content + b"\n"):
        path.write_bytes(changed)
        with pytest.raises(NsvdError, match="is damaged"):
            read_result(path)


def test_a_result_of_an_earlier_program_has_no_checksum_and_counts(store: Path) -> None:
    path = file_of(store)
    before = read_result(path)
    edit(path, lambda result: None, seal=False)
    assert read_result(path) == before | {"version": 1}
    path.write_bytes(sealed(read_result(path)).replace(b"9", b"8"))  # of version 1, with a checksum
    assert_refused(path, "its checksum is wrong")


def test_the_checksum_is_no_field_of_what_is_read(store: Path) -> None:
    assert "checksum" not in read_result(file_of(store))


def of_ptb(**fields: Any) -> Edit:
    return lambda result: result["datasets"]["ptb"].update(fields)


def scaled(factor: float) -> Edit:
    """All losses times a factor, and the perplexity with them."""

    def scale(result: dict[str, Any]) -> None:
        measured = result["datasets"]["ptb"]
        measured["window_nll"] = [factor * loss for loss in measured["window_nll"]]
        measured["nll"] = math.fsum(measured["window_nll"])
        measured["perplexity"] = math.exp(measured["nll"] / measured["tokens"])

    return scale


UNFITTING: dict[str, tuple[Edit, str]] = {
    "another identity": (lambda r: r["identity"].update(ratio="0.4"), "not that of its identity"),
    "another key": (lambda r: r.update(key="0" * 64), "not that of its identity"),
    "a float in the identity": (lambda r: r["identity"].update(ratio=0.3), "no canonical form"),
    "another method": (lambda r: r.update(method="nsvd_i"), "does not count in another folder"),
    "a method that is a path": (lambda r: r.update(method="../svd"), "cannot be part of a path"),
    "a status": (lambda r: r.update(status="perfect"), "its status is 'perfect'"),
    "datasets": (lambda r: r.update(datasets=[]), "datasets is no dict"),
    "a field is missing": (lambda r: r.pop("layers"), "it lacks layers"),
    "a dataset's name": (
        lambda r: r["datasets"].update(c4=r["datasets"].pop("ptb")),
        "under c4 stands a measurement of ptb",
    ),
    "perplexity": (of_ptb(perplexity=3.0), "ptb: perplexity 3.0 is not exp(nll / tokens)"),
    "perplexity as text": (of_ptb(perplexity="9"), "is damaged"),
    "perplexity beyond floats": (of_ptb(perplexity=10**400), "is damaged"),
    "perplexity below 1": (scaled(-0.1), "is below 1"),
    "nll": (of_ptb(nll=1.0), "is not exp(nll / tokens)"),
    "a window": (of_ptb(windows=4), "do not fit 4 windows"),
    "tokens": (of_ptb(tokens=20), "20 tokens and 3 of window_nll do not fit 3 windows"),
    "no tokens": (of_ptb(tokens=0, length=1), "ZeroDivisionError"),
    "losses": (of_ptb(window_nll=[1.0, 2.0, 3.0]), "nll is not the sum of window_nll"),
    "no losses": (lambda r: r["datasets"]["ptb"].pop("window_nll"), "window_nll"),
    "the protocol": (
        lambda r: r["datasets"]["ptb"]["identity"].update(length=9),
        "ptb: the key is not that of the identity",
    ),
    "among earlier ones": (
        lambda r: r["earlier"].append(r["datasets"]["ptb"] | {"perplexity": 1.0}),
        "ptb: perplexity 1.0 is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "version 1"])
@pytest.mark.parametrize("name", UNFITTING)
def test_what_does_not_fit_together_does_not_count(store: Path, name: str, seal: bool) -> None:
    change, said = UNFITTING[name]
    path = file_of(store)
    edit(path, change, seal)
    assert_refused(path, said)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_does_not_count(store: Path, constant: str) -> None:
    path = file_of(store)
    edit(path, of_ptb(perplexity=12345), seal=False)
    path.write_text(path.read_text().replace("12345", constant))
    assert_refused(path, "finite" if constant == "1e999" else constant)


def test_a_loss_of_zero_up_to_rounding_counts(store: Path) -> None:
    path = file_of(store)
    edit(path, scaled(-1e-12))
    assert read_result(path)["datasets"]["ptb"]["perplexity"] == pytest.approx(1)


def test_another_cells_file_is_refused_by_name(store: Path) -> None:
    theirs, path = file_of(store, "svd"), file_of(store, "asvd_i")
    shutil.copy(theirs, path)
    assert_refused(path, f"is the result of {theirs.parent.name} and does not count")
    result = read_result(theirs)
    file = cell_file(store, "asvd_i", json.loads(json.dumps(result["identity"])) | {"ratio": "0.9"})
    shutil.copytree(theirs.parent, file.folder)
    with pytest.raises(NsvdError, match="does not count in another folder"):
        file.read()


@pytest.mark.parametrize("name", ["{}.bak", "copy of {}", "{} (2)", ".{}", "{}-0123456789abcdef"])
def test_a_copy_of_a_folder_is_no_second_result(store: Path, name: str) -> None:
    own = file_of(store).parent
    shutil.copytree(own, own.with_name(name.format(own.name)))
    contents = read_contents(store)
    assert len(contents.cells) == 3
    (problem,) = contents.problems
    assert f"is the result of {own.name} and does not count in another folder" in problem


def test_a_result_whose_folder_has_the_digits_of_another_key_is_refused(store: Path) -> None:
    """Sixteen digits name a folder; all sixty-four say whose result is in it."""
    result = read_result(file_of(store))
    file = cell_file(store, "svd", result["identity"])
    assert file.read() is not None
    other = {**result["identity"], "dtype": "float16"}
    impostor = type(file)(other, file.folder)
    assert digest(other) != file.key
    with pytest.raises(NsvdError, match="is of another identity"):
        impostor.read()


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(store: Path) -> None:
    shutil.rmtree(store / "cells")
    (store / "cells").write_text("no folder")
    with pytest.raises(NsvdError, match=r"cells cannot be read"):
        read_contents(store)


def test_half_a_character_is_kept(store: Path) -> None:
    """As in the message of an error over a file whose name is not UTF-8."""
    path = file_of(store)
    edit(path, lambda result: result.update(error={"message": "/data/\udcff.jsonl is 猫"}))
    assert read_result(path)["error"] == {"message": "/data/\udcff.jsonl is 猫"}
