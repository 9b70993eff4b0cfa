"""Tables as text in Markdown, in LaTeX (booktabs) and on the page, whatever stands in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import markupsafe

ROWS_OF_A_PAGE = 18  # of two lines each
LATEX_ALL = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""
MARKDOWN_ESCAPES = str.maketrans({character: f"\\{character}" for character in r"\`*_|<>"})
LATEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    # At the beginning of a row, `[` would be an option of the command that ends the row before.
    | {"\\": "/", "[": "{[}", "]": "{]}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"}
)


class Cell(NamedTuple):
    """One place of a table, in the markup of its format.

    Attributes:
        beneath: what is said of the number: behind it in Markdown, in a smaller line beneath it in
            LaTeX, where ten columns would otherwise be too wide to be read.
    """

    text: str = ""
    beneath: str = ""


@dataclass(frozen=True)
class Table:
    """A table as plain text, in the markup of its format.

    Attributes:
        labels: how many columns from the left hold names and no numbers.
        rows: one cell per column.
        sections: the rows before which a rule is drawn.
    """

    columns: list[str]
    labels: int
    rows: list[list[Cell]] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Markup:
    """How a format writes bold, italic and a footnote mark: patterns for `str.format`."""

    bold: str
    italic: str
    mark: str
    escape: Callable[[str], str]


def _escape_markdown(text: str) -> str:
    """`text` with every character that Markdown would read as markup escaped."""
    return text.translate(MARKDOWN_ESCAPES)


def _escape_latex(text: str) -> str:
    """`text` with LaTeX's own characters escaped, and `?` for what it has no command for."""
    # A character that the default fonts lack would stop the compiler.
    return text.translate(LATEX_ESCAPES).encode("ascii", "replace").decode()


MARKDOWN = Markup("**{}**", "*{}*", "<sup>{}</sup>", _escape_markdown)
LATEX = Markup(r"\textbf{{{}}}", r"\textit{{{}}}", r"\textsuperscript{{{}}}", _escape_latex)
HTML = Markup("<b>{}</b>", "<i>{}</i>", "<sup>{}</sup>", lambda text: str(markupsafe.escape(text)))


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown."""
    rule = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
    rows = [[" ".join(filter(None, cell)) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.columns, rule, *rows))


def latex_tables(
    table: Table, caption: str, label: str, notes: Mapping[str, str] | None = None
) -> str:
    """`table` environments as wide as the page at most, of ROWS_OF_A_PAGE rows at most.

    Args:
        notes: the mark of each footnote; each stands beneath the tables that it is marked in.
    """
    form = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    parts = []
    for start, end in _pages(table):
        rows = []
        for place in range(start, end):
            rows += ["\\midrule"] * (place in table.sections and place > start)
            rows += _latex_row(table.rows[place])
        said = LATEX.escape(caption) if start == 0 else "Continued from the table before."
        marks = {note: LATEX.mark.format(mark) for note, mark in (notes or {}).items()}
        own = [f"{m} {LATEX.escape(n)}." for n, m in marks.items() if m in "\n".join(rows)]
        lines = [
            r"\begin{table}[p]", r"\centering", f"\\caption{{{said}}}",
            f"\\label{{tab:{label}{'-' * (start > 0)}{start or ''}}}",
            # Scaled down to the width of the page, and never up.
            r"\setlength{\tabcolsep}{4pt}%",
            r"\setbox0=\hbox{%", f"\\begin{{tabular}}{{{form}}}", r"\toprule",
            *_latex_heading(table.columns), r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip\leavevmode",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi",
            *([rf"\par\smallskip\footnotesize {' '.join(own)}"] if own else []),
            r"\end{table}", "",
        ]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _pages(table: Table) -> Iterator[tuple[int, int]]:
    """The first row of each page and the one after its last; a page begins a section if it can."""
    start, count = 0, len(table.rows)
    while start < count:
        most = start + ROWS_OF_A_PAGE
        end = max((s for s in (*table.sections, count) if start < s <= most), default=most)
        yield start, end
        start = end


def _latex_heading(columns: Iterable[str]) -> list[str]:
    """The headings in two lines: a heading of several words is broken before its last."""
    parts = [column.rpartition(" ") for column in columns]
    lines = ([first for first, _, _ in parts], [last for _, _, last in parts])
    return [" & ".join(line) + r" \\" for line in lines]


def _latex_row(row: Iterable[Cell]) -> list[str]:
    texts, beneath = zip(*row, strict=True)
    lines = [" & ".join(texts) + r" \\"]
    if any(beneath):
        small = (rf"\scriptsize {text}" if text else "" for text in beneath)
        lines = [f"{lines[0]}[-2pt]", " & ".join(small) + r" \\"]
    return lines


def latex_document(names: Iterable[str]) -> str:
    """The document that compiles the tables in files of these names."""
    return LATEX_ALL % "\n".join(f"\\input{{{name}}}\n\\clearpage" for name in names)
