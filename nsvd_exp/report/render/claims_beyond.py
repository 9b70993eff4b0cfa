"""What the paper does not compare with: the best of all methods that are stored."""

from __future__ import annotations

from collections.abc import Sequence

from nsvd_exp.report.model.checked import Checked
from nsvd_exp.report.model.headline import BesidePapers, Verdict, beside_papers
from nsvd_exp.report.render.claims_text import compared_texts
from nsvd_exp.report.render.markup import MARKDOWN, Cell, Table, markdown_table
from nsvd_exp.report.render.text import STATES, joined, ratio_title, row_title, times

TITLE = "## What the paper does not compare with"
SAID = (
    "The best of all that is stored at each ratio, whatever its storage and allocation, by the "
    "mean of log perplexity over the sets that calibration took nothing from, beside the best of "
    "the paper's methods in the paper's form (two factors, one ratio for all layers). Both may "
    "store the same fraction of the numbers. The best of several was chosen by the numbers that "
    "are shown, which flatters it a little."
)


def section(models: Sequence[Checked]) -> list[str]:
    """The section: one row per model and ratio."""
    columns = [
        "Model",
        "Removed",
        "Best",
        "Chosen from",
        "× dense",
        "Best of the paper's",
        "× dense",
    ]
    table = Table([*columns, "Improvement over it"], len(columns) + 1)
    for one in models:
        for found in beside_papers(one.group, one.subject):
            title = MARKDOWN.escape(one.subject.title)
            table.rows.append([Cell(title), *map(Cell, _texts(found))])
    if not table.rows:
        return [TITLE, "No two methods are stored at one ratio."]
    return [TITLE, SAID, markdown_table(table)]


def _texts(found: BesidePapers) -> list[str]:
    best, papers = found.best, found.papers
    shown = [ratio_title(best.ratio), _names(best), str(best.candidates), _times(best)]
    if papers is None:
        return [*shown, STATES["missing"], "", ""]
    if found.compared is None:
        return [*shown, "the same", "", ""]
    return [*shown, _names(papers), _times(papers), ", ".join(compared_texts(found.compared))]


def _names(verdict: Verdict) -> str:
    names = [row_title(line) for line in (verdict.winner, *verdict.equals)]
    return MARKDOWN.escape(joined(names))


def _times(verdict: Verdict) -> str:
    average = verdict.winner.average
    said = STATES["missing"] if average.times_dense is None else times(average.times_dense)
    return f"{said} *(ruined)*" if average.is_ruined else said
