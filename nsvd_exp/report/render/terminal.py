"""What the report prints in the terminal: tables on stdout, complaints on stderr.

Imports neither pandas nor matplotlib, so that the end of a grid stays quick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.entries import Average, Entry
from nsvd_exp.report.model.gaps import Gap
from nsvd_exp.report.model.profiles import ProfileGroup, Quantity
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.render.console import Stdout
from nsvd_exp.report.render.headline import headlines
from nsvd_exp.report.render.profile_tables import quantity_text, quantity_times
from nsvd_exp.report.render.text import (
    change,
    clipped,
    entry_text,
    group_title,
    left_out,
    nats,
    ratio_title,
    times_text,
)

STATE_STYLES = {"failed": "bold red", "partial": "yellow", "missing": "dim"}
WIDEST = 10_000
ROWS_SHOWN = 60
PAIRS_SHOWN = 20
HEADLINES_SHOWN = 12
GAPS_SHOWN = 12
LONGEST_NAME, LONGEST_WORD = 24, 14  # of a method, and of a heading: numbers are never cut


def complain(message: str) -> None:
    """Print a message in red on stderr."""
    console = Console(stderr=True, highlight=False)
    console.print(Text(message, "bold red"), soft_wrap=True)


def show_headlines(groups: Sequence[Group]) -> None:
    """Print what the report says first of each model."""
    console = _console()
    found = headlines(groups)
    for headline in found[:HEADLINES_SHOWN]:
        console.print(Text.assemble((headline.model, "bold"), f": {headline.summary}"))
        for name, rest in headline.sentences:
            console.print(Padding(Text.assemble((name, "bold"), rest), (0, 0, 0, 2)))
    if len(found) > HEADLINES_SHOWN:
        console.print(f"and {len(found) - HEADLINES_SHOWN} models more, on the page")


def show_results(groups: Sequence[Group], keys: Collection[str] | None = None) -> None:
    """Print the stored results as one table per model and setting, as wide as the terminal.

    Datasets that do not fit are left out, and named beneath the table.

    Args:
        keys: of cells; only the ratios at which one of these is stored are shown. None for all.
    """
    console, left = _console(), ROWS_SHOWN
    for group in groups:
        lines = _lines_to_show(group, keys)
        if lines and left:
            _show_group(group, lines[:left], console)
        left = max(0, left - len(lines))
    total = sum(len(_lines_to_show(group, keys)) for group in groups)
    if total:
        console.print(Text(_legend(groups), "dim"))
    if total > ROWS_SHOWN:
        more = total - ROWS_SHOWN
        console.print(f"{more} rows more are on the page, in results.md and in results.csv")


def _legend(groups: Sequence[Group]) -> str:
    sets = left_out(groups)
    return (
        "Perplexity, and in times the dense model's. avg. impro.: mean improvement over ASVD-I"
        + (f", without {sets}" if sets else "")
        + "; nats/dense: mean log perplexity minus the dense model's"
    )


def _show_group(group: Group, lines: Sequence[Line], console: Console) -> None:
    shown = _fitting(group, lines, console)
    console.print(_group_table(group, lines, shown))
    hidden = [title for name, title in group.datasets.items() if name not in shown]
    if hidden:
        console.print(Text(f"no room for: {', '.join(hidden)}", "dim"))


def show_profiles(groups: Sequence[ProfileGroup]) -> None:
    """Print size and speed, one table per model and machine.

    What was measured where the terminal is wide enough, else only times the dense model's.
    """
    console = _console()
    for group in groups:
        whole, short = _profile_table(group, True), _profile_table(group, False)
        unlimited = console.options.update(max_width=WIDEST)
        fits = Width.get(console, unlimited, whole).maximum <= console.width
        console.print(whole if fits else short)


def _profile_table(group: ProfileGroup, with_values: bool) -> Table:
    title = Text(f"{group.model}: size and speed, on {group.machine}", "italic")
    if not with_values:
        title.append("; in times the dense model's")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    table.add_column("re-\nmoved", justify="right", no_wrap=True)
    table.add_column("method, k1", no_wrap=True)
    for heading in group.titles:
        words = heading.replace("tokens/s", "tok/s").replace(",", "").split()
        table.add_column(Text("\n".join(words)), justify="right", no_wrap=True)
    if with_values:
        dense = [quantity_text(group.dense(t), group.is_speed(t)) for t in group.titles]
        table.add_row("", "dense", *dense)
    for line in group.lines:
        k1 = "" if line.row is None or line.row.k1 is None else f" {line.row.k1:g}"
        name = Text(clipped(line.title, LONGEST_NAME) + k1)
        cells = [_quantity(line.quantities.get(title), with_values) for title in group.titles]
        table.add_row(ratio_title(line.ratio), name, *cells)
    return table


def _quantity(quantity: Quantity | None, with_value: bool) -> str:
    if quantity is None:
        return ""
    value = quantity_text(quantity.compressed, quantity.is_speed)
    times = quantity_times(quantity)
    if not times:
        return value
    return f"{value} ({times})" if with_value else times


def show_gaps(gaps: Sequence[Gap]) -> None:
    """Print what is missing, and the commands that fill it."""
    for gap in gaps[:GAPS_SHOWN]:
        say(f"{gap.what}\n    {gap.command}")
    if len(gaps) > GAPS_SHOWN:
        say(f"{len(gaps) - GAPS_SHOWN} gaps more are on the page")


def say(message: str) -> None:
    """Print a message on stdout, in lines as long as they are."""
    _console().print(Text(message), soft_wrap=True)


def show_comparison(comparison: Comparison) -> None:
    """Print the largest differences between two stores."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "method", "ratio", "k1", "dataset", "here", "there", "difference"):
        table.add_column(heading)
    for pair in comparison.pairs[:PAIRS_SHOWN]:
        row = pair.here.row
        settings = ["" if value is None else f"{value:g}" for value in (row.ratio, row.k1)]
        perplexities = [format_perplexity(m.perplexity) for m in (pair.here, pair.there)]
        names = pair.here.cell["model"], row.method
        texts = (*names, *settings, pair.here.dataset, *perplexities, f"{pair.difference:+.3%}")
        table.add_row(*map(Text, texts))
    console = _console()
    console.print(Text(comparison.summary))
    if comparison.pairs:
        console.print(table)


