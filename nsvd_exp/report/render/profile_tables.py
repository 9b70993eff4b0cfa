"""Size and speed as Markdown, LaTeX and records, and their numbers as all formats write them."""

from __future__ import annotations

from collections.abc import Sequence

from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.profiles import ProfileGroup, ProfileLine, Quantity
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
from nsvd_exp.report.render.text import STATES, ratio_title, times

PROFILES_TITLE, DENSE_TITLE = "Size and speed", "dense"
PROFILE_LEGEND = (
    "The compressed model's, and in parentheses in times the dense model's, which was measured in "
    "turns with it (below 1: smaller, or slower), and what counting predicts: parameters for a "
    "size, operations for a prompt, bytes of weights for decoding so many rows at once. Medians; "
    "in the row of the dense model over all profiles."
)


def quantity_text(value: float | None, is_speed: bool) -> str:
    """A size in MB or a speed in tokens per second; `no memory` for a speed that there is none of.

    A size is missing where the system does not tell.
    """
    if value is None:
        return "no memory" if is_speed else STATES["missing"]
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def quantity_times(quantity: Quantity) -> str:
    """The compressed model's in times the dense one's: `×0.82`; empty for none."""
    return "" if quantity.times is None else times(quantity.times)


def predicted_text(quantity: Quantity) -> str:
    """What counting predicts: `counted ×0.82`; empty for nothing."""
    if quantity.predicted is None or quantity.times is None:
        return ""
    return f"counted {times(quantity.predicted)}"


def profile_title(line: ProfileLine) -> str:
    """The method with its k1, or the name of a folder."""
    k1 = None if line.row is None else line.row.k1
    return line.title if k1 is None else f"{line.title}, k1 = {k1:g}"


def profile_markdown(groups: Sequence[ProfileGroup]) -> str:
    """Size and speed, as a Markdown document."""
    parts = [f"# {PROFILES_TITLE}", MARKDOWN.escape(PROFILE_LEGEND)]
    for group in groups:
        title = f"{group.model}, on {group.machine}"
        parts += [f"## {MARKDOWN.escape(title)}", markdown_table(_profile_table(group, MARKDOWN))]
    return "\n\n".join(parts) + "\n"


def profile_latex(groups: Sequence[ProfileGroup]) -> str:
    """Size and speed, as `table` environments."""
    return "\n".join(
        latex_tables(
            _profile_table(group, LATEX),
            f"{PROFILES_TITLE} of {group.model}, on {group.machine}. {PROFILE_LEGEND}",
            f"profiles-{place}",
        )
        for place, group in enumerate(groups)
    )


def _profile_table(group: ProfileGroup, markup: Markup) -> Table:
    """The dense model, and one row per profile."""
    columns = ["Removed", "Method", *group.titles]
    table = Table([markup.escape(title) for title in columns], 2)
    dense = [quantity_text(group.dense(t), group.is_speed(t)) for t in group.titles]
    table.rows.append([Cell(), Cell(DENSE_TITLE), *(Cell(markup.escape(text)) for text in dense)])
    table.sections.append(1)
    for line in group.lines:
        names = (ratio_title(line.ratio), profile_title(line))
        cells = [Cell(markup.escape(name)) for name in names]
        for title in group.titles:
            quantity = line.quantities.get(title)
            text = "" if quantity is None else quantity_text(quantity.compressed, quantity.is_speed)
            said = [quantity_times(quantity), predicted_text(quantity)] if quantity else []
            beneath = "; ".join(filter(None, said))
            cells.append(Cell(markup.escape(text), markup.escape(beneath and f"({beneath})")))
        table.rows.append(cells)
    return table


def profile_records(groups: Sequence[ProfileGroup]) -> list[Record]:
    """Size and speed: one record per profile and quantity."""
    return [
        {
            "model": group.model,
            "machine": group.machine,
            **_fields_of(line.row),
            "subject": line.record["subject"],
            "quantity": quantity.title,
            "dense": quantity.dense,
            "compressed": quantity.compressed,
            "times_dense": quantity.times,
            **bounds_of("times_dense", quantity.spread),
            "predicted": quantity.predicted,
            "key": line.record["key"],
            "created": line.record["created"],
        }
        for group in groups
        for line in group.lines
        for quantity in line.quantities.values()
    ]


def _fields_of(row: Row | None) -> Record:
    return dict.fromkeys(Row._fields) if row is None else row._asdict()
