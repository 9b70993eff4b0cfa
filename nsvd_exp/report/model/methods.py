"""How a method is shown: its title, its place among the others, and how figures draw it.

Each result stores this with its configuration. For a result that does not (it was stored by an
earlier version) and for a method that only the paper has, the file in `conf/method` says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nsvd_exp import methods
from nsvd_exp.config.files import method_files
from nsvd_exp.config.schema import shown
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


def form_of(identity: Mapping[str, Any]) -> list[str]:
    """How a cell's products are stored and its ranks allocated, where that is not as in the paper:
    `pivoted`, `fisher`, each with the fields that are not the default of its class."""
    found = []
    for part, plain in PLAIN.items():
        block = dict(identity.get(part) or {"class": plain, "version": 1})
        name = block.pop("class")
        fields = [f"{k} {v}" for k, v in block.items() if _defaults(part, name).get(k) != v]
        if name != plain or fields:
            words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
            found.append(" ".join([words, *fields]))
    return found


def row_of(result: Result) -> Row:
    """Method with its form, ratio and k1 of a cell."""
    method = ", ".join([result["method"], *form_of(result["identity"])])
    return Row(method, result["ratio"], result["k1"])


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


@cache
def _files() -> dict[str, dict[str, Any]]:
    return method_files()
