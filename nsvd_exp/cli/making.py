"""What jobs ask for, made unless it is stored: cells, their scores at tasks, similarity records.

torch is imported only once there is work to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.hydra_config import HydraConfig

from nsvd_exp.cli.turns import Turn
from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.plan import CellPlan, SimilarityPlan, plan_cell, plan_similarity
from nsvd_exp.experiment.wording import label_of
from nsvd_exp.experiment.zeroshot import ZeroshotPlan, plan_zeroshot
from nsvd_exp.progress import Observer, Observers, ProgressBars
from nsvd_exp.storage.results import Result
from nsvd_exp.tracking.session import WandbSession, under_agent

if TYPE_CHECKING:
    from nsvd_exp.experiment.session import Session

P = TypeVar("P", CellPlan, ZeroshotPlan)

log = logging.getLogger(__name__)


class BusyError(Exception):
    """Another process is at the cell, or at a record."""


class Maker:
    """Makes what a job asks for, unless it is stored.

    It holds what the jobs of a process share. One that goes to another process starts anew there.

    Args:
        session: what cells share; None: a new one, made with the first cell that is to be done.
    """

    def __init__(self, session: Session | None = None) -> None:
        self._wandb = WandbSession()  # what this process has learnt of Weights & Biases
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
            return CellTracker(plan, preset, self._wandb)
        return ScoresTracker(plan, preset, self._wandb)

    def continue_prompts(self, plan: CellPlan) -> None:
        """Store what a cell's model makes of the fixed prompts, where that is asked for."""
        if not plan.config.generate:
            return
        from nsvd_exp.experiment.continuations import run_continuations

        run_continuations(plan, self.session)


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
    title = ", ".join(filter(None, (str(turn or ""), title_of(config))))
    left = turn.countdown() if turn else str
    log.info("%s", ", ".join(filter(None, (f"{title}: started", left()))))
    with ProgressBars.showing(title, left) as bars:
        yield bars


def title_of(config: Config) -> str:
    """What a job is called in messages."""
    return " ".join(filter(None, label_of(config)))
