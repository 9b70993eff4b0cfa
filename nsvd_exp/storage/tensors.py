"""Tensors on disk: small safetensors files that know when they are damaged.

Output bases and calibration statistics are kept in the same way: one file for each thing that is
needed on its own, written as a whole. Its metadata hold what it is of (a key and a layer), what is
said of the tensors, and a checksum over all of it and the tensors with their names, dtypes and
shapes. So a file that was cut off, whose disk has lost a bit, or that is of something else is never
taken for a sound one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.storage.files import (
    DamagedError,
    checksum,
    path_component,
    read_regular,
    write_atomically,
    write_text,
)

# Of every file written here; raise it when what is in them changes.
FORMAT = "6"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors on the CPU, and what is said of them, as one safetensors file.

    Args:
        about: anything that JSON can hold.

    Raises:
        OSError, SafetensorError: it cannot be written; safetensors reports a full disk as an error
            of its own.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about)
    metadata = {"format": FORMAT, "about": text, "checksum": str(_checksum(whole, text))}
    write_atomically(path, lambda file: safetensors.torch.save_file(whole, file, metadata))


def load_tensors(
    path: Path, of: Mapping[str, Any] | None = None, check: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors, and what is said of them.

    The tensors are maps of the file: what nobody looks at takes no memory.

    Args:
        of: what has to stand among what is said of them.
        check: whether to read all of it now for its checksum.

    Raises:
        DamagedError: the file is missing, damaged, of another version, or of something else.
    """
    try:
        if not path.is_file():  # a FIFO would be waited for
            raise DamagedError("is missing, or is no file")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DamagedError(f"format {metadata.get('format')}, this program reads {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["about"]
        if check and metadata["checksum"] != str(_checksum(tensors, text)):
            raise DamagedError("its checksum is wrong")
        about = json.loads(text)
        if not (of or {}).items() <= about.items():
            raise DamagedError(f"is of {about}, not of {of}")
    except Exception as error:  # safetensors and torch raise anything at a header that is wrong
        raise DamagedError(f"{path}: {error}") from None
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: str) -> int:
    """Over names, shapes, dtypes and content of the tensors, and what is said of them."""

    def parts() -> Iterator[bytes | memoryview]:
        yield json.dumps([FORMAT, about]).encode()
        for name in sorted(tensors):
            tensor = tensors[name]
            yield json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
            yield tensor.flatten().view(torch.uint8).numpy().data

    return checksum(parts())


class StatisticsFolder:
    """The statistics of one calibration on disk.

        FOLDER/<input>.safetensors    the statistics of one distinct layer input, named by the first
                                      layer that reads it
        FOLDER/index.json             which layer reads which input, and the record; written last,
                                      so that with it the folder is complete

    Args:
        path: the folder; made when something is added.
        key: of the calibration, which stands in every file.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self.path, self.key, self._index = path, key, path / "index.json"

    @property
    def is_complete(self) -> bool:
        """Whether `finish` was called after the last `add`."""
        return os.path.exists(self._index)  # not, too, where the folder cannot be read

    def add(self, name: str, statistics: Statistics) -> None:
        """Write the statistics of one layer input, in place of those that are there.

        Raises:
            OSError, SafetensorError: they cannot be written.
        """
        self._index.unlink(missing_ok=True)
        tensors = {field: getattr(statistics, field) for field in ("gram", "abs_mean", "mean")}
        about = {"key": self.key, "layer": name, "tokens": statistics.tokens}
        save_tensors(_file_of(self.path, name), tensors, about)

    def finish(self, reads: Mapping[str, str], record: Mapping[str, Any]) -> None:
        """Write the index.

        Args:
            reads: the name of the input that each layer reads.
            record: what a result says of the tokens that the statistics were made from.
        """
        content = {
            "format": FORMAT,
            "key": self.key,
            "reads": dict(reads),
            "record": dict(record),
        }
        index = {**content, "checksum": _text_checksum(content)}
        write_text(self._index, json.dumps(index, indent=1) + "\n")

    def save(self, calibration: Calibration) -> None:
        """Write all of a calibration that is in memory.

        Raises:
            OSError, SafetensorError: it cannot be written; then nothing of it is left.
        """
        with self.being_written():
            for name, statistics in calibration.inputs.items():
                self.add(name, statistics)
            self.finish(calibration.reads, calibration.record)

    @contextmanager
    def being_written(self) -> Iterator[None]:
        """If an exception is raised inside, the folder is removed with all that was added."""
        try:
            yield
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def load(self, check: bool = True, widths: Mapping[str, int] | None = None) -> Calibration:
        """The calibration, whose statistics are read one by one, each when it is asked for.

        Args:
            check: whether to read every file now for its checksum; not what was just written.
            widths: the input channels of each layer that it has to be of; None: whatever it has.

        Raises:
            DamagedError: a file is missing, damaged, of another version, or of something else.
        """
        try:
            index = json.loads(read_regular(self._index))
            stored = index.pop("checksum")
            if (index["format"], stored) != (FORMAT, _text_checksum(index)):
                raise DamagedError("it is damaged, or of another version")
            if index["key"] != self.key:
                raise DamagedError("it is of another calibration")
            reads, record = index["reads"], index["record"]
            names = tuple(map(_file_name, dict.fromkeys(reads.values())))
        except FileNotFoundError:
            raise DamagedError(f"{self._index} is missing") from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            raise DamagedError(f"{self._index}: {error}") from None
        inputs = _StoredInputs(self, names)
        found = {name: inputs.read(name, check).mean.shape for name in inputs}
        for layer, width in (widths or {}).items():
            if found.get(reads.get(layer)) != (width,):
                raise DamagedError(f"{self.path} has no statistics of {width} inputs of {layer}")
        return Calibration(inputs, reads, record)


class _StoredInputs(Mapping[str, Statistics]):
    """The statistics in a folder by layer input: read when asked for, and held by nobody."""

    def __init__(self, folder: StatisticsFolder, names: tuple[str, ...]) -> None:
        self._folder, self._names = folder, names

    def read(self, name: str, check: bool) -> Statistics:
        """The statistics of one layer input.

        Raises:
            DamagedError: its file is missing, damaged, of another version, or of something else.
        """
        path = _file_of(self._folder.path, name)
        tensors, about = load_tensors(path, {"key": self._folder.key, "layer": name}, check)
        try:
            gram, abs_mean, mean = (tensors[field] for field in ("gram", "abs_mean", "mean"))
            found = Statistics(gram=gram, abs_mean=abs_mean, mean=mean, tokens=about["tokens"])
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{path}: {error}") from None
        (width, *more), square = found.mean.shape or (0, 0), found.gram.shape
        if more or found.abs_mean.shape != (width,) or square != (width, width):
            raise DamagedError(f"{path}: its tensors are not of one input")
        return found

    def __getitem__(self, name: str) -> Statistics:
        if name not in self._names:
            raise KeyError(name)
        return self.read(name, check=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _text_checksum(content: Mapping[str, Any]) -> int:
    return checksum([json.dumps(content).encode()])


def _file_of(folder: Path, name: str) -> Path:
    return folder / f"{_file_name(name)}.safetensors"


def _file_name(name: str) -> str:
    return path_component("layer", name)
