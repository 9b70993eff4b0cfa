"""The tables that a grid has changed, for the terminal. Imports no pandas."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from nsvd_exp.report import tables
from nsvd_exp.report.entries import Block, Entry, Line
from nsvd_exp.report.numbers import read_contents
from nsvd_exp.report.paper import CAPTIONS
from nsvd_exp.report.text import (
    block_title,
    entry_text,
    paper_title,
    percent,
    printed_text,
    ratio_title,
    row_title,
)

STYLES = {"failed": "bold red", "partial": "yellow", "missing": "dim"}


def affected(results_dir: Path, keys: Collection[str]) -> list[Block]:
    """Of each model, the block that holds most of the cells with these keys.

    Of several, the one with fewest lines beside them: a grid over k1 is Table 3, not Table 1.
    """
    built = tables.build(read_contents(results_dir))
    chosen: dict[str, tuple[tuple[int, int], Block]] = {}
    for block in (block for blocks in built.values() for block in blocks):
        held = _lines_of(block, keys)
        if not held:
            continue
        rank = (held, -len(block.lines))
        if block.model not in chosen or rank > chosen[block.model][0]:
            chosen[block.model] = (rank, block)
    return [block for _, block in chosen.values()]


def _lines_of(block: Block, keys: Collection[str]) -> int:
    """How many lines show a number of these cells."""
    return sum(
        any(n.cell["key"] in keys for entry in line.entries.values() for n in entry.numbers)
        for line in block.lines
    )


def table_of(block: Block) -> Table:
    """What is stored of the block, with the paper's numbers beneath where they are its model's."""
    title = f"Table {block.table}: {CAPTIONS[block.table]}, {block_title(block)}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("ratio", justify="right")
    table.add_column("method")
    for heading in (*block.datasets.values(), "Avg. impro."):
        table.add_column(escape(heading).replace(" ", "\n"), justify="right")
    ratio = None
    for line in filter(_is_stored, block.lines):
        group = ratio_title(line.row.ratio) if line.row.ratio != ratio else ""
        if line.row.ratio != ratio and ratio is not None:
            table.add_section()
        ratio = line.row.ratio
        average = "" if line.average.value is None else percent(line.average.value)
        table.add_row(group, row_title(line), *map(_cell, line.entries.values()), average)
        if block.paper_model == block.model:
            printed = line.average.printed
            table.add_row(
                "",
                paper_title(block),
                *map(printed_text, line.entries.values()),
                "" if printed is None else percent(printed),
                style="dim",
            )
    return table


def _is_stored(line: Line) -> bool:
    return any(entry.state != "missing" for entry in line.entries.values())


def _cell(entry: Entry) -> str:
    text = escape(entry_text(entry))
    style = "bold green" if entry.best else STYLES.get(entry.state)
    return f"[{style}]{text}[/]" if style else text
