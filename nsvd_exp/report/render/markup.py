"""Tables as text in Markdown and in LaTeX (booktabs), whatever stands in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

ROWS_OF_A_PAGE = 40
LATEX_ALL = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""
LATEX_SYMBOLS = {"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"}


@dataclass(frozen=True)
class Table:
    """A table as plain text, in the markup of its format.

    Attributes:
        labels: how many columns from the left hold names and no numbers.
        rows: one text per column.
        sections: the rows before which a rule is drawn.
    """

    columns: list[str]
    labels: int
    rows: list[list[str]] = field(default_factory=list)
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
    return re.sub(r"([\\`*_|<>])", r"\\\1", text)


def _escape_latex(text: str) -> str:
    """`text` with LaTeX's own characters escaped, and `?` for what it has no command for."""
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    text = text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    for character, command in LATEX_SYMBOLS.items():
        text = text.replace(character, command)
    # A character that the default fonts lack would stop the compiler.
    return text.encode("ascii", "replace").decode()


MARKDOWN = Markup("**{}**", "*{}*", "<sup>{}</sup>", _escape_markdown)
LATEX = Markup(r"\textbf{{{}}}", r"\textit{{{}}}", r"\textsuperscript{{{}}}", _escape_latex)


def markdown_table(table: Table) -> str:
    """The table in GitHub's Markdown."""
    rule = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.columns, rule, *table.rows))


def latex_tables(table: Table, caption: str, label: str, notes: str = "") -> str:
    """`table` environments as wide as the page at most, of ROWS_OF_A_PAGE rows at most."""
    form = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    parts = []
    for start in range(0, len(table.rows), ROWS_OF_A_PAGE):
        rows = []
        for place, row in enumerate(table.rows[start : start + ROWS_OF_A_PAGE], start):
            rows += ["\\midrule"] * (place in table.sections and place > start)
            rows.append(" & ".join(row) + r" \\")
        said = LATEX.escape(caption) if start == 0 else "Continued from the table before."
        lines = [
            r"\begin{table}[p]", r"\centering", f"\\caption{{{said}}}",
            f"\\label{{tab:{label}{'-' * (start > 0)}{start or ''}}}",
            # Scaled down to the width of the page, or to its height, and never up.
            r"\setbox0=\hbox{%", f"\\begin{{tabular}}{{{form}}}", r"\toprule",
            " & ".join(table.columns) + r" \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}}",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi",
            *([rf"\par\smallskip\footnotesize {notes}"] if notes else []),
            r"\end{table}", "",
        ]  # fmt: skip
        parts.append("\n".join(lines))
    return "\n".join(parts)


def latex_document(names: Iterable[str]) -> str:
    """The document that compiles the tables in files of these names."""
    return LATEX_ALL % "\n".join(f"\\input{{{name}}}\n\\clearpage" for name in names)
