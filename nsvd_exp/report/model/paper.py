"""The paper's own numbers (arXiv 2503.17101, Tables 1 to 6), and where they contradict each other.

`paper_tables.csv` holds every perplexity and improvement of Tables 1, 3, 4, 5 and 6 as printed, and
`paper_table2.csv` holds Table 2. They also say which rows a table has, and in which order.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from nsvd_exp.experiment.improvement import REFERENCE_METHOD, average_improvement, improvement

FOLDER = Path(__file__).parent
AVERAGE = "average"
SIMILARITY_MODEL = "llama-7b"
CALIBRATED_ON = ("wikitext2",)

# What the layout of a table shows, of whichever model.
LAYOUTS = {
    1: "every method at every ratio",
    2: "similarity of activations to the calibration set's",
    3: "NSVD-I with different k1 beside ASVD-I",
    4: "NID-I with different k1 beside ASVD-I",
    5: "ASVD-0, ASVD-I and NSVD-I at one ratio (there of other families)",
    6: "ASVD-0, ASVD-I and NSVD-I at one ratio (there of other sizes)",
}


class Row(NamedTuple):
    """A row of a table: a method with its ratio and k1, each None where the method has none.

    Where a method is not in the paper's form (two factors, one ratio for all layers), its name is
    followed by what `nsvd_exp.report.model.methods.form_of` says.
    """

    method: str
    ratio: float | None
    k1: float | None


DENSE = Row("dense", None, None)


@dataclass(frozen=True)
class Printed:
    """One number of the paper.

    Attributes:
        perplexity: as printed.
        improvement: over ASVD-I in percent, as printed: without a sign. None where none is printed.
    """

    perplexity: float
    improvement: float | None


@dataclass
class PaperTable:
    """One of Tables 1, 3, 4, 5, 6.

    Attributes:
        rows: of each model, in the paper's order.
        printed: by model, row and dataset.
        averages: the printed "Avg. Impro." in percent, unsigned, by model and row; None where the
            text that the numbers were taken from has lost it.
        footnotes: what is wrong with a printed number, by model, row and dataset (or `average`).
    """

    number: int
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    printed: dict[tuple[str, Row, str], Printed] = field(default_factory=dict)
    averages: dict[tuple[str, Row], float | None] = field(default_factory=dict)
    footnotes: dict[tuple[str, Row, str], str] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """Their titles, in the paper's order."""
        return list(self.rows)

    @property
    def ratios(self) -> list[float]:
        """In ascending order."""
        found = {row.ratio for rows in self.rows.values() for row in rows}
        return sorted(ratio for ratio in found if ratio is not None)

    @property
    def variants(self) -> list[tuple[str, float | None]]:
        """The (method, k1) of its rows, in the paper's order."""
        return list(dict.fromkeys((r.method, r.k1) for rows in self.rows.values() for r in rows))

    @property
    def varied(self) -> set[str]:
        """The methods that it shows with more than one k1."""
        count = Counter(method for method, _ in self.variants)
        return {method for method, k1s in count.items() if k1s > 1}

    def perplexities(self, model: str, row: Row) -> dict[str, float]:
        """The printed perplexities of a row, by dataset."""
        return self._by_row.get((model, row), {})

    @cached_property
    def _by_row(self) -> dict[tuple[str, Row], dict[str, float]]:
        found: dict[tuple[str, Row], dict[str, float]] = defaultdict(dict)
        for (model, row, dataset), printed in self.printed.items():
            found[model, row][dataset] = printed.perplexity
        return dict(found)

    def average(self, model: str, row: Row, sets: Collection[str] | None = None) -> float | None:
        """The average improvement as a fraction, recomputed from the printed perplexities.

        Args:
            sets: to average; None for those that the paper averages, without CALIBRATED_ON.

        Returns:
            None where the paper does not print one of `sets`.
        """
        ours = self.perplexities(model, row)
        reference = self.perplexities(model, Row(REFERENCE_METHOD, row.ratio, None))
        left_out = CALIBRATED_ON if sets is None else ()
        shown = list(ours) if sets is None else sets
        return average_improvement(ours, reference, shown, left_out)


