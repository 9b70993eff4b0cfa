"""What a person sees in the terminal: messages on stderr, tables on stdout. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nsvd_exp.cli.fitting import Column, Form, Forms, fitting, in_blocks, table_of
from nsvd_exp.cli.outcome import Outcome
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import SIMILARITY_STATISTICS
from nsvd_exp.experiment.record import spread
from nsvd_exp.experiment.wording import format_perplexity, label_of
from nsvd_exp.report.render.console import Stdout
from nsvd_exp.storage.results import Result

# Of a grid's table, by what was measured: its title, and the columns that name a job.
TITLES = {
    "perplexity": "Perplexity",
    "zeroshot": "Accuracy in %, ± standard error",
    "similarity": "Similarity, mean ± std over layers",
}
COLUMNS = {
    "perplexity": ("model", "method", "ratio", "k1"),
    "zeroshot": ("model", "method", "ratio", "k1"),
    "similarity": ("model", "measure"),
}
NAMES = ("method", "measure")

SHOWN_BY_COLUMNS = (
    *("model", "method", "ratio", "k1", "dataset", "experiment"),
    *("measure", "similarity.statistic", "tasks"),
)

STATE_STYLES = {"done": "green", "skipped": "cyan", "failed": "bold red"}


def show(forms: Forms) -> None:
    """Print a table to stdout in the form that fits the terminal, or 80 characters without one."""
    width = Console().width
    form = fitting(forms, width)
    console = Stdout(width=max(width, form.width), highlight=False)
    console.print(Text(form.title, style="italic"))
    for table in form.tables:
        console.print()
        console.print(table)
    console.print()


def stderr() -> Console:
    """Where progress and messages go."""
    return Console(stderr=True, highlight=False)


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
) -> Forms:
    """The perplexities of one cell, one row for each dataset, beside the dense model's if given."""
    model, method, ratio, k1 = label_of(config)
    settings = [f"ratio {ratio}" if ratio else "", f"k1 {k1}" if k1 else ""]
    heading = "\n".join(filter(None, (method, *settings)))
    values = {name: number["perplexity"] for name, number in numbers.items()}
    columns = [
        Column("dataset", [config.dataset[name].title for name in numbers]),
        number_column(heading, map(format_perplexity, values.values()), style="bold"),
    ]
    if dense is not None:
        base = {name: dense[name]["perplexity"] for name in numbers}
        columns.insert(1, number_column("dense", map(format_perplexity, base.values())))
        times = [format_perplexity(values[name] / base[name]) for name in numbers]
        columns.append(number_column("times\ndense", times))
    extents = (f"{number['windows']} x {number['length']}" for number in numbers.values())
    extent = number_column("windows\nx tokens", extents, style="dim")
    return with_or_without(f"Perplexity of {model}", columns, [extent])


def similarity_table(config: Config, records: list[Result]) -> Forms:
    """Similarities over the layers, one row for each dataset; the statistic asked for is first."""
    asked = config.similarity.statistic
    datasets = [record["dataset"] for record in records]
    columns = [Column("dataset", [dataset["title"] for dataset in datasets])]
    for name in sorted(SIMILARITY_STATISTICS, key=lambda name: name != asked):
        texts = (format_similarity(record, name) for record in records)
        columns.append(number_column(name, texts, style="bold" if name == asked else ""))
    layers = number_column("layers", (_layers(record, asked) for record in records), style="dim")
    extents = (f"{dataset['windows']} x {dataset['length']}" for dataset in datasets)
    extent = number_column("windows\nx tokens", extents, style="dim")
    title = f"Similarity of {config.model.title}'s activations to {_calibration(records)}"
    return with_or_without(
        f"{title}, mean ± std over layers", columns[:2], [layers, extent], columns[2:]
    )


def number_column(heading: str, texts: Iterable[str], style: str = "") -> Column:
    """A column of numbers, all in one style."""
    shown = list(texts)
    return Column(heading, shown, is_number=True, styles=[style] * len(shown))


