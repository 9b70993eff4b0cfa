"""The jobs that a process does: each one cell, its scores at tasks, or similarity records.

A job of a grid returns an `Outcome` and never raises, so that no launcher aborts the grid. torch is
imported only once there is work to do.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nsvd_exp.cli import accuracy, terminal
from nsvd_exp.cli.export import export_and_push, export_folder
from nsvd_exp.cli.generate import show_stored
from nsvd_exp.cli.outcome import BUSY, Outcome, outcome
from nsvd_exp.cli.turns import Turn
from nsvd_exp.config.files import register
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import (
    CellPlan,
    SimilarityPlan,
    dense_of,
    plan_cell,
    plan_similarity,
)
from nsvd_exp.experiment.wording import format_perplexity, label_of
from nsvd_exp.experiment.zeroshot import ZeroshotPlan, plan_zeroshot
from nsvd_exp.progress import Observer, Observers, ProgressBars
from nsvd_exp.storage.results import Result, ResultFile
from nsvd_exp.tracking.session import WandbSession, under_agent

if TYPE_CHECKING:
    from nsvd_exp.experiment.session import Session

P = TypeVar("P", CellPlan, ZeroshotPlan)

log = logging.getLogger(__name__)


class Jobs:
    """What Hydra calls for each job of a grid, or for the one job of a plain run.

    It holds what the jobs of a process share. One that goes to another process starts anew there.

    Args:
        session: what cells share; None: a new one, made with the first cell that is to be done.

    Attributes:
        wandb: what this process has learnt of Weights & Biases.
    """

    def __init__(self, session: Session | None = None) -> None:
        self.wandb = WandbSession()
        self._session = session

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": None}

    @property
    def session(self) -> Session:
        """What cells share. Making it imports torch."""
        if self._session is None:
            from nsvd_exp.experiment.session import Session

            self._session = Session()
        return self._session

    def __call__(self, composed: DictConfig, turn: Turn | None = None) -> Outcome | None:
        """Do a job; what became of it, if it is one of a grid.

        Args:
            turn: the job's place in its grid, where that is known.
        """
        register()  # a launcher's worker starts from nothing
        config = typed_config(composed)
        in_a_grid, alone = {
            "perplexity": (self._cell_outcome, self._show_cell),
            "zeroshot": (self._scores_outcome, self._show_scores),
            "similarity": (self._similarity_outcome, self._show_similarity),
        }[config.measure]
        try:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                became = in_a_grid(config, turn)
                log.info("%s: %s", _title(config), became.state)
                return became
            alone(config)
            return None
        except BusyError:
            log.info("%s: another process is at it, so it comes later", _title(config))
            return outcome(BUSY, config)
        except Exception as error:
            if not isinstance(error, NsvdError):
                log.exception("this is a bug in nsvd_exp, or in what it was extended with")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return outcome("failed", config, message=str(error) or type(error).__name__)
            terminal.show_error(error)
            sys.exit(1)

    def cell(
        self, config: Config, turn: Turn | None = None, is_companion: bool = False
    ) -> tuple[CellPlan, Result, bool]:
        """Do a cell unless it is done: its plan, its result, and whether it was done already.

        Args:
            turn: its place in a grid.
            is_companion: whether it is only there for another one to be compared with.

        Raises:
            NsvdError: model or dataset cannot be found; nothing is stored then.
            BusyError: another process is at it, and this turn is not to wait.
        """
        return self._ensured(plan_cell(config), turn, is_companion)

    def scores(
        self, config: Config, turn: Turn | None = None, is_companion: bool = False
    ) -> tuple[ZeroshotPlan, Result, bool]:
        """Make the scores of a cell that are missing; all else as of `cell`."""
        return self._ensured(plan_zeroshot(config), turn, is_companion)

    def _ensured(self, plan: P, turn: Turn | None, is_companion: bool) -> tuple[P, Result, bool]:
        tracker = self._tracker(plan, is_companion)
        result = plan.file.read()
        if result is not None and plan.is_done(result):
            tracker.skipped(result)
            return plan, result, True
        with _bars(plan.config, turn) as bars:
            work, on_wait = _Work(), _on_wait(turn)
            with closing(Observers(bars, tracker, work)) as observer:
                # The first import of torch and transformers takes seconds: only where work is left.
                if isinstance(plan, CellPlan):
                    from nsvd_exp.experiment.run import run_cell

                    result = run_cell(plan, self.session, observer, on_wait)
                else:
                    from nsvd_exp.experiment.run_zeroshot import run_zeroshot

                    result = run_zeroshot(plan, self.session, observer, on_wait)
        return plan, result, not work.is_begun

    def similarities(
        self, config: Config, turn: Turn | None = None
    ) -> tuple[SimilarityPlan, list[Result], bool]:
        """Make the similarity records that are not done: plan, records, whether all were done.

        Args:
            turn: the job's place in a grid.

        Raises:
            NsvdError: model or dataset cannot be found; nothing is stored then.
            BusyError: another process is at one of them, and this turn is not to wait.
        """
        plan = plan_similarity(config)
        stored = [file.read() for file in plan.files]
        done = [result for result in stored if result is not None and plan.is_done(result)]
        if len(done) == len(plan.files):
            return plan, done, True
        with _bars(config, turn) as bars:
            from nsvd_exp.experiment.run_similarity import run_similarities

            work, on_wait = _Work(), _on_wait(turn)
            records = run_similarities(plan, self.session, Observers(bars, work), on_wait)
        return plan, records, not work.is_begun

    def _tracker(self, plan: CellPlan | ZeroshotPlan, is_companion: bool) -> Observer:
        """Who follows this work for Weights & Biases: nobody, unless `tracking.mode` says so."""
        if plan.config.tracking.mode == "disabled":
            return Observer()
        from nsvd_exp.tracking.cell import CellTracker
        from nsvd_exp.tracking.zeroshot import ScoresTracker

        if is_companion and under_agent():
            return Observer()  # an agent's run is for the cell that the agent asked for
        preset = HydraConfig.get().runtime.choices.get("experiment")
        if isinstance(plan, CellPlan):
            return CellTracker(plan, preset, self.wandb)
        return ScoresTracker(plan, preset, self.wandb)

    def _continue_prompts(self, plan: CellPlan) -> None:
        """Store what a cell's model makes of the fixed prompts, where that is asked for."""
        if not plan.config.generate:
            return
        from nsvd_exp.experiment.continuations import run_continuations

        run_continuations(plan, self.session)

    def _cell_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        folder = export_folder(config, is_grid=True)
        plan, result, was_done = self.cell(config, turn)
        if result["status"] == "failed" and not was_done:
            return outcome("failed", config, message=result["error"]["message"])
        if folder is not None:
            log.info("%s", export_and_push(plan, result, self.session, folder))
        self._continue_prompts(plan)
        values = {
            name: format_perplexity(measured["perplexity"])
            for name, measured in plan.found(result).items()
        }
        return outcome("skipped" if was_done else "done", config, values, key=plan.file.key)

    def _scores_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        plan, result, was_done = self.scores(config, turn)
        values = accuracy.texts(plan.found(result))
        if result["status"] == "failed" and not was_done:
            return outcome("failed", config, values, result["error"]["message"])
        return outcome("skipped" if was_done else "done", config, values)

    def _similarity_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        plan, records, was_done = self.similarities(config, turn)
        statistic = config.similarity.statistic
        values = {
            record["dataset"]["name"]: terminal.format_similarity(record, statistic)
            for record in records
            if plan.is_done(record)
        }
        failures = [r["error"]["message"] for r in records if not plan.is_done(r)]
        if failures:
            return outcome("failed", config, values, "; ".join(failures))
        return outcome("skipped" if was_done else "done", config, values)

    def _show_cell(self, config: Config) -> None:
        """One cell, shown beside the dense model.

        Raises:
            NsvdError: the cell, or the dense one, failed.
        """
        dense, folder = None, export_folder(config, is_grid=False)
        if config.compresses:
            dense_plan, dense_result, _ = self._cell_or_raise(dense_of(config), is_companion=True)
            dense = dense_plan.found(dense_result)
        plan, result, was_done = self._cell_or_raise(config)
        terminal.show(terminal.cell_table(config, plan.found(result), dense))
        _say_done(plan.file, result, was_done)
        if folder is not None:
            print(export_and_push(plan, result, self.session, folder))
        if config.generate:
            print()
            show_stored([dense_plan, plan] if config.compresses else [plan])

    def _cell_or_raise(
        self, config: Config, is_companion: bool = False
    ) -> tuple[CellPlan, Result, bool]:
        plan, result, was_done = self.cell(config, is_companion=is_companion)
        if result["status"] == "failed" and not was_done:
            raise NsvdError(_problem(result["error"], plan.file))
        self._continue_prompts(plan)
        return plan, result, was_done

    def _show_scores(self, config: Config) -> None:
        """The scores of one cell, shown beside those of the dense model.

        Raises:
            NsvdError: a task failed; what the others gave is shown all the same.
        """
        dense, problems = None, []
        if config.compresses:
            dense_plan, dense_result, was_done = self.scores(dense_of(config), is_companion=True)
            dense = dense_plan.found(dense_result)
            if dense_result["status"] == "failed" and not was_done:
                problems.append(_problem(dense_result["error"], dense_plan.file))
        plan, result, was_done = self.scores(config)
        if result["status"] == "failed" and not was_done:
            problems.append(_problem(result["error"], plan.file))
        if found := plan.found(result):
            terminal.show(accuracy.table(config, found, dense))
        if problems:
            raise NsvdError("\n".join(dict.fromkeys(problems)))
        _say_done(plan.file, result, was_done)

    def _show_similarity(self, config: Config) -> None:
        """Similarity records, shown over their layers.

        Raises:
            NsvdError: a dataset failed.
        """
        plan, records, was_done = self.similarities(config)
        made = [record for record in records if plan.is_done(record)]
        if made:
            terminal.show(terminal.similarity_table(config, made))
        for record, file in zip(records, plan.files, strict=False):
            if not plan.is_done(record):
                raise NsvdError(_problem(record["error"], file))
        print(f"{'already done' if was_done else 'done'}: {plan.files[0].folder.parent}")


