"""The story of a cell's scores at tasks: plan, resume, load, calibrate, compress, score, keep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from nsvd_exp.data.tasks import HARNESS, require_harness
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import CompressedModel, compressed
from nsvd_exp.experiment.provenance import environment, reset_peak_memory
from nsvd_exp.experiment.record import Stopwatch, now, started_scores
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.work import done_once
from nsvd_exp.experiment.zeroshot import PlannedTask, ZeroshotPlan
from nsvd_exp.models.sources import max_length
from nsvd_exp.progress import Observer
from nsvd_exp.storage.kept import TASK_SCORES
from nsvd_exp.storage.results import Result

if TYPE_CHECKING:
    from nsvd_exp.pipeline.zeroshot import TaskScore

log = logging.getLogger(__name__)


def run_zeroshot(
    plan: ZeroshotPlan,
    session: Session,
    observer: Observer | None = None,
    on_wait: Callable[[str], None] = log.warning,
) -> Result:
    """Make the scores that are missing of a cell and return all of them, stored by then.

    A task that fails does not stop the others. Args, problems and errors are as of
    `nsvd_exp.experiment.work.done_once`.
    """
    observer = observer or Observer()

    def begin(previous: Result | None) -> _Scores:
        return _Scores(plan, session, observer, started_scores(plan, previous))

    return done_once(plan, session, observer, on_wait, begin)


@dataclass
class _Scores:
    """Scores in work; `result` is stored after every task."""

    plan: ZeroshotPlan
    session: Session
    observer: Observer
    result: Result
    stopwatch: Stopwatch = field(init=False)
    problems: list[NsvdError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.plan.device)

    @property
    def keeps_model(self) -> bool:
        """Whether it was tasks that failed."""
        return bool(self.problems)

    def do(self) -> None:
        """All stages, if any score is missing.

        Raises:
            NsvdError: the model cannot be had, or some tasks cannot be done: all of them are named.
        """
        missing = self.plan.missing(self.result)
        if not missing:
            return
        require_harness()
        from nsvd_exp.pipeline.zeroshot import load_task

        reset_peak_memory(self.plan.device)
        self.result["environment"] = self._environment()
        loaded: list[tuple[PlannedTask, Any]] = []
        # Documents before weights: a dataset that is not there should not cost a calibration first.
        for task in missing:
            with self._going_on(), self.stopwatch("load"):
                loaded.append((task, load_task(task.source)))
        if loaded:
            with compressed(self.plan, self.session, self.observer, self.stopwatch) as made:
                self.result["achieved_ratio"] = made.achieved_ratio
                self.result["calibration"] = made.calibration
                for task, own in loaded:
                    with self._going_on():
                        self._keep(task, self._score(made, task, own))
        if self.problems:
            raise _all_in_one(self.problems)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """A task's problem is kept until the others are done."""
        try:
            yield
        except NsvdError as error:
            log.warning("%s", error)
            self.problems.append(error)

    def _score(self, made: CompressedModel, task: PlannedTask, own: Any) -> dict[str, Any]:
        """What is stored of one task."""
        from nsvd_exp.pipeline.zeroshot import score_task

        start = time.perf_counter()
        plan, asked = self.plan, self.plan.config.zeroshot
        with self.stopwatch("evaluate"):
            score = score_task(
                made.model,
                made.tokenizer,
                own,
                fewshot=asked.fewshot,
                limit=asked.limit,
                batch=asked.batch,
                max_length=max_length(plan.model, plan.config.model),
                progress=self.observer.progress(task.name),
            )
        if score.is_cut:
            log.warning(
                "task %s: some requests are longer than the model takes, and lose their beginning",
                task.name,
            )
        return self._stored(task, score, time.perf_counter() - start)

    def _stored(self, task: PlannedTask, score: TaskScore, seconds: float) -> dict[str, Any]:
        return {
            "task": task.name,
            "key": task.key,
            "identity": task.identity,
            "version": task.source.version,
            "fewshot": self.plan.config.zeroshot.fewshot,
            "limit": self.plan.config.zeroshot.limit,
            **vars(score),
            "dtype": self.plan.evaluation_dtype,
            "seconds": round(seconds, 3),
            "measured": now(),
            "environment": self.result["environment"],
        }

    def _keep(self, task: PlannedTask, score: dict[str, Any]) -> None:
        TASK_SCORES.put(self.result, score)
        self.plan.file.write(self.result)
        self.observer.measured(score)

    def _environment(self) -> dict[str, Any]:
        """As of every result, with the harness's version."""
        found = environment(self.plan.device)
        libraries = {**found["libraries"], HARNESS: metadata.version(HARNESS)}
        return {**found, "libraries": libraries}


def _all_in_one(problems: list[NsvdError]) -> NsvdError:
    """The one error, or an error that says them all, line by line."""
    if len(problems) == 1:
        return problems[0]
    return NsvdError("\n".join(map(str, problems)))
