"""What the template of the page shows of results, beyond what they say themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nsvd_exp.config.checks import shown
from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.report import SIMILARITY_TABLE
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block
from nsvd_exp.report.render.page_details import Details
from nsvd_exp.report.render.text import note_marks

STATISTIC_TITLES = {
    "mean": "mean activation of each channel",
    "abs_mean": "mean absolute activation of each channel",
    "gram": "Gram matrix, flattened",
}


@dataclass(frozen=True)
class ResultRow:
    """A row of "Your results".

    Attributes:
        details: the index of each entry's details, by dataset; see `Details`.
        is_first: whether a new model or ratio begins.
    """

    group: Group
    line: Line
    details: dict[str, int | None]
    is_first: bool


def result_rows(groups: Sequence[Group], details: Details) -> list[ResultRow]:
    """The rows of all groups; the details of their entries are added to `details`."""
    rows: list[ResultRow] = []
    for group in groups:
        ratio: float | str | None = "none yet"
        for line in group.lines:
            of_line = {name: details.of_entry(group, line, name) for name in line.entries}
            rows.append(ResultRow(group, line, of_line, line.row.ratio != ratio))
            ratio = line.row.ratio
    return rows


@dataclass(frozen=True)
class View:
    """A block with what the template needs beside it.

    Attributes:
        groups: its lines by ratio.
        details: the index of each entry's details, by row and dataset; see `Details`.
        marks: of its footnotes.
    """

    block: Block
    groups: list[tuple[float | None, list[Line]]]
    details: dict[tuple[Row, str], int | None]
    marks: dict[str, str]

    @property
    def id(self) -> str:
        """Its id in the page."""
        group = self.block.group
        return _id(f"table-{self.block.table}-{group.model}-{group.place}")

    @property
    def papers_note(self) -> str:
        """Why the page shows no difference to the paper's numbers; empty where it shows one."""
        block = self.block
        entries = [entry for line in block.lines for entry in line.entries.values()]
        shown = [e for e in entries if e.printed is not None and e.perplexity is not None]
        if not shown or any(entry.comparable for entry in shown):
            return ""
        if not block.is_papers_model:
            return (
                f"Grey: the paper's numbers of {block.paper_model}, another model, so no "
                "difference is taken."
            )
        return (
            "Grey: the paper's numbers. Calibration, text or model are not the paper's, so no "
            "difference is taken."
        )


def view_of(block: Block, details: Details) -> View:
    """The view of a block; the details of its entries are added to `details`."""
    groups = [(r, [line for line in block.lines if line.row.ratio == r]) for r in block.ratios]
    places = {
        (line.row, name): details.of_entry(block.group, line, name)
        for line in block.lines
        for name in line.entries
    }
    return View(block, groups, places, note_marks([block]))


@dataclass(frozen=True)
class SimilarityView:
    """A block of Table 2's layout with what the template needs beside it.

    Attributes:
        rows: of each statistic its title, whether it is the nearest to the paper's, its distance
            from the paper's, and mean, deviation and index of the details by dataset.
    """

    block: SimilarityBlock
    rows: list[tuple[str, bool, float | None, dict[str, tuple[float, float, int]]]]

    @property
    def id(self) -> str:
        """Its id in the page."""
        return _id(f"table-{SIMILARITY_TABLE}-{self.block.model}-{self.block.place}")

    @property
    def protocol(self) -> str:
        """Windows, precision and calibration, in words."""
        records = self.block.records.values()
        parts = [
            _joined(f"{record['dataset']['length']}-token windows" for record in records),
            _joined(record["dtype"] for record in records),
            _joined(shown(record["calibration"]["title"]) for record in records),
        ]
        return " · ".join(parts)


def similarity_view(block: SimilarityBlock, details: Details) -> SimilarityView:
    """The view of a block of Table 2; the details of its values are added to `details`."""
    rows = []
    for statistic in block.statistics:
        title = STATISTIC_TITLES[statistic]
        values = {
            name: (found.mean, found.std, details.of_similarity(block, title, statistic, name))
            for name, found in block.spreads[statistic].items()
        }
        distance = block.distance(statistic) if block.comparable else None
        rows.append((title, statistic == block.nearest, distance, values))
    return SimilarityView(block, rows)


def protocol(group: Group) -> str:
    """Windows, precision, solver and calibration of a group; every value that occurs is named."""
    stored, cells = [m.stored for m in group.setting.measurements], group.setting.cells
    caps = [m["max_windows"] for m in stored if m["max_windows"] is not None]
    parts = [
        _joined(f"{m['length']}-token windows" for m in stored),
        _joined(f"{cap} windows per set" for cap in caps),
        _joined(cell["dtype"] for cell in cells),
        _joined(f"solver {cell['solver']}" for cell in cells if cell["solver"] is not None),
        _joined(shown(c["calibration"]["title"]) for c in cells if c["calibration"] is not None),
    ]
    return " · ".join(part for part in parts if part)


def _id(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
