"""What the report prints in the terminal: tables on stdout, complaints on stderr.

Imports neither pandas nor matplotlib, so that the end of a grid stays quick.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.paper import CAPTIONS
from nsvd_exp.report.model.tables import Block, Line
from nsvd_exp.report.render.text import (
    block_title,
    entry_text,
    paper_title,
    percent,
    printed_text,
    ratio_title,
    row_title,
)

STATE_STYLES = {"failed": "bold red", "partial": "yellow", "missing": "dim"}
WIDTH_WITHOUT_LIMIT = 1000
PAIRS_SHOWN = 20


def show(table: Table) -> None:
    """Print a table as wide as it needs to be: a number cut short would be another number."""
    Console(width=WIDTH_WITHOUT_LIMIT, highlight=False).print(table)


def complain(message: str) -> None:
    """Print a message in red on stderr."""
    console = Console(stderr=True, highlight=False)
    console.print(message, style="bold red", markup=False, soft_wrap=True)


def block_table(block: Block) -> Table:
    """The stored rows of a block, with the paper's beneath them if they are of the same model."""
    title = f"Table {block.table}: {CAPTIONS[block.table]}, {block_title(block)}"
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("ratio", justify="right")
    table.add_column("method")
    for heading in (*block.datasets.values(), "Avg. impro."):
        table.add_column(escape(heading).replace(" ", "\n"), justify="right")
    ratio = None
    for line in filter(_is_stored, block.lines):
        is_new = line.row.ratio != ratio
        if is_new and ratio is not None:
            table.add_section()
        ratio = line.row.ratio
        group = ratio_title(ratio) if is_new else ""
        table.add_row(group, row_title(line), *map(_cell, line.entries.values()), _average(line))
        if block.paper_model == block.model:
            table.add_row(*_papers_cells(block, line), style="dim")
    return table


def _is_stored(line: Line) -> bool:
    return any(entry.state != "missing" for entry in line.entries.values())


def _cell(entry: Entry) -> str:
    text = escape(entry_text(entry))
    style = "bold green" if entry.best else STATE_STYLES.get(entry.state)
    return f"[{style}]{text}[/]" if style else text


def _average(line: Line) -> str:
    return "" if line.average.value is None else percent(line.average.value)


def _papers_cells(block: Block, line: Line) -> list[str]:
    printed = line.average.printed
    average = "" if printed is None else percent(printed)
    return ["", paper_title(block), *map(printed_text, line.entries.values()), average]


def comparison_table(comparison: Comparison) -> Table:
    """The largest differences between two stores."""
    table = Table(title=comparison.summary, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("model", "method", "ratio", "k1", "dataset", "here", "there", "difference"):
        table.add_column(heading)
    for pair in comparison.pairs[:PAIRS_SHOWN]:
        row = pair.here.row
        settings = ["" if value is None else f"{value:g}" for value in (row.ratio, row.k1)]
        perplexities = [format_perplexity(m.perplexity) for m in (pair.here, pair.there)]
        table.add_row(
            *(pair.here.cell["model"], row.method, *settings, pair.here.dataset),
            *(*perplexities, f"{pair.difference:+.3%}"),
        )
    return table
