"""What a `results_dir` holds: its cells, their measurements, and its similarity records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model.agreement import (
    Agreement,
    cell_agreement,
    evaluation_agreement,
    similarity_agreement,
)
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.results import CELL, SIMILARITY, Result, read_result, result_paths

CELL_FIELDS = {"model", "ratio", "k1", "config", "environment", "calibration", "error"}
MEASUREMENT_FIELDS = {
    "dataset", "key", "identity", "perplexity", "tokens", "windows", "length", "max_windows",
    "dtype", "token_sha256", "window_nll", "seconds", "measured", "environment",
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One stored perplexity.

    Attributes:
        seed: of the calibration samples; None for a method without calibration.
        agreement: what another measurement must agree in to be compared with this one.
        stored: the fields that `docs/stored-files.md` describes.
        cell: the result that the measurement is part of.
    """

    row: Row
    dataset: str
    seed: int | None
    agreement: Agreement
    stored: Mapping[str, Any]
    cell: Result

    @property
    def perplexity(self) -> float:
        """exp of the mean loss per token."""
        return float(self.stored["perplexity"])

    @property
    def id(self) -> tuple[str, str]:
        """The cell's key, and the dataset with the measurement's own key.

        Datasets of one cell may share the latter.
        """
        return str(self.cell["key"]), f"{self.dataset}/{self.stored['key']}"


@dataclass
class Contents:
    """What a `results_dir` holds.

    Attributes:
        similarities: the similarity records that have layers.
        problems: one message for each file that cannot be used.
    """

    cells: list[Result] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    similarities: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """Titles of the models, in alphabetical order."""
        return sorted({result["model"] for result in (*self.cells, *self.similarities)})


def read_contents(results_dir: Path) -> Contents:
    """Read everything under `results_dir`; what cannot be read becomes a message in `problems`."""
    contents = Contents()
    for kind in (CELL, SIMILARITY):
        for path in result_paths(results_dir, kind):
            try:
                result = read_result(path, kind)
                if kind is CELL:
                    contents.measurements += measurements_of(result)
                    contents.cells.append(result)
                elif result["layers"]:
                    similarity_agreement(result)  # raises if the record lacks a field
                    contents.similarities.append(result)
            except NsvdError as error:
                contents.problems.append(str(error))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                contents.problems.append(
                    f"{path} is damaged ({type(error).__name__}: {error}): move it away and run "
                    "it again"
                )
    return contents


def row_of(result: Result) -> Row:
    """Method, ratio and k1 of a cell."""
    return Row(result["method"], result["ratio"], result["k1"])


def measurements_of(result: Result) -> list[Measurement]:
    """The measurements of a cell, under every protocol that was used.

    Raises:
        KeyError, TypeError, ValueError: the result lacks a field, or a field has the wrong form.
    """
    stored = [*result["datasets"].values(), *result["earlier"]]
    for fields, found in ((CELL_FIELDS, result), *((MEASUREMENT_FIELDS, n) for n in stored)):
        if not found.keys() >= fields:
            raise KeyError(", ".join(sorted(fields - found.keys())))
    common, row = cell_agreement(result), row_of(result)
    calibration = result["identity"].get("calibration")
    seed = None if calibration is None else int(calibration["seed"])
    return [
        Measurement(row, n["dataset"], seed, common | evaluation_agreement(n), n, result)
        for n in stored
    ]
