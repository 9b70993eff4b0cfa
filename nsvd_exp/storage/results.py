"""Results on disk: one folder for each cell or similarity record, with its `result.json`.

A cell is `done`, `failed` or `missing`. Its `result.json` is replaced as a whole after every
dataset, so that it is never half-written and nothing that was measured is lost. Until the cell ends
its status is `partial`, which counts as missing but keeps what was measured. `docs/stored-files.md`
describes the fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import hold, write_text
from nsvd_exp.storage.keys import digest

RESULT_VERSION = 1
SIMILARITY_VERSION = 1

Result = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of result: cells, or similarity records.

    Attributes:
        folder: under `results_dir`, where results of this kind are.
        version: of the fields of `result.json`.
        required: the fields without which a file is damaged.
    """

    folder: str
    version: int
    required: frozenset[str]


_COMMON = frozenset({"status", "key", "identity", "layers", "created"})
CELL = Kind("cells", RESULT_VERSION, _COMMON | {"method", "datasets", "earlier"})
SIMILARITY = Kind("similarities", SIMILARITY_VERSION, _COMMON | {"dataset", "statistics"})


@dataclass(frozen=True)
class ResultFile:
    """The stored result of one cell, or of one similarity record, in a folder of its own.

    Attributes:
        identity: what the cell's key is made of.
        folder: `results_dir/cells/<method>-<ratio>-<k1>-<16 digits of the key>`, or
            `results_dir/similarities/<dataset>-<16 digits of the key>`.
    """

    identity: dict[str, Any]
    folder: Path
    kind: Kind = CELL

    @property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)

    @property
    def path(self) -> Path:
        """The file of the result."""
        return self.folder / "result.json"

    def read(self) -> Result | None:
        """The stored result, or None where there is none.

        Raises:
            NsvdError: the file is damaged, or of a version this program does not know.
        """
        return read_result(self.path, self.kind) if self.path.exists() else None

    def write(self, result: Result) -> None:
        """Replace the stored result as a whole."""
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_text(self.path, text)

    @contextmanager
    def lock(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder alone; `on_wait` is called once with whom it waits for, if anyone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold(self.folder / ".lock", self.folder.name, on_wait):
            yield


def cell_file(results_dir: Path, method: str, identity: dict[str, Any]) -> ResultFile:
    """The result of the cell of `identity` in the store at `results_dir`; creates nothing.

    Args:
        method: its name, for people who look into the store.
    """
    parts = [method, identity.get("ratio"), (identity["method"] or {}).get("k1")]
    name = "-".join([*filter(None, parts), digest(identity)[:16]])
    return ResultFile(identity, results_dir / CELL.folder / name)


def similarity_file(results_dir: Path, dataset: str, identity: dict[str, Any]) -> ResultFile:
    """The similarity record of `identity` in the store at `results_dir`; creates nothing."""
    name = f"{dataset}-{digest(identity)[:16]}"
    return ResultFile(identity, results_dir / SIMILARITY.folder / name, SIMILARITY)


def read_result(path: Path, kind: Kind = CELL) -> Result:
    """One `result.json`.

    Raises:
        NsvdError: the file is damaged, or of a version this program does not know.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        version = result["version"]
        if version == kind.version and not result.keys() >= kind.required:
            raise KeyError(f"it lacks {', '.join(sorted(kind.required - result.keys()))}")
    except (ValueError, KeyError, TypeError) as error:
        raise NsvdError(f"{path} is damaged ({error}): move it away and run it again") from None
    if version != kind.version:
        raise NsvdError(
            f"{path} has result version {version}, this program reads {kind.version}: "
            "use another results_dir, or the version of nsvd_exp that wrote it"
        )
    return result


def read_all(results_dir: Path) -> Iterator[Result]:
    """Every stored cell under `results_dir`, in the order of the folders' names."""
    return _read_kind(results_dir, CELL)


def read_similarities(results_dir: Path) -> Iterator[Result]:
    """Every stored similarity record under `results_dir`, in the order of the folders' names."""
    return _read_kind(results_dir, SIMILARITY)


def _read_kind(results_dir: Path, kind: Kind) -> Iterator[Result]:
    for path in result_paths(results_dir, kind):
        yield read_result(path, kind)


def result_paths(results_dir: Path, kind: Kind) -> list[Path]:
    """The result files of one kind under `results_dir`, in the order of their folders' names."""
    return sorted((results_dir / kind.folder).glob("*/result.json"))


def find_measurement(result: Result | None, name: str, key: str) -> Result | None:
    """The measurement of dataset `name` with this key, or None."""
    if result is None:
        return None
    current = result["datasets"].get(name)
    candidates = ([current] if current else []) + result["earlier"]
    return next((n for n in candidates if n["dataset"] == name and n["key"] == key), None)


def put_measurement(result: Result, measured: Result) -> None:
    """Make `measured` the current measurement of its dataset.

    One made under another protocol (length, cap, source) moves to `earlier`; nothing is dropped.
    """
    name = measured["dataset"]
    others = [n for n in result["earlier"] if (n["dataset"], n["key"]) != (name, measured["key"])]
    previous = result["datasets"].get(name)
    if previous is not None and previous["key"] != measured["key"]:
        others.append(previous)
    result["earlier"] = others
    result["datasets"][name] = measured
