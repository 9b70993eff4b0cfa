"""From a `results_dir` to the files of its report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.report import (
    compare,
    figures,
    gaps,
    paper,
    records,
    similarities,
    similarity_text,
    tables,
    text,
)
from nsvd_exp.report.compare import Comparison
from nsvd_exp.report.entries import Block
from nsvd_exp.report.gaps import Gap
from nsvd_exp.report.numbers import Contents, read_contents
from nsvd_exp.report.page import Drawing, Page, write_page
from nsvd_exp.report.paper import CAPTIONS
from nsvd_exp.report.similarities import SimilarityBlock
from nsvd_exp.storage.results import write_atomically

TABLES = tuple(CAPTIONS)
SIMILARITY_TABLE = 2
TEXT_FORMATS = ("md", "tex", "csv")
FORMATS = (*TEXT_FORMATS, "html")
INDEX = "index.html"

K1_CAPTION = (
    "Left: each set's perplexity against ASVD-I's (positive: lower). Right: the average over the "
    "sets other than WikiText-2."
)


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        source: the `results_dir`, as the user wrote it.
        numbers: of its tables, in order.
        tables: the blocks of Tables 1, 3, 4, 5, 6, by number.
        similarities: Table 2 and Figure 1; empty where they are not asked for.
        gaps: what is missing, and the commands that do it.
        problems: one message a file that could not be read.
    """

    source: str
    numbers: list[int]
    tables: dict[int, list[Block]]
    similarities: list[SimilarityBlock]
    gaps: list[Gap]
    problems: list[str]


def contents_of(results_dir: str) -> Contents:
    """What a `results_dir` holds.

    Raises:
        NsvdError: nothing that can be read.
    """
    contents = read_contents(Path(expand_path(results_dir)))
    if contents.models:
        return contents
    if contents.problems:
        raise NsvdError("\n".join([f"no result in {results_dir} is usable:", *contents.problems]))
    raise NsvdError(
        f"{results_dir} holds no results yet: to make some, python -m nsvd_exp experiment=table1 "
        f"model=tiny results_dir={results_dir}"
    )


def gather(results_dir: str, numbers: Collection[int] = TABLES, model: str | None = None) -> Report:
    """Read the store.

    Args:
        numbers: of the tables to show.
        model: the title of the one to show; None: all.

    Raises:
        NsvdError: there is no result, or neither the store nor the paper has that model.
    """
    contents = contents_of(results_dir)
    papers = [title for table in paper.tables().values() for title in table.models]
    known = {*contents.models, *papers}
    if model is not None and model not in known:
        raise unknown_name("model", model, known)
    wanted = [number for number in numbers if number != SIMILARITY_TABLE]
    built = tables.build(contents, wanted, model)
    missing = gaps.gaps_of((block for blocks in built.values() for block in blocks), results_dir)
    alike: list[SimilarityBlock] = []
    if SIMILARITY_TABLE in numbers:
        alike = similarities.build(contents, model)
        missing += gaps.similarity_gaps(contents, alike, model, results_dir)
    return Report(results_dir, sorted(numbers), built, alike, missing, contents.problems)


