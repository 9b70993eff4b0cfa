"""The tables as Markdown and LaTeX (booktabs) documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.paper import CAPTIONS
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block, Line
from nsvd_exp.report.render.text import (
    STATES,
    average_text,
    block_title,
    entry_text,
    legend,
    note_marks,
    paper_title,
    percent,
    printed_text,
    ratio_title,
    row_title,
)

ROWS_OF_A_PAGE = 45

LATEX_PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=1.5cm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
"""
LATEX_SYMBOLS = {"–": "--", "−": "$-$", "±": r"$\pm$", "×": r"$\times$"}

SIMILARITY_LEGEND = (
    "Cosine similarity between the calibration set's activations and each evaluation set's, one "
    "value a compressed layer: mean ± population deviation over the layers. The paper leaves open "
    "what is compared: `mean` and `abs_mean` are the mean (absolute) activation of each input "
    "channel, `gram` the flattened Gram matrix."
)


@dataclass(frozen=True)
class Markup:
    """How a format writes bold, italic and a footnote mark: patterns for `str.format`."""

    bold: str
    italic: str
    mark: str

    def escape(self, text: str) -> str:
        """`text` with every character of the format's own syntax escaped."""
        raise NotImplementedError


class Markdown(Markup):
    """GitHub's Markdown."""

    def __init__(self) -> None:
        super().__init__("**{}**", "*{}*", "<sup>{}</sup>")

    def escape(self, text: str) -> str:
        """`text` with every character that Markdown would read as markup escaped."""
        return re.sub(r"([\\`*_|<>])", r"\\\1", text)


class Latex(Markup):
    """LaTeX."""

    def __init__(self) -> None:
        super().__init__("\\textbf{{{}}}", "\\textit{{{}}}", "\\textsuperscript{{{}}}")

    def escape(self, text: str) -> str:
        """`text` with LaTeX's own characters escaped, and `?` for what it has no command for."""
        text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
        text = text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
        for character, command in LATEX_SYMBOLS.items():
            text = text.replace(character, command)
        # A character that the default fonts lack would stop the compiler.
        return text.encode("ascii", "replace").decode()


def markdown(number: int, blocks: Sequence[Block]) -> str:
    """One of the perplexity tables as a Markdown document."""
    markup, marks = Markdown(), note_marks(blocks)
    parts = [f"# Table {number}: {CAPTIONS[number]}", *legend(blocks)]
    for block in blocks:
        flat = _frame(block, markup, marks).reset_index()
        # Each ratio is named once, in the first of its rows.
        flat["Ratio"] = flat["Ratio"].mask(flat["Ratio"].duplicated(), "")
        table = flat.to_markdown(index=False, disable_numparse=True)
        parts += [f"## {markup.escape(block_title(block))}", table]
    parts += [f"{markup.mark.format(mark)} {note}" for note, mark in marks.items()]
    return "\n\n".join(parts) + "\n"


def latex(number: int, blocks: Sequence[Block]) -> str:
    """One of the perplexity tables as a LaTeX document, with a `table` environment per block."""
    markup, marks = Latex(), note_marks(blocks)
    notes = [f"{markup.mark.format(mark)} {markup.escape(n)}." for n, mark in marks.items()]
    tables = []
    for place, block in enumerate(blocks):
        caption = f"Table {number} of the paper: {CAPTIONS[number]}. {block_title(block)}."
        frame = _frame(block, markup, marks)
        tables.append(_latex_table(frame, markup.escape(caption), f"{number}-{place}"))
    sentences = map(markup.escape, legend(blocks))
    return LATEX_PREAMBLE + "\n".join([*sentences, "", *notes, "", *tables, r"\end{document}", ""])


def similarity_markdown(blocks: Sequence[SimilarityBlock]) -> str:
    """Table 2 as a Markdown document."""
    table = _similarity_frame(blocks, Markdown()).reset_index()
    text = table.to_markdown(index=False, disable_numparse=True)
    return f"# Table 2: {CAPTIONS[2]}\n\n{SIMILARITY_LEGEND}\n\n{text}\n"


