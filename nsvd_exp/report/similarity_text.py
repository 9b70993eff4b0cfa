"""Table 2 as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nsvd_exp.report import paper
from nsvd_exp.report.paper import CAPTIONS
from nsvd_exp.report.protocol import dataset_titles
from nsvd_exp.report.similarities import SimilarityBlock
from nsvd_exp.report.text import (
    PREAMBLE,
    STATES,
    Latex,
    Markdown,
    Markup,
    latex_table,
)

if TYPE_CHECKING:
    import pandas as pd


def frame(blocks: Sequence[SimilarityBlock], markup: Markup) -> pd.DataFrame:
    """Table 2 as text: a row a model and statistic, and the paper's."""
    import pandas as pd

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
            rows.append([markup.escape(_text(ours.get(name))) for name in titles])
    index.append((markup.italic.format(markup.escape(f"paper, {paper.SIMILARITY_MODEL}")), ""))
    printed = [_text(paper.similarities().get(name)) for name in titles]
    rows.append([markup.italic.format(markup.escape(text)) for text in printed])
    names = ["Model", "Statistic"]
    columns = [markup.escape(title) for title in titles.values()]
    return pd.DataFrame(rows, columns=columns, index=pd.MultiIndex.from_tuples(index, names=names))


def _text(value: tuple[float, float] | None) -> str:
    return STATES["missing"] if value is None else f"{value[0]:.2f} ± {value[1]:.2f}"


LEGEND = (
    "Cosine similarity between the calibration set's activations and each evaluation set's, one "
    "value a compressed layer: mean ± population deviation over the layers. The paper leaves open "
    "what is compared: `mean` and `abs_mean` are the mean (absolute) activation of each input "
    "channel, `gram` the flattened Gram matrix."
)


def markdown(blocks: Sequence[SimilarityBlock]) -> str:
    """Table 2 as a Markdown document."""
    table = frame(blocks, Markdown()).reset_index()
    text = table.to_markdown(index=False, disable_numparse=True)
    return f"# Table 2: {CAPTIONS[2]}\n\n{LEGEND}\n\n{text}\n"


def latex(blocks: Sequence[SimilarityBlock]) -> str:
    """Table 2 as a LaTeX document."""
    markup = Latex()
    caption = markup.escape(f"Table 2 of the paper: {CAPTIONS[2]}.")
    table = latex_table(frame(blocks, markup), caption, "2")
    legend_text = markup.escape(LEGEND.replace("`", ""))
    return PREAMBLE + f"{legend_text}\n\n{table}\n\\end{{document}}\n"
