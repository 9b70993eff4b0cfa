"""The numbers behind a claim, in words."""

from __future__ import annotations

from collections.abc import Callable

from nsvd_exp.report.model.contrasts import exp
from nsvd_exp.report.model.evidence import Evidence
from nsvd_exp.report.model.intervals import Interval
from nsvd_exp.report.model.subjects import Compared, Estimate
from nsvd_exp.report.render.text import change, nats, times

EQUAL = 5e-5  # less reads as 0.00%


def evidence_text(evidence: Evidence, is_printed: bool) -> str:
    """`+11.8% [+10.8%, +12.7%], −0.168 nats [−0.180, −0.156], ×25.2 → ×21.3`; empty for none.

    Args:
        is_printed: whether the numbers are the paper's, which have no intervals.
    """
    if evidence.compared is None:
        return ""
    if evidence.against_dense:
        return _over_dense(evidence.compared.nats, is_printed)
    dense = "" if evidence.times is None else " → ".join(map(times, evidence.times))
    if _is_equal(evidence.compared.improvement):
        return ", ".join(filter(None, ["equal", dense.rpartition(" ")[2]]))
    said = compared_texts(evidence.compared, is_printed)
    # Of one set the nats say what the percentage says.
    kept = said if len(evidence.sets) > 1 else said[:1]
    return ", ".join(filter(None, [*kept, dense]))


def _is_equal(estimate: Estimate) -> bool:
    """Whether a difference and its interval are too small to be shown."""
    return max(map(abs, (estimate.value, *(estimate.bounds or ())))) < EQUAL


def compared_texts(compared: Compared, is_printed: bool = False) -> list[str]:
    """The improvement and the difference in nats, each with its interval."""
    return [
        estimate_text(compared.improvement, change, is_printed),
        estimate_text(compared.nats, lambda value: f"{nats(value)} nats", is_printed),
    ]


def estimate_text(
    estimate: Estimate, write: Callable[[float], str], is_printed: bool = False
) -> str:
    """A number with its interval, if it has one."""
    return write(estimate.value) + _brackets(estimate.bounds, write, is_printed)


def _over_dense(log: Estimate, is_printed: bool) -> str:
    return estimate_text(log, lambda value: times(exp(value)), is_printed)


def _brackets(bounds: Interval | None, write: Callable[[float], str], is_printed: bool) -> str:
    if bounds is None or is_printed:
        return ""
    return f" [{', '.join(write(bound).removesuffix(' nats') for bound in bounds)}]"