def with_or_without(
    title: str, columns: list[Column], details: list[Column], others: Sequence[Column] = ()
) -> Forms:
    """Columns with details and others beside them, which go one by one, from the right."""

    def forms(_: int) -> Iterator[Form]:
        yield Form(title, [table_of([*columns, *others, *details])])
        extra = [*others, *details]
        for count in range(len(extra), -1, -1):
            yield Form(title, [table_of([*columns, *extra[:count]], is_tight=True)])

    return forms


def _layers(record: Result, statistic: str) -> str:
    """How many layers there are; and of how many the statistic is known, if not of all."""
    total, over_layers = len(record["layers"]), spread(record["layers"], statistic)
    known = over_layers.layers if over_layers else 0
    return f"{total}" if known == total else f"{known} of {total}"


def _calibration(records: list[Result]) -> str:
    return str(records[0]["calibration"]["title"])


def grid_table(outcomes: list[Outcome]) -> Forms:
    """What became of the jobs of one measure, and their values: one row for each job.

    In a narrow terminal, what all jobs have in common goes to the title, the sets become the rows,
    or the sets are spread over several tables.
    """
    measure = outcomes[0].measure
    title, tally = TITLES[measure], _tally(outcomes)
    state = Column(
        "state", [o.state for o in outcomes], styles=[STATE_STYLES[o.state] for o in outcomes]
    )
    labels = _labels(outcomes, measure)
    names = list(dict.fromkeys(name for o in outcomes for name in o.values))
    headings = {name: name.replace("_", "\n") for name in names}
    numbers = [
        number_column(headings[name], (o.values.get(name, "–") for o in outcomes)) for name in names
    ]
    # The method, or else the measure, stays: a row needs a name.
    common = {c.heading: text for c in labels if c.heading not in NAMES and (text := _common(c))}
    narrow = [c for c in labels if c.heading not in common and any(c.texts)]
    title_of_narrow = ", ".join([title, *(f"{name} {text}" for name, text in common.items())])

    def forms(width: int) -> Iterator[Form]:
        yield Form(f"{title} ({tally})", [table_of([state, *labels, *numbers])])
        narrow_title = f"{title_of_narrow} ({tally})"
        if len(outcomes) > 1:
            yield Form(narrow_title, [table_of([*narrow, *numbers])])
            yield Form(narrow_title, [table_of([*narrow, *numbers], is_tight=True)])
        if names:
            yield Form(narrow_title, [_transposed(narrow, names, outcomes)])
        yield Form(narrow_title, in_blocks(narrow, numbers, width))

    return forms


def _labels(outcomes: list[Outcome], measure: str) -> list[Column]:
    """The columns that name a job."""
    columns = [
        Column(heading, [o.label[i] for o in outcomes], is_number=heading in ("ratio", "k1"))
        for i, heading in enumerate(COLUMNS[measure])
    ]
    others = other_settings(outcomes)
    return [*columns, Column("also", others)] if any(others) else columns


def _common(column: Column) -> str | None:
    """The one text in a column, apart from jobs which have no such setting."""
    texts = set(filter(None, column.texts))
    return texts.pop() if len(texts) == 1 and column.heading != "also" else None


def _transposed(labels: list[Column], names: list[str], outcomes: list[Outcome]) -> Table:
    """One row for each set, and one column for each job."""
    columns = [Column("dataset", names)]
    for index, outcome in enumerate(outcomes):
        heading = "\n".join(c.texts[index] for c in labels)
        columns.append(number_column(heading, (outcome.values.get(name, "–") for name in names)))
    return table_of(columns, is_tight=True)


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


def _tally(outcomes: list[Outcome]) -> str:
    counts = {state: sum(o.state == state for o in outcomes) for state in STATE_STYLES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def failure_lines(outcomes: list[Outcome]) -> list[str]:
    """One line for each failed job: which, and why."""
    return [
        f"{' '.join(part for part in o.label if part)}: {o.message}"
        for o in outcomes
        if o.state not in ("done", "skipped")
    ]
