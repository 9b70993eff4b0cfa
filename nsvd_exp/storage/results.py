"""Results on disk: one folder for each cell or similarity record, with its `result.json`.

Beside a cell's perplexities stand its scores at tasks, in a file of their own (`SCORES`).

A cell is `done`, `failed` or `missing`. Its `result.json` is replaced as a whole after every
dataset, so that it is never half-written and nothing that was measured is lost. Until the cell ends
its status is `partial`, which counts as missing but keeps what was measured. `docs/stored-files.md`
describes the fields.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import (
    DamagedError,
    hold,
    path_component,
    read_regular,
    write_atomically,
)
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.scores import check_scores
from nsvd_exp.storage.temporary import remove_dead, temporaries_in
from nsvd_exp.storage.validity import Kind, VersionError, check_measurements, parsed, sealed
from nsvd_exp.storage.validity import Result as Result

# Version 1 had no checksum. What it holds is read as it is, and is of version 2 when it is written.
RESULT_VERSION = 2
SIMILARITY_VERSION = 2
SCORES_VERSION = 1

_COMMON = {"status": str, "key": str, "identity": dict, "created": str}
_OF_CELL = {"method": str, "layers": list, "datasets": dict, "earlier": list}
CELL = Kind("cells", RESULT_VERSION, (1,), _COMMON | _OF_CELL, check=check_measurements)
_OF_SIMILARITY = {"dataset": dict, "statistics": list, "layers": list}
SIMILARITY = Kind("similarities", SIMILARITY_VERSION, (1,), _COMMON | _OF_SIMILARITY)
# What is measured of a model beside its perplexity: `subject` is the name of its cell's folder, or
# of the folder that it was saved to.
_OF_SUBJECT = {"status": str, "key": str, "identity": dict, "created": str, "subject": str}
PROFILE = Kind("profiles", 1, (), _OF_SUBJECT | {"dense": dict, "compressed": dict})
CONTINUATIONS = Kind("continuations", 1, (), _OF_SUBJECT | {"texts": list})
_OF_SCORES = {"method": str, "tasks": dict, "earlier": list}
SCORES = Kind(
    "cells", SCORES_VERSION, (), _COMMON | _OF_SCORES, file="zeroshot.json", check=check_scores
)


@dataclass(frozen=True)
class ResultFile:
    """A stored result in a folder of its own: of one cell, or a record of another kind; or the
    scores of a cell, in its folder.

    Attributes:
        identity: what the cell's key is made of.
        folder: `results_dir/cells/<method>-<ratio>-<k1>-<16 digits of the key>`; of other kinds
            `results_dir/<kind>/<dataset or subject>-<16 digits of the key>`.
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
        return self.folder / self.kind.file

    def read(self) -> Result | None:
        """The stored result, or None where there is none. Tidies up after dead processes.

        Raises:
            NsvdError: as `read_result`, or the file holds another result.
        """
        remove_dead(temporaries_in(self.folder))
        if not _may_be_there(self.path):
            return None
        result = read_result(self.path, self.kind)
        if result["key"] != self.key:
            raise NsvdError(f"{self.path} is of another identity: move it away and run it again")
        return result

    def write(self, result: Result) -> None:
        """Replace the stored result as a whole, with a checksum of itself.

        Raises:
            ValueError: the result holds what JSON cannot.
            NsvdError: it cannot be written.
        """
        content = sealed(result)
        with self._being_written():
            write_atomically(self.path, lambda temporary: temporary.write_bytes(content))

    @contextmanager
    def lock(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder alone; `on_wait` is called once with whom it waits for, if anyone."""
        with ExitStack() as stack:
            with self._being_written():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(self.folder / ".lock", self.folder.name, on_wait))
            yield

    @contextmanager
    def _being_written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NsvdError(f"{self.folder} cannot be written to: {error.strerror}") from None


def cell_file(results_dir: Path, method: str, identity: dict[str, Any]) -> ResultFile:
    """The result of the cell of `identity` in the store at `results_dir`; creates nothing.

    Args:
        method: its name, for people who look into the store.

    Raises:
        NsvdError: the name cannot be part of a path.
    """
    name = _cell_folder(method, identity)
    return ResultFile(identity, results_dir / CELL.folder / name)


def scores_file(cell: ResultFile) -> ResultFile:
    """The scores of a cell at tasks, which have its key and stand in its folder."""
    return replace(cell, kind=SCORES)


def similarity_file(results_dir: Path, dataset: str, identity: dict[str, Any]) -> ResultFile:
    """The similarity record of `identity` in the store at `results_dir`; creates nothing.

    Raises:
        NsvdError: the dataset's name cannot be part of a path.
    """
    name = _similarity_folder(dataset, identity)
    return ResultFile(identity, results_dir / SIMILARITY.folder / name, SIMILARITY)


def subject_file(
    results_dir: Path, kind: Kind, subject: str, identity: dict[str, Any]
) -> ResultFile:
    """The record of this kind on a subject in the store at `results_dir`; creates nothing.

    Raises:
        NsvdError: the subject's name cannot be part of a path.
    """
    return ResultFile(
        identity, results_dir / kind.folder / _subject_folder(subject, identity), kind
    )


def _cell_folder(method: str, identity: dict[str, Any]) -> str:
    numbers = (identity.get("ratio"), (identity["method"] or {}).get("k1"))
    parts = (path_component("method", method), *filter(None, numbers), digest(identity)[:16])
    name = "-".join(parts)
    if len(name.encode()) > 255:  # a number with hundreds of digits
        raise NsvdError(f"the cell {name[:80]}... has too long a name for a folder")
    return name


def _similarity_folder(dataset: str, identity: dict[str, Any]) -> str:
    return f"{path_component('dataset', dataset)}-{digest(identity)[:16]}"


def _subject_folder(subject: str, identity: dict[str, Any]) -> str:
    return f"{path_component('folder', subject)}-{digest(identity)[:16]}"


def read_result(path: Path, kind: Kind = CELL) -> Result:
    """One stored result, which stands in the folder that it belongs in.

    Raises:
        NsvdError: the file cannot be read or is damaged, is of a version this program does not
            know, or is the result of another folder; the message names it.
    """
    try:
        result = parsed(read_regular(path), kind)
        folder = _folder_of(result, kind)
    except OSError as error:
        raise NsvdError(f"{path} cannot be read: {error.strerror}") from None
    except VersionError as error:
        known = " and ".join(map(str, (*kind.unsealed, kind.version)))
        raise NsvdError(
            f"{path} has result version {_short(error)}, this program reads {known}: use another "
            "results_dir, or the version of nsvd_exp that wrote it"
        ) from None
    except (DamagedError, NsvdError, TypeError, AttributeError) as error:
        problem = _short(error)
        raise NsvdError(f"{path} is damaged ({problem}): move it away and run it again") from None
    if path.absolute().parent.name != folder:
        raise NsvdError(
            f"{path} is the result of {folder} and does not count in another folder: move it away"
        )
    return result


def _folder_of(result: Result, kind: Kind) -> str:
    """The name of the folder that a stored result belongs in."""
    if kind.folder == CELL.folder:
        return _cell_folder(result["method"], result["identity"])
    if kind in (PROFILE, CONTINUATIONS):
        return _subject_folder(result["subject"], result["identity"])
    return _similarity_folder(result["dataset"]["name"], result["identity"])


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" ...")


def read_all(results_dir: Path) -> Iterator[Result]:
    """Every stored cell under `results_dir`, in the order of the folders' names."""
    return read_records(results_dir, CELL)


def read_similarities(results_dir: Path) -> Iterator[Result]:
    """Every stored similarity record under `results_dir`, in the order of the folders' names."""
    return read_records(results_dir, SIMILARITY)


def read_records(results_dir: Path, kind: Kind) -> Iterator[Result]:
    """Every record of this kind under `results_dir`, in the order of the folders' names."""
    for path in result_paths(results_dir, kind):
        yield read_result(path, kind)


def result_paths(results_dir: Path, kind: Kind) -> list[Path]:
    """The result files of one kind under `results_dir`, in the order of their folders' names.

    Raises:
        NsvdError: the folder of this kind cannot be listed.
    """
    parent = results_dir / kind.folder
    try:
        folders = sorted(parent.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NsvdError(f"{parent} cannot be read: {error.strerror}") from None
    paths = [folder / kind.file for folder in folders]
    return [path for path in paths if _may_be_there(path)]


def _may_be_there(path: Path) -> bool:
    """Whether there is a result at this path, or no telling."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # whoever reads it says what is the matter
        return True
    return True
