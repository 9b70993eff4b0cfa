"""The results, the layouts and the similarities as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.intervals import FEWEST_WINDOWS
from nsvd_exp.report.model.results import Group, Line, columns_of
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block
from nsvd_exp.report.render.headline import headlines
from nsvd_exp.report.render.markup import (
    LATEX,
    MARKDOWN,
    Cell,
    Markup,
    Table,
    latex_tables,
    markdown_table,
)
from nsvd_exp.report.render.text import (
    AVERAGE_HEADINGS,
    STATES,
    average_texts,
    change,
    entry_text,
    group_title,
    improvement_text,
    layout_title,
    left_out,
    note_marks,
    paper_title,
    printed_texts,
    ratio_title,
    row_title,
    times_text,
)

RESULTS_TITLE = "Your results"
SIMILARITY_LEGEND = (
    "Cosine similarity between the calibration set's activations and each evaluation set's, one "
    "value per compressed layer: mean ± population deviation over the layers. The paper leaves "
    "open what is compared: mean and abs_mean are the mean (absolute) activation of each input "
    "channel, gram the flattened Gram matrix."
)
NATS_LEGEND = (
    "Nats over dense: the mean of log perplexity minus the dense model's over the same sets, in "
    "nats per token, which one ruined set cannot dominate."
)
INTERVAL_LEGEND = (
    "In brackets: 95% intervals, which allow for neighbouring windows being alike; none for fewer "
    f"than {FEWEST_WINDOWS} windows."
)


def results_markdown(groups: Sequence[Group]) -> str:
    """All that is stored, as a Markdown document that begins with the headlines."""
    said = []
    for headline in headlines(groups):
        said.append(f"**{MARKDOWN.escape(headline.model)}**: {MARKDOWN.escape(headline.summary)}")
        said.append(
            "\n".join(
                f"- **{MARKDOWN.escape(name)}**{MARKDOWN.escape(rest)}"
                for name, rest in headline.sentences
            )
        )
    table = markdown_table(_results_table(groups, MARKDOWN))
    legend = map(MARKDOWN.escape, results_legend(groups))
    return "\n\n".join([f"# {RESULTS_TITLE}", *said, table, *legend]) + "\n"


def results_latex(groups: Sequence[Group]) -> str:
    """All that is stored, as `table` environments."""
    caption = "Perplexity of the compressed models. " + " ".join(results_legend(groups))
    return latex_tables(_results_table(groups, LATEX), caption, "results")


def markdown(number: int, blocks: Sequence[Block], with_paper: bool) -> str:
    """The blocks that are laid out like one of the paper's tables, as a Markdown document."""
    marks = note_marks(blocks) if with_paper else {}
    parts = [f"# {layout_title(number)}", *map(MARKDOWN.escape, legend(blocks, with_paper))]
    for block in blocks:
        table = markdown_table(_layout_table(block, MARKDOWN, marks, with_paper))
        parts += [f"## {MARKDOWN.escape(group_title(block.group))}", table]
    parts += [f"{MARKDOWN.mark.format(mark)} {note}" for note, mark in marks.items()]
    return "\n\n".join(parts) + "\n"


def latex(number: int, blocks: Sequence[Block], with_paper: bool) -> str:
    """The blocks that are laid out like one of the paper's tables, as `table` environments."""
    marks = note_marks(blocks) if with_paper else {}
    said = " ".join(legend(blocks, with_paper))
    parts = []
    for place, block in enumerate(blocks):
        caption = f"{group_title(block.group)}. {layout_title(number)}. {said}"
        table = _layout_table(block, LATEX, marks, with_paper)
        parts.append(latex_tables(table, caption, f"{number}-{place}", marks))
    return "\n".join(parts)


def similarity_markdown(blocks: Sequence[SimilarityBlock], with_paper: bool) -> str:
    """The similarities, laid out like Table 2, as a Markdown document."""
    table = markdown_table(_similarity_table(blocks, MARKDOWN, with_paper))
    return f"# {layout_title(2)}\n\n{MARKDOWN.escape(SIMILARITY_LEGEND)}\n\n{table}\n"


def similarity_latex(blocks: Sequence[SimilarityBlock], with_paper: bool) -> str:
    """The similarities, laid out like Table 2, as `table` environments."""
    table = _similarity_table(blocks, LATEX, with_paper)
    return latex_tables(table, f"{layout_title(2)}. {SIMILARITY_LEGEND}", "2")


def results_legend(groups: Sequence[Group]) -> list[str]:
    """What the numbers of "Your results" mean, as sentences."""
    return [
        "Perplexity, lower is better; in parentheses in times the dense model's; bold: the lowest "
        "of its column and model at a ratio.",
        *_average_legend(groups),
    ]


def legend(blocks: Sequence[Block], with_paper: bool) -> list[str]:
    """What the numbers of a layout mean, as sentences."""
    groups = [block.group for block in blocks]
    sentences = [
        "Perplexity, lower is better; bold: the lowest of its column at a ratio. In parentheses "
        "the improvement over ASVD-I (positive is better; ×12: twelve times its perplexity).",
        *_average_legend(groups),
    ]
    if with_paper and any(not block.is_papers_model for block in blocks if block.paper_model):
        sentences.append(
            "The paper's rows are of another model and other text: to be looked at, not subtracted."
        )
    for block in blocks:
        title = group_title(block.group)
        if block.unmeasured:
            sentences.append(f"{title}: not measured: {', '.join(block.unmeasured)}.")
        if block.unstarted:
            ratios = ", ".join(map(ratio_title, block.unstarted))
            sentences.append(f"{title}: no cell at the paper's ratios {ratios}.")
    return list(dict.fromkeys(sentences))


