"""What each step beyond the paper buys, as Markdown, LaTeX, records and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from nsvd_exp.report.model.equal_size import EqualSizeBlock, EqualSizeLine
from nsvd_exp.report.model.results import columns_of
from nsvd_exp.report.render.markup import (
    LATEX,
    MARKDOWN,
    Cell,
    Markup,
    Table,
    latex_tables,
    markdown_table,
)
from nsvd_exp.report.render.records import Record, bounds_of
from nsvd_exp.report.render.text import (
    STATES,
    group_title,
    left_out,
    nats,
    ratio_title,
    row_title,
    with_interval,
)

NAME = "equal_size"
TITLE = "At equal size: what each step buys"
LABELS = ("Model", "Removed", "Method", "k1")
MEASURES = ("Nats over dense", "Share of ASVD-I's")
COSTS = ("Achieved", "Seconds", "Peak memory, MB")
LEGEND = (
    "Log perplexity minus the dense model's in nats per token, lower is better: the mean{without}, "
    "and each set's own; in brackets 95% intervals. The rows of a ratio stand in the order of that "
    "mean; italic: the paper's methods in the paper's form; bold: the lowest of its column. Share: "
    "the mean in parts of what ASVD-I loses at the same ratio. Achieved: the fraction of the "
    "compressed layers' numbers that was removed. Seconds: calibration and decomposition in the "
    "cell's last run, with what was in the cache by then: statistics and bases that were there "
    "already cost nothing. Peak memory: of the GPUs or, without one, of the process since it began."
)
NO_AVERAGE = (
    "no row has an average, which takes the perplexities of the dense model and of the row on all "
    "the sets that are averaged."
)


def markdown(blocks: Sequence[EqualSizeBlock]) -> str:
    """A Markdown document that begins with one sentence for each ratio."""
    said = [
        f"- **{MARKDOWN.escape(group_title(block.group))}**: {MARKDOWN.escape(sentence(block))}"
        for block in blocks
    ]
    table = markdown_table(table_of(blocks, MARKDOWN))
    parts = [f"# {TITLE}", "\n".join(said), table, MARKDOWN.escape(legend(blocks))]
    return "\n\n".join(parts) + "\n"


def latex(blocks: Sequence[EqualSizeBlock]) -> str:
    """A paragraph for each ratio, and `table` environments."""
    said = [
        rf"\par\noindent {LATEX.escape(f'{group_title(block.group)}: {sentence(block)}')}"
        for block in blocks
    ]
    tables = latex_tables(table_of(blocks, LATEX), f"{TITLE}. {legend(blocks)}", NAME)
    return "\n".join([*said, "", tables])


def legend(blocks: Sequence[EqualSizeBlock]) -> str:
    """What the numbers mean."""
    sets = left_out(block.group for block in blocks)
    return LEGEND.format(without=f", without {sets}" if sets else "")


def by_group(blocks: Sequence[EqualSizeBlock]) -> list[list[EqualSizeBlock]]:
    """The blocks of each model and setting."""
    return [list(own) for _, own in groupby(blocks, key=lambda block: id(block.group))]


def sentence(block: EqualSizeBlock) -> str:
    """Which row loses least at this ratio, and which of the paper's does."""
    best, papers = block.best, block.papers_best
    at = f"At {ratio_title(block.ratio)} removed"
    if best is None:
        return f"{at} {NO_AVERAGE}"
    name, lost = row_title(best.line), f"{_loss(best)} nats per token on average"
    if best.share is not None and block.reference is not None and not best.is_reference:
        lost += f", {_share(best.share)} of what ASVD-I loses ({_loss(block.reference)})"
    if papers is best:
        return f"{at} {name}, one of the paper's methods, loses least: {lost}."
    beside = (
        "no method of the paper has an average to compare it with"
        if papers is None
        else f"of the paper's methods {row_title(papers.line)} loses least, {_loss(papers)}"
    )
    return f"{at} {name} loses {lost}; {beside}."


def _loss(line: EqualSizeLine) -> str:
    value = line.nats or 0.0
    return f"{value:.{2 if abs(value) >= 0.1 else 3}f}".replace("-", "−")


