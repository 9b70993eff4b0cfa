"""What a person sees in the terminal: messages on stderr, tables on stdout. Imports no torch."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from nsvd_exp.cli.outcome import Outcome
from nsvd_exp.config.schema import SIMILARITY_STATISTICS, Config
from nsvd_exp.experiment.record import spread
from nsvd_exp.experiment.wording import format_perplexity, label_of
from nsvd_exp.storage.results import Result

WIDTH_WITHOUT_LIMIT = 1000

# Of a grid's table, by what was measured: its title, and the columns that name a job.
TITLES = {
    "perplexity": "Perplexity",
    "similarity": "Similarity, mean ± std over layers",
}
COLUMNS = {
    "perplexity": ("model", "method", "ratio", "k1"),
    "similarity": ("model", "measure"),
}

SHOWN_BY_COLUMNS = (
    *("model", "method", "ratio", "k1", "dataset", "experiment"),
    *("measure", "similarity.statistic"),
)

STATE_STYLES = {"done": "green", "skipped": "cyan", "failed": "bold red"}


class _Stdout(Console):
    """stdout, whose reader may have seen enough, as that of `| head` has."""

    def on_broken_pipe(self) -> None:
        discard_stdout()


def discard_stdout() -> None:
    """Let what is still to be printed go nowhere: its reader is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(table: Table) -> None:
    """Print a table to stdout at the width it needs: a number cut short would be another number."""
    unlimited = Console(width=WIDTH_WITHOUT_LIMIT)
    needed = Measurement.get(unlimited, unlimited.options, table).maximum
    _Stdout(width=max(Console().width, needed), highlight=False).print(table)


def stderr() -> Console:
    """Where progress and messages go."""
    return Console(stderr=True, highlight=False)


# What stands for characters of tables and messages where the terminal has ASCII alone.
IN_ASCII = {"–": "-", "±": "+-", "−": "-", "…": "...", "×": "x", "ᵀ": "^T", "Σ": "sum"}


def speak_ascii_where_needed(*streams: TextIO) -> None:
    """Let streams that are not UTF-8 write what they have no character for in ASCII."""
    codecs.register_error("nsvd_ascii", _in_ascii)
    for stream in streams:
        encoding = (stream.encoding or "").lower().replace("-", "")
        if isinstance(stream, io.TextIOWrapper) and not encoding.startswith("utf"):
            stream.reconfigure(errors="nsvd_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(character, "?") for character in lacking), error.end


def say(message: str) -> None:
    """One line on stderr that is no error."""
    stderr().print(message, markup=False, soft_wrap=True)


def show_error(error: Exception) -> None:
    """One message on stderr."""
    stderr().print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)


def format_similarity(record: Result, statistic: str) -> str:
    """Mean ± standard deviation over the layers of a similarity record, – where there is none."""
    over_layers = spread(record["layers"], statistic)
    return f"{over_layers.mean:.3f} ± {over_layers.std:.3f}" if over_layers else "–"


def cell_table(
    config: Config, numbers: Mapping[str, Result], dense: Mapping[str, Result] | None
) -> Table:
    """The perplexities of one cell, one row for each dataset, beside the dense model's if given."""
    model, method, ratio, k1 = label_of(config)
    settings = [f"ratio {ratio}" if ratio else "", f"k1 {k1}" if k1 else ""]
    table = Table(title=f"Perplexity of {model}", title_justify="left")
    table.add_column("dataset")
    if dense is not None:
        table.add_column("dense", justify="right")
    table.add_column(" ".join(filter(None, (method, *settings))), justify="right", style="bold")
    if dense is not None:
        table.add_column("times dense", justify="right")
    table.add_column("windows x tokens", justify="right", style="dim")
    for name, number in numbers.items():
        value = number["perplexity"]
        cells = [format_perplexity(value)]
        if dense is not None:
            base = dense[name]["perplexity"]
            cells = [format_perplexity(base), *cells, f"{value / base:.2f}"]
        extent = f"{number['windows']} x {number['length']}"
        table.add_row(config.dataset[name].title, *cells, extent)
    return table


def similarity_table(config: Config, records: list[Result]) -> Table:
    """Similarities over the layers, one row for each dataset; the statistic asked for is first."""
    asked = config.similarity.statistic
    names = sorted(SIMILARITY_STATISTICS, key=lambda name: name != asked)
    title = f"Similarity of {config.model.title}'s activations to {_calibration(records)}"
    table = Table(title=title, caption="mean ± std over layers")
    table.title_justify = table.caption_justify = "left"
    table.add_column("dataset")
    for name in names:
        table.add_column(name, justify="right", style="bold" if name == asked else "")
    for heading in ("layers", "windows x tokens"):
        table.add_column(heading, justify="right", style="dim")
    for record in records:
        dataset, total = record["dataset"], len(record["layers"])
        over_layers = spread(record["layers"], asked)
        known = over_layers.layers if over_layers else 0
        table.add_row(
            dataset["title"],
            *(format_similarity(record, name) for name in names),
            f"{total}" if known == total else f"{known} of {total}",
            f"{dataset['windows']} x {dataset['length']}",
        )
    return table


def _calibration(records: list[Result]) -> str:
    return str(records[0]["calibration"]["title"])


def other_settings(outcomes: list[Outcome]) -> list[str]:
    """Of each job, the overrides that not all jobs have and that no column of the table shows."""
    common = set.intersection(*(set(o.overrides) for o in outcomes)) if outcomes else set()
    return [
        " ".join(
            override
            for override in outcome.overrides
            if override not in common and override.partition("=")[0] not in SHOWN_BY_COLUMNS
        )
        for outcome in outcomes
    ]


def grid_table(outcomes: list[Outcome]) -> Table:
    """One row a job of one measure: what became of it, and its values."""
    measure = outcomes[0].measure
    names = list(dict.fromkeys(name for o in outcomes for name in o.values))
    title = f"{TITLES[measure]} ({_tally(outcomes)})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("state")
    for heading in COLUMNS[measure]:
        table.add_column(heading, justify="right" if heading in ("ratio", "k1") else "left")
    others = other_settings(outcomes)
    if any(others):
        table.add_column("also")
    for name in names:
        table.add_column(name.replace("_", "\n"), justify="right")
    for outcome, other in zip(outcomes, others, strict=True):
        values = [outcome.values.get(name, "–") for name in names]
        style = STATE_STYLES[outcome.state]
        texts = [*outcome.label, other] if any(others) else outcome.label
        table.add_row(f"[{style}]{outcome.state}[/]", *map(escape, texts), *values)
    return table


def _tally(outcomes: list[Outcome]) -> str:
    counts = {state: sum(o.state == state for o in outcomes) for state in STATE_STYLES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def failure_lines(outcomes: list[Outcome]) -> list[str]:
    """One line a failed job: which, and why."""
    return [
        f"{' '.join(part for part in o.label if part)}: {o.message}"
        for o in outcomes
        if o.state not in ("done", "skipped")
    ]
