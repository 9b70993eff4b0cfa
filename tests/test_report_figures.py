"""The figures of the report."""

from __future__ import annotations

import math
import random
import re
import statistics
from pathlib import Path

import matplotlib
import pytest
from helpers.report_store import EIGHT, groups_of, make_cell, make_papers_tables, scaled
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nsvd_exp.config.files import method_files
from nsvd_exp.experiment.record import spread
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.methods import ShownMethod, shown_method
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.render.figures import (
    against_ratio,
    by_method,
    figure1,
    has_printed_ratios,
)
from nsvd_exp.report.render.k1_figure import against_k1, k1_curves
from nsvd_exp.report.render.plot_style import (
    DATASET_STYLES,
    GROUND,
    INK,
    OTHER_STYLES,
    RULE,
    Style,
    save,
    style_of,
)

MAGIC = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


def main_group(results_dir: Path, model: str = "tiny") -> Group:
    """The model's main setting."""
    return groups_of(results_dir, model)[0]


def own_style(method: str) -> Style:
    """The style that `conf/method` gives a method."""
    style = style_of(shown_method(method))
    assert style is not None
    return style


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


def visible(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def texts_of(axes: Axes) -> str:
    return "\n".join([axes.get_title(), *(text.get_text() for text in axes.texts)])


def lines_of(axes: Axes, marker: str) -> list[tuple[list[float], list[float]]]:
    """x and y of what is drawn with this marker."""
    found = [line for line in axes.lines if line.get_marker() == marker]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


def make_grid(results_dir: Path) -> None:
    """Store two ratios of three methods, and the dense model; one number is missing."""
    make_cell(results_dir, method="dense", datasets=dict.fromkeys(EIGHT, 3.0))
    for ratio in (0.3, 0.5):
        for method, factor in (("svd", 9.0), ("asvd_i", 1.0), ("nsvd_i", 0.9)):
            numbers = scaled(factor / (1 - ratio))
            if (method, ratio) == ("svd", 0.5):
                del numbers["ptb"]
            make_cell(results_dir, method=method, ratio=ratio, datasets=numbers)


def make_k1_grid(results_dir: Path, factors: dict[float, float]) -> None:
    """Store ASVD-I, and NSVD-I with each k1 at `factors` times its perplexities."""
    make_cell(results_dir, method="asvd_i")
    for k1, factor in factors.items():
        make_cell(results_dir, method="nsvd_i", k1=k1, datasets=scaled(factor))


@pytest.fixture(scope="module")
def ratio_figure(tmp_path_factory: pytest.TempPathFactory) -> Figure:
    """Perplexity against ratio of a grid."""
    folder = tmp_path_factory.mktemp("grid")
    make_grid(folder)
    return against_ratio(main_group(folder))


@pytest.fixture(scope="module")
def papers_group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """`llama-7b` under the paper's protocol, with the rows of Tables 1 and 3."""
    folder = tmp_path_factory.mktemp("papers")
    for number in (1, 3):
        make_papers_tables(folder, number, "llama-7b")
    return main_group(folder, "llama-7b")


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
    ours, theirs = (visible(figure1(similarity_block(c), "mean", True))[1] for c in (False, True))
    assert printed not in texts_of(visible(figure1(similarity_block(True), "mean"))[1])
    assert printed not in texts_of(ours)
    assert printed in texts_of(theirs)
    assert len(theirs.lines) == len(ours.lines) + 1


def test_figure_1_shows_what_is_stored_only() -> None:
    block = similarity_block(comparable=False)
    del block.spreads["mean"]["ptb"]
    assert len(visible(figure1(block, "mean"))) == 7


def test_perplexity_against_ratio(ratio_figure: Figure) -> None:
    panels = visible(ratio_figure)
    assert [axes.get_title() for axes in panels] == list(dataset_titles().values())
    assert all(axes.get_yscale() == "log" for axes in panels)
    wikitext2, ptb = panels[:2]
    [(ratios, values)] = lines_of(wikitext2, own_style("asvd_i").marker)
    assert ratios == [0.3, 0.5]
    assert values == pytest.approx([EIGHT["wikitext2"] / 0.7, EIGHT["wikitext2"] / 0.5])
    [(ratios, _)] = lines_of(ptb, own_style("svd").marker)
    assert ratios == [0.3]
    assert [3.0, 3.0] in [list(line.get_ydata()) for line in wikitext2.lines]


def test_every_log_axis_has_three_labels_or_more(ratio_figure: Figure) -> None:
    for axes in visible(ratio_figure):
        low, high = axes.get_ylim()
        assert len([tick for tick in axes.get_yticks() if low <= tick <= high]) >= 3


def test_one_ratio_has_a_row_for_each_method(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense", datasets=scaled(0.3))
    for method, factor in (("svd", 2.0), ("asvd_i", 1.0), ("nsvd_i", 0.9)):
        make_cell(tmp_path, method=method, datasets=scaled(factor))
    group = main_group(tmp_path)
    assert k1_curves(group) == []
    figure = against_ratio(group)
    panels = visible(figure)
    assert [axes.get_title() for axes in panels] == list(dataset_titles().values())
    titles = [label.get_text() for label in panels[0].get_yticklabels()]
    assert titles == ["SVD", "ASVD-I", "NSVD-I, k1 = 0.95"]
    [(values, places)] = lines_of(panels[1], own_style("asvd_i").marker)
    assert (values, places) == ([EIGHT["ptb"]], [1.0])
    assert figure.legends[0].get_title().get_text() == "30% of the parameters removed"


@pytest.mark.parametrize(("sets", "columns"), [(1, 1), (2, 2), (5, 3), (6, 3), (7, 4), (8, 4)])
def test_every_column_has_an_axis_label(tmp_path: Path, sets: int, columns: int) -> None:
    some = {name: EIGHT[name] for name in list(EIGHT)[:sets]}
    for ratio in (0.3, 0.5):
        make_cell(tmp_path, method="svd", ratio=ratio, datasets=some)
    labels = [axes.get_xlabel() for axes in visible(against_ratio(main_group(tmp_path)))]
    assert labels == [""] * (sets - columns) + ["parameters removed"] * columns


@pytest.mark.parametrize("count", [5, 20])
def test_tick_labels_do_not_touch(tmp_path: Path, count: int) -> None:
    values = [round(0.05 + 0.9 * place / count, 3) for place in range(count)] + [0.955]
    for value in values:
        make_cell(tmp_path, method="svd", ratio=value)
        make_cell(tmp_path, method="asvd_i", ratio=value)
        make_cell(tmp_path, method="nsvd_i", ratio=0.5, k1=value)
    make_cell(tmp_path, method="asvd_i", ratio=0.5)
    group = main_group(tmp_path)
    assert k1_curves(group) == [("nsvd_i", 0.5)]
    for figure in (against_ratio(group), against_k1(group, "nsvd_i", 0.5)):
        figure.draw_without_rendering()
        for axes in visible(figure):
            labels = [label for label in axes.get_xticklabels() if label.get_text()]
            boxes = [label.get_window_extent() for label in labels if label.get_visible()]
            for place, box in enumerate(boxes):
                # A label of the lower row begins with an empty line, which is no ink.
                for other, label in zip(boxes[:place], labels, strict=False):
                    lines = {label.get_text().count("\n"), labels[place].get_text().count("\n")}
                    assert len(lines) == 2 or not box.overlaps(other)


def test_a_method_of_several_k1_has_one_curve(tmp_path: Path) -> None:
    for ratio in (0.3, 0.5):
        make_cell(tmp_path, method="nsvd_i", ratio=ratio, k1=0.9)
    make_cell(tmp_path, method="nsvd_i", ratio=0.3, k1=0.99)
    labels = against_ratio(main_group(tmp_path)).legends[0].get_texts()
    assert [text.get_text() for text in labels] == ["NSVD-I, k1 = 0.9"]


def test_the_papers_numbers_are_drawn_when_asked_for(papers_group: Group) -> None:
    assert lines_of(visible(against_ratio(papers_group))[0], "+") == []
    assert has_printed_ratios(papers_group)
    [(ratios, values)] = lines_of(visible(against_ratio(papers_group, True))[0], "+")
    assert set(ratios) == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert len(ratios) == len(values) >= 6 * 5
    assert 9.51 in values
    assert paper.perplexities_of("tiny") == {}


def test_improvement_against_k1(tmp_path: Path) -> None:
    factors = {0.99: 0.95, 0.95: 0.9, 0.9: 1.1}
    make_k1_grid(tmp_path, factors)
    left, right = visible(against_k1(main_group(tmp_path), "nsvd_i", 0.3))
    for style in DATASET_STYLES:
        [(k1s, gains)] = lines_of(left, style.marker)
        assert k1s == [1.0, *factors]
        assert gains == pytest.approx([0.0, *(1 - factor for factor in factors.values())])
    [(_, averages)] = lines_of(right, own_style("nsvd_i").marker)
    assert averages == pytest.approx(gains)
    assert right.get_xlim()[0] > right.get_xlim()[1]
    for said in ("+5.0%", "+10.0%", "−10.0%"):
        assert said in texts_of(right)


def test_every_method_and_dataset_looks_different() -> None:
    compressed = [name for name in method_files() if name != "dense"]
    styles = [*map(own_style, compressed), *OTHER_STYLES]
    assert len(set(styles)) == len(styles)
    assert len(set(DATASET_STYLES)) == len(paper.datasets())


@pytest.mark.parametrize(
    "plot", [{}, {"color": "blu"}, {"marker": "o"}, {"color": "blue", "marker": "heart"}]
)
def test_what_matplotlib_does_not_know_is_no_style(
    plot: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert style_of(ShownMethod("mine", "Mine", plot=plot)) is None
    assert ("method mine" in caplog.text) == bool(plot)


def test_a_method_of_ones_own_is_drawn_beside_the_papers(tmp_path: Path) -> None:
    make_cell(tmp_path, method="svd", ratio=0.3)
    for ratio in (0.3, 0.5):
        block = {"name": "mine", "title": "Mine", "plot": {"color": "red", "marker": "<"}}
        make_cell(tmp_path, method="mine", ratio=ratio, method_block=block)
        make_cell(tmp_path, method="other", ratio=ratio, method_block={"name": "other"})
    figure = against_ratio(main_group(tmp_path))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["SVD", "Mine", "other"]
    for marker in ("<", OTHER_STYLES[0].marker):
        [(ratios, _)] = lines_of(figure.axes[0], marker)
        assert ratios == [0.3, 0.5]


def test_files_are_the_same_each_time(tmp_path: Path) -> None:
    make_k1_grid(tmp_path, {0.95: 0.9, 0.9: 0.8})
    written = []
    for folder, user in (("one", {}), ("two", {"font.size": 20, "savefig.facecolor": "red"})):
        with matplotlib.rc_context(user):
            figure = against_k1(main_group(tmp_path), "nsvd_i", 0.3)
            written.append(save(figure, tmp_path / folder, "figure", list(MAGIC)))
    assert [path.suffix for path in written[0]] == [".svg", ".pdf", ".png"]
    for one, two in zip(*written, strict=True):
        content = one.read_bytes()
        assert content.startswith(MAGIC[one.suffix[1:]])
        assert content == two.read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in written[0]
    )


def test_nothing_is_cut_off(papers_group: Group) -> None:
    """All that is drawn lies within the figure, with room for long names and large numbers."""
    figures = [
        figure1(similarity_block(comparable=True), "mean", with_paper=True),
        against_ratio(papers_group, with_paper=True),
        against_k1(papers_group, "nsvd_i", 0.3),
        by_method(papers_group),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        tight = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert tight.x0 >= -0.01
        assert tight.y0 >= -0.01
        assert tight.x1 <= width + 0.01
        assert tight.y1 <= height + 0.01


def test_panels_do_not_run_into_each_other() -> None:
    figure = figure1(similarity_block(comparable=True), "mean", with_paper=True)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axes in visible(figure) for text in axes.texts]
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert not box.overlaps(other)


def test_svg_has_the_colours_that_the_page_replaces(ratio_figure: Figure, tmp_path: Path) -> None:
    [path] = save(ratio_figure, tmp_path, "figure", ["svg"])
    text = path.read_text(encoding="utf-8")
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert {INK, RULE, GROUND} <= colours
    assert "#000000" not in colours
    assert math.isfinite(float(re.findall(r'viewBox="0 0 ([\d.]+)', text)[0]))
