"""Writing a report: its tables, its figures and its pages, into one folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.report import SIMILARITY_TABLE, Report
from nsvd_exp.report.render import (
    accuracies,
    continuations,
    documents,
    equal_size,
    markup,
    profile_tables,
    records,
)
from nsvd_exp.report.render.page import Drawing, page_text
from nsvd_exp.report.render.planned import Planned, planned_figures
from nsvd_exp.report.render.plot_style import save, svg_text
from nsvd_exp.report.writing import put, writing
from nsvd_exp.storage.keys import digest

RESULTS, PROFILES = "results", "profiles"
LONGEST_NAME = 60
TEXT_FORMATS = ("md", "tex", "csv")
FORMATS = (*TEXT_FORMATS, "html")
INDEX = "index.html"

Forms = tuple[Callable[..., str], Callable[..., str], Callable[..., list[records.Record]]]
"""What makes one table as Markdown, as LaTeX, and as the records of a CSV file."""

FIGURE_FORMATS = ("svg", "pdf", "png")
# Drawing takes longest: of a store of many cells it is few figures, and the page's alone.
LARGE_STORE = 300
FIGURES_OF_LARGE_STORE = 2


def write(
    report: Report,
    out: Path,
    formats: Collection[str] = FORMATS,
    with_paper: bool = False,
    all_figures: bool = False,
) -> list[Path]:
    """Write the tables, the figures and, with `html`, the page `index.html`.

    Args:
        with_paper: whether the paper's numbers stand beside ours; the page has a switch for them.
        all_figures: whether to draw all figures of a large store too.

    Returns:
        The files that were written.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    with writing("the report", out, "folder"):
        written = [
            put(out / f"{name}.{extension}", content)
            for extension in TEXT_FORMATS
            if extension in formats
            for name, content in table_texts(report, extension, with_paper)
        ]
        planned = list(planned_figures(report))
        is_large = sum(len(group.setting.cells) for group in report.groups) > LARGE_STORE
        few = is_large and not all_figures
        kept = planned[:FIGURES_OF_LARGE_STORE] if few else planned
        kinds = FIGURE_FORMATS[:1] if few else FIGURE_FORMATS
        drawings = []
        for one in kept:
            stem = _stem(one.name, one.model)
            svg, *others = save(one.draw(with_paper), out / "figures", stem, kinds)
            written += [svg, *others]
            if "html" in formats:
                drawings.append(_drawing(one, svg.read_text(encoding="utf-8"), with_paper))
        if "html" in formats:
            undrawn = list(dict.fromkeys(one.model for one in planned[len(kept) :]))
            page = page_text(report, drawings, undrawn, with_paper)
            written.append(put(out / INDEX, page))
    return written


def table_texts(
    report: Report, extension: str, with_paper: bool = False
) -> Iterator[tuple[str, str]]:
    """The name and the content of each table in one of TEXT_FORMATS.

    LaTeX has one more, `all`, which compiles the others.
    """
    texts = dict(_table_texts(report, extension, with_paper))
    if extension == "tex":
        texts["all"] = markup.latex_document(list(texts))
    yield from texts.items()


def _table_texts(report: Report, extension: str, with_paper: bool) -> Iterator[tuple[str, str]]:
    def written(forms: Forms, *shown: object) -> str:
        markdown, latex, rows = forms
        if extension == "csv":
            return records.csv_text(rows(*shown))
        return (markdown if extension == "md" else latex)(*shown)

    forms: Forms
    if report.groups:
        forms = documents.results_markdown, documents.results_latex, records.of_results
        yield RESULTS, written(forms, report.groups)
    for number, blocks in report.tables.items():
        markdown, latex = (
            functools.partial(f, number) for f in (documents.markdown, documents.latex)
        )
        forms = markdown, latex, records.of_layout
        yield f"table{number}", written(forms, blocks, with_paper)
    if report.profiles:
        one = profile_tables
        forms = one.profile_markdown, one.profile_latex, one.profile_records
        yield PROFILES, written(forms, report.profiles)
    if report.equal_size:
        forms = equal_size.markdown, equal_size.latex, equal_size.records
        yield equal_size.NAME, written(forms, report.equal_size)
    if report.accuracies:
        forms = accuracies.markdown, accuracies.latex, accuracies.records
        yield accuracies.NAME, written(forms, report.accuracies)
    if report.continuations and extension == "md":
        yield continuations.NAME, continuations.markdown(report.continuations)
    if report.similarities:
        forms = documents.similarity_markdown, documents.similarity_latex, records.of_similarities
        shown = report.similarities, with_paper
        yield f"table{SIMILARITY_TABLE}", written(forms, *shown)


def _drawing(planned: Planned, svg: str, with_paper: bool) -> Drawing:
    """The figure for the page; where the paper has numbers, with and without them.

    Args:
        svg: as it was drawn `with_paper` or without.
    """
    if not planned.has_paper:
        return Drawing(planned.title, planned.caption, planned.model, svg)
    both = {with_paper: svg, not with_paper: svg_text(planned.draw(not with_paper))}
    return Drawing(planned.title, planned.caption, planned.model, both[False], both[True])


def _stem(figure: str, model: str) -> str:
    """The name of a figure's files; two models have different ones."""
    slug = re.sub(r"[^\w.-]+", "-", model, flags=re.ASCII)
    if slug != model or len(slug) > LONGEST_NAME:
        slug = f"{slug[:LONGEST_NAME]}-{digest(model)[:8]}"
    return f"{figure}-{slug}"


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write every difference of two stores as CSV, and as Markdown with a summary.

    Returns:
        The files that were written.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    found = records.of_comparison(comparison)
    body = documents.records_markdown(found)
    with writing("the report", out, "folder"):
        return [
            put(out / "compare.csv", records.csv_text(found)),
            put(out / "compare.md", f"# Comparison\n\n{comparison.summary}\n\n{body}\n"),
        ]


def log_to_wandb(
    report: Report, written: Sequence[Path], mode: str, project: str, entity: str | None
) -> None:
    """Log a report as one W&B run.

    Args:
        written: what `write` has written, with the page.
        mode: `online` or `offline`.
    """
    import pandas

    from nsvd_exp.tracking.report import log_report

    found = {RESULTS: records.of_results(report.groups)}
    found |= {f"table{n}": records.of_layout(b, True) for n, b in report.tables.items()}
    if report.equal_size:
        found[equal_size.NAME] = equal_size.records(report.equal_size)
    if report.profiles:
        found[PROFILES] = profile_tables.profile_records(report.profiles)
    if report.similarities:
        found[f"table{SIMILARITY_TABLE}"] = records.of_similarities(report.similarities, True)
    if report.accuracies:
        found[accuracies.NAME] = accuracies.records(report.accuracies)
    frames = {name: pandas.DataFrame(rows) for name, rows in found.items()}
    images = [path for path in written if path.suffix == ".png"]
    page = next(path for path in written if path.name == INDEX)
    directory = Path(expand_path(report.source))
    log_report(frames, images, page, mode, project, entity, directory)
