"""Which rows a block of a table shows: the paper's, and the stored ones that the paper lacks."""

from __future__ import annotations

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.paper import DENSE, PaperTable, Row
from nsvd_exp.report.model.settings import Setting

WITH_OTHER_METHODS = 1  # the table that shows the methods that the paper lacks


def rows_of(table: PaperTable, model: str, setting: Setting | None) -> list[Row]:
    """The rows of one block, in order; empty where nothing of the table is stored.

    Args:
        model: its title.
        setting: what is stored; None shows the paper's rows of that model alone.
    """
    if setting is None:
        return list(table.rows[model])
    compressed = [variant for variant in table.variants if variant[0] != DENSE.method]
    rows = [DENSE] if (DENSE.method, DENSE.k1) in table.variants else []
    for ratio in sorted(_ratios(table, model, setting)):
        own = [Row(method, ratio, k1) for method, k1 in compressed]
        rows += own + _beyond(table, setting, ratio, own)
    return rows if any(row in setting.rows for row in rows) else []


def unstarted_ratios(table: PaperTable, rows: list[Row]) -> list[float]:
    """The paper's ratios of which `rows` has none, for a table of several ratios."""
    if len(table.ratios) == 1 or not rows:
        return []
    shown = {row.ratio for row in rows}
    return [ratio for ratio in table.ratios if ratio not in shown]


def _ratios(table: PaperTable, model: str, setting: Setting) -> set[float]:
    """The ratios to show: the paper's for its own models; for others, what is stored."""
    of_paper = set(table.ratios) if model in table.models else set()
    if len(table.ratios) > 1:
        return of_paper | {row.ratio for row in setting.rows if row.ratio is not None}
    return of_paper or _fullest_ratio(table, setting)


def _fullest_ratio(table: PaperTable, setting: Setting) -> set[float]:
    """The ratio at which most of the table's rows are stored, if any is.

    Of several such ratios it is the paper's, or else the smallest.
    """
    methods, variants = {method for method, _ in table.variants}, set(table.variants)
    counts: dict[float, int] = {}
    for row in setting.rows:
        if row.ratio is not None and row.method in methods:
            is_papers = (row.method, row.k1) in variants
            counts[row.ratio] = counts.get(row.ratio, 0) + is_papers
    fullest = sorted(counts, key=lambda r: (-counts[r], r not in table.ratios, r))
    return set(fullest[:1])


def _beyond(table: PaperTable, setting: Setting, ratio: float, own: list[Row]) -> list[Row]:
    """The stored rows at this ratio that the paper does not have.

    A table that varies k1 shows the other k1 of its methods. Table 1 shows everything else.
    """
    others = [row for row in setting.rows if row.ratio == ratio and row not in own]
    if table.varied:
        others = [row for row in others if row.method in table.varied]
    elif table.number == WITH_OTHER_METHODS:
        elsewhere = {method for other in paper.tables().values() for method in other.varied}
        others = [row for row in others if row.method not in elsewhere]
    else:
        return []
    shown = setting.methods
    return sorted(others, key=lambda row: (shown[row.method].place, -(row.k1 or 0)))
