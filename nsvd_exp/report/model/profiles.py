"""Size and speed of compressed models against the dense one, from the stored profiles."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsvd_exp.config.checks import shown
from nsvd_exp.report.model.methods import ShownMethod, form_of, row_of, shown_method
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.results import Result

if TYPE_CHECKING:
    from nsvd_exp.report.model.measurements import Contents

SIZES = {
    "disk_bytes": "On disk, MB",
    "memory_bytes": "In memory, MB",
    "peak_bytes": "Peak, MB",
}
FIELDS = {"subject", "model", "cell", "method", "ratio", "k1", "dtype", "created"}
PREFILL, DECODE = "Prompt of {length}, tokens/s", "Decode batch {batch}, tokens/s"


@dataclass(frozen=True)
class Quantity:
    """A size or a speed of a compressed model, beside the dense one's.

    Attributes:
        title: what it is, with its unit.
        is_speed: whether larger is better.
        dense, compressed: in that unit; None where the system does not tell, or the model did not
            fit into memory.
        spread: the least and the largest ratio of two runs that followed each other.
        predicted: what counting says of `times`: the parameters for a size, the operations for a
            prompt, the bytes that a step reads for decoding.
    """

    title: str
    is_speed: bool
    dense: float | None
    compressed: float | None
    spread: tuple[float, float] | None = None
    predicted: float | None = None

    @property
    def times(self) -> float | None:
        """The compressed model's over the dense one's."""
        if self.dense is None or self.compressed is None:
            return None
        return self.compressed / self.dense


@dataclass(frozen=True)
class ProfileLine:
    """One profile.

    Attributes:
        row: method, ratio and k1 of the cell; all None for the folder of a saved model.
        title: of the method, or the folder's name.
        quantities: by their titles.
    """

    row: Row | None
    method: ShownMethod | None
    title: str
    quantities: dict[str, Quantity]
    record: Result

    @property
    def ratio(self) -> float | None:
        """The fraction of parameters removed."""
        return None if self.row is None else self.row.ratio


@dataclass(frozen=True)
class ProfileGroup:
    """The profiles of one model in one dtype on one machine.

    Attributes:
        model: what the model is called.
        machine: device, hardware, threads and dtype, in words.
        place: 0, 1, 2, ... among those of this model.
        lines: by ratio and in the order of the methods.
        titles: of the quantities.
    """

    model: str
    machine: str
    place: int
    lines: list[ProfileLine]
    titles: list[str]

    def is_speed(self, title: str) -> bool:
        """Whether a quantity is a speed, and no size."""
        found = (line.quantities.get(title) for line in self.lines)
        return any(quantity is not None and quantity.is_speed for quantity in found)

    def dense(self, title: str) -> float | None:
        """The median of the dense model's value over the profiles; None where there is none."""
        found = [line.quantities[title] for line in self.lines if title in line.quantities]
        known = [quantity.dense for quantity in found if quantity.dense is not None]
        return statistics.median(known) if known else None


def build(contents: Contents) -> list[ProfileGroup]:
    """One group per model and machine."""
    cells = {cell["key"]: cell for cell in contents.cells}
    labels = {key: contents.label_of(cell) for key, cell in cells.items()}
    groups: dict[tuple[str, str], list[Result]] = {}
    for record in contents.profiles:
        model = labels.get(record["cell"], shown(record["model"]))
        groups.setdefault((model, machine_of(record)), []).append(record)
    found: list[ProfileGroup] = []
    for (model, machine), records in sorted(groups.items()):
        place = sum(group.model == model for group in found)
        lines = sorted((_line(record, cells) for record in records), key=_place)
        titles = dict.fromkeys(title for line in lines for title in line.quantities)
        found.append(ProfileGroup(model, machine, place, lines, list(titles)))
    return found


def check(record: Result) -> None:
    """Refuse a record that cannot be shown.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError: it lacks a field, or a field has the wrong
            form.
    """
    lacking = FIELDS - record.keys()
    if lacking:
        raise KeyError(", ".join(sorted(lacking)))
    machine_of(record)
    quantities_of(record)


def machine_of(record: Result) -> str:
    """Device, hardware, threads and dtype, in words."""
    made_with = record["environment"]
    parts = (made_with["device"], made_with["hardware"], f"{made_with['threads']} threads")
    return shown(", ".join([*map(str, parts), str(record["dtype"])]))


def _line(record: Result, cells: Mapping[str, Result]) -> ProfileLine:
    quantities = {quantity.title: quantity for quantity in quantities_of(record)}
    if record["method"] is None:
        return ProfileLine(None, None, shown(record["subject"]), quantities, record)
    row, form = Row(record["method"], record["ratio"], record["k1"]), []
    if (cell := cells.get(record["cell"])) is not None:
        row, form = row_of(cell), form_of(cell)
    method = shown_method(record["method"], cells.values(), form)
    return ProfileLine(row, method, method.title, quantities, record)


def _place(line: ProfileLine) -> tuple[float, tuple[float, str, str], float]:
    if line.row is None or line.method is None:
        return float("inf"), (0.0, "", line.title), 0.0
    return line.row.ratio or 0.0, line.method.place, -(line.row.k1 or 0.0)


def quantities_of(record: Result) -> list[Quantity]:
    """All that a profile has measured."""
    dense, compressed = record["dense"], record["compressed"]
    share = compressed["parameters"] / dense["parameters"]
    found = [
        Quantity(title, False, _mega(dense[n]), _mega(compressed[n]), predicted=share)
        for n, title in SIZES.items()
    ]
    by_bytes = dense["step_bytes"] / compressed["step_bytes"]
    for kind, title in (("prefill", PREFILL), ("decode", DECODE)):
        for ours, theirs in zip(compressed[kind], dense[kind], strict=True):
            predicted = by_bytes if kind == "decode" else _by_flops(theirs, ours)
            name = title.format(length=int(ours["length"]), batch=int(ours["batch"]))
            found.append(
                Quantity(
                    name, True, _speed(theirs), _speed(ours),
                    _spread(theirs["seconds"], ours["seconds"]), predicted,
                )
            )  # fmt: skip
    return found


def _mega(size: int | None) -> float | None:
    return None if size is None else size / 1e6


def _speed(measured: Mapping[str, Any]) -> float | None:
    value = measured["tokens_per_second"]
    return None if value is None else float(value)


def _by_flops(dense: Mapping[str, Any], compressed: Mapping[str, Any]) -> float | None:
    return dense["flops"] / compressed["flops"] if compressed["flops"] else None


def _spread(dense: Sequence[float], compressed: Sequence[float]) -> tuple[float, float] | None:
    ratios = [theirs / ours for theirs, ours in zip(dense, compressed, strict=True)]
    return (min(ratios), max(ratios)) if ratios else None
