"""Which method is best of a model at each ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nsvd_exp.experiment.improvement import REFERENCE_METHOD
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.subjects import Compared, Subject

IMPROVEMENT, NATS = "improvement", "nats"
MEASURES = (IMPROVEMENT, NATS)


@dataclass(frozen=True)
class Verdict:
    """The best method of a model at one ratio.

    Attributes:
        measure: by which it is the best: IMPROVEMENT, the mean improvement over ASVD-I, or NATS,
            the mean of log perplexity.
        winner: its line, which may be that of ASVD-I itself.
        equals: the lines that are as good, to the last digit.
        candidates: how many methods there are to choose from.
    """

    group: Group
    ratio: float
    measure: str
    winner: Line
    equals: list[Line]
    candidates: int

    @property
    def is_reference(self) -> bool:
        """Whether ASVD-I itself is the best."""
        return self.winner.row.method == REFERENCE_METHOD


def verdicts(
    group: Group, measure: str, among: Callable[[Line], bool] = lambda _: True
) -> list[Verdict]:
    """The best method at each stored ratio where there are two or more to choose from.

    Args:
        among: whether a line is one to choose from; all are if it is not given.
    """
    found = []
    for ratio in group.ratios:
        lines = [line for line in group.lines if line.row.ratio == ratio and among(line)]
        scored = [(score, line) for line in lines if (score := _score(line, measure)) is not None]
        if len(scored) > 1:
            best, winner = min(scored, key=lambda pair: pair[0])
            equals = [line for score, line in scored if score == best and line is not winner]
            found.append(Verdict(group, ratio, measure, winner, equals, len(scored)))
    return found


@dataclass(frozen=True)
class BesidePapers:
    """The best method of a model at one ratio, beside the best of the paper's.

    Attributes:
        papers: None where fewer than two of the paper's methods are stored.
        compared: the best against the best of the paper's, over the sets that are averaged; None
            where they are one.
    """

    best: Verdict
    papers: Verdict | None
    compared: Compared | None


def beside_papers(group: Group, subject: Subject) -> list[BesidePapers]:
    """One per ratio, by the mean of log perplexity."""
    found = []
    of_paper = {
        verdict.ratio: verdict for verdict in verdicts(group, NATS, lambda line: line.is_of_paper)
    }
    for best in verdicts(group, NATS):
        papers = of_paper.get(best.ratio)
        rows = None if papers is None else (best.winner.row, papers.winner.row)
        differ = rows is not None and rows[0] != rows[1]
        compared = subject.compare(*rows, subject.others) if rows and differ else None
        found.append(BesidePapers(best, papers, compared))
    return found


def _score(line: Line, measure: str) -> float | None:
    """Lower is better; None where the line has no average."""
    average = line.average
    if measure == NATS:
        return average.nats
    if line.row.method == REFERENCE_METHOD:
        return 0.0 if all(line.entries[n].perplexity for n in average.sets) else None
    return None if average.improvement is None else -average.improvement
