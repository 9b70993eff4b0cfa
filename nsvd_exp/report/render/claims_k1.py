"""What k1 does to NSVD-I, in words and tables: beneath the claim about it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nsvd_exp.report.model.by_k1 import SetByK1, average_by_k1, near_and_far, sets_by_k1, steps
from nsvd_exp.report.model.evidence import Evidence, Outcome
from nsvd_exp.report.model.subjects import Subject
from nsvd_exp.report.render.claims_text import estimate_text, evidence_text
from nsvd_exp.report.render.markup import MARKDOWN, Cell, Table, markdown_table
from nsvd_exp.report.render.text import STATES, change, joined, ratio_title

STEP = {
    Outcome.HOLDS: "better",
    Outcome.FAILS: "worse",
    Outcome.OPEN: "cannot be told",
    Outcome.UNMEASURED: "not measured",
}


def section(subject: Subject) -> list[str]:
    """What is far, then each set by k1 and the steps of the average, at each ratio with two k1."""
    ratios = [ratio for ratio in subject.ratios if len(subject.k1s("nsvd_i", ratio)) > 1]
    parts = [_what_is_far(subject)] if ratios else []
    for ratio in ratios:
        average = average_by_k1(subject, ratio)
        table = _table([*sets_by_k1(subject, ratio), average], subject, ratio)
        parts += [
            f"Improvement over ASVD-I by k1, {ratio_title(ratio)} removed; the last column has the "
            "best k1 and all that the intervals cannot tell from it:",
            markdown_table(table),
            _average(average, steps(subject, ratio), subject.is_printed),
        ]
    return parts


def _what_is_far(subject: Subject) -> str:
    near, far = (map(MARKDOWN.escape, subject.titles(sets)) for sets in near_and_far(subject))
    sets = f"Near the calibration: {joined(list(near))}; far: {joined(list(far))}"
    if subject.similarities:
        which = f" ({subject.statistic})" if subject.statistic else ""
        return f"{sets}, by the similarity of their activations to the calibration set's{which}."
    return (
        f"{sets}. No similarities are stored of this model, so that near is what calibration took "
        "its samples from, and far is all else."
    )


def _table(lines: Sequence[SetByK1], subject: Subject, ratio: float) -> Table:
    k1s = subject.k1s("nsvd_i", ratio)
    table = Table(["Set", "Similarity", *(f"k1 = {k1:g}" for k1 in k1s), "Best k1"], 1)
    for line in lines:
        similarity = "" if line.similarity is None else f"{line.similarity:.2f}".replace("-", "−")
        numbers = [
            estimate_text(line.improvements[k1], change, subject.is_printed)
            if k1 in line.improvements
            else STATES["missing"]
            for k1 in k1s
        ]
        best = joined([f"{k1:g}" for k1 in line.best], "or")
        texts = [MARKDOWN.escape(line.title), similarity, *numbers, best]
        table.rows.append([Cell(text) for text in texts])
    return table


def _average(average: SetByK1, found: Sequence[Evidence], is_printed: bool) -> str:
    """Whether a smaller k1 is better on average, over ASVD-I and step by step."""
    values = [estimate.value for estimate in average.improvements.values()]
    if len(values) <= len(found):
        said = "is not measured at every k1"
    elif all(later > before for before, later in itertools.pairwise(values)):
        said = "rises with every step to a smaller k1"
    else:
        said = "is not monotone in k1"
    texts = [
        f"{one.about} {evidence_text(one, is_printed) or STATES['missing']} ({STEP[one.verdict]})"
        for one in found
    ]
    return f"The average over ASVD-I {said}. Each k1 over the one before: {'; '.join(texts)}."
