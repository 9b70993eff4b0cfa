"""Calibration statistics in a file: written block by block, read layer by layer.

The file is a safetensors file. The library writes one from tensors that are all in memory; these
need not be, so the writer here leaves room for the header and fills it in at the end.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nsvd_exp.methods.base import Statistics
from nsvd_exp.storage.results import write_atomically

DAMAGED = (SafetensorError, KeyError, ValueError, TypeError)
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}
# Of the file; raise it when what stands in it changes.
FORMAT = "4"
ALIGNMENT = 8  # bytes, of a float64
CHUNK = 2**24  # bytes that are read at a time


class StatisticsWriter:
    """Writes a file for `Calibration.load`, of which no more than the tensor at hand is in memory.

    Without `finish` the file has no header and cannot be read.

    Args:
        layers: the names of all layers that are to come.
    """

    def __init__(self, path: Path, layers: Iterable[str]) -> None:
        # Four tensors and two places in the metadata a layer, the numbers beside each name, record.
        room = 16384 + sum(6 * len(json.dumps(name)) + 640 for name in layers)
        self._room = room + -room % ALIGNMENT
        self._file = path.open("wb")
        self.restart()

    def restart(self) -> None:
        """Forget what was added so far."""
        self._header: dict[str, Any] = {}
        self._leaders: dict[str, str] = {}
        self._offset = self._checksum = 0
        self._file.truncate(0)
        self._file.seek(8 + self._room)

    def __enter__(self) -> StatisticsWriter:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def add(self, statistics: Mapping[str, Statistics]) -> None:
        """Write those of some layers; layers with the same object share theirs."""
        leaders: dict[int, str] = {}
        for name, s in statistics.items():
            leader = self._leaders[name] = leaders.setdefault(id(s), name)
            if leader == name:
                self._write(f"{name}/abs_mean", s.abs_mean)
                self._write(f"{name}/mean", s.mean)
                self._write(f"{name}/tokens", torch.tensor(s.tokens))
                self._write(f"{name}/gram", s.gram)

    def _write(self, name: str, tensor: Tensor) -> None:
        end = self._offset + tensor.nbytes
        self._header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._offset, end],
        }
        content = tensor.contiguous().numpy()
        content.tofile(self._file)
        self._checksum = zlib.crc32(content.data, self._checksum)
        self._offset = end
        if end % ALIGNMENT:
            self._write(f"{name}/pad", torch.zeros(-end % ALIGNMENT, dtype=torch.uint8))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the header, with what to say about the tokens."""
        metadata = {"layers": json.dumps(self._leaders), "record": json.dumps(record)}
        metadata |= {"format": FORMAT, "checksum": str(self._checksum)}
        header = json.dumps({"__metadata__": metadata, **self._header}).encode()
        if len(header) > self._room:
            raise ValueError(f"a header of {len(header)} bytes, with room for {self._room}")
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header.ljust(self._room))


class StoredStatistics(Mapping[str, Statistics]):
    """Statistics in a file, by layer: each is read when it is asked for, and held by nobody.

    A file's tensors are mapped into memory, so that a Gram matrix that nobody looks at takes none.
    Layers with the same input have the same object, as long as somebody holds it.
    """

    def __init__(self, path: Path, leaders: Mapping[str, str]) -> None:
        self._path, self._leaders = path, leaders
        self._held: WeakValueDictionary[str, Statistics] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Statistics:
        leader = self._leaders[name]
        found = self._held.get(leader)
        if found is None:
            with safe_open(self._path, framework="pt") as file:
                found = Statistics(
                    gram=file.get_tensor(f"{leader}/gram"),
                    abs_mean=file.get_tensor(f"{leader}/abs_mean"),
                    mean=file.get_tensor(f"{leader}/mean"),
                    tokens=int(file.get_tensor(f"{leader}/tokens")),
                )
            self._held[leader] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaders)

    def __len__(self) -> int:
        return len(self._leaders)


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration pass.

    Attributes:
        statistics: by layer name; layers with the same input hold the same object.
        record: what to say in a result about the tokens it was made from.
    """

    statistics: Mapping[str, Statistics]
    record: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the Gram matrices, all but all that there is."""
        return sum({id(s): s.gram.nbytes for s in self.statistics.values()}.values())

    def save(self, path: Path) -> None:
        """Keep as safetensors, written beside `path` and renamed."""

        def write(file: Path) -> None:
            with StatisticsWriter(file, self.statistics) as writer:
                writer.add(self.statistics)
                writer.finish(self.record)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path, check: bool = True) -> Calibration:
        """What `save` wrote, or a `StatisticsWriter`; the statistics are read one by one, later.

        Args:
            check: whether to read all of it now for its checksum; not what was just written.

        Raises:
            SafetensorError, KeyError, ValueError: the file is damaged, or of another version.
        """
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']}, this program reads {FORMAT}")
            leaders, record = json.loads(metadata["layers"]), json.loads(metadata["record"])
            lacking = {f"{leader}/gram" for leader in leaders.values()} - set(file.keys())
        if lacking:
            raise ValueError(f"it lacks {min(lacking)}")
        if check and str(_checksum(path)) != metadata["checksum"]:
            raise ValueError("its checksum is another")
        return cls(StoredStatistics(path, leaders), record)


def _checksum(path: Path) -> int:
    """CRC-32 of what follows the header of a safetensors file."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)
        while part := file.read(CHUNK):
            checksum = zlib.crc32(part, checksum)
    return checksum
