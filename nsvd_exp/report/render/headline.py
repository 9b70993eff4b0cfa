"""The headlines in words: the best method of a model first, then what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nsvd_exp.report.model.entries import Average
from nsvd_exp.report.model.headline import IMPROVEMENT, NATS, Verdict, verdicts
from nsvd_exp.report.model.intervals import FEWEST_WINDOWS, Interval
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.render.text import joined, nats, percent, ratio_title, row_title, times

OTHER = {IMPROVEMENT: NATS, NATS: IMPROVEMENT}
BY = {IMPROVEMENT: "by the average improvement", NATS: "by the mean of log perplexity"}
UNIT = "nats per token above the dense model"


@dataclass(frozen=True)
class Headline:
    """What the report says first of a model.

    Attributes:
        summary: which method is the best at which ratios.
        sentences: one per ratio, each in two parts: the best method's name, and the rest.
    """

    model: str
    measure: str
    summary: str
    sentences: list[tuple[str, str]]

    @property
    def lines(self) -> list[str]:
        """All of it, as text."""
        return [f"{self.model}: {self.summary}", *("".join(parts) for parts in self.sentences)]


def headlines(groups: Sequence[Group], measure: str = IMPROVEMENT) -> list[Headline]:
    """One per model of which two methods can be compared: of its main setting."""
    found = []
    for group in groups:
        of_group = verdicts(group, measure) if group.place == 0 else []
        if of_group:
            others = {v.ratio: _names(v) for v in verdicts(group, OTHER[measure])}
            sentences = [(_names(v), _rest(v, others.get(v.ratio))) for v in of_group]
            found.append(Headline(group.model, measure, _summary(of_group), sentences))
    return found


def _names(verdict: Verdict) -> str:
    return joined([row_title(line) for line in (verdict.winner, *verdict.equals)])


def _summary(found: Sequence[Verdict]) -> str:
    by_name: dict[str, list[str]] = {}
    for verdict in found:
        by_name.setdefault(_names(verdict), []).append(ratio_title(verdict.ratio))
    said = [f"{name} at {joined(ratios)}" for name, ratios in by_name.items()]
    return f"best on average {'; '.join(said)} of the parameters removed."


def _rest(verdict: Verdict, by_other: str | None) -> str:
    """What follows the best method's name.

    Args:
        by_other: which method is the best by the other measure.
    """
    average = verdict.winner.average
    verb = "are" if verdict.equals else "is"
    said = [
        f" {verb} the best of {verdict.candidates} at {ratio_title(verdict.ratio)}",
        _dense(average, verdict.measure),
        "no method beats it on average" if verdict.is_reference else _worth(verdict),
        _counts(verdict),
        f"{BY[OTHER[verdict.measure]]} it is {by_other}"
        if by_other not in (None, _names(verdict))
        else "",
    ]
    return "; ".join(filter(None, said)) + "."


def _dense(average: Average, measure: str) -> str:
    """How far from the dense model, and whether the compressed one is of any use."""
    if average.times_dense is None or average.nats is None:
        return "the dense model is not stored"
    said = f"{times(average.times_dense)} the dense perplexity"
    if measure == NATS:
        said += f", {_nats(average.nats)} {UNIT}"
        said += _interval(average, average.nats_interval, _nats)
    return f"{said}: the model is ruined" if average.is_ruined else said


def _worth(verdict: Verdict) -> str:
    """The average improvement over ASVD-I, where a percentage says anything."""
    average = verdict.winner.average
    if verdict.measure == NATS or average.improvement is None or average.is_ruined:
        return ""
    if average.is_short:
        return f"fewer than {FEWEST_WINDOWS} windows in a set: too few for a percentage"
    value, bounds = average.improvement, average.improvement_interval
    direction = "lower" if value >= 0 else "higher"
    if bounds is not None and value < 0:
        bounds = -bounds[1], -bounds[0]
    size = f"{_plain(abs(value))} {direction} than ASVD-I on average"
    return size + _interval(average, bounds, _plain)


def _interval(average: Average, bounds: Interval | None, write: Callable[[float], str]) -> str:
    if bounds is None:
        return " (too few windows for an interval)" if average.is_short else ""
    unsure = ", which is no difference" if bounds[0] <= 0 <= bounds[1] else ""
    return f" (95%: {write(bounds[0])} to {write(bounds[1])}{unsure})"


def _counts(verdict: Verdict) -> str:
    average = verdict.winner.average
    if verdict.is_reference or not average.better + average.worse:
        return ""
    sets = "set" if len(average.sets) == 1 else "sets"
    of_all = f"{average.better} of {len(average.sets)} {sets}"
    return f"better than ASVD-I in {of_all}, worse in {average.worse}"


def _plain(fraction: float) -> str:
    return percent(fraction).removeprefix("+")


def _nats(value: float) -> str:
    return nats(value).removeprefix("+")
