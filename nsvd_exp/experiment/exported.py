"""Folders that hold a cell's model: which cell, and how that was checked. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.storage.files import read_object

RECORD = "export.json"
VERSION = 1


@dataclass(frozen=True)
class Export:
    """A folder that was found to hold a cell's model.

    Attributes:
        folder: where it is.
        record: what stands in its `export.json` (`docs/export.md`).
    """

    folder: Path
    record: dict[str, Any]


def exported(target: Path, plan: CellPlan, format: str) -> Export | None:
    """The export of this cell in a folder; None where there is no folder, or nothing in it.

    Raises:
        NsvdError: the folder holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    record = read_object(target / RECORD)
    wanted = {"key": plan.file.key, "format": format, "dtype": plan.evaluation_dtype}
    if wanted.items() <= record.items():
        return Export(target, record)
    what = "something else"
    if wanted.keys() <= record.keys():
        key, kind, dtype = (str(record[name]) for name in wanted)
        what = f"cell {key[:16]} as {kind} in {dtype}"
    raise NsvdError(f"{target} holds {what}: give another folder, or remove it")
