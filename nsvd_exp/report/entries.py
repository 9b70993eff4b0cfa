"""What a table is made of: blocks, lines, entries."""

from __future__ import annotations

from dataclasses import dataclass

from nsvd_exp.report.numbers import Number, Setting
from nsvd_exp.report.paper import Row

METHOD_TITLES = {
    "dense": "Original",
    "svd": "SVD",
    **{f"asvd_{n}": f"ASVD-{n.upper()}" for n in ("0", "i", "ii", "iii")},
    **{
        f"{kind}_{n}": f"{kind.upper()}-{n.upper()}"
        for kind in ("nsvd", "nid")
        for n in ("i", "ii")
    },
}

Interval = tuple[float, float]


@dataclass(frozen=True)
class Entry:
    """One place of a table.

    Attributes:
        state: `done`, `failed`, `partial` (being done, or interrupted) or `missing`.
        numbers: one a calibration seed.
        perplexity: their mean; None where there is none.
        deviation: sample standard deviation over the seeds; None for fewer than two.
        interval: 95%, of one seed's perplexity.
        improvement: over ASVD-I (a fraction), and its paired 95% interval.
        printed, printed_improvement: the paper's perplexity, and the improvement it gives.
        comparable: whether model and protocol are the paper's.
        best: whether it is the lowest of its column among the compressed at this ratio.
        note: what is wrong with the paper's print.
        message: why a cell failed.
    """

    state: str
    numbers: tuple[Number, ...] = ()
    perplexity: float | None = None
    deviation: float | None = None
    interval: Interval | None = None
    improvement: float | None = None
    improvement_interval: Interval | None = None
    printed: float | None = None
    printed_improvement: float | None = None
    comparable: bool = False
    best: bool = False
    note: str | None = None
    message: str = ""

    @property
    def difference(self) -> float | None:
        """(ours - the paper's) / the paper's, where the two may be compared."""
        if self.perplexity is None or self.printed is None or not self.comparable:
            return None
        return self.perplexity / self.printed - 1


@dataclass(frozen=True)
class Average:
    """The average improvement of a line: ours with its 95% interval, and the paper's."""

    value: float | None = None
    interval: Interval | None = None
    printed: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Line:
    """One row of a table."""

    row: Row
    entries: dict[str, Entry]
    average: Average

    @property
    def title(self) -> str:
        """The method as the paper writes it."""
        return METHOD_TITLES.get(self.row.method, self.row.method)

    @property
    def is_complete(self) -> bool:
        """Whether every place holds a number."""
        return all(entry.state == "done" for entry in self.entries.values())


@dataclass(frozen=True)
class Block:
    """One model under one setting in one of the paper's tables.

    Attributes:
        datasets: titles of its columns, by name.
        paper_model: whose printed numbers stand beside; None where no one's belong there.
        setting: what is stored; None where nothing is.
        place: 0 for the model's main setting, 1, 2, ... for the others.
        differences: what this setting has otherwise than the main one.
        unmeasured: titles of the paper's datasets that nothing is stored of.
        unstarted: of a table of several ratios, those of which nothing is stored.
    """

    table: int
    model: str
    lines: list[Line]
    datasets: dict[str, str]
    paper_model: str | None
    setting: Setting | None
    place: int
    differences: list[str]
    unmeasured: list[str]
    unstarted: list[float]

    @property
    def ratios(self) -> list[float | None]:
        """Of its lines, in order."""
        return list(dict.fromkeys(line.row.ratio for line in self.lines))

    @property
    def notes(self) -> list[str]:
        """Its distinct footnotes, in reading order."""
        notes = [
            note
            for line in self.lines
            for note in (*(e.note for e in line.entries.values()), line.average.note)
            if note
        ]
        return list(dict.fromkeys(notes))

    @property
    def incomplete(self) -> list[Line]:
        """The lines with a place that holds no number."""
        return [line for line in self.lines if not line.is_complete]
