"""What the template of the page shows of a block, beyond what the block itself says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from nsvd_exp.experiment.improvement import IN_DOMAIN
from nsvd_exp.report.model.paper import Row, proposed_methods
from nsvd_exp.report.model.report import SIMILARITY_TABLE
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block, Line
from nsvd_exp.report.render.page_details import Details
from nsvd_exp.report.render.text import note_marks, ratio_title

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
HEADLINE_RATIO = 0.3  # most of the paper's tables are at this ratio

STATISTIC_TITLES = {
    "mean": "mean activation of each channel",
    "abs_mean": "mean absolute activation of each channel",
    "gram": "Gram matrix, flattened",
}


@dataclass(frozen=True)
class View:
    """A block with what the template needs beside it.

    Attributes:
        groups: its lines by ratio.
        details: the index of each entry's details, by row and dataset; see `Details`.
        marks: of its footnotes.
        protocol: what it was measured with, in words.
    """

    block: Block
    groups: list[tuple[float | None, list[Line]]]
    details: dict[tuple[Row, str], int | None]
    marks: dict[str, str]
    protocol: str

    @property
    def id(self) -> str:
        """Its id in the page."""
        return _id(f"table-{self.block.table}-{self.block.model}-{self.block.place}")

    @property
    def papers_note(self) -> str:
        """Why the page shows no difference to the paper's numbers; empty where it shows one."""
        block = self.block
        entries = [entry for line in block.lines for entry in line.entries.values()]
        shown = [e for e in entries if e.printed is not None and e.perplexity is not None]
        if block.setting is None or any(entry.comparable for entry in shown):
            return ""
        if block.paper_model not in (None, block.model):
            return (
                f"Grey: the paper's numbers of {block.paper_model}, another model, so no "
                "difference is taken."
            )
        if not shown:
            return ""
        return (
            "Grey: the paper's numbers. Calibration, text or model are not the paper's, so no "
            "difference is taken."
        )


def view_of(block: Block, details: Details) -> View:
    """The view of a block; the details of its entries are added to `details`."""
    groups = [(r, [line for line in block.lines if line.row.ratio == r]) for r in block.ratios]
    places = {
        (line.row, name): details.of_entry(block, line, name, entry)
        for line in block.lines
        for name, entry in line.entries.items()
    }
    return View(block, groups, places, note_marks([block]), _protocol(block))


@dataclass(frozen=True)
class SimilarityView:
    """A block of Table 2 with what the template needs beside it.

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
            _joined(record["calibration"]["title"] for record in records),
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


def _id(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())


def _protocol(block: Block) -> str:
    """Windows, precision, solver and calibration of a block; every value that occurs is named."""
    if block.setting is None:
        return ""
    stored, cells = [m.stored for m in block.setting.measurements], block.setting.cells
    caps = [m["max_windows"] for m in stored if m["max_windows"] is not None]
    parts = [
        _joined(f"{m['length']}-token windows" for m in stored),
        _joined(f"at most {cap} a set" for cap in caps),
        _joined(cell["dtype"] for cell in cells),
        _joined(f"solver {cell['solver']}" for cell in cells if cell["solver"] is not None),
        _joined(cell["calibration"]["title"] for cell in cells if cell["calibration"] is not None),
    ]
    return " · ".join(part for part in parts if part)


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def headline(block: Block) -> Markup | None:
    """One sentence on the average improvement of a method that the paper proposes, or of another.

    Returns:
        None where no method has an average improvement, or where the block is not the model's
        main one.
    """
    found = [line for line in block.lines if block.place == 0 and line.average.value is not None]
    if not found:
        return None
    line = min(found, key=_headline_rank)
    value, bounds = line.average.value, line.average.interval
    assert value is not None
    sets = len([name for name in block.datasets if name != IN_DOMAIN])
    said = Markup(
        "<b>{model}</b> at {ratio}: {title} has <strong>{size} {direction} perplexity</strong> "
        "than ASVD-I on average over {sets}"
    ).format(
        model=block.model,
        ratio=ratio_title(line.row.ratio),
        title=line.title,
        size=f"{abs(100 * value):.1f}%",
        direction="lower" if value >= 0 else "higher",
        sets="one set" if sets == 1 else f"{COUNTS[sets] if sets < len(COUNTS) else sets} sets",
    )
    if bounds is not None:
        low, high = bounds if value >= 0 else (-bounds[1], -bounds[0])
        said += f" (95%: {_plain(low)} to {_plain(high)})"
    if line.average.printed is not None and block.paper_model == block.model:
        printed = line.average.printed
        said += f"; in the paper {_plain(abs(printed))} {'lower' if printed >= 0 else 'higher'}"
    return said + "."


def _headline_rank(line: Line) -> tuple[bool, bool, tuple[float, str], float]:
    """Lower is preferred: the paper's methods, its most common ratio, then the tables' order."""
    ratio = line.row.ratio or 0.0
    is_proposed = line.row.method in proposed_methods()
    return not is_proposed, ratio != HEADLINE_RATIO, line.method.place, ratio


def _plain(fraction: float) -> str:
    return f"{100 * fraction:.1f}%".replace("-", "−")
