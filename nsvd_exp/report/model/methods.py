"""How a method is shown: its title, its place among the others, and how figures draw it.

Each result stores this with its configuration. For a result that does not (it was stored by an
earlier version) and for a method that only the paper has, the file in `conf/method` says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nsvd_exp import methods
from nsvd_exp.config.checks import shown
from nsvd_exp.config.classes import TARGET, build
from nsvd_exp.config.files import files_of, method_files
from nsvd_exp.config.sections import CalibrationConfig
from nsvd_exp.experiment.resolve import class_identity
from nsvd_exp.models import storage
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.results import Result


@dataclass(frozen=True)
class ShownMethod:
    """How a method is shown.

    Attributes:
        name: as in the configuration.
        title: in tables and legends, with what `form_of` says.
        order: its place in tables; methods without one come last.
        plot: `color`, `marker` and `hollow`; empty where the figures are to choose.
    """

    name: str
    title: str
    order: float = math.inf
    plot: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[float, str, str]:
        """Sorts methods by order, then by name, those in the paper's form first."""
        return self.order, self.name, self.title


PLAIN = {"storage": "Factors", "allocation": "Uniform"}
"""The classes of the paper's form: two factors, and the same ratio in each layer."""


def form_of(result: Result) -> list[str]:
    """What tells a cell from the plain one of its method: fields that are not as its file in
    `conf/method` has them, what was mixed into the calibration, what was taken backwards, and how
    products are stored and ranks allocated: `ridge 0.3`, `10% random`, `64 gradient samples`,
    `pivoted`, `fisher`."""
    identity = result["identity"]
    found = _unusual(_fields(identity["method"] or {}), _usual_fields(result["method"]))
    mix = (identity.get("calibration") or {}).get("mix", {})
    found += [f"{100 * float(source['weight']):g}% {name}" for name, source in mix.items()]
    found += _unusual_gradients(identity)
    for part, plain in PLAIN.items():
        block = dict(identity.get(part) or {"class": plain, "version": 1})
        name = block.pop("class")
        fields = _unusual(block, _defaults(part, name))
        if name != plain or fields:
            found.append(" ".join([_file_of(part, name), *fields]))
    return found


def row_of(result: Result) -> Row:
    """Method with its form, ratio and k1 of a cell."""
    return Row(", ".join([result["method"], *form_of(result)]), result["ratio"], result["k1"])


def _unusual_gradients(identity: Mapping[str, Any]) -> list[str]:
    about = identity.get("gradients")
    if about is None:
        return []
    # There are no more of them than calibration samples.
    usual = min(CalibrationConfig.gradient_samples, identity["calibration"]["samples"])
    found = [] if about["samples"] == usual else [f"{about['samples']} gradient samples"]
    return found + ([] if about["labels"] == CalibrationConfig.labels else ["labels of the text"])


def _unusual(fields: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in fields.items() if usual.get(name) != value]


def _fields(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a method but for k1, which is a column, those of its stages with their name.

    Methods of other classes or versions are never in one table.
    """
    found: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            found |= _fields(value, f"{prefix}{name} ")
        elif name not in ("class", "version") and prefix + name != "k1":
            found[prefix + name] = value
    return found


@cache
def _usual_fields(method: str) -> dict[str, Any]:
    """The fields as the file in `conf/method` has them; none where there is no such file."""
    block = {name: value for name, value in _files().get(method, {}).items() if name != "k1"}
    if not block.get(TARGET):
        return {}
    return _fields(class_identity(build(methods.Method, block, "method")))


@cache
def _defaults(part: str, name: str) -> dict[str, Any]:
    """The fields of a class of this package at their defaults, as an identity has them."""
    known = {"allocation": methods, "storage": storage}[part]
    cls = getattr(known, name, None)
    return {} if cls is None else class_identity(cls())


def shown_method(name: str, cells: Iterable[Result] = (), form: Sequence[str] = ()) -> ShownMethod:
    """How the method `name` is shown.

    Args:
        cells: stored results, of this and of other methods; the newest one of this method that
            has a title decides.
        form: from `form_of`.
    """
    newest_first = sorted(cells, key=lambda cell: cell["updated"], reverse=True)
    stored = [cell["config"].get("method", {}) for cell in newest_first if cell["method"] == name]
    block = next((block for block in stored if block.get("title")), _files().get(name, {}))
    order = block.get("order")
    return ShownMethod(
        name,
        ", ".join([shown(str(block.get("title") or name)), *form]),
        math.inf if order is None else float(order),
        block.get("plot") or {},
    )


def _file_of(part: str, name: str) -> str:
    """The file of `conf/` with a class of this package; of another class its own name."""
    targets = {file: str(block[TARGET]) for file, block in files_of(part).items()}
    ours = {target.rpartition(".")[2]: file for file, target in targets.items()}
    return ours.get(name, name.rpartition(".")[2])


@cache
def _files() -> dict[str, dict[str, Any]]:
    return method_files()
