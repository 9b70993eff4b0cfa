"""What the models write: the stored continuations of the fixed prompts, by model and prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsvd_exp.config.checks import shown
from nsvd_exp.report.model.methods import ShownMethod, shown_method
from nsvd_exp.report.model.paper import Row
from nsvd_exp.storage.results import Result

if TYPE_CHECKING:
    from nsvd_exp.report.model.measurements import Contents

NUMBER = int | float | None
FIELDS = {
    "subject": str, "method": str, "ratio": NUMBER, "k1": NUMBER, "dtype": str, "created": str,
}  # fmt: skip
TEXT_FIELDS = {"prompt": str, "text": str, "tokens": int, "has_ended": bool}


@dataclass(frozen=True)
class Continuation:
    """What the model of one cell made of a prompt.

    Attributes:
        method: of the cell.
        origin: the cell's folder and the dtype, where several have this method, ratio and k1;
            empty otherwise.
        stored: `text`, `tokens` and `has_ended`.
    """

    row: Row
    method: ShownMethod
    origin: str
    stored: Mapping[str, Any]


@dataclass(frozen=True)
class ContinuationGroup:
    """What one model, dense and compressed, made of each prompt.

    Attributes:
        model: what the model is called.
        prompts: the continuations of each prompt: the dense model's first, then by ratio and in
            the order of the methods.
    """

    model: str
    prompts: dict[str, list[Continuation]]


def check(record: Result) -> None:
    """Refuse a record that cannot be shown.

    Raises:
        KeyError, TypeError: it lacks a field, or a field has the wrong form.
    """
    _check(record, FIELDS)
    _check(record["identity"], {"cell": str})
    for text in record["texts"]:
        _check(text, TEXT_FIELDS)


def _check(found: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    for name, kind in fields.items():
        if not isinstance(found[name], kind):
            raise TypeError(f"{name} is a {type(found[name]).__name__}")


def build(contents: Contents) -> list[ContinuationGroup]:
    """One group per model; of a cell and dtype, the newest text for each prompt."""
    results = [*contents.cells, *contents.scores]
    labels = {result["key"]: contents.label_of(result) for result in results}
    found: dict[str, dict[str, dict[tuple[str, str], tuple[Result, Mapping[str, Any]]]]] = {}
    for record in sorted(contents.continuations, key=lambda record: record["created"]):
        cell, dtype = record["identity"]["cell"], record["dtype"]
        prompts = found.setdefault(labels.get(cell, str(record["model"])), {})
        for text in record["texts"]:
            prompts.setdefault(text["prompt"], {})[cell, dtype] = record, text
    return [
        ContinuationGroup(
            model, {prompt: _lines(list(own.values()), results) for prompt, own in prompts.items()}
        )
        for model, prompts in sorted(found.items())
    ]


def _lines(
    texts: list[tuple[Result, Mapping[str, Any]]], results: list[Result]
) -> list[Continuation]:
    rows = [Row(record["method"], record["ratio"], record["k1"]) for record, _ in texts]
    count = Counter(rows)
    lines = []
    for row, (record, text) in zip(rows, texts, strict=True):
        origin = shown(f"{record['subject']}, {record['dtype']}") if count[row] > 1 else ""
        lines.append(Continuation(row, shown_method(row.method, results), origin, text))
    return sorted(lines, key=_place)


def _place(line: Continuation) -> tuple[Any, ...]:
    return line.row.ratio or 0.0, line.method.place, -(line.row.k1 or 0.0), line.origin
