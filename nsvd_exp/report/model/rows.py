"""Which rows a model has in the layout of one of the paper's tables."""

from __future__ import annotations

from nsvd_exp.report.model.paper import DENSE, PaperTable, Row
from nsvd_exp.report.model.results import Group


def rows_of(table: PaperTable, group: Group) -> list[Row]:
    """The rows of the layout, in order; empty where none of a compressed model is stored."""
    compressed = [variant for variant in table.variants if variant[0] != DENSE.method]
    rows = [Row(method, ratio, k1) for ratio in _ratios(table, group) for method, k1 in compressed]
    stored = {line.row for line in group.lines}
    if not stored.intersection(rows):
        return []
    return [DENSE] * ((DENSE.method, DENSE.k1) in table.variants) + rows


def unstarted_ratios(table: PaperTable, rows: list[Row]) -> list[float]:
    """The paper's ratios of which `rows` has none, for a table of several ratios."""
    if len(table.ratios) == 1 or not rows:
        return []
    shown = {row.ratio for row in rows}
    return [ratio for ratio in table.ratios if ratio not in shown]


def _ratios(table: PaperTable, group: Group) -> list[float]:
    """The ratios to show: the paper's for its own models, and what is stored."""
    of_paper = table.ratios if group.title in table.models else []
    if len(table.ratios) > 1:
        return sorted({*of_paper, *group.ratios})
    return of_paper or _fullest_ratio(table, group)


def _fullest_ratio(table: PaperTable, group: Group) -> list[float]:
    """The ratio at which most of the table's rows are stored, if any is.

    Of several such ratios it is the paper's, or else the smallest.
    """
    variants = set(table.variants)
    counts: dict[float, int] = {}
    for line in group.lines:
        if line.row.ratio is not None and (line.row.method, line.row.k1) in variants:
            counts[line.row.ratio] = counts.get(line.row.ratio, 0) + 1
    return sorted(counts, key=lambda r: (-counts[r], r not in table.ratios, r))[:1]
