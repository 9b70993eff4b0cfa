"""Where the rows of a dataset come from, and exactly which ones they are. Imports no torch.

A local file is known by the SHA-256 of its content, a hub repository by its commit: branches and
tags are resolved before anything is keyed by them.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.config.files import expand_path
from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.hub import hub_commit
from nsvd_exp.storage.files import path_component
from nsvd_exp.storage.keys import digest, file_digest

LOCAL_SUFFIXES = (".jsonl", ".json", ".parquet", ".txt", ".csv", ".jsonl.gz", ".json.gz")
# What `Dataset.save_to_disk` of the `datasets` library keeps beside its *.arrow files.
SAVED = "state.json"
MOST_NAMES = 5


@dataclass(frozen=True)
class DatasetSource:
    """The rows of one split at one exact state.

    Attributes:
        files: the local files, in order; empty for the hub.
        commit: of the hub repository, or None for local files.
        identity: what keys are made of; holds no path.
        absent: for messages: that the local place where the rows were looked for has none.
    """

    files: tuple[Path, ...]
    commit: str | None
    identity: dict[str, Any]
    absent: str


def locate_dataset(
    dataset: DatasetConfig, split: str, data_dir: str | Sequence[str] | None
) -> DatasetSource:
    """The rows of `split`: in the first folder of `data_dir` that has them, else on the hub.

    Raises:
        NsvdError: they are in no place, several local files claim to be them, or a folder of
            `data_dir` is not there.
    """
    folders = [data_dir] if isinstance(data_dir, str) else list(data_dir or ())
    for folder in folders:
        if not Path(expand_path(folder)).is_dir():
            raise NsvdError(f"data_dir={folder}: there is no folder {expand_path(folder)}")
    absent = _absent(dataset.name, split, folders)
    for folder in folders:
        found = _local_files(dataset.name, split, folder)
        if found is not None:
            kind, files = found
            content = {"format": kind, "sha256": files_digest(files)}
            if kind != ".parquet" and any(map(_has_bom, files)):
                content["bom"] = "left out"  # it was part of the text once
            return DatasetSource(files, None, {**_documents_identity(dataset), **content}, absent)
    if dataset.hub is None:
        raise NsvdError(f"dataset {dataset.name}: {absent}, and its configuration names no hub")
    if split not in dataset.splits:
        known = ", ".join(dataset.splits) or "none"
        raise NsvdError(
            f"dataset {dataset.name} has no split '{split}' on the hub (known: {known}), and "
            f"{absent}"
        )
    try:
        commit = hub_commit(dataset.hub, dataset.revision, "dataset")
    except NsvdError as error:
        raise NsvdError(f"dataset {dataset.name}: {absent}, and {error}") from None
    return DatasetSource((), commit, hub_identity(dataset, split, commit), absent)


def files_digest(files: Sequence[Path]) -> str:
    """SHA-256 of a file's bytes, or of those of several files, in their order."""
    digests = [file_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else digest(digests)


def _documents_identity(dataset: DatasetConfig) -> dict[str, Any]:
    """How rows become one text."""
    return {
        "document": dataset.document,
        "join": dataset.join,
        "rows": dataset.rows,
        "split_special_tokens": dataset.split_special_tokens,
    }


def hub_identity(dataset: DatasetConfig, split: str, commit: str) -> dict[str, Any]:
    """What keys are made of where the rows of `split` come from the hub."""
    return {
        **_documents_identity(dataset),
        "hub": dataset.hub,
        "config": dataset.config,
        "commit": commit,
        "files": list(dataset.files.get(split, [])),
        "split": dataset.splits[split],
    }


def _absent(name: str, split: str, folders: Sequence[str]) -> str:
    roots = [Path(expand_path(folder)) for folder in folders]
    places = " or ".join(str(root / name / split) for root in roots)
    others = ", ".join(LOCAL_SUFFIXES[1:5])
    text = f"{places or f'data_dir (not set)/{name}/{split}'}.jsonl ({others}) is not there"
    for root in roots:
        if (root / name).is_dir():
            held = sorted(path.name for path in (root / name).iterdir())
            more = ", ..." if len(held) > MOST_NAMES else ""
            listed = ", ".join(held[:MOST_NAMES]) + more
            text += f" ({root / name} holds {listed or 'nothing'})"
    return text


def _local_files(name: str, split: str, data_dir: str) -> tuple[str, tuple[Path, ...]] | None:
    """The files of a split in one folder, and their format; None where there are none.

    Raises:
        NsvdError: several files claim to be the split, or some of its shards are missing.
    """
    folder = Path(expand_path(data_dir)) / path_component("dataset", name)
    split = path_component("split", split)
    found: list[tuple[str, tuple[Path, ...]]] = [
        (suffix, (folder / f"{split}{suffix}",))
        for suffix in LOCAL_SUFFIXES
        if (folder / f"{split}{suffix}").is_file()
    ]
    shards = tuple(sorted(folder.glob(f"{split}-[0-9]*-of-[0-9]*.parquet")))
    if shards:
        found.append((".parquet", _complete(name, shards)))
    if (folder / split / SAVED).is_file():
        found.append((".arrow", _saved_files(folder / split)))
    if len(found) > 1:
        names = " and ".join(files[0].name for _, files in found)
        raise NsvdError(f"dataset {name}: both {names} are in {folder}; keep one")
    return found[0] if found else None


def _complete(name: str, shards: tuple[Path, ...]) -> tuple[Path, ...]:
    """The shards, whose names say how many there are.

    Raises:
        NsvdError: there are more or fewer.
    """
    expected = int(shards[0].stem.rpartition("-")[2])
    if len(shards) != expected:
        raise NsvdError(
            f"dataset {name}: {shards[0].parent} has {len(shards)} of the {expected} files "
            f"{shards[0].name.partition('-')[0]}-*-of-{shards[0].stem.rpartition('-')[2]}.parquet"
        )
    return shards


def _saved_files(folder: Path) -> tuple[Path, ...]:
    """The *.arrow files of a dataset that `save_to_disk` wrote, in their order.

    Raises:
        NsvdError: its state.json is damaged, or a file is missing.
    """
    try:
        state = json.loads((folder / SAVED).read_text(encoding="utf-8"))
        files = tuple(folder / Path(file["filename"]).name for file in state["_data_files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NsvdError(f"{folder / SAVED} is damaged: {error!r}") from None
    for file in files:
        if not file.is_file():
            raise NsvdError(f"{file} is not there, though {SAVED} beside it names it")
    return files


def _has_bom(path: Path) -> bool:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            return bytes(file.read(3)) == codecs.BOM_UTF8
    except (OSError, EOFError, zlib.error):
        return False  # reading it says what is wrong
