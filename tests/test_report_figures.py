"""The figures of the report."""

from __future__ import annotations

import math
import random
import re
import statistics
from pathlib import Path

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_store import EIGHT, make_cell, make_papers_tables

from nsvd_exp.experiment.similarity_plan import spread
from nsvd_exp.report import paper, tables
from nsvd_exp.report.entries import METHOD_TITLES, Block
from nsvd_exp.report.figures import (
    DATASET_STYLES,
    METHOD_STYLES,
    OTHER_STYLES,
    against_k1,
    against_ratio,
    figure1,
    save,
)
from nsvd_exp.report.numbers import read_contents
from nsvd_exp.report.protocol import dataset_titles
from nsvd_exp.report.similarities import SimilarityBlock

MAGIC = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


def block_of(results_dir: Path, number: int, model: str = "tiny") -> Block:
    """The model's main block in a table."""
    blocks = tables.build(read_contents(results_dir), [number])[number]
    return next(b for b in blocks if b.model == model and b.place == 0)


def similarity_block(comparable: bool, layers: int = 200) -> SimilarityBlock:
    """One with about the paper's means and deviations."""
    generator = random.Random(0)
    rows = {
        name: [{"mean": max(-1.0, min(1.0, generator.gauss(mean, std)))} for _ in range(layers)]
        for name, (mean, std) in paper.similarities().items()
    }
    spreads = {name: found for name, of in rows.items() if (found := spread(of, "mean"))}
    records = {name: {"layers": of} for name, of in rows.items()}
    return SimilarityBlock(
        "llama-7b", {"mean": spreads}, dataset_titles(), records, 0, [], comparable
    )


def visible(figure: Figure | None) -> list[Axes]:
    assert figure is not None
    return [axes for axes in figure.axes if axes.get_visible()]


def texts_of(axes: Axes) -> str:
    return "\n".join([axes.get_title(), *(text.get_text() for text in axes.texts)])


