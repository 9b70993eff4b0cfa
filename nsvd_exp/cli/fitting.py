"""Tables that fit a terminal: several forms of each, of which the first that fits is shown.

A number is never cut, since one cut short would be another number: where no form fits, the table is
wider than the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH_WITHOUT_LIMIT = 1000
# Of a name that is folded into several lines, at least and at most; a quarter of the terminal.
FOLDED = (12, 24)


@dataclass(frozen=True)
class Column:
    """A column of a table, all of it plain text.

    Attributes:
        heading: may have several lines.
        texts: of each row.
        is_number: never folded, and aligned at the right.
        styles: of each row; empty: none.
    """

    heading: str
    texts: Sequence[str]
    is_number: bool = False
    styles: Sequence[str] = ()


@dataclass(frozen=True)
class Form:
    """One form of a table: a title and what stands under it, one beneath the other."""

    title: str
    tables: Sequence[Table]

    @property
    def width(self) -> int:
        """Characters that a line needs."""
        console = Console(width=WIDTH_WITHOUT_LIMIT)
        return max(
            Measurement.get(console, console.options, table).minimum for table in self.tables
        )


Forms = Callable[[int], Iterable[Form]]
"""The forms of a table for a terminal of so many characters, the one that says most first."""


def fitting(forms: Forms, width: int) -> Form:
    """The first form that fits into so many characters, or else the last."""
    for form in forms(width):
        if form.width <= width:
            break
    return form


def table_of(
    columns: Sequence[Column], is_tight: bool = False, folded_width: int | None = None
) -> Table:
    """A table of these columns.

    Args:
        is_tight: with one space between columns, in place of three.
        folded_width: characters into which texts that are no numbers are folded; None: they stay.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0 if is_tight else 1), show_edge=False)
    for column in columns:
        lines = [line for text in (column.heading, *column.texts) for line in text.splitlines()]
        width, folds = max(map(cell_len, lines), default=0), False
        if folded_width is not None and not column.is_number:
            width, folds = min(width, folded_width), True
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_number else "left",
            width=width,
            no_wrap=not folds,
            overflow="fold",
        )
    for row in range(len(columns[0].texts)):
        table.add_row(*(Text(c.texts[row], c.styles[row] if c.styles else "") for c in columns))
    return table


def in_blocks(labels: Sequence[Column], numbers: Sequence[Column], width: int) -> list[Table]:
    """The columns of numbers in as few tables as fit, each of which begins with the labels."""
    least, most = FOLDED
    folded_width = min(max(width // 4, least), most)
    for blocks in range(1, max(len(numbers), 1) + 1):
        size = -(-len(numbers) // blocks)
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)] or [numbers]
        tables = [table_of([*labels, *part], True, folded_width) for part in parts]
        if Form("", tables).width <= width:
            break
    return tables
