"""Reads the run files that W&B leaves on disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record


class Segment:
    """One run file, read back.

    Attributes:
        records: of all types, in order.
        run: the record of the run itself.
        config, summary: what the run has in the end.
        exit_code: None where the run was never finished.
    """

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("*.wandb")
        self.records = list(records_of(path))
        self.run = next(r.run for r in self.records if r.HasField("run"))
        self.config = values_of(self.run.config.update)
        self.summary: dict[str, Any] = {}
        for record in self.records:
            self.summary |= values_of(record.summary.update)
        codes = [r.exit.exit_code for r in self.records if r.HasField("exit")]
        self.exit_code = codes[0] if codes else None

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was logged, call by call, without W&B's own values."""
        items = (values_of(r.history.item) for r in self.records if r.HasField("history"))
        return [{k: v for k, v in item.items() if not k.startswith("_")} for item in items]

    def history(self, name: str) -> list[Any]:
        """Every value that was logged under this name."""
        return [line[name] for line in self.lines if name in line]


def records_of(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file: a header of 7 bytes, then the log format of LevelDB."""
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # no room for a chunk's header
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def values_of(items: Iterable[Any]) -> dict[str, Any]:
    """Items of a record as a dictionary; the parts of a nested name are joined by `/`."""
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