@cache
def tables() -> dict[int, PaperTable]:
    """Tables 1, 3, 4, 5 and 6, by number."""
    found: dict[int, PaperTable] = {}
    for line in _lines("paper_tables.csv"):
        table = found.setdefault(int(line["table"]), PaperTable(int(line["table"])))
        row = _row(line)
        if row not in table.rows[line["model"]]:
            table.rows[line["model"]].append(row)
            if line["printed_improvement_pct"]:
                average = line["printed_avg_improvement_pct"]
                table.averages[line["model"], row] = float(average) if average else None
        table.printed[line["model"], row, line["dataset"]] = Printed(
            float(line["perplexity"]), _number(line["printed_improvement_pct"])
        )
    for table in found.values():
        for notes in (_misprints(table), _contradictions(table, found)):
            for place, note in notes.items():
                before = table.footnotes.get(place)
                table.footnotes[place] = f"{before}; {note}" if before else note
    return found


@cache
def similarities() -> dict[str, tuple[float, float]]:
    """Table 2: mean and standard deviation by dataset, of SIMILARITY_MODEL."""
    return {
        line["dataset"]: (float(line["mean"]), float(line["std"]))
        for line in _lines("paper_table2.csv")
    }


def perplexities_of(model: str) -> dict[Row, dict[str, float]]:
    """All that the paper prints of a model, by row and dataset; empty for another model."""
    found: dict[Row, dict[str, float]] = {}
    for table in tables().values():
        for (title, row, dataset), printed in table.printed.items():
            if title == model:
                found.setdefault(row, {})[dataset] = printed.perplexity
    return found


@cache
def methods() -> frozenset[str]:
    """The names of the methods in Tables 1, 3, 4, 5 and 6, with `dense`."""
    return frozenset(method for table in tables().values() for method, _ in table.variants)


def datasets() -> list[str]:
    """The eight evaluation sets, in the paper's order."""
    return list(similarities())


def _lines(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _number(text: str) -> float | None:
    return float(text) if text else None


def _row(line: dict[str, str]) -> Row:
    if line["method"] == "original":
        return DENSE
    return Row(line["method"], float(line["ratio"]), _number(line["k1_fraction"]))


def _misprints(table: PaperTable) -> dict[tuple[str, Row, str], str]:
    """Printed improvements that the printed perplexities do not give, to 0.1 points."""
    notes = {}
    for (model, row, dataset), printed in table.printed.items():
        if printed.improvement is None:
            continue
        reference = table.perplexities(model, Row(REFERENCE_METHOD, row.ratio, None))[dataset]
        recomputed = 100 * improvement(printed.perplexity, reference)
        if _tenths(recomputed) != printed.improvement:
            notes[model, row, dataset] = (
                f"printed {printed.improvement:.1f}%, recomputed {_signed(recomputed)}"
                + _likely_cause(table, model, row, dataset, reference)
            )
    for (model, row), average in table.averages.items():
        value = table.average(model, row)
        assert value is not None
        if average is None:
            notes[model, row, AVERAGE] = (
                "the printed average is lost in the text these numbers were taken from; "
                f"recomputed {_signed(100 * value)}"
            )
        elif abs(average - _tenths(100 * value)) > 0.15:
            notes[model, row, AVERAGE] = (
                f"printed {average:.1f}%, recomputed {_signed(100 * value)}"
            )
    return notes


def _tenths(percent: float) -> float:
    return round(abs(percent), 1)


def _signed(percent: float) -> str:
    return f"{abs(percent):.1f}% {'better' if percent >= 0 else 'worse'}"


def _likely_cause(table: PaperTable, model: str, row: Row, dataset: str, reference: float) -> str:
    printed = table.printed[model, row, dataset]
    # Both perplexities are rounded to 0.01, and the improvement to 0.1.
    bounds = [
        abs(100 * improvement(printed.perplexity + sign * 0.005, reference - sign * 0.005))
        for sign in (-1, 1)
    ]
    assert printed.improvement is not None
    if min(bounds) - 0.05 <= printed.improvement <= max(bounds) + 0.05:
        return " (within the rounding of the perplexities)"
    other = table.perplexities(model, Row("asvd_0", row.ratio, None)).get(dataset)
    if other and _tenths(100 * improvement(printed.perplexity, other)) == printed.improvement:
        return " (measured against ASVD-0, where all others are against ASVD-I)"
    return ""


def _contradictions(
    table: PaperTable, all_tables: dict[int, PaperTable]
) -> dict[tuple[str, Row, str], str]:
    """Perplexities that another table prints differently."""
    notes = {}
    for place, printed in table.printed.items():
        others = {
            number: other.printed[place].perplexity
            for number, other in all_tables.items()
            if place in other.printed and other.printed[place].perplexity != printed.perplexity
        }
        if others:
            elsewhere = ", ".join(f"{value:.2f} in Table {n}" for n, value in others.items())
            notes[place] = f"printed {printed.perplexity:.2f} here, {elsewhere}"
    return notes
