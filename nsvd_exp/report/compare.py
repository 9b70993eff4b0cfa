"""The difference of two stores, number by number: what a change of the code has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.numbers import Contents, Number
from nsvd_exp.report.paper import Row

if TYPE_CHECKING:
    import pandas as pd

# Raised when the code of a stage changes: that is what is to be compared.
VERSIONS = ("decomposition", "evaluation", "calibration.version")

LINES_SHOWN = 20


@dataclass(frozen=True)
class Pair:
    """One number that both stores have."""

    here: Number
    there: Number

    @property
    def difference(self) -> float:
        """(here - there) / there."""
        return self.here.perplexity / self.there.perplexity - 1


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    pairs: the largest difference first.
    only_here, only_there: numbers that the other store does not have.
    """

    pairs: list[Pair]
    only_here: list[Number]
    only_there: list[Number]

    @property
    def summary(self) -> str:
        """One sentence."""
        equal = sum(pair.here.perplexity == pair.there.perplexity for pair in self.pairs)
        text = (
            f"{len(self.pairs)} numbers in both, {equal} of them equal to the last digit; "
            f"{len(self.only_here)} only here, {len(self.only_there)} only there"
        )
        if equal == len(self.pairs):
            return text
        return f"{text}; largest difference {self.pairs[0].difference:+.3%}"


def compare(here: Contents, there: Contents, model: str | None = None) -> Comparison:
    """Match the numbers of two stores by model, row, dataset, seed and protocol.

    Versions of the stages may differ; everything else that makes a number may not.
    """
    ours, theirs = _by_meaning(here, model), _by_meaning(there, model)
    pairs = [Pair(number, theirs[key]) for key, number in ours.items() if key in theirs]
    pairs.sort(key=lambda pair: abs(pair.difference), reverse=True)
    return Comparison(
        pairs,
        [number for key, number in ours.items() if key not in theirs],
        [number for key, number in theirs.items() if key not in ours],
    )


Meaning = tuple[str, Row, str, int | None, frozenset[tuple[str, str]]]


def _by_meaning(contents: Contents, model: str | None) -> dict[Meaning, Number]:
    """The newest number of each meaning."""
    found: dict[Meaning, Number] = {}
    for number in sorted(contents.numbers, key=lambda n: n.stored["measured"]):
        title = number.cell["model"]
        agreement = frozenset((k, v) for k, v in number.agreement.items() if k not in VERSIONS)
        if model in (None, title):
            found[title, number.row, number.dataset, number.seed, agreement] = number
    return found


def frame(comparison: Comparison) -> pd.DataFrame:
    """One row a number that both have."""
    import pandas as pd

    return pd.DataFrame([
        {
            "model": pair.here.cell["model"],
            **pair.here.row._asdict(),
            "dataset": pair.here.dataset,
            "seed": pair.here.seed,
            "here": pair.here.perplexity,
            "there": pair.there.perplexity,
            "difference": pair.difference,
            "key_here": pair.here.cell["key"],
            "key_there": pair.there.cell["key"],
        }
        for pair in comparison.pairs
    ])  # fmt: skip


def table(comparison: Comparison) -> Table:
    """The largest differences, for the terminal."""
    shown = Table(title=comparison.summary, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("model", "method", "ratio", "k1", "dataset", "here", "there", "difference"):
        shown.add_column(heading)
    for pair in comparison.pairs[:LINES_SHOWN]:
        row = pair.here.row
        settings = ["" if value is None else f"{value:g}" for value in (row.ratio, row.k1)]
        perplexities = [format_perplexity(n.perplexity) for n in (pair.here, pair.there)]
        shown.add_row(
            *(pair.here.cell["model"], row.method, *settings, pair.here.dataset),
            *(*perplexities, f"{pair.difference:+.3%}"),
        )
    return shown
