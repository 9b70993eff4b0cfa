"""What a grid ends with: the table it has changed, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nsvd_exp.cli import terminal as display
from nsvd_exp.cli.terminal import Outcome
from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.report import terminal


def report_grid(results_dir: str, outcomes: Sequence[Outcome]) -> None:
    """Show the tables that these jobs stand in, bring the report up to date, and name its page.

    A report that cannot be made is said and fails nothing: the numbers are stored.
    """
    folder = Path(expand_path(results_dir))
    page = folder / "report" / "index.html"
    for block in terminal.affected(folder, {o.key for o in outcomes if o.key}):
        display.show(terminal.table_of(block))
    if any(outcome.state == "done" for outcome in outcomes) or not page.exists():
        try:
            _make(results_dir, page.parent)
        except NsvdError as error:
            display.stderr().print(f"no report: {error}", style="red", markup=False, soft_wrap=True)
            return
    print(f"report: {page}")


def _make(results_dir: str, out: Path) -> None:
    # pandas and matplotlib take a second that a grid with nothing new should not cost.
    from nsvd_exp.report import make

    make.write(make.gather(results_dir), out)