def lines_of(axes: Axes, marker: str) -> list[tuple[list[float], list[float]]]:
    """x and y of what is drawn with this marker."""
    found = [line for line in axes.lines if line.get_marker() == marker]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two ratios of three methods, and the dense model; one number is missing."""
    make_cell(tmp_path, method="dense", datasets=dict.fromkeys(EIGHT, 3.0))
    for ratio in (0.3, 0.5):
        for method, factor in (("svd", 9.0), ("asvd_i", 1.0), ("nsvd_i", 0.9)):
            numbers = {name: factor * value / (1 - ratio) for name, value in EIGHT.items()}
            if (method, ratio) == ("svd", 0.5):
                del numbers["ptb"]
            make_cell(tmp_path, method=method, ratio=ratio, datasets=numbers)
    return tmp_path


def test_figure_1_has_eight_histograms_on_shared_axes() -> None:
    block = similarity_block(comparable=False)
    panels = visible(figure1(block, "mean"))
    assert [axes.get_title() for axes in panels] == list(dataset_titles().values())
    assert len({axes.get_xlim() for axes in panels}) == 1
    assert len({axes.get_ylim() for axes in panels}) == 1
    for name, axes in zip(block.datasets, panels, strict=True):
        assert sum(patch.get_height() for patch in axes.patches) == 200
        values = [row["mean"] for row in block.records[name]["layers"]]
        said = f"{statistics.fmean(values):.2f} ± {statistics.pstdev(values):.2f}"
        assert said in texts_of(axes)


def test_figure_1_shows_the_papers_mean_where_it_may_be_compared() -> None:
    printed = "paper 0.59 ± 0.17"  # PTB
    ours, theirs = (visible(figure1(similarity_block(c), "mean"))[1] for c in (False, True))
    assert printed not in texts_of(ours)
    assert printed in texts_of(theirs)
    assert len(theirs.lines) == len(ours.lines) + 1


def test_figure_1_shows_what_is_stored_only() -> None:
    block = similarity_block(comparable=False)
    del block.spreads["mean"]["ptb"]
    assert len(visible(figure1(block, "mean"))) == 7


def test_perplexity_against_ratio(grid: Path) -> None:
    panels = visible(against_ratio(block_of(grid, 1)))
    assert [axes.get_title() for axes in panels] == list(dataset_titles().values())
    assert all(axes.get_yscale() == "log" for axes in panels)
    wikitext2, ptb = panels[:2]
    [(ratios, values)] = lines_of(wikitext2, METHOD_STYLES["asvd_i"].marker)
    assert ratios == [0.3, 0.5]
    assert values == pytest.approx([EIGHT["wikitext2"] / 0.7, EIGHT["wikitext2"] / 0.5])
    [(ratios, _)] = lines_of(ptb, METHOD_STYLES["svd"].marker)
    assert ratios == [0.3]
    assert [3.0, 3.0] in [list(line.get_ydata()) for line in wikitext2.lines]


def test_every_log_axis_has_three_labels_or_more(grid: Path) -> None:
    for axes in visible(against_ratio(block_of(grid, 1))):
        low, high = axes.get_ylim()
        assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 3


def test_one_ratio_is_no_curve(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i")
    assert against_ratio(block_of(tmp_path, 1)) is None
    make_cell(tmp_path, method="nsvd_i", k1=0.95)
    assert against_k1(block_of(tmp_path, 3)) is None


def test_the_papers_numbers_are_drawn_for_its_own_model_only(grid: Path) -> None:
    make_papers_tables(grid, 1, "llama-7b")
    ours, papers = (
        visible(against_ratio(block_of(grid, 1, model)))[0] for model in ("tiny", "llama-7b")
    )
    assert lines_of(ours, "+") == []
    [(ratios, values)] = lines_of(papers, "+")
    assert len(ratios) == len(values) == 6 * 5
    assert 9.51 in values


def test_improvement_against_k1(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i")
    factors = {0.99: 0.95, 0.95: 0.9, 0.9: 1.1}
    for k1, factor in factors.items():
        numbers = {name: factor * value for name, value in EIGHT.items()}
        make_cell(tmp_path, method="nsvd_i", k1=k1, datasets=numbers)
    left, right = visible(against_k1(block_of(tmp_path, 3)))
    for style in DATASET_STYLES:
        [(k1s, gains)] = lines_of(left, style.marker)
        assert k1s == [1.0, *factors]
        assert gains == pytest.approx([0.0, *(1 - factor for factor in factors.values())])
    [(_, averages)] = lines_of(right, METHOD_STYLES["nsvd_i"].marker)
    assert averages == pytest.approx(gains)
    assert right.get_xlim()[0] > right.get_xlim()[1]
    for said in ("+5.0%", "+10.0%", "−10.0%"):
        assert said in texts_of(right)


def test_every_method_and_dataset_looks_different() -> None:
    assert set(METHOD_TITLES) == set(METHOD_STYLES)
    styles = [*METHOD_STYLES.values(), *OTHER_STYLES]
    assert len(set(styles)) == len(styles)
    assert len(set(DATASET_STYLES)) == len(paper.datasets())


def test_a_method_of_ones_own_is_drawn_beside_the_papers(grid: Path) -> None:
    for ratio in (0.3, 0.5):
        make_cell(grid, method="asvd_iii", ratio=ratio)
        make_cell(grid, method="svd", ratio=ratio, datasets={"c4": 50.0}, solver="paper")
    figure = against_ratio(block_of(grid, 1))
    assert figure is not None
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "ASVD-III" in labels
    assert len(labels) == len(set(labels))


def test_files_are_the_same_each_time(grid: Path, tmp_path: Path) -> None:
    written = []
    for folder, user in (("one", {}), ("two", {"font.size": 20, "savefig.facecolor": "red"})):
        with matplotlib.rc_context(user):
            figure = against_ratio(block_of(grid, 1))
            assert figure is not None
            written.append(save(figure, tmp_path / folder, "figure"))
    assert [path.suffix for path in written[0]] == [".svg", ".pdf", ".png"]
    for one, two in zip(*written, strict=True):
        content = one.read_bytes()
        assert content.startswith(MAGIC[one.suffix[1:]])
        assert content == two.read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in written[0]
    )


def test_nothing_is_cut_off(grid: Path) -> None:
    """All that is drawn lies within the figure, with room for long names and large numbers."""
    make_papers_tables(grid, 1, "llama-7b")
    make_papers_tables(grid, 3, "llama-7b")
    figures = [
        figure1(similarity_block(comparable=True), "mean"),
        against_ratio(block_of(grid, 1, "llama-7b")),
        against_k1(block_of(grid, 3, "llama-7b")),
    ]
    for figure in figures:
        assert figure is not None
        figure.draw_without_rendering()
        tight = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert tight.x0 >= -0.01
        assert tight.y0 >= -0.01
        assert tight.x1 <= width + 0.01
        assert tight.y1 <= height + 0.01


def test_panels_do_not_run_into_each_other() -> None:
    figure = figure1(similarity_block(comparable=True), "mean")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in visible(figure) for text in axes.texts]
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert not box.overlaps(other)


def test_svg_has_the_colours_that_the_page_replaces(grid: Path, tmp_path: Path) -> None:
    figure = against_ratio(block_of(grid, 1))
    assert figure is not None
    [path] = save(figure, tmp_path, "figure", ["svg"])
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", path.read_text()))
    assert {"#1c2024", "#d9dde2", "#ffffff"} <= colours
    assert "#000000" not in colours
    assert math.isfinite(float(re.findall(r'viewBox="0 0 ([\d.]+)', path.read_text())[0]))