def write(report: Report, out: Path, formats: Collection[str] = FORMATS) -> list[Path]:
    """Write the tables, the figures and, with `html`, the page `index.html`; the files written.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    with _writing(out):
        written = [
            _put(out / f"table{number}.{extension}", content)
            for extension in TEXT_FORMATS
            if extension in formats
            for number, content in _texts(report, extension)
        ]
        drawings = []
        for name, drawing, figure in _drawn(report, out / "figures"):
            written += figures.save(figure, out / "figures", name)
            drawings.append(drawing)
        if "html" in formats:
            written += _pages(report, drawings, out)
    return written


def _put(path: Path, content: str) -> Path:
    write_atomically(path, lambda file: file.write_text(content, encoding="utf-8"))
    return path


def _texts(report: Report, extension: str) -> Iterator[tuple[int, str]]:
    """Number and content of each table in one of TEXT_FORMATS."""
    of_blocks = {"md": text.markdown, "tex": text.latex, "csv": _csv}[extension]
    for number, blocks in report.tables.items():
        if blocks:
            yield number, of_blocks(number, blocks)
    if SIMILARITY_TABLE in report.numbers:
        of_similarities: dict[str, Callable[[list[SimilarityBlock]], str]] = {
            "md": similarity_text.markdown,
            "tex": similarity_text.latex,
            "csv": lambda blocks: _as_csv(records.similarity_frame(blocks)),
        }
        yield SIMILARITY_TABLE, of_similarities[extension](report.similarities)


def _csv(_: int, blocks: Sequence[Block]) -> str:
    return _as_csv(records.numbers_frame(blocks))


def _as_csv(frame: pd.DataFrame) -> str:
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _drawn(report: Report, folder: Path) -> Iterator[tuple[str, Drawing, Figure]]:
    """Name, place on the page and content of each figure: of every model's main setting, Figure 1
    and what there is against ratio and k1."""
    for alike in report.similarities:
        if alike.place == 0 and alike.statistics:
            caption = (
                "Cosine similarity between the calibration set's activations and each evaluation "
                f"set's, one value a compressed layer; statistic: {alike.shown}."
            )
            figure = figures.figure1(alike, alike.shown)
            yield _placed(
                folder, "figure1", SIMILARITY_TABLE, "Figure 1", caption, alike.model, figure
            )
    for number, draw, name, title, caption in (
        (1, figures.against_ratio, "ratio", "Perplexity against ratio", "Logarithmic axis."),
        (3, figures.against_k1, "k1_nsvd", "NSVD-I against k1", K1_CAPTION),
        (4, figures.against_k1, "k1_nid", "NID-I against k1", K1_CAPTION),
    ):
        for block in report.tables.get(number, []):
            drawn = draw(block) if block.setting is not None and block.place == 0 else None
            if drawn is not None:
                yield _placed(folder, name, number, title, caption, block.model, drawn)


def _placed(
    folder: Path, name: str, table: int, title: str, caption: str, model: str, figure: Figure
) -> tuple[str, Drawing, Figure]:
    full_name = f"{name}-{_slug(model)}"
    return full_name, Drawing(table, title, caption, model, folder / f"{full_name}.svg"), figure


def _pages(report: Report, drawings: Sequence[Drawing], out: Path) -> list[Path]:
    """`index.html` with everything, and one page a table."""
    asked = report.similarities if SIMILARITY_TABLE in report.numbers else None
    whole = Page(report.source, report.tables, asked, list(drawings), report.gaps, report.problems)
    pages = {out / INDEX: whole}
    for number in report.numbers:
        pages[out / f"table{number}.html"] = dataclasses.replace(
            whole,
            tables={n: blocks for n, blocks in report.tables.items() if n == number},
            similarities=asked if number == SIMILARITY_TABLE else None,
            drawings=[drawing for drawing in drawings if drawing.table == number],
            gaps=[],
        )
    for path, page in pages.items():
        write_page(path, page)
    return list(pages)


def _slug(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model)


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write every difference of two stores as CSV, and Markdown with a summary.

    Raises:
        NsvdError: `out` cannot be written to.
    """
    frame = compare.frame(comparison)
    body = frame.to_markdown(index=False, disable_numparse=True)
    with _writing(out):
        return [
            _put(out / "compare.csv", _as_csv(frame)),
            _put(out / "compare.md", f"# Comparison\n\n{comparison.summary}\n\n{body}\n"),
        ]


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
    """Log a report as one W&B run: what `write` has written, its page among it."""
    from nsvd_exp.tracking.report import log_report

    frames = {f"table{n}": records.numbers_frame(b) for n, b in report.tables.items() if b}
    if SIMILARITY_TABLE in report.numbers:
        frames[f"table{SIMILARITY_TABLE}"] = records.similarity_frame(report.similarities)
    images = [path for path in written if path.suffix == ".png"]
    page = next(path for path in written if path.name == INDEX)
    directory = Path(expand_path(report.source))
    log_report(frames, images, page, mode, project, entity, directory)