def similarity_latex(blocks: Sequence[SimilarityBlock]) -> str:
    """Table 2 as a LaTeX document."""
    markup = Latex()
    caption = markup.escape(f"Table 2 of the paper: {CAPTIONS[2]}.")
    table = _latex_table(_similarity_frame(blocks, markup), caption, "2")
    sentences = markup.escape(SIMILARITY_LEGEND.replace("`", ""))
    return LATEX_PREAMBLE + f"{sentences}\n\n{table}\n\\end{{document}}\n"


def _frame(block: Block, markup: Markup, marks: dict[str, str]) -> pd.DataFrame:
    """The block as text: one row per line and, beneath it, one with the paper's numbers."""
    index, rows = [], []
    for line in block.lines:
        group = markup.escape(ratio_title(line.row.ratio))
        if block.setting is not None:
            index.append((group, markup.escape(row_title(line))))
            rows.append(_our_texts(line, markup))
        if line.has_papers:
            title = row_title(line) if block.setting is None else paper_title(block)
            index.append((group, markup.italic.format(markup.escape(title))))
            rows.append(_papers_texts(line, markup, marks))
    columns = [markup.escape(title) for title in (*block.datasets.values(), "Avg. impro.")]
    names = ["Ratio", "Method"]
    return pd.DataFrame(rows, columns=columns, index=pd.MultiIndex.from_tuples(index, names=names))


def _our_texts(line: Line, markup: Markup) -> list[str]:
    texts = []
    for entry in line.entries.values():
        text = markup.escape(entry_text(entry))
        texts.append(markup.bold.format(text) if entry.best else text)
    return [*texts, markup.escape(average_text(line.average))]


def _papers_texts(line: Line, markup: Markup, marks: dict[str, str]) -> list[str]:
    printed = line.average.printed
    average = "" if printed is None else percent(printed)
    cells = [(printed_text(entry), entry.note) for entry in line.entries.values()]
    texts = []
    for text, note in (*cells, (average, line.average.note)):
        mark = markup.mark.format(marks[note]) if note else ""
        texts.append(markup.italic.format(markup.escape(text)) + mark if text else "")
    return texts


def _similarity_frame(blocks: Sequence[SimilarityBlock], markup: Markup) -> pd.DataFrame:
    """Table 2 as text: one row per model and statistic, and the paper's."""
    titles = {name: title for block in blocks for name, title in block.datasets.items()}
    titles = titles or dataset_titles()
    index, rows = [], []
    for block in blocks:
        for statistic in block.statistics:
            nearest = " (nearest to the paper's)" if statistic == block.nearest else ""
            setting = f", with {', '.join(block.differences)}" if block.differences else ""
            index.append((markup.escape(block.model + setting), markup.escape(statistic + nearest)))
            spreads = block.spreads[statistic]
            ours = {name: (found.mean, found.std) for name, found in spreads.items()}
            rows.append([markup.escape(_spread_text(ours.get(name))) for name in titles])
    index.append((markup.italic.format(markup.escape(f"paper, {paper.SIMILARITY_MODEL}")), ""))
    printed = [_spread_text(paper.similarities().get(name)) for name in titles]
    rows.append([markup.italic.format(markup.escape(text)) for text in printed])
    names = ["Model", "Statistic"]
    columns = [markup.escape(title) for title in titles.values()]
    return pd.DataFrame(rows, columns=columns, index=pd.MultiIndex.from_tuples(index, names=names))


def _spread_text(value: tuple[float, float] | None) -> str:
    return STATES["missing"] if value is None else f"{value[0]:.2f} ± {value[1]:.2f}"


def _latex_table(table: pd.DataFrame, caption: str, label: str) -> str:
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
