"""What the scores of a cell at tasks are: which tasks, what is missing. Imports no torch.

They belong to a cell and have its key. Each score in them has a key of its own: the task's file
with all that it names (`nsvd_exp.data.tasks`), the number of examples and the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nsvd_exp.config.schema import Config
from nsvd_exp.data.tasks import TaskSource, locate_task
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.calibration_plan import STAGE_VERSIONS
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.storage.kept import TASK_SCORES
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import Result, ResultFile, scores_file

# The names of a grid's and a table's columns beside those of tasks.
MEAN = "mean"


@dataclass(frozen=True)
class PlannedTask:
    """One score to be made: a task at one state, with so many examples and documents."""

    source: TaskSource
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.source.name

    @property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)


@dataclass(frozen=True)
class ZeroshotPlan(Resolved):
    """Scores of a cell to be made.

    Attributes:
        cell: the cell's own result, which need not be there.
        file: of the scores, in the cell's folder.
        tasks: in the order asked for.
    """

    cell: ResultFile
    file: ResultFile
    tasks: list[PlannedTask]

    def found(self, result: Result | None) -> dict[str, Result]:
        """The stored scores that this plan asks for, by task."""
        found = {task.name: TASK_SCORES.find(result, task.name, task.key) for task in self.tasks}
        return {name: score for name, score in found.items() if score is not None}

    def missing(self, result: Result | None) -> list[PlannedTask]:
        """The tasks of which the stored result has no score."""
        found = self.found(result)
        return [task for task in self.tasks if task.name not in found]

    def is_done(self, result: Result | None) -> bool:
        """Whether every score that this plan asks for is there.

        They may be there and the last run have failed, at a task that it asked for beside them.
        """
        return result is not None and result["status"] != "partial" and not self.missing(result)


def plan_zeroshot(config: Config) -> ZeroshotPlan:
    """The scores that the user asked for. Reads files and may ask the hub; changes nothing.

    Raises:
        NsvdError: as `resolve`, or a task that is not there, is broken or cannot be done.
    """
    cell = plan_cell(config, is_measured=False)
    folders = config.tasks_dir if isinstance(config.tasks_dir, list) else [config.tasks_dir]
    given = [folder for folder in folders if folder]
    sources = [locate_task(name, given) for name in dict.fromkeys(config.tasks)]
    tasks = [PlannedTask(source, _identity(cell, source)) for source in sources]
    own = {name: value for name, value in vars(cell).items() if name != "file"}
    return ZeroshotPlan(**own, cell=cell.file, file=scores_file(cell.file), tasks=tasks)


def _identity(plan: Resolved, source: TaskSource) -> dict[str, Any]:
    asked = plan.config.zeroshot
    if asked.fewshot and source.config.get("num_fewshot") == 0:
        raise NsvdError(
            f"zeroshot.fewshot={asked.fewshot}: task {source.name} is fixed at 0 examples "
            f"({source.path})"
        )
    identity = {
        **source.identity,
        "fewshot": asked.fewshot,
        "limit": asked.limit,
        "stage": STAGE_VERSIONS["zeroshot"],
    }
    if plan.evaluation_dtype != plan.dtype:
        identity["dtype"] = plan.evaluation_dtype
    if plan.config.model.max_length is not None:  # longer requests are cut
        identity["max_length"] = plan.config.model.max_length
    return identity


class Accuracy(NamedTuple):
    """An accuracy, a mean of several or a difference of two, with its standard error.

    Attributes:
        value: as a fraction.
        stderr: None where it is not known.
    """

    value: float
    stderr: float | None


def accuracy_of(score: Mapping[str, Any]) -> Accuracy:
    """The accuracy at one task."""
    return Accuracy(score["accuracy"], score["stderr"])


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Accuracy:
    """The accuracy of two models at one task, one less the other.

    The documents are the same, so its standard error is that of the mean of their n differences d,
    √(Σ(d − d̄)² / (n (n − 1))). It is not known where the documents are not, or a score at one of
    them is neither 0 nor 1.
    """
    value = ours["accuracy"] - theirs["accuracy"]
    a, b = ours["correct"], theirs["correct"]
    comparable = None not in (a, b) and ours["documents_sha256"] == theirs["documents_sha256"]
    if not comparable or len(a) < 2:
        return Accuracy(value, None)
    differences = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    mean = math.fsum(differences) / len(a)
    squares = math.fsum((d - mean) ** 2 for d in differences)
    return Accuracy(value, math.sqrt(squares / (len(a) * (len(a) - 1))))


def mean(parts: Iterable[Accuracy]) -> Accuracy | None:
    """The mean over tasks, each of which counts the same; None of nothing.

    Tasks are independent: the standard error is √(Σ stderr²) over their number.
    """
    known = list(parts)
    if not known:
        return None
    value = math.fsum(part.value for part in known) / len(known)
    errors = [part.stderr for part in known if part.stderr is not None]
    if len(errors) < len(known):
        return Accuracy(value, None)
    return Accuracy(value, math.hypot(*errors) / len(known))


def format_accuracy(accuracy: Accuracy | None) -> str:
    """In per cent, with its standard error: `57.1 ± 3.2`; – where there is none."""
    if accuracy is None:
        return "–"
    text = f"{100 * accuracy.value:.1f}"
    return text if accuracy.stderr is None else f"{text} ± {100 * accuracy.stderr:.1f}"


def format_difference(accuracy: Accuracy | None) -> str:
    """In percentage points, with its sign: `−4.2 ± 1.9`."""
    if accuracy is None:
        return "–"
    text = format_accuracy(accuracy)
    return (text if accuracy.value < 0 else f"+{text}").replace("-", "−")