def _average_legend(groups: Sequence[Group]) -> list[str]:
    sets = left_out(groups)
    without = f", without {sets}" if sets else ""
    sentences = [
        f"Avg. impro.: the mean improvement over ASVD-I{without}.",
        NATS_LEGEND,
        INTERVAL_LEGEND,
    ]  # fmt: skip
    entries = [e for group in groups for line in group.lines for e in line.entries.values()]
    if any(entry.deviation is not None for entry in entries):
        sentences.append("Where cells of several calibration seeds are stored: mean ± deviation.")
    return sentences


def _results_table(groups: Sequence[Group], markup: Markup) -> Table:
    titles = columns_of(groups)
    labels = ["Model", "Removed", "Method", "k1"]
    columns = map(markup.escape, [*labels, *titles.values(), *AVERAGE_HEADINGS])
    table = Table(list(columns), len(labels))
    for group in groups:
        model, ratio = group_title(group), None
        table.sections.append(len(table.rows))
        for line in group.lines:
            if line.row.ratio != ratio:
                ratio = line.row.ratio
                table.sections.append(len(table.rows))
            k1 = "" if line.row.k1 is None else f"{line.row.k1:g}"
            names = [model, ratio_title(ratio), line.title, k1]
            ours = _our_cells(line, list(titles), markup, times_text)
            table.rows.append([*(Cell(markup.escape(name)) for name in names), *ours])
    return table


def _layout_table(block: Block, markup: Markup, marks: dict[str, str], with_paper: bool) -> Table:
    """One row per line and, with the paper's numbers, one more beneath it."""
    datasets, ratio = block.group.datasets, None
    columns = ["Removed", "Method", *datasets.values(), *AVERAGE_HEADINGS]
    table = Table([markup.escape(title) for title in columns], 2)
    for line in block.lines:
        group = ratio_title(line.row.ratio) if line.row.ratio != ratio else ""
        if group:
            ratio = line.row.ratio
            table.sections.append(len(table.rows))
        ours = _our_cells(line, list(datasets), markup, improvement_text)
        title = markup.escape(row_title(line))
        table.rows.append([Cell(markup.escape(group)), Cell(title), *ours])
        if with_paper and line.has_papers:
            title = _italic(paper_title(block), markup)
            table.rows.append([Cell(), Cell(title), *_papers_cells(line, markup, marks)])
    return table


def _our_cells(
    line: Line, datasets: Sequence[str], markup: Markup, beside: Callable[[Entry], str]
) -> list[Cell]:
    """The numbers of a line.

    Args:
        beside: what stands beside each.
    """
    cells = []
    for name in datasets:
        entry = line.entries.get(name)
        text = "" if entry is None else markup.escape(entry_text(entry))
        more = "" if entry is None else markup.escape(beside(entry))
        cells.append(Cell(markup.bold.format(text) if entry and entry.best else text, more))
    averages = average_texts(line.average)
    return [*cells, *(Cell(*map(markup.escape, texts)) for texts in averages)]


def _papers_cells(line: Line, markup: Markup, marks: dict[str, str]) -> list[Cell]:
    average = line.average
    found = [(printed_texts(entry), entry.note) for entry in line.entries.values()]
    improvement = "" if average.printed is None else change(average.printed)
    cells = []
    for (text, beneath), note in (*found, ((improvement, ""), average.note)):
        mark = markup.mark.format(marks[note]) if note and text else ""
        cells.append(Cell(_italic(text, markup) + mark, _italic(beneath, markup)))
    return [*cells, Cell()]


def _italic(text: str, markup: Markup) -> str:
    return text and markup.italic.format(markup.escape(text))


def _similarity_table(blocks: Sequence[SimilarityBlock], markup: Markup, with_paper: bool) -> Table:
    """One row per model and statistic, and the paper's."""
    titles = {name: title for block in blocks for name, title in block.datasets.items()}
    table = Table([markup.escape(t) for t in ("Model", "Statistic", *titles.values())], 2)
    for block in blocks:
        table.sections.append(len(table.rows))
        for statistic in block.statistics:
            nearest = " (nearest to the paper's)" if statistic == block.nearest else ""
            model = ", ".join([block.model, *block.differences])
            spreads = block.spreads[statistic]
            ours = {name: (found.mean, found.std) for name, found in spreads.items()}
            texts = [model, statistic + nearest, *(_spread_text(ours.get(n)) for n in titles)]
            table.rows.append([Cell(markup.escape(text)) for text in texts])
    if with_paper:
        table.sections.append(len(table.rows))
        printed = [_spread_text(paper.similarities().get(name)) for name in titles]
        texts = [f"paper, {paper.SIMILARITY_MODEL}", "", *printed]
        table.rows.append([Cell(_italic(text, markup)) for text in texts])
    return table


def _spread_text(value: tuple[float, float] | None) -> str:
    return (
        STATES["missing"] if value is None else f"{value[0]:.2f} ± {value[1]:.2f}".replace("-", "−")
    )


def records_markdown(records: Sequence[Mapping[str, object]]) -> str:
    """Records as a Markdown table; what is missing is empty."""
    columns = list(records[0]) if records else []
    rows = [
        [Cell("" if v is None else MARKDOWN.escape(str(v))) for v in record.values()]
        for record in records
    ]
    return markdown_table(Table([MARKDOWN.escape(name) for name in columns], len(columns), rows))
