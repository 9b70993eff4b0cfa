"""What k1 does to NSVD-I: on each set, the sets ordered by how like the calibration they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nsvd_exp.experiment.improvement import REFERENCE_METHOD
from nsvd_exp.report.model.evidence import Evidence, Outcome, above, against
from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.subjects import Estimate, Subject


def near_and_far(subject: Subject) -> tuple[list[str], list[str]]:
    """The sets nearest to the calibration, and those furthest from it.

    The two halves by similarity (of an odd number, the middle one is near) where every set has one;
    or else the sets whose training text calibrated, and the others.
    """
    sets = [*subject.own, *subject.others]
    if not set(sets) <= subject.similarities.keys():
        return list(subject.own), list(subject.others)
    ordered = sorted(sets, key=lambda name: -subject.similarities[name])
    half = (len(ordered) + 1) // 2
    return ordered[:half], ordered[half:]


@dataclass(frozen=True)
class SetByK1:
    """What k1 does to NSVD-I on one set at one ratio.

    Attributes:
        title: of the set.
        similarity: to the calibration set; None where it is not stored.
        improvements: over ASVD-I, by k1; only what is measured.
        best: the best k1 and all that the paired intervals cannot tell from it.
    """

    title: str
    similarity: float | None
    improvements: dict[float, Estimate]
    best: list[float]


def sets_by_k1(subject: Subject, ratio: float) -> list[SetByK1]:
    """One per set, the one most similar to the calibration first where similarities are stored."""
    sets = [*subject.own, *subject.others]
    ordered = sorted(sets, key=lambda name: -subject.similarities.get(name, math.inf))
    return [
        _by_k1(subject, ratio, subject.datasets[name], [name], subject.similarities.get(name))
        for name in ordered
    ]


def average_by_k1(subject: Subject, ratio: float) -> SetByK1:
    """The same, on average over the sets that calibration took nothing from."""
    return _by_k1(subject, ratio, f"average of {len(subject.others)}", subject.others, None)


def steps(subject: Subject, ratio: float) -> list[Evidence]:
    """Each step to the next smaller k1, on average over the sets that calibration did not see."""
    return [
        against(
            subject,
            f"k1 = {small:g} over {large:g}",
            Row("nsvd_i", ratio, small),
            Row("nsvd_i", ratio, large),
            subject.others,
        )
        for large, small in itertools.pairwise(subject.k1s("nsvd_i", ratio))
    ]


def _by_k1(
    subject: Subject, ratio: float, title: str, sets: Sequence[str], similarity: float | None
) -> SetByK1:
    reference = Row(REFERENCE_METHOD, ratio, None)
    rows = {k1: Row("nsvd_i", ratio, k1) for k1 in subject.k1s("nsvd_i", ratio)}
    compared = {k1: subject.compare(row, reference, sets) for k1, row in rows.items()}
    found = {k1: one.improvement for k1, one in compared.items() if one is not None}
    if not found:
        return SetByK1(title, similarity, {}, [])
    best = max(found, key=lambda k1: found[k1].value)
    gains = {k1: subject.compare(rows[best], rows[k1], sets) for k1 in found if k1 != best}
    worse = {
        k1
        for k1, gain in gains.items()
        if gain is not None and above(gain.improvement) is Outcome.HOLDS
    }
    return SetByK1(title, similarity, found, [k1 for k1 in found if k1 not in worse])