def _share(share: float) -> str:
    return f"{100 * share:.{0 if abs(share) >= 0.01 else 1}f}%".replace("-", "−")


def table_of(blocks: Sequence[EqualSizeBlock], markup: Markup) -> Table:
    """One row for each row of a block."""
    titles = columns_of(block.group for block in blocks)
    columns = (*LABELS, *MEASURES, *COSTS, *titles.values())
    table = Table([markup.escape(title) for title in columns], len(LABELS))
    for block in blocks:
        table.sections.append(len(table.rows))
        for line in block.lines:
            cells = [
                *_labels(block, line, markup),
                *_measures(line, line is block.best, markup),
                *(Cell(markup.escape(text)) for text in _costs(line)),
                *(_of_dataset(line, name, markup) for name in titles),
            ]
            table.rows.append(cells)
    return table


def _labels(block: EqualSizeBlock, line: EqualSizeLine, markup: Markup) -> list[Cell]:
    row, title = line.line.row, markup.escape(line.line.title)
    k1 = "" if row.k1 is None else f"{row.k1:g}"
    return [
        Cell(markup.escape(group_title(block.group))),
        Cell(markup.escape(ratio_title(block.ratio))),
        Cell(markup.italic.format(title) if line.line.is_of_paper else title),
        Cell(k1),
    ]


def _measures(line: EqualSizeLine, is_best: bool, markup: Markup) -> list[Cell]:
    bounds = line.line.average.nats_interval
    mean, beneath = map(markup.escape, with_interval(line.nats, bounds, nats))
    share = "" if line.share is None else markup.escape(_share(line.share))
    return [Cell(markup.bold.format(mean) if is_best else mean, beneath), Cell(share)]


def _of_dataset(line: EqualSizeLine, name: str, markup: Markup) -> Cell:
    entry = line.line.entries.get(name)
    if entry is None:
        return Cell()
    if entry.over_dense is None:  # nothing is stored of this row or of the dense model
        return Cell("" if entry.perplexity is not None else markup.escape(STATES[entry.state]))
    over = entry.over_dense
    text, bounds = map(markup.escape, with_interval(over.log_ratio, over.nats_interval, nats))
    return Cell(markup.bold.format(text) if entry.best else text, bounds)


def _costs(line: EqualSizeLine) -> list[str]:
    achieved, seconds, peak = line.achieved, line.seconds, line.peak_bytes
    return [
        "" if achieved is None else f"{100 * achieved:.1f}%",
        "" if seconds is None else f"{seconds:,.{0 if seconds >= 100 else 2}f}",
        "" if peak is None else f"{peak / 1e6:,.0f}",
    ]


def records(blocks: Sequence[EqualSizeBlock]) -> list[Record]:
    """One record per row and dataset."""
    return [
        _record(block, line, place, dataset)
        for block in blocks
        for place, line in enumerate(block.lines, 1)
        for dataset in line.line.entries
    ]


def _record(block: EqualSizeBlock, line: EqualSizeLine, place: int, dataset: str) -> Record:
    average, entry = line.line.average, line.line.entries[dataset]
    over, name = entry.over_dense, line.line.method.name
    return {
        "model": block.group.model,
        "setting": "; ".join(block.group.differences),
        "ratio": block.ratio,
        "place": place,
        "method": name,
        "form": line.line.row.method.removeprefix(name).removeprefix(", "),
        "k1": line.line.row.k1,
        "of_paper": line.line.is_of_paper,
        "averaged_over": " ".join(average.sets),
        "average_nats_over_dense": average.nats,
        **bounds_of("average_nats_over_dense", average.nats_interval),
        "share_of_asvd_i": line.share,
        "achieved_ratio": line.achieved,
        "seconds": line.seconds,
        "peak_device_bytes": line.device_bytes,
        "peak_host_bytes": line.host_bytes,
        "dataset": dataset,
        "state": entry.state,
        "nats_over_dense": over.log_ratio if over else None,
        **bounds_of("nats_over_dense", over.nats_interval if over else None),
        "key": " ".join(str(m.cell["key"]) for m in entry.measurements),
    }
