"""The tables as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.entries import Average, Block, Entry, Line
from nsvd_exp.report.paper import CAPTIONS

if TYPE_CHECKING:
    import pandas as pd

STATES = {"missing": "–", "failed": "failed", "partial": "unfinished"}
NOT_RUN = "not run: only the paper's numbers"


@dataclass(frozen=True)
class Markup:
    """How one format says bold, italic and a footnote mark, each a `str.format` pattern."""

    bold: str
    italic: str
    mark: str

    def escape(self, text: str) -> str:
        """`text` as the format takes it."""
        raise NotImplementedError


class Markdown(Markup):
    """GitHub's Markdown."""

    def __init__(self) -> None:
        super().__init__("**{}**", "*{}*", "<sup>{}</sup>")

    def escape(self, text: str) -> str:
        """`text` with what Markdown would read as markup made plain."""
        return re.sub(r"([\\`*_|<>])", r"\\\1", text)


LATEX_SYMBOLS = {"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"}


class Latex(Markup):
    """LaTeX."""

    def __init__(self) -> None:
        super().__init__("\\textbf{{{}}}", "\\textit{{{}}}", "\\textsuperscript{{{}}}")

    def escape(self, text: str) -> str:
        """`text` with LaTeX's own characters made plain."""
        text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
        text = text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
        for character, command in LATEX_SYMBOLS.items():
            text = text.replace(character, command)
        # What the default fonts do not have would stop the compiler.
        return text.encode("ascii", "replace").decode()


def percent(fraction: float) -> str:
    """A signed percentage with one decimal: `+14.7%` is better, `−5.9%` worse."""
    return f"{100 * fraction:+.1f}%".replace("-", "−")


def entry_text(entry: Entry) -> str:
    """Perplexity, deviation over seeds, improvement; or what became of it."""
    if entry.perplexity is None:
        return STATES[entry.state]
    text = format_perplexity(entry.perplexity)
    if entry.deviation is not None:
        text += f" ± {format_perplexity(entry.deviation)}"
    return text if entry.improvement is None else f"{text} ({percent(entry.improvement)})"


def printed_text(entry: Entry) -> str:
    """The paper's number at this place, and how far ours is from it where that means something."""
    if entry.printed is None:
        return ""
    text = format_perplexity(entry.printed)
    if entry.printed_improvement is not None:
        text += f" ({percent(entry.printed_improvement)})"
    return text if entry.difference is None else f"{text}; ours {percent(entry.difference)}"


def row_title(line: Line) -> str:
    """The method, with its k1 where it has one."""
    return line.title if line.row.k1 is None else f"{line.title}, k1 = {line.row.k1:g}"


def ratio_title(ratio: float | None) -> str:
    """`30%`."""
    return "" if ratio is None else f"{100 * ratio:g}%"


def note_marks(blocks: Sequence[Block]) -> dict[str, str]:
    """a, b, c, ... of each footnote of a table."""
    notes = dict.fromkeys(note for block in blocks for note in block.notes)
    return {note: chr(ord("a") + index) for index, note in enumerate(notes)}


def block_title(block: Block) -> str:
    """Model and, where it is not the main one, the setting."""
    if block.setting is None:
        return f"{block.model} ({NOT_RUN})"
    if not block.differences:
        return block.model
    return f"{block.model}, with {', '.join(block.differences)}"


def paper_title(block: Block) -> str:
    """What the rows with the paper's numbers are called."""
    same = block.paper_model == block.model
    return "paper" if same else f"paper, {block.paper_model}"


def frame(block: Block, markup: Markup, marks: dict[str, str]) -> pd.DataFrame:
    """The block as text: a row a line and, beneath it, the paper's."""
    import pandas as pd

    def marked(text: str, note: str | None) -> str:
        return text + (markup.mark.format(marks[note]) if note else "")

    def ours(line: Line) -> list[str]:
        cells = [
            markup.bold.format(text) if entry.best else text
            for entry in line.entries.values()
            for text in [markup.escape(entry_text(entry))]
        ]
        return [*cells, markup.escape(_average_text(line.average))]

    def papers(line: Line) -> list[str]:
        cells = [(printed_text(entry), entry.note) for entry in line.entries.values()]
        printed = line.average.printed
        cells.append(("" if printed is None else percent(printed), line.average.note))
        return [
            marked(markup.italic.format(markup.escape(text)), note) if text else ""
            for text, note in cells
        ]

    index, rows = [], []
    for line in block.lines:
        group = markup.escape(ratio_title(line.row.ratio))
        if block.setting is not None:
            index.append((group, markup.escape(row_title(line))))
            rows.append(ours(line))
        if any(entry.printed is not None for entry in line.entries.values()):
            title = row_title(line) if block.setting is None else paper_title(block)
            index.append((group, markup.italic.format(markup.escape(title))))
            rows.append(papers(line))
    columns = [markup.escape(title) for title in (*block.datasets.values(), "Avg. impro.")]
    names = ["Ratio", "Method"]
    return pd.DataFrame(rows, columns=columns, index=pd.MultiIndex.from_tuples(index, names=names))


