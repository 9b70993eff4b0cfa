"""What happens around the work on a stored result: one process at a time, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.experiment.record import Stopwatch, describe, ended
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.zeroshot import ZeroshotPlan
from nsvd_exp.progress import Observer
from nsvd_exp.storage.results import Result


class Work(Protocol):
    """The work on one result, which has not begun.

    Attributes:
        result: what is known so far; it stores what it adds.
    """

    result: Result
    stopwatch: Stopwatch

    @property
    def keeps_model(self) -> bool:
        """Whether what went wrong says nothing of the model, so that it may stay loaded."""

    def do(self) -> None:
        """Make all that is missing; raises where something cannot be made."""


def done_once(
    plan: CellPlan | ZeroshotPlan,
    session: Session,
    observer: Observer,
    on_wait: Callable[[str], None],
    begin: Callable[[Result | None], Work],
) -> Result:
    """Do what is missing of a result and return it, stored.

    A problem in the work does not raise: the result then has `status` = `failed`, and its `error`
    says why. What was done before stays `done` in the store.

    Args:
        on_wait: is told before this waits for another process that is at the same result; where it
            raises, nothing is waited for.
        begin: the work that goes on from a stored result, or from nothing.

    Raises:
        NsvdError: the stored result is damaged or of another version, or the store cannot be
            written.
    """
    with plan.file.lock(on_wait):
        previous = plan.file.read()
        if previous is not None and plan.is_done(previous):
            observer.skipped(previous)  # another process did it while this one waited
            return previous
        work = begin(previous)
        plan.file.write(work.result)
        observer.started()
        error = None
        try:
            work.do()
        except Exception as caught:
            error = describe(caught)
        if error is not None and not work.keeps_model:
            session.release_model()  # outside of the handler, whose traceback holds the model
        was_done = work.result["status"] == "done"
        work.result |= ended(plan, error, work.stopwatch.seconds)
        # What another run asked for in vain takes nothing from what was done.
        kept = {"status": "done", "error": None} if was_done else {}
        plan.file.write(work.result | kept)
    observer.finished(work.result)
    return work.result
