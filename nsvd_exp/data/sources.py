"""Where the rows of a dataset come from, and exactly which ones they are. Imports no torch.

A local file is known by the SHA-256 of its content, a hub repository by its commit: branches and
tags are resolved before anything is keyed by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.config.files import expand_path
from nsvd_exp.config.schema import DatasetConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.hub import hub_commit
from nsvd_exp.storage.files import path_component
from nsvd_exp.storage.keys import file_digest

LOCAL_SUFFIXES = (".jsonl", ".json", ".parquet", ".txt")


@dataclass(frozen=True)
class DatasetSource:
    """The rows of one split at one exact state.

    Attributes:
        path: the local file, or None for the hub.
        commit: of the hub repository, or None for a local file.
        identity: what keys are made of; holds no path.
        sought: for messages: the local place where the rows were looked for first.
    """

    path: Path | None
    commit: str | None
    identity: dict[str, Any]
    sought: str


def locate_dataset(dataset: DatasetConfig, split: str, data_dir: str | None) -> DatasetSource:
    """The rows of `split`: the file under `data_dir`, else the hub repository.

    Raises:
        NsvdError: they are in neither place, or two local files claim to be them.
    """
    sought = _local_place(dataset.name, split, data_dir)
    path = _local_file(dataset.name, split, data_dir)
    if path is not None:
        digests = {"format": path.suffix, "sha256": file_digest(path)}
        identity = {**_documents_identity(dataset), **digests}
        return DatasetSource(path, None, identity, sought)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits) or "none"
        raise NsvdError(
            f"dataset {dataset.name} has no split '{split}' on the hub (known: {known}), and "
            f"{sought} is not there"
        )
    try:
        commit = hub_commit(dataset.hub, dataset.revision, "dataset")
    except NsvdError as error:
        raise NsvdError(f"dataset {dataset.name}: {sought} is not there, and {error}") from None
    return DatasetSource(None, commit, hub_identity(dataset, split, commit), sought)


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


def _local_place(name: str, split: str, data_dir: str | None) -> str:
    folder = "data_dir (not set)" if data_dir is None else expand_path(data_dir)
    return f"{folder}/{name}/{split}.jsonl (.json, .parquet, .txt)"


def _local_file(name: str, split: str, data_dir: str | None) -> Path | None:
    if data_dir is None:
        return None
    root = Path(expand_path(data_dir))
    if not root.is_dir():
        raise NsvdError(f"data_dir={data_dir}: there is no folder {root}")
    folder, split = root / path_component("dataset", name), path_component("split", split)
    candidates = (folder / f"{split}{suffix}" for suffix in LOCAL_SUFFIXES)
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise NsvdError(f"dataset {name}: both {names} are in {folder}; keep one")
    return found[0] if found else None
