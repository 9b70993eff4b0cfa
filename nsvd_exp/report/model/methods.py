"""How a method is shown: its title, its place among the others, and how figures draw it.

Each result stores this with its configuration. For a result that does not (it was stored by an
earlier version) and for a method that only the paper has, the file in `conf/method` says it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nsvd_exp.config.files import method_files
from nsvd_exp.config.schema import shown
from nsvd_exp.storage.results import Result


@dataclass(frozen=True)
class ShownMethod:
    """How a method is shown.

    Attributes:
        name: as in the configuration.
        title: in tables and legends.
        order: its place in tables; methods without one come last.
        plot: `color`, `marker` and `hollow`; empty where the figures are to choose.
    """

    name: str
    title: str
    order: float = math.inf
    plot: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[float, str]:
        """Sorts methods by order, then by name."""
        return self.order, self.name


def shown_method(name: str, cells: Iterable[Result] = ()) -> ShownMethod:
    """How the method `name` is shown.

    Args:
        cells: stored results, of this and of other methods; the newest one of this method that
            has a title decides.
    """
    newest_first = sorted(cells, key=lambda cell: cell["updated"], reverse=True)
    stored = [cell["config"].get("method", {}) for cell in newest_first if cell["method"] == name]
    block = next((block for block in stored if block.get("title")), _files().get(name, {}))
    order = block.get("order")
    return ShownMethod(
        name,
        shown(str(block.get("title") or name)),
        math.inf if order is None else float(order),
        block.get("plot") or {},
    )


@cache
def _files() -> dict[str, dict[str, Any]]:
    return method_files()
