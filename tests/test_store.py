"""The store keeps what was measured: nothing is dropped, and one process writes at a time."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.kept import MEASUREMENTS
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import (
    RESULT_VERSION,
    ResultFile,
    cell_file,
    read_all,
    read_result,
)

IDENTITY = {"method": {"class": "NSVD", "k1": "0.95"}, "ratio": "0.3"}
OF_NSVD = {"key": digest(IDENTITY), "identity": IDENTITY, "method": "nsvd_i"}


@pytest.fixture
def cell(tmp_path: Path) -> ResultFile:
    return cell_file(tmp_path, "nsvd_i", IDENTITY)


def result(**fields: Any) -> dict[str, Any]:
    empty = {"status": "done", "datasets": {}, "earlier": [], "layers": []}
    return {"version": RESULT_VERSION, "created": "2025-03-21", **empty, **OF_NSVD, **fields}


def measurement(dataset: str, protocol: str, perplexity: float = 2.0) -> dict[str, Any]:
    """A measurement of 2 windows of 4 tokens."""
    identity, nll = {"length": 4, "of": protocol}, 6 * math.log(perplexity)
    return {
        "dataset": dataset,
        "key": digest(identity),
        "identity": identity,
        "perplexity": math.exp(nll / 6),
        "nll": nll,
        "tokens": 6,
        "windows": 2,
        "length": 4,
        "window_nll": [nll / 2, nll / 2],
    }


def key(protocol: str) -> str:
    return str(measurement("", protocol)["key"])


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_result_comes_back_as_it_was_written(cell: ResultFile) -> None:
    assert cell.read() is None
    assert not cell.folder.exists()
    stored = result(datasets={"cmrc_cn": measurement("cmrc_cn", "a", 10 / 3)}, model="模型")
    cell.write(stored)
    assert cell.read() == stored
    assert names_in(cell.folder) == {"result.json"}


def test_a_result_can_be_read_by_others(cell: ResultFile) -> None:
    cell.write(result())
    assert cell.path.stat().st_mode & 0o777 == 0o644


def test_what_is_not_json_is_not_written(cell: ResultFile) -> None:
    cell.write(result())
    with pytest.raises(ValueError, match="JSON"):
        cell.write(result(perplexity=float("nan")))
    assert cell.read() == result()


def test_the_folder_names_the_cell_and_its_key(tmp_path: Path, cell: ResultFile) -> None:
    assert cell.folder == tmp_path / "cells" / f"nsvd_i-0.3-0.95-{cell.key[:16]}"
    assert cell_file(tmp_path, "dense", {"method": None}).folder.name.startswith("dense-")


DAMAGED = {
    "cut": '{"version": 1, "stat',
    "empty": "",
    "list": "[]",
    "null": "null",
    "no version": "{}",
    "no fields": '{"version": 1}',
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_one_message_with_the_way_out(cell: ResultFile, text: str) -> None:
    cell.folder.mkdir(parents=True)
    cell.path.write_text(text)
    with pytest.raises(NsvdError, match=r"result\.json is damaged .*move it away"):
        cell.read()


def test_bytes_that_are_not_utf8_are_a_damaged_result(cell: ResultFile) -> None:
    cell.folder.mkdir(parents=True)
    cell.path.write_bytes(b'{"version": 1, "model": "\xff"}')
    with pytest.raises(NsvdError, match="is damaged"):
        read_result(cell.path)


def test_a_result_of_an_unknown_version_is_refused(cell: ResultFile) -> None:
    cell.write(result(version=RESULT_VERSION + 1))
    with pytest.raises(NsvdError, match=f"has result version {RESULT_VERSION + 1}, .* reads"):
        cell.read()


def test_read_all_reads_every_cell_in_order(tmp_path: Path) -> None:
    assert list(read_all(tmp_path)) == []
    for method in ("svd", "dense", "asvd_i"):
        file = cell_file(tmp_path, method, {"method": {"class": method}})
        file.write(result(method=method, key=file.key, identity=file.identity))
    assert [stored["method"] for stored in read_all(tmp_path)] == ["asvd_i", "dense", "svd"]


def test_a_measurement_is_found_by_dataset_and_key_alone() -> None:
    stored = result()
    MEASUREMENTS.put(stored, measurement("ptb", "a"))
    assert MEASUREMENTS.find(stored, "ptb", key("a")) == measurement("ptb", "a")
    assert MEASUREMENTS.find(stored, "ptb", key("b")) is None
    assert MEASUREMENTS.find(stored, "c4", key("a")) is None
    assert MEASUREMENTS.find(None, "ptb", key("a")) is None
    MEASUREMENTS.put(stored, measurement("ptb", "b"))
    assert MEASUREMENTS.find(stored, "c4", key("a")) is None, "an earlier one of another dataset"


def test_a_measurement_of_another_protocol_moves_to_earlier() -> None:
    """Whatever the order of the writes, the last stands in front and every key is found once."""
    stored = result()
    measured = [measurement("ptb", protocol) for protocol in "abac"]
    measured.append(measurement("c4", "a", 3.0))
    for one in measured:
        MEASUREMENTS.put(stored, one)
    assert stored["datasets"] == {"ptb": measurement("ptb", "c"), "c4": measurement("c4", "a", 3.0)}
    assert {n["key"] for n in stored["earlier"]} == {key("a"), key("b")}
    for one in measured:
        assert MEASUREMENTS.find(stored, one["dataset"], one["key"]) == one


def test_a_measurement_measured_again_replaces_itself() -> None:
    stored = result()
    for perplexity in (2.0, 3.0):
        MEASUREMENTS.put(stored, measurement("ptb", "a", perplexity))
    assert stored["datasets"]["ptb"]["perplexity"] == pytest.approx(3.0)
    assert stored["earlier"] == []


def test_a_cell_has_one_holder(cell: ResultFile) -> None:
    waited: list[str] = []

    def give_up(message: str) -> None:
        waited.append(message)
        raise KeyError

    def second() -> None:
        with cell.lock(give_up):
            pytest.fail("two hold it")

    with cell.lock(pytest.fail), pytest.raises(KeyError):
        second()
    (said,) = waited
    assert said.startswith(f"waiting for process {os.getpid()} on {socket.gethostname()}, since 20")
    assert said.endswith(f"at {cell.folder.name}")
    with cell.lock(pytest.fail):
        pass
