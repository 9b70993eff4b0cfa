"""The scores at tasks as a person sees them in the terminal. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nsvd_exp.cli.fitting import Column, Forms
from nsvd_exp.cli.terminal import number_column, with_or_without
from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.wording import label_of
from nsvd_exp.experiment.zeroshot import (
    MEAN,
    Accuracy,
    accuracy_of,
    difference,
    format_accuracy,
    format_difference,
    mean,
)
from nsvd_exp.storage.results import Result


def texts(scores: Mapping[str, Result]) -> dict[str, str]:
    """The accuracy at each task, and the mean over tasks, as a grid's table shows them."""
    own = {name: accuracy_of(score) for name, score in scores.items()}
    shown = {name: format_accuracy(accuracy) for name, accuracy in own.items()}
    return shown | ({MEAN: format_accuracy(mean(own.values()))} if len(own) > 1 else {})


def table(
    config: Config, scores: Mapping[str, Result], dense: Mapping[str, Result] | None
) -> Forms:
    """The scores of one cell, one row for each task, beside the dense model's if given."""
    model, method, ratio, k1 = label_of(config)
    settings = [f"ratio {ratio}" if ratio else "", f"k1 {k1}" if k1 else ""]
    has_mean = len(scores) > 1

    def accuracies(
        heading: str,
        parts: Mapping[str, Accuracy],
        write: Callable[[Accuracy | None], str] = format_accuracy,
        style: str = "",
    ) -> Column:
        shown = [write(parts.get(name)) for name in scores]
        whole = mean(parts.values()) if len(parts) == len(scores) else None
        return number_column(heading, shown + [write(whole)] * has_mean, style)

    def detail(heading: str, shown: Iterable[str], style: str = "dim") -> Column:
        return number_column(heading, [*shown, *[""] * has_mean], style)

    own = {name: accuracy_of(score) for name, score in scores.items()}
    columns = [
        Column("task", [*scores, *[MEAN] * has_mean]),
        accuracies("\n".join(filter(None, (method, *settings))), own, style="bold"),
    ]
    if dense is not None:
        both = {name: dense[name] for name in scores if name in dense}
        base = {name: accuracy_of(score) for name, score in both.items()}
        less = {name: difference(scores[name], score) for name, score in both.items()}
        columns.insert(1, accuracies("dense", base))
        columns.append(accuracies("difference", less, format_difference))
    rows = scores.values()
    chances = (row["chance"] for row in rows)
    details = [
        detail("chance", ("" if chance is None else f"{100 * chance:.1f}" for chance in chances)),
        detail("metric", (row["metric"].partition(",")[0] for row in rows)),
        detail("documents", (f"{row['documents']}" for row in rows)),
    ]
    return with_or_without(f"Accuracy of {model} in %, ± standard error", columns, details)
