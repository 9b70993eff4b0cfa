"""What a `results_dir` holds: cells, their measurements and scores, and the other records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nsvd_exp.config.checks import shown
from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model import continuations, profiles
from nsvd_exp.report.model.accuracies import scores_of
from nsvd_exp.report.model.agreement import (
    Agreement,
    cell_agreement,
    evaluation_agreement,
    similarity_agreement,
)
from nsvd_exp.report.model.methods import row_of
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import (
    CELL,
    CONTINUATIONS,
    PROFILE,
    SCORES,
    SIMILARITY,
    Result,
    read_result,
    result_paths,
)

HASH_DIGITS = 8
LONGEST_MESSAGE = 1000

CELL_FIELDS = {"model", "ratio", "k1", "config", "environment", "calibration", "error"}
MEASUREMENT_FIELDS = {
    "dataset", "key", "identity", "perplexity", "tokens", "windows", "length", "max_windows",
    "dtype", "token_sha256", "window_nll", "seconds", "measured", "environment",
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One stored perplexity.

    Attributes:
        model: its `model_key`.
        seed: of the calibration samples; None for a method without calibration.
        agreement: what another measurement must agree in to be compared with this one.
        stored: the fields that `docs/stored-files.md` describes.
        cell: the result that the measurement is part of.
    """

    model: str
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
        profiles: of size and speed.
        continuations: what the models of cells made of the fixed prompts.
        scores: those of cells at tasks.
        problems: one message for each file that cannot be used.
    """

    cells: list[Result] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    similarities: list[Result] = field(default_factory=list)
    profiles: list[Result] = field(default_factory=list)
    continuations: list[Result] = field(default_factory=list)
    scores: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def labels(self) -> dict[str, str]:
        """What each model is called, by its `model_key`, in alphabetical order.

        It is the title; where several models have one title, with the start of a hash.
        """
        models = dict(self._keyed)
        count = Counter(self.titles.values())
        labels = {
            key: title if count[title] == 1 else f"{title} ({_short_hash(key, models[key])})"
            for key, title in self.titles.items()
        }
        return dict(sorted(labels.items(), key=lambda item: item[1]))

    def label_of(self, result: Result) -> str:
        """What the model of a cell or similarity record is called."""
        return self.labels[model_key(result)]

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each model, by its `model_key`."""
        return {key: str(result["model"]) for key, result in self._keyed}

    @cached_property
    def _keyed(self) -> list[tuple[str, Result]]:
        """Every stored result with the `model_key` of its model, the cells first."""
        results = (*self.cells, *self.similarities, *self.scores)
        return [(model_key(result), result) for result in results]

    def by_model(self) -> dict[str, Contents]:
        """What is stored of each model, by its label."""
        found = {key: Contents() for key in self.labels}
        for kind in ("cells", "similarities", "scores"):
            for result in getattr(self, kind):
                getattr(found[model_key(result)], kind).append(result)
        for measurement in self.measurements:
            found[measurement.model].measurements.append(measurement)
        return {self.labels[key]: contents for key, contents in found.items()}


def model_key(result: Result) -> str:
    """A hash of all that a model's identity holds."""
    return digest(result["identity"]["model"])


def _short_hash(key: str, result: Result) -> str:
    """What tells a model apart from another of the same title: of its files, or of its commit."""
    identity = result["identity"]["model"]
    return str(identity.get("sha256") or identity.get("commit") or key)[:HASH_DIGITS]


def read_contents(results_dir: Path) -> Contents:
    """Read everything under `results_dir`; what cannot be read becomes a message in `problems`."""
    contents = Contents()
    for kind in (CELL, SIMILARITY, PROFILE, CONTINUATIONS, SCORES):
        for path in result_paths(results_dir, kind):
            try:
                result = read_result(path, kind)
                result["model"] = shown(result["model"])
                if kind is CELL:
                    contents.measurements += measurements_of(result)
                    contents.cells.append(result)
                elif kind is PROFILE:
                    profiles.check(result)
                    contents.profiles.append(result)
                elif kind is CONTINUATIONS:
                    continuations.check(result)
                    contents.continuations.append(result)
                elif kind is SCORES:
                    scores_of(result)  # raises if a score lacks a field
                    contents.scores.append(result)
                elif result["layers"]:
                    similarity_agreement(result)  # raises if the record lacks a field
                    contents.similarities.append(result)
            except NsvdError as error:
                contents.problems.append(shown(str(error), LONGEST_MESSAGE))
            except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                problem = shown(f"{type(error).__name__}: {error}", LONGEST_MESSAGE)
                contents.problems.append(
                    f"{path} is damaged ({problem}): move it away and run it again"
                )
    return contents


def measurements_of(result: Result) -> list[Measurement]:
    """The measurements of a cell, under every protocol that was used.

    Raises:
        KeyError, TypeError, ValueError: the result lacks a field, or a field has the wrong form.
    """
    stored = [*result["datasets"].values(), *result["earlier"]]
    for fields, found in ((CELL_FIELDS, result), *((MEASUREMENT_FIELDS, n) for n in stored)):
        if not found.keys() >= fields:
            raise KeyError(", ".join(sorted(fields - found.keys())))
        if found is not result:
            _check_numbers(found)
    common, row, model = cell_agreement(result), row_of(result), model_key(result)
    calibration = result["identity"].get("calibration")
    seed = None if calibration is None else int(calibration["seed"])
    return [
        Measurement(model, row, n["dataset"], seed, common | evaluation_agreement(n), n, result)
        for n in stored
    ]


def _check_numbers(measurement: Mapping[str, Any]) -> None:
    """Refuse what no interval and no average could be made of.

    Raises:
        ValueError: a number is not finite, or a window has no loss.
    """
    losses, windows = measurement["window_nll"], measurement["windows"]
    if not (math.isfinite(measurement["perplexity"]) and measurement["perplexity"] > 0):
        raise ValueError(f"perplexity {measurement['perplexity']}")
    if len(losses) != windows or not all(map(math.isfinite, losses)):
        raise ValueError(f"window_nll does not hold {windows} finite losses")
