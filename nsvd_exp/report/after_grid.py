"""How a grid ends: with the tables that it has changed, and the page."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model import tables
from nsvd_exp.report.model.measurements import read_contents
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.model.tables import Block
from nsvd_exp.report.render import terminal


def report_grid(results_dir: str, keys: Collection[str], is_changed: bool) -> None:
    """Show the tables that these cells stand in, bring the report up to date, and name its page.

    A report that cannot be made is a message and no failure: the measurements are stored.

    Args:
        results_dir: where the grid has stored its cells.
        keys: of the cells that are done, now or before.
        is_changed: whether the grid has stored anything new.
    """
    folder = Path(expand_path(results_dir))
    page = folder / "report" / "index.html"
    for block in affected_blocks(folder, keys):
        terminal.show(terminal.block_table(block))
    if is_changed or not page.exists():
        # pandas and matplotlib take a second, which a grid with nothing new should not cost.
        from nsvd_exp.report.make import write

        try:
            write(gather(results_dir), page.parent)
        except NsvdError as error:
            terminal.complain(f"no report: {error}")
            return
    print(f"report: {page}")


def affected_blocks(results_dir: Path, keys: Collection[str]) -> list[Block]:
    """Of each model, the block that holds most of the cells with these keys.

    Of several such blocks it is the one with fewest lines: a grid over k1 is Table 3, not Table 1.
    """
    built = tables.build(read_contents(results_dir))
    chosen: dict[str, tuple[tuple[int, int], Block]] = {}
    for block in (block for blocks in built.values() for block in blocks):
        held = _lines_with(block, keys)
        rank = (held, -len(block.lines))
        if held and (block.model not in chosen or rank > chosen[block.model][0]):
            chosen[block.model] = (rank, block)
    return [block for _, block in chosen.values()]


def _lines_with(block: Block, keys: Collection[str]) -> int:
    """How many lines show a measurement of these cells."""
    return sum(
        any(m.cell["key"] in keys for entry in line.entries.values() for m in entry.measurements)
        for line in block.lines
    )