class BusyError(Exception):
    """Another process is at the cell, or at a record."""


def _on_wait(turn: Turn | None) -> Callable[[str], None]:
    """What is told whom a job would wait for; it raises where the job is to come later."""
    return log.warning if turn is None or turn.waits else _leave


def _leave(holder: str) -> None:
    raise BusyError(holder)


class _Work(Observer):
    """Notices whether anything is done, or all was there when this process had its turn."""

    def __init__(self) -> None:
        self.is_begun = False

    def started(self) -> None:
        self.is_begun = True


@contextmanager
def _bars(config: Config, turn: Turn | None) -> Iterator[ProgressBars]:
    """Progress of a job, which begins with a line at once: what is imported takes seconds."""
    title = ", ".join(filter(None, (str(turn or ""), _title(config))))
    left = turn.countdown() if turn else str
    log.info("%s", ", ".join(filter(None, (f"{title}: started", left()))))
    with ProgressBars.showing(title, left) as bars:
        yield bars


def _title(config: Config) -> str:
    return " ".join(filter(None, label_of(config)))


def _say_done(file: ResultFile, result: Result, was_done: bool) -> None:
    achieved = result["achieved_ratio"]
    if achieved:
        print(
            f"parameters removed: {achieved['layers']:.2%} of the compressed layers, "
            f"{achieved['model']:.2%} of the model"
        )
    seconds = ", ".join(f"{stage} {s:.1f} s" for stage, s in result["seconds"].items())
    print(f"{'already done' if was_done else 'done'} ({seconds}): {file.path}")


def _problem(error: dict[str, str], file: ResultFile) -> str:
    where = "" if error["type"] == "NsvdError" else f"\n(traceback in {file.path})"
    return error["message"] + where
