"""Keys: the same content has the same key on every machine; ambiguous content has none."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from array import array
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError

# Files of a model folder that can change a result: weights, configuration, tokenizer, code.
MODEL_FILE_SUFFIXES = (
    ".safetensors",
    ".bin",
    ".json",
    ".model",
    ".txt",
    ".jinja",
    ".tiktoken",
    ".py",
)


def canonical_json(value: Any) -> str:
    """`value` as JSON that is the same text every time.

    Raises:
        TypeError: `value` holds anything but dict with str keys, list, str, int, bool, None.
            Floats are refused: use `decimal_text`.
    """
    _refuse_ambiguous(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _refuse_ambiguous(value: Any) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, list):
        for item in value:
            _refuse_ambiguous(item)
    elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for item in value.values():
            _refuse_ambiguous(item)
    else:
        raise TypeError(f"{value!r} ({type(value).__name__}) has no canonical form in a key")


def decimal_text(value: float) -> str:
    """The number that a user typed, exactly and in one form: 0.30 and 3e-1 are both '0.3'."""
    return format(Decimal(repr(value)).normalize(), "f")


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def token_digest(ids: Iterable[int]) -> str:
    """SHA-256 of token ids, each as 4 bytes, little-endian."""
    numbers = array("i", ids)
    if sys.byteorder == "big":
        numbers.byteswap()
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes. Read again only if its size or time has changed."""
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files in `folder` that can change a result.

    The folder's own name and place are not part of it, so a copy has the same digest.

    Raises:
        NsvdError: the folder holds no such file.
    """
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix in MODEL_FILE_SUFFIXES and not path.name.startswith(".")
    )
    if not files:
        raise NsvdError(f"{folder} holds no model: no config.json, no weights")
    return digest({path.name: file_digest(path) for path in files})
