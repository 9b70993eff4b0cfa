"""One comparison of two rows, and what it says of a claim: the 95% interval decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from nsvd_exp.report.model.entries import RUINED
from nsvd_exp.report.model.paper import DENSE, Row
from nsvd_exp.report.model.subjects import Compared, Estimate, Subject


class Outcome(Enum):
    """What the numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Evidence:
    """One comparison that a claim rests on.

    Attributes:
        about: what is compared, in words.
        sets: on which it is compared.
        compared: None where it is not measured.
        verdict: by the number that decides: the improvement or, against the dense model, the nats.
        in_nats: by the mean difference of log perplexity, whichever number decides.
        times: the other row's and this row's perplexity, in times the dense model's (geometric
            means over the sets); None where the dense model is not measured.
        against_dense: whether the other row is the dense model.
    """

    about: str
    sets: Sequence[str]
    compared: Compared | None
    verdict: Outcome
    in_nats: Outcome
    times: tuple[float, float] | None = None
    against_dense: bool = False

    @property
    def is_ruined(self) -> bool:
        """Whether both of the compared models are beyond RUINED times the dense perplexity."""
        return not self.against_dense and self.times is not None and min(self.times) > RUINED


@dataclass(frozen=True)
class Finding:
    """What is found of a claim at one ratio."""

    ratio: float
    evidence: list[Evidence]

    @property
    def verdict(self) -> Outcome:
        """It holds where all comparisons say so, and does not where one says so."""
        return together([one.verdict for one in self.evidence])

    @property
    def in_nats(self) -> Outcome:
        """The verdict if log perplexity decided."""
        return together([one.in_nats for one in self.evidence])

    @property
    def is_ruined(self) -> bool:
        """Whether all comparisons are between ruined models."""
        return bool(self.evidence) and all(one.is_ruined for one in self.evidence)


def together(verdicts: Sequence[Outcome]) -> Outcome:
    """The verdict of several comparisons that a claim needs all of."""
    order = (Outcome.FAILS, Outcome.UNMEASURED, Outcome.OPEN)
    return next((one for one in order if one in verdicts), Outcome.HOLDS if verdicts else order[1])


def above(estimate: Estimate | None, bound: float = 0.0) -> Outcome:
    """Whether a number is above `bound`."""
    if estimate is None:
        return Outcome.UNMEASURED
    if estimate.bounds is None:
        return Outcome.OPEN
    low, high = estimate.bounds
    return Outcome.HOLDS if low > bound else Outcome.FAILS if high < bound else Outcome.OPEN


def within(estimate: Estimate | None, least: float, most: float) -> Outcome:
    """Whether a number is between two bounds."""
    return together([above(estimate, least), below(estimate, most)])


def below(estimate: Estimate | None, bound: float) -> Outcome:
    opposite = {Outcome.HOLDS: Outcome.FAILS, Outcome.FAILS: Outcome.HOLDS}
    verdict = above(estimate, bound)
    return opposite.get(verdict, verdict)


def numbers_of(found: Compared | None) -> tuple[Estimate | None, Estimate | None]:
    """The improvement and the nats of a comparison."""
    return (None, None) if found is None else (found.improvement, found.nats)


def against(
    subject: Subject,
    about: str,
    row: Row,
    other: Row,
    sets: Sequence[str],
    least: float = 0.0,
    most: float = math.inf,
) -> Evidence:
    """Whether the improvement of `row` over `other` is between `least` and `most`."""
    found = subject.compare(row, other, sets)
    gained, log = numbers_of(found)
    theirs, ours = subject.times_dense(other, sets), subject.times_dense(row, sets)
    # An improvement of i is a log perplexity of log(1 - i): the bounds change places.
    low, high = (-math.inf if most >= 1 else math.log(1 - most)), math.log(1 - least)
    return Evidence(
        about,
        sets,
        found,
        within(gained, least, most),
        within(log, low, high),
        None if theirs is None or ours is None else (theirs, ours),
    )


def ruins(subject: Subject, about: str, row: Row, sets: Sequence[str], claimed: bool) -> Evidence:
    """Whether a row is ruined where that is `claimed`, or else not ruined."""
    found = subject.compare(row, DENSE, sets)
    verdict = (above if claimed else below)(numbers_of(found)[1], math.log(RUINED))
    return Evidence(about, sets, found, verdict, verdict, against_dense=True)
