"""How a grid ends: with the results that it has changed, and the page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render import terminal


def report_grid(results_dir: str, keys: Collection[str], is_changed: bool) -> None:
    """Show these cells beside those at the same ratios, bring the report up to date, name its page.

    A report that cannot be made is a message and no failure: the measurements are stored.

    Args:
        results_dir: where the grid has stored its cells.
        keys: of the cells that are done, now or before.
        is_changed: whether the grid has stored anything new.
    """
    page = Path(expand_path(results_dir)) / "report" / "index.html"
    try:
        report = gather(results_dir)
        terminal.show_results(report.groups, keys)
        if is_changed or not page.exists():
            # pandas and matplotlib take a second, which a grid with nothing new should not cost.
            from nsvd_exp.report.make import write

            write(report, page.parent)
    except NsvdError as error:
        terminal.complain(f"no report: {error}")
        return
    print(f"report: {page}")
