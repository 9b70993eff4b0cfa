"""What each step beyond the paper buys: the rows of one ratio, by what they lose and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nsvd_exp.experiment.improvement import REFERENCE_METHOD
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.storage.results import Result

NOT_COUNTED = ("load", "evaluate")  # stages that every compressed model has alike


@dataclass(frozen=True)
class EqualSizeLine:
    """A row with its loss and its cost; of several seeds mean seconds, and the largest memory.

    Attributes:
        line: its perplexities against the dense model's, by dataset and on average.
        share: its mean loss in parts of ASVD-I's at the same ratio; None where either is missing,
            or where ASVD-I loses nothing.
        achieved: the fraction of the compressed layers' numbers that was removed.
        seconds: of all stages but loading and evaluating.
        device_bytes, host_bytes: peak memory of the GPUs, and of the process since it began.
    """

    line: Line
    share: float | None
    achieved: float | None
    seconds: float | None
    device_bytes: int | None
    host_bytes: int | None

    @property
    def nats(self) -> float | None:
        """The mean loss over the dense model's, nats per token."""
        return self.line.average.nats

    @property
    def is_reference(self) -> bool:
        """Whether it is ASVD-I in the paper's form."""
        return self.line.row.method == REFERENCE_METHOD

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory of the GPUs; of the process where there is none."""
        return self.device_bytes or self.host_bytes


@dataclass(frozen=True)
class EqualSizeBlock:
    """The rows of one model, setting and ratio.

    Attributes:
        lines: those that lose least come first; those without an average last.
    """

    group: Group
    ratio: float
    lines: list[EqualSizeLine]

    @property
    def best(self) -> EqualSizeLine | None:
        """The row that loses least; None where no row has an average."""
        return _first(self.lines)

    @property
    def papers_best(self) -> EqualSizeLine | None:
        """The row in the paper's form that loses least; None where none has an average."""
        return _first(line for line in self.lines if line.line.is_of_paper)

    @property
    def reference(self) -> EqualSizeLine | None:
        """ASVD-I in the paper's form; None where it has no average."""
        return _first(line for line in self.lines if line.is_reference)

    @property
    def is_beyond(self) -> bool:
        """Whether one of its rows is not of the paper."""
        return not all(line.line.is_of_paper for line in self.lines)


def build(groups: Iterable[Group]) -> list[EqualSizeBlock]:
    """The blocks that have a row which is not of the paper, by group and ratio."""
    return [block for group in groups for block in blocks_of(group) if block.is_beyond]


def blocks_of(group: Group) -> list[EqualSizeBlock]:
    """One block for each stored ratio."""
    return [EqualSizeBlock(group, ratio, _lines(group, ratio)) for ratio in group.ratios]


def frontier(points: Sequence[tuple[float, float]], same: float = 0.0) -> list[int]:
    """The Pareto frontier: which points no other one beats, those that remove least first.

    One point beats another if it removes at least as much and loses at most as much, and is not the
    same; and also if it loses less and what it removes is less by `same` at most: ranks are whole
    numbers, so that rows of one ratio differ a little in size.

    Args:
        points: what each removes, as a fraction, and what it loses.

    Returns:
        Their indices.
    """

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        (removed, lost), (others, its) = one, other
        is_better = removed >= others and lost <= its and one != other
        return is_better or (removed >= others - same and lost < its)

    kept = [n for n, point in enumerate(points) if not any(beats(p, point) for p in points)]
    return sorted(kept, key=points.__getitem__)


def _lines(group: Group, ratio: float) -> list[EqualSizeLine]:
    own = [line for line in group.lines if line.row.ratio == ratio]
    reference = next((ln.average.nats for ln in own if ln.row.method == REFERENCE_METHOD), None)
    lines = [_line(group, line, reference) for line in own]
    return sorted(lines, key=lambda line: (line.nats is None, line.nats or 0.0))


def _line(group: Group, line: Line, reference: float | None) -> EqualSizeLine:
    """The line with its cost.

    Args:
        reference: what ASVD-I loses at the same ratio.
    """
    cells = [cell for cell in group.setting.cells_at(line.row) if cell["status"] == "done"]
    return EqualSizeLine(
        line,
        share=_share(line.average.nats, reference),
        achieved=_mean(_field(cell, "achieved_ratio").get("layers") for cell in cells),
        seconds=_mean(_seconds(cell) for cell in cells),
        device_bytes=_most(_field(cell, "peak_memory").get("device_bytes") for cell in cells),
        host_bytes=_most(_field(cell, "peak_memory").get("host_bytes") for cell in cells),
    )


def _share(nats: float | None, reference: float | None) -> float | None:
    if nats is None or reference is None or reference <= 0:
        return None
    return nats / reference


def _field(cell: Result, name: str) -> Mapping[str, Any]:
    return cell.get(name) or {}


def _seconds(cell: Result) -> float | None:
    """What the last run of a cell took beside NOT_COUNTED; None where it has done nothing else."""
    counted = [s for stage, s in _field(cell, "seconds").items() if stage not in NOT_COUNTED]
    return sum(counted) if counted else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _first(lines: Iterable[EqualSizeLine]) -> EqualSizeLine | None:
    return next((line for line in lines if line.nats is not None), None)