def _average_text(average: Average) -> str:
    if average.value is None:
        return ""
    text = percent(average.value)
    if average.interval is None:
        return text
    low, high = map(percent, average.interval)
    return f"{text} [{low}, {high}]"


def legend(blocks: Sequence[Block]) -> list[str]:
    """What the numbers in a table mean, as sentences."""
    sentences = [
        "Perplexity, lower is better; bold: the lowest of its column at a ratio. In parentheses "
        "the improvement over ASVD-I (positive is better). Avg. impro.: its mean over the sets "
        "other than WikiText-2, with the 95% interval of a paired bootstrap over windows."
    ]
    if any(e.deviation is not None for b in blocks for ln in b.lines for e in ln.entries.values()):
        sentences.append("Where cells of several calibration seeds are stored: mean ± deviation.")
    if any(block.paper_model not in (None, block.model) for block in blocks):
        sentences.append(
            "The paper's rows are of another model and other text: to be looked at, not subtracted."
        )
    for block in blocks:
        if block.setting and block.unmeasured:
            sentences.append(f"{block.model}: not measured: {', '.join(block.unmeasured)}.")
        if block.setting and block.unstarted:
            ratios = ", ".join(map(ratio_title, block.unstarted))
            sentences.append(f"{block.model}: no cell at the paper's ratios {ratios}.")
    return list(dict.fromkeys(sentences))


def markdown(number: int, blocks: Sequence[Block]) -> str:
    """One table as a Markdown document."""
    markup, marks = Markdown(), note_marks(blocks)
    parts = [f"# Table {number}: {CAPTIONS[number]}", *legend(blocks)]
    for block in blocks:
        table = frame(block, markup, marks)
        parts += [f"## {markup.escape(block_title(block))}", markdown_table(table)]
    parts += [f"{markup.mark.format(mark)} {note}" for note, mark in marks.items()]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Each ratio named once, in the first of its rows."""
    flat = table.reset_index()
    flat["Ratio"] = flat["Ratio"].mask(flat["Ratio"].duplicated(), "")
    return str(flat.to_markdown(index=False, disable_numparse=True))


ROWS_OF_A_PAGE = 45

PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
"""


def latex(number: int, blocks: Sequence[Block]) -> str:
    """One table as a LaTeX document; a `table` environment a block."""
    markup, marks = Latex(), note_marks(blocks)
    notes = [f"{markup.mark.format(mark)} {markup.escape(n)}." for n, mark in marks.items()]
    tables = []
    for place, block in enumerate(blocks):
        caption = f"Table {number} of the paper: {CAPTIONS[number]}. {block_title(block)}."
        tables.append(
            latex_table(frame(block, markup, marks), markup.escape(caption), f"{number}-{place}")
        )
    sentences = map(markup.escape, legend(blocks))
    return PREAMBLE + "\n".join([*sentences, "", *notes, "", *tables, r"\end{document}", ""])


def latex_table(table: pd.DataFrame, caption: str, label: str) -> str:
    """A `table` environment, scaled to the width of the page, or to its height."""
    tabular = table.style.to_latex(
        hrules=True,
        clines="skip-last;data",
        multirow_align="naive",
        column_format="l" * table.index.nlevels + "r" * table.shape[1],
    )
    # Starred: the height to scale by is that of the whole table, above and below its middle.
    size = "{\\linewidth}{!}" if len(table) <= ROWS_OF_A_PAGE else "*{!}{0.75\\textheight}"
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{size}{{%\n{tabular}}}\n\\end{{table}}\n"
    )
