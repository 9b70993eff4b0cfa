"""Writing a report: its tables, its figures and its pages, into one folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.methods import shown_method
from nsvd_exp.report.model.report import SIMILARITY_TABLE, Report
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block
from nsvd_exp.report.render import documents, figures, records
from nsvd_exp.report.render.page import Drawing, Page, page_text
from nsvd_exp.report.render.plot_style import save
from nsvd_exp.storage.files import write_atomically

TEXT_FORMATS = ("md", "tex", "csv")
FORMATS = (*TEXT_FORMATS, "html")
INDEX = "index.html"

FIGURE1_CAPTION = (
    "Cosine similarity between the calibration set's activations and each evaluation set's, one "
    "value a compressed layer; statistic: {}."
)
K1_CAPTION = (
    "Left: each set's perplexity against ASVD-I's (positive: lower). Right: the average over the "
    "sets other than WikiText-2."
)


def write(report: Report, out: Path, formats: Collection[str] = FORMATS) -> list[Path]:
    """Write the tables, the figures and, with `html`, the page `index.html`.

    Returns:
        The files that were written.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    with _writing(out):
        written = [
            _put(out / f"table{number}.{extension}", content)
            for extension in TEXT_FORMATS
            if extension in formats
            for number, content in table_texts(report, extension)
        ]
        drawings = []
        for drawing, figure in _drawn(report, out / "figures"):
            written += save(figure, drawing.svg.parent, drawing.svg.stem)
            drawings.append(drawing)
        if "html" in formats:
            written += [
                _put(out / name, page_text(page)) for name, page in _pages(report, drawings)
            ]
    return written


def table_texts(report: Report, extension: str) -> Iterator[tuple[int, str]]:
    """The number and the content of each table in one of TEXT_FORMATS."""
    for number, blocks in report.tables.items():
        if blocks and extension == "csv":
            yield number, records.csv_text(records.perplexity_frame(blocks))
        elif blocks:
            document = documents.markdown if extension == "md" else documents.latex
            yield number, document(number, blocks)
    if SIMILARITY_TABLE in report.numbers:
        of_similarities: dict[str, Callable[[list[SimilarityBlock]], str]] = {
            "md": documents.similarity_markdown,
            "tex": documents.similarity_latex,
            "csv": lambda blocks: records.csv_text(records.similarity_frame(blocks)),
        }
        yield SIMILARITY_TABLE, of_similarities[extension](report.similarities)


def _drawn(report: Report, folder: Path) -> Iterator[tuple[Drawing, Figure]]:
    """The figures of every model's main setting, each with its file and its place on the page."""
    for alike in report.similarities:
        if alike.place == 0 and alike.statistics:
            caption = FIGURE1_CAPTION.format(alike.shown)
            svg = folder / _file_name("figure1", alike.model)
            drawing = Drawing(SIMILARITY_TABLE, "Figure 1", caption, alike.model, svg)
            yield drawing, figures.figure1(alike, alike.shown)
    for number, draw, name, title, caption in _curves():
        for block in report.tables.get(number, []):
            figure = draw(block) if block.setting is not None and block.place == 0 else None
            if figure is not None:
                svg = folder / _file_name(name, block.model)
                yield Drawing(number, title, caption, block.model, svg), figure


def _curves() -> Iterator[tuple[int, Callable[[Block], Figure | None], str, str, str]]:
    """Table, function, file name, title and caption of each figure with curves."""
    yield 1, figures.against_ratio, "ratio", "Perplexity against ratio", "Logarithmic axis."
    for number, table in paper.tables().items():
        for method in sorted(table.varied):
            name, title = f"k1_{method.partition('_')[0]}", shown_method(method).title
            yield number, figures.against_k1, name, f"{title} against k1", K1_CAPTION


def _file_name(figure: str, model: str) -> str:
    slug = re.sub(r"[^\w.-]+", "-", model)
    return f"{figure}-{slug}.svg"


def _pages(report: Report, drawings: Sequence[Drawing]) -> Iterator[tuple[str, Page]]:
    """The file name and the content of `index.html` and of one page per table."""
    asked = report.similarities if SIMILARITY_TABLE in report.numbers else None
    whole = Page(report.source, report.tables, asked, list(drawings), report.gaps, report.problems)
    yield INDEX, whole
    for number in report.numbers:
        yield (
            f"table{number}.html",
            dataclasses.replace(
                whole,
                tables={n: blocks for n, blocks in report.tables.items() if n == number},
                similarities=asked if number == SIMILARITY_TABLE else None,
                drawings=[drawing for drawing in drawings if drawing.table == number],
                gaps=[],
            ),
        )


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write every difference of two stores as CSV, and as Markdown with a summary.

    Returns:
        The files that were written.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    frame = records.comparison_frame(comparison)
    body = frame.to_markdown(index=False, disable_numparse=True)
    with _writing(out):
        return [
            _put(out / "compare.csv", records.csv_text(frame)),
            _put(out / "compare.md", f"# Comparison\n\n{comparison.summary}\n\n{body}\n"),
        ]


def _put(path: Path, content: str) -> Path:
    write_atomically(path, lambda file: file.write_text(content, encoding="utf-8"))
    return path


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NsvdError(
            f"the report cannot be written to {out}: {error.strerror}; give another folder, --out"
        ) from None


def log_to_wandb(
    report: Report, written: Sequence[Path], mode: str, project: str, entity: str | None
) -> None:
    """Log a report as one W&B run.

    Args:
        written: what `write` has written, with the page.
        mode: `online` or `offline`.
    """
    from nsvd_exp.tracking.report import log_report

    frames = {f"table{n}": records.perplexity_frame(b) for n, b in report.tables.items() if b}
    if SIMILARITY_TABLE in report.numbers:
        frames[f"table{SIMILARITY_TABLE}"] = records.similarity_frame(report.similarities)
    images = [path for path in written if path.suffix == ".png"]
    page = next(path for path in written if path.name == INDEX)
    directory = Path(expand_path(report.source))
    log_report(frames, images, page, mode, project, entity, directory)
