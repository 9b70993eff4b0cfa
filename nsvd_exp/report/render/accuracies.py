"""The accuracies at tasks as Markdown, LaTeX, records and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nsvd_exp.experiment.zeroshot import Accuracy, format_accuracy, format_difference
from nsvd_exp.report.model.accuracies import AccuracyBlock, AccuracyLine
from nsvd_exp.report.render.markup import (
    LATEX,
    MARKDOWN,
    Cell,
    Markup,
    Table,
    latex_tables,
    markdown_table,
)
from nsvd_exp.report.render.records import Record
from nsvd_exp.report.render.text import ratio_title

NAME = "accuracy"
TITLE = "Accuracy at tasks"
LABELS = ("Model", "Removed", "Method", "k1")
MEANS = ("Mean", "Mean over dense")
LEGEND = (
    "Accuracy in %, higher is better, ± its standard error; in parentheses the difference to the "
    "dense model in percentage points; bold: the highest of its column and model at a ratio. "
    "Taken is acc_norm where a task has it, or else acc, exact_match or its first metric; guessing "
    "is right as often as the first row of a model says. The mean is over all tasks, each counting "
    "the same. Standard errors are over documents; those of differences are of the differences at "
    "each document."
)


def markdown(blocks: Sequence[AccuracyBlock]) -> str:
    """A Markdown document."""
    table = markdown_table(table_of(blocks, MARKDOWN))
    return f"# {TITLE}\n\n{MARKDOWN.escape(LEGEND)}\n\n{table}\n"


def latex(blocks: Sequence[AccuracyBlock]) -> str:
    """`table` environments."""
    return latex_tables(table_of(blocks, LATEX), f"{TITLE}. {LEGEND}", NAME)


def table_of(blocks: Sequence[AccuracyBlock], markup: Markup) -> Table:
    """One row per cell and, above those of a model, one for guessing."""
    tasks = list(dict.fromkeys(task for block in blocks for task in block.tasks))
    table = Table([markup.escape(name) for name in (*LABELS, *tasks, *MEANS)], len(LABELS))
    for block in blocks:
        table.sections.append(len(table.rows))
        chances = [
            f"{100 * block.chances[task]:.1f}" if task in block.chances else "" for task in tasks
        ]
        if block.chances:
            guessing = [markup.escape(block.title), "", "guessing", "", *chances, "", ""]
            table.rows.append([Cell(text) for text in guessing])
        ratio = None
        for line in block.lines:
            if line.row.ratio != ratio:
                ratio = line.row.ratio
                table.sections.append(len(table.rows))
            table.rows.append(_row(block, line, tasks, markup))
    return table


def _row(
    block: AccuracyBlock, line: AccuracyLine, tasks: Sequence[str], markup: Markup
) -> list[Cell]:
    k1 = "" if line.row.k1 is None else f"{line.row.k1:g}"
    names = [block.title, ratio_title(line.row.ratio), line.title, k1]
    own, less = line.mean(block.tasks), line.mean_over_dense(block.tasks)
    means = ["" if own is None else format_accuracy(own)]
    means.append("" if less is None else format_difference(less))
    return [
        *(Cell(markup.escape(name)) for name in names),
        *(_cell(line, task, markup) if task in block.tasks else Cell() for task in tasks),
        *(Cell(markup.escape(mean)) for mean in means),
    ]


def _cell(line: AccuracyLine, task: str, markup: Markup) -> Cell:
    """`63.5 ± 3.7` and `(−22.9)`."""
    text = markup.escape(format_accuracy(line.accuracy(task)))
    less = line.over_dense.get(task)
    return Cell(
        markup.bold.format(text) if task in line.best else text,
        "" if less is None else markup.escape(f"({format_difference(Accuracy(less.value, None))})"),
    )


def records(blocks: Sequence[AccuracyBlock]) -> list[Record]:
    """One record per cell and task."""
    return [
        _record(block, line, task)
        for block in blocks
        for line in block.lines
        for task in block.tasks
        if task in line.scores
    ]


def _record(block: AccuracyBlock, line: AccuracyLine, task: str) -> Record:
    score = line.scores[task]
    same = ("version", "metric", "accuracy", "stderr", "chance")
    protocol = ("documents", "available", "fewshot", "limit", "dtype")
    return {
        "model": block.model,
        "setting": "; ".join(block.differences),
        "method": line.row.method,
        "ratio": line.row.ratio,
        "k1": line.row.k1,
        "seed": line.seed,
        "task": task,
        **{name: score[name] for name in same},
        **_pair("over_dense", line.over_dense.get(task)),
        **_pair("mean", line.mean(block.tasks)),
        **_pair("mean_over_dense", line.mean_over_dense(block.tasks)),
        **{name: score[name] for name in protocol},
        "documents_sha256": score["documents_sha256"],
        "measured": score["measured"],
        "key": line.result["key"],
    }


def _pair(name: str, accuracy: Accuracy | None) -> dict[str, Any]:
    value, error = accuracy or (None, None)
    return {name: value, f"{name}_stderr": error}
