"""The stored accuracies at tasks: one row per cell, beside the dense model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsvd_exp.experiment.zeroshot import Accuracy, accuracy_of, difference, mean
from nsvd_exp.report.model.agreement import (
    Agreement,
    agrees,
    cell_agreement,
    differences,
    merged,
)
from nsvd_exp.report.model.methods import ShownMethod, form_of, row_of, shown_method
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.storage.results import Result

FIELDS = {
    "task", "key", "version", "metric", "accuracy", "stderr", "chance", "documents", "available",
    "correct", "documents_sha256", "fewshot", "limit", "dtype", "measured",
}  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One stored score, with what another one must agree in to stand in one table with it."""

    agreement: Agreement
    stored: Mapping[str, Any]
    result: Result


@dataclass(frozen=True)
class AccuracyLine:
    """The accuracies of one cell.

    Attributes:
        title: of the method; with the seed of the calibration where several are stored.
        seed: of the calibration; None for a method without one.
        scores: by task.
        over_dense: the differences to the dense model, by task; none in its own line.
        best: tasks at which no line of this ratio is better, where there are two or more.
    """

    row: Row
    title: str
    seed: int | None
    result: Result
    scores: dict[str, Mapping[str, Any]]
    over_dense: dict[str, Accuracy]
    best: set[str] = field(default_factory=set)

    def accuracy(self, task: str) -> Accuracy | None:
        """At one task; None where there is none."""
        return accuracy_of(self.scores[task]) if task in self.scores else None

    def mean(self, tasks: Sequence[str]) -> Accuracy | None:
        """Over all tasks of its block; None unless it has a score at each."""
        known = [accuracy for task in tasks if (accuracy := self.accuracy(task))]
        return mean(known) if len(known) == len(tasks) else None

    def mean_over_dense(self, tasks: Sequence[str]) -> Accuracy | None:
        """The difference of the means over all tasks of its block."""
        known = [self.over_dense[task] for task in tasks if task in self.over_dense]
        return mean(known) if len(known) == len(tasks) else None


@dataclass(frozen=True)
class AccuracyBlock:
    """The accuracies of one model under one setting.

    Attributes:
        tasks: in alphabetical order.
        chances: the accuracy of guessing, by task; only those that have choices.
        lines: by ratio, and in the order of the methods.
        place: 0 for the model's main setting; 1, 2, ... for its others.
        differences: where this setting differs from the main one, in words.
    """

    model: str
    tasks: list[str]
    chances: dict[str, float]
    lines: list[AccuracyLine]
    place: int
    differences: list[str]

    @property
    def title(self) -> str:
        """The model and, where it is not the main one, the setting."""
        return ", ".join([self.model, *self.differences])


def scores_of(result: Result) -> list[Score]:
    """The scores of a cell, however they were made.

    Raises:
        KeyError: a field is missing.
    """
    common, found = cell_agreement(result), []
    for stored in (*result["tasks"].values(), *result["earlier"]):
        if not stored.keys() >= FIELDS:
            raise KeyError(", ".join(sorted(FIELDS - stored.keys())))
        own = {
            "zeroshot.fewshot": str(stored["fewshot"]),
            "zeroshot.limit": str(stored["limit"]),
            "evaluation.dtype": stored["dtype"],
            f"task {stored['task']}": stored["key"],
            f"tokens of {stored['task']}": stored["documents_sha256"],
        }
        found.append(Score(common | own, stored, result))
    return found


def build(contents: Mapping[str, Sequence[Result]]) -> list[AccuracyBlock]:
    """One block per model and setting; of a model, the setting with most scores comes first.

    Args:
        contents: the stored scores of each model, by its label.
    """
    return [block for label, results in contents.items() for block in _of_model(label, results)]


def _of_model(label: str, results: Iterable[Result]) -> list[AccuracyBlock]:
    own = [score for result in results for score in scores_of(result)]
    groups = [
        (agreement, [score for score in own if agrees(score.agreement, agreement)])
        for agreement in merged(score.agreement for score in own)
    ]
    groups.sort(key=lambda g: (len(g[1]), max(s.stored["measured"] for s in g[1])), reverse=True)
    return [
        _block(label, group, place, differences(agreement, groups[0][0]) if place else [])
        for place, (agreement, group) in enumerate(groups)
    ]


def _block(
    model: str, scores: Sequence[Score], place: int, differences: list[str]
) -> AccuracyBlock:
    by_cell: dict[str, list[Score]] = {}
    for score in scores:
        by_cell.setdefault(score.result["key"], []).append(score)
    cells = {key: own[0].result for key, own in by_cell.items()}
    found = {key: {s.stored["task"]: s.stored for s in own} for key, own in by_cell.items()}
    dense = next((found[key] for key, cell in cells.items() if row_of(cell) == DENSE), {})
    rows = [row_of(cell) for cell in cells.values()]
    lines = [
        _line(cell, found[key], dense, has_several=rows.count(row_of(cell)) > 1)
        for key, cell in sorted(cells.items(), key=lambda item: _order(item[1]))
    ]
    stored = [score.stored for score in scores]
    return AccuracyBlock(
        model,
        sorted({score["task"] for score in stored}),
        {s["task"]: s["chance"] for s in stored if s["chance"] is not None},
        [_marked(line, lines) for line in lines],
        place,
        differences,
    )


def _line(
    cell: Result,
    scores: dict[str, Mapping[str, Any]],
    dense: Mapping[str, Mapping[str, Any]],
    has_several: bool,
) -> AccuracyLine:
    row = row_of(cell)
    calibration = cell["identity"].get("calibration")
    seed = None if calibration is None else int(calibration["seed"])
    title = _shown(cell).title
    both = [] if row == DENSE else [task for task in scores if task in dense]
    less = {task: difference(scores[task], dense[task]) for task in both}
    return AccuracyLine(
        row, f"{title}, seed {seed}" if has_several else title, seed, cell, scores, less
    )


def _shown(cell: Result) -> ShownMethod:
    return shown_method(cell["method"], [cell], form_of(cell))


def _order(cell: Result) -> tuple[Any, ...]:
    row = row_of(cell)
    return row.ratio or 0.0, _shown(cell).place, -(row.k1 or 0.0), cell["key"]


def _marked(line: AccuracyLine, lines: Sequence[AccuracyLine]) -> AccuracyLine:
    """The line with the tasks at which it is the best of its ratio."""
    beside = [other for other in lines if other.row.ratio == line.row.ratio]
    for task, score in line.scores.items():
        others = [other.scores[task]["accuracy"] for other in beside if task in other.scores]
        if len(others) > 1 and score["accuracy"] == max(others):
            line.best.add(task)
    return line