def _console() -> Console:
    """As wide as the terminal, and 80 columns where there is none."""
    return Stdout(highlight=False)


def _lines_to_show(group: Group, keys: Collection[str] | None) -> list[Line]:
    if keys is None:
        return group.lines
    touched = {line.row.ratio for line in group.lines if _holds(line, keys)}
    return [line for line in group.lines if touched and line.row.ratio in touched | {None}]


def _holds(line: Line, keys: Collection[str]) -> bool:
    measured = (m for entry in line.entries.values() for m in entry.measurements)
    return any(measurement.cell["key"] in keys for measurement in measured)


def _fitting(group: Group, lines: Sequence[Line], console: Console) -> list[str]:
    """As many datasets as the terminal is wide, from the left."""
    names, unlimited = list(group.datasets), console.options.update(max_width=WIDEST)
    for count in range(len(names), 1, -1):
        table = _group_table(group, lines, names[:count])
        if Width.get(console, unlimited, table).maximum <= console.width:
            return names[:count]
    return names[:1]


def _group_table(group: Group, lines: Sequence[Line], datasets: Sequence[str]) -> Table:
    title = Text(group_title(group), "italic")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 1, 0, 0)
    table.add_column("re-\nmoved", justify="right", no_wrap=True)
    table.add_column("method, k1", no_wrap=True)
    for name in datasets:
        words = group.datasets[name].split()
        wrapped = "\n".join(clipped(word, LONGEST_WORD) for word in words)
        table.add_column(Text(wrapped), justify="right", no_wrap=True)
    for heading in ("avg.\nimpro.", "nats/\ndense"):
        table.add_column(heading, justify="right", no_wrap=True)
    ratio = None
    for line in lines:
        is_new = line.row.ratio != ratio
        if is_new and ratio is not None:
            table.add_section()
        ratio = line.row.ratio
        cells = [_cell(line.entries[name]) for name in datasets]
        k1 = "" if line.row.k1 is None else f" {line.row.k1:g}"
        method = Text(clipped(line.title, LONGEST_NAME) + k1)
        removed = ratio_title(ratio) if is_new else ""
        table.add_row(removed, method, *cells, *_averages(line.average))
    return table


def _cell(entry: Entry) -> Text:
    style = "bold green" if entry.best else STATE_STYLES.get(entry.state, "")
    return Text(" ".join(filter(None, (entry_text(entry), times_text(entry)))), style)


def _averages(average: Average) -> list[str]:
    improvement = "" if average.improvement is None else change(average.improvement)
    return [
        "ref." if average.is_reference else improvement,
        "" if average.nats is None else nats(average.nats),
    ]
