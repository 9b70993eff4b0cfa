"""What each step beyond the paper buys: rows by loss and cost, the frontier, ranks, each form."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
from helpers.report_store import (
    AWKWARD_TITLE,
    EIGHT,
    group_of,
    groups_of,
    make_cell,
    scaled,
)
from matplotlib.figure import Figure

from nsvd_exp.report.make import table_texts, write
from nsvd_exp.report.model.equal_size import EqualSizeBlock, build, frontier
from nsvd_exp.report.model.ranks import RankMap, maps_of
from nsvd_exp.report.model.report import gather
from nsvd_exp.report.render.equal_size import sentence
from nsvd_exp.report.render.equal_size_figure import loss
from nsvd_exp.report.render.planned import planned_figures
from nsvd_exp.report.render.plot_style import INK, save
from nsvd_exp.report.render.ranks_figure import MOST_MAPS, caption, heat_maps

PIVOTED = {"storage": {"class": "Pivoted", "version": 1}}
COST: dict[str, Any] = {
    "seconds": {"load": 9.0, "calibrate": 3.0, "decompose": 4.5, "evaluate": 100.0},
    "peak_memory": {"host_bytes": 3_000_000_000, "device_bytes": 2_000_000_000},
    "achieved_ratio": {"layers": 0.302, "model": 0.25},
}


def losing(nats: float) -> dict[str, float]:
    """Perplexities that lose so many nats over EIGHT, the dense model's, on each set."""
    return scaled(math.exp(nats))


def allocated(name: str) -> dict[str, Any]:
    return {"allocation": {"class": name}}


def make_steps(results_dir: Path, model: str = "tiny") -> None:
    """Store a row beyond the paper, three of the paper's, and the dense model."""
    make_cell(results_dir, model, method="dense")
    make_cell(results_dir, model, method="svd", datasets={}, status="failed")
    make_cell(results_dir, model, method="asvd_i", datasets=losing(2.0))
    make_cell(results_dir, model, method="nsvd_i", k1=0.8, datasets=losing(1.5))
    make_cell(results_dir, model, method="asvd_i", datasets=losing(0.5), form=PIVOTED, **COST)


def block_of(results_dir: Path) -> EqualSizeBlock:
    (block,) = build([group_of(results_dir)])
    return block


def titles_of(block: EqualSizeBlock) -> list[str]:
    return [line.line.title for line in block.lines]


def texts_of(results_dir: Path, extension: str) -> str:
    return dict(table_texts(gather(str(results_dir)), extension))["equal_size"]


# The model


def test_rows_stand_by_what_they_lose_beside_what_they_cost(tmp_path: Path) -> None:
    make_steps(tmp_path)
    block = block_of(tmp_path)
    assert block.ratio == 0.3
    assert titles_of(block) == ["ASVD-I, pivoted", "NSVD-I", "ASVD-I", "SVD"]
    assert [line.nats for line in block.lines[:3]] == pytest.approx([0.5, 1.5, 2.0])
    assert [line.share for line in block.lines[:3]] == pytest.approx([0.25, 0.75, 1.0])
    assert [line.line.is_of_paper for line in block.lines] == [False, True, True, True]
    best, papers, _, failed = block.lines
    assert (block.best, block.papers_best) == (best, papers)
    assert (best.achieved, best.seconds, best.peak_bytes) == (0.302, 7.5, 2_000_000_000)
    assert (papers.achieved, papers.seconds, papers.peak_bytes) == (0.3, None, 1)
    assert failed.nats is failed.share is failed.achieved is failed.seconds is None
    assert failed.line.entries["ptb"].state == "failed"


def test_the_mean_leaves_out_the_calibration_set_and_each_set_has_its_interval(
    tmp_path: Path,
) -> None:
    make_cell(tmp_path, method="dense")
    numbers = losing(1.0) | {"wikitext2": EIGHT["wikitext2"] * math.exp(0.25)}
    make_cell(tmp_path, method="asvd_i", datasets=numbers, form=PIVOTED)
    (line,) = block_of(tmp_path).lines
    assert line.nats == pytest.approx(1.0)
    for name, nats in (("wikitext2", 0.25), ("ptb", 1.0)):
        over = line.line.entries[name].over_dense
        assert over is not None
        assert over.nats_interval is not None
        low, high = over.nats_interval
        assert (low + high) / 2 == pytest.approx(nats)
        assert low < nats < high
        # The same interval as that of the perplexity's improvement, in nats.
        assert over.improvement_interval == pytest.approx((1 - math.exp(high), 1 - math.exp(low)))


def test_several_seeds_cost_their_mean_and_their_largest_memory(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense")
    for seed, seconds, memory in ((3, 4.0, 50), (4, 8.0, 30)):
        cost = {
            "seconds": {"calibrate": 1.0, "decompose": seconds},
            "peak_memory": {"host_bytes": memory, "device_bytes": None},
        }
        make_cell(tmp_path, method="asvd_i", datasets=losing(1.0), form=PIVOTED, seed=seed, **cost)
    (line,) = block_of(tmp_path).lines
    assert (line.seconds, line.peak_bytes) == (7.0, 50)


def test_only_ratios_with_a_row_beyond_the_paper_are_shown(tmp_path: Path) -> None:
    make_cell(tmp_path, method="dense")
    for ratio in (0.2, 0.3, 0.4):
        make_cell(tmp_path, method="asvd_i", ratio=ratio, datasets=losing(ratio))
    report = gather(str(tmp_path))
    assert report.equal_size == []
    assert "equal_size" not in dict(table_texts(report, "md"))
    assert [figure.name for figure in planned_figures(report)] == ["ratio"]
    make_cell(tmp_path, method="kfac", ratio=0.4, datasets=losing(0.1))
    make_cell(tmp_path, method="asvd_i", ratio=0.3, datasets=losing(0.1), form=PIVOTED)
    blocks = build([group_of(tmp_path)])
    assert [(block.ratio, titles_of(block)) for block in blocks] == [
        (0.3, ["ASVD-I, pivoted", "ASVD-I"]),
        (0.4, ["KFAC", "ASVD-I"]),
    ]


def test_settings_are_not_mixed(tmp_path: Path) -> None:
    make_steps(tmp_path)
    make_cell(tmp_path, method="asvd_i", datasets=losing(0.1), form=PIVOTED, length=128)
    main, other = build(groups_of(tmp_path))
    assert titles_of(main)[0] == "ASVD-I, pivoted"
    assert main.lines[0].nats == pytest.approx(0.5)
    assert titles_of(other) == ["SVD", "ASVD-I, pivoted"]  # what failed may belong to either
    assert [line.nats for line in other.lines] == [None, None]  # no dense model of such windows


@pytest.mark.parametrize("same", [0.0, 0.01])
def test_the_frontier_is_what_no_other_point_beats(same: float) -> None:
    points = [(0.3, 1.0), (0.3, 2.0), (0.2, 1.0), (0.2, 0.5), (0.5, 3.0), (0.3, 1.0), (0.305, 1.5)]
    # Of equal points neither beats the other; at the same size the seventh loses to the first.
    assert frontier(points, same) == [3, 0, 5, *([6] if same == 0 else []), 4]
    assert frontier([], same) == []


def test_every_point_off_the_frontier_is_beaten_by_one_on_it() -> None:
    generator = random.Random(0)
    points = [(generator.randrange(8) / 10, generator.random()) for _ in range(60)]
    kept = frontier(points)
    on_it = [points[index] for index in kept]
    for index, (removed, lost) in enumerate(points):
        beaten = any(
            more >= removed and less <= lost and (more, less) != (removed, lost)
            for more, less in on_it
        )
        assert beaten == (index not in kept)
    assert points[kept[-1]][0] == max(removed for removed, _ in points)
    assert min(lost for _, lost in points) == points[kept[0]][1]


# The sentence


def test_one_sentence_says_the_best_row_and_the_papers_best(tmp_path: Path) -> None:
    make_steps(tmp_path)
    assert sentence(block_of(tmp_path)) == (
        "At 30% removed ASVD-I, pivoted loses 0.50 nats per token on average, 25% of what ASVD-I "
        "loses (2.00); of the paper's methods NSVD-I, k1 = 0.8 loses least, 1.50."
    )


def test_the_sentence_says_what_it_cannot(tmp_path: Path) -> None:
    make_cell(tmp_path, method="asvd_i", datasets=losing(0.04), form=PIVOTED)
    assert "no row has an average" in sentence(block_of(tmp_path))
    make_cell(tmp_path, method="dense")
    said = sentence(block_of(tmp_path))
    assert said.startswith("At 30% removed ASVD-I, pivoted loses 0.040 nats per token on average;")
    assert said.endswith("no method of the paper has an average to compare it with.")
    make_cell(tmp_path, method="nsvd_i", k1=0.8, datasets=losing(0.02))
    block = block_of(tmp_path)
    assert [line.share for line in block.lines] == [None, None]
    assert sentence(block) == (
        "At 30% removed NSVD-I, k1 = 0.8, one of the paper's methods, loses least: 0.020 nats per "
        "token on average."
    )
    make_cell(tmp_path, method="asvd_i", datasets=losing(-0.01))
    assert sentence(block_of(tmp_path)) == (
        "At 30% removed ASVD-I, one of the paper's methods, loses least: −0.010 nats per token on "
        "average."
    )
    assert [line.share for line in block_of(tmp_path).lines] == [None] * 3  # it loses nothing


# Each form


def test_every_form_says_the_same(tmp_path: Path) -> None:
    make_steps(tmp_path, AWKWARD_TITLE)
    markdown, latex = texts_of(tmp_path, "md"), texts_of(tmp_path, "tex")
    rows = list(csv.DictReader(io.StringIO(texts_of(tmp_path, "csv"))))
    assert len(rows) == 4 * 8
    ptb = [row for row in rows if row["dataset"] == "ptb"]
    assert [(row["place"], row["method"], row["form"]) for row in ptb] == [
        ("1", "asvd_i", "pivoted"), ("2", "nsvd_i", ""), ("3", "asvd_i", ""), ("4", "svd", ""),
    ]  # fmt: skip
    assert [row["of_paper"] for row in ptb] == ["False", "True", "True", "True"]
    best, failed = ptb[0], ptb[3]
    assert float(best["share_of_asvd_i"]) == pytest.approx(0.25)
    assert (best["achieved_ratio"], best["seconds"]) == ("0.302", "7.5")
    assert (best["peak_device_bytes"], best["peak_host_bytes"]) == ("2000000000", "3000000000")
    assert (failed["state"], failed["nats_over_dense"], failed["seconds"]) == ("failed", "", "")
    ends = ("average_nats_over_dense_low", "average_nats_over_dense_high")
    low, high = (f"{float(best[name]):+.3f}" for name in ends)
    (line,) = [line for line in markdown.splitlines() if "| ASVD-I, pivoted |" in line]
    assert f"| **+0.500** [{low}, {high}] | 25% | 30.2% | 7.50 | 2,000 |" in line
    (line,) = [line for line in markdown.splitlines() if "| *SVD* |" in line]
    assert line.count("failed") == 8
    (line,) = [line for line in latex.splitlines() if "ASVD-I, pivoted & " in line]
    assert r"\textbf{+0.500} & 25\% & 30.2\% & 7.50 & 2,000 &" in line
    assert rf"\scriptsize {{[}}{low}, {high}{{]}}" in latex
    page = write(gather(str(tmp_path)), tmp_path / "out", ["html"])[-1].read_text(encoding="utf-8")
    assert f"<div><b>+0.500</b><small>[{low}, {high}]</small></div>" in page
    assert "<td><div>7.50</div></td>" in page
    assert "<b>o'dd" not in page
    said = sentence(block_of_model(tmp_path, AWKWARD_TITLE)).partition(" loses")[0]
    for text in (markdown, latex.replace(r"\%", "%"), page):
        assert said in text
        assert "cost nothing" in text


def block_of_model(results_dir: Path, model: str) -> EqualSizeBlock:
    (block,) = build([group_of(results_dir, model)])
    return block


# Ranks


def layers(shares: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the table of layers of 40 x 20 weights."""
    return [{"name": name, "m": 40, "n": 20, "k": int(20 * s)} for name, s in shares.items()]


SHARES = {
    f"model.layers.{block}.{kind}": share
    for (block, kind), share in zip(
        itertools.product(range(2), ("self_attn.q_proj", "mlp.down_proj")), (0.1, 0.5, 1.0, 0.25),
        strict=True,
    )
}  # fmt: skip


def make_allocations(results_dir: Path, count: int = 2) -> list[RankMap]:
    """Store so many allocations beside uniform ones, the best of them last."""
    make_cell(results_dir, method="dense")
    make_cell(results_dir, method="asvd_i", datasets=losing(2.0), layers=layers(SHARES))
    for place in range(count):
        numbers = losing(2.0 - place / 10)
        form = allocated(f"mine.Own{place}")
        make_cell(results_dir, datasets=numbers, form=form, layers=layers(SHARES))
    return maps_of(block_of(results_dir))


def test_ranks_stand_by_block_and_kind_the_best_row_first(tmp_path: Path) -> None:
    maps = make_allocations(tmp_path)
    assert [own.line.line.title for own in maps] == ["ASVD-I, Own1", "ASVD-I, Own0"]
    assert maps[0].kinds == ["q_proj", "down_proj"]
    assert maps[0].blocks == [0, 1]
    assert maps[0].shares == {
        ("q_proj", 0): 0.1, ("down_proj", 0): 0.5, ("q_proj", 1): 1.0, ("down_proj", 1): 0.25,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "kinds", "blocks"),
    [
        (["h.0.attn.c_proj", "h.0.mlp.c_proj"], ["attn.c_proj", "mlp.c_proj"], [0]),
        (["a.layers.3.fc", "b.layers.4.fc"], ["a.layers.fc", "b.layers.fc"], [3, 4]),
        (["head", "x.1.up"], ["head", "up"], [0, 1]),
        (["l.7.experts.0.up", "l.7.experts.1.up"], ["0.up", "1.up"], [7]),
    ],
)
def test_a_kind_has_the_shortest_name_of_its_own(
    tmp_path: Path, names: list[str], kinds: list[str], blocks: list[int]
) -> None:
    make_cell(tmp_path, form=allocated("Fisher"), layers=layers(dict.fromkeys(names, 0.5)))
    (own,) = maps_of(block_of(tmp_path))
    assert (own.kinds, own.blocks) == (kinds, blocks)
    assert list(own.shares.values()) == [0.5, 0.5]


def test_there_are_six_panels_at_most_and_the_caption_says_so(tmp_path: Path) -> None:
    maps = make_allocations(tmp_path, count=MOST_MAPS + 1)
    assert f"the {MOST_MAPS} of {MOST_MAPS + 1} allocations that lose least" in caption(maps)
    titles = [axes.get_title() for axes in panels(heat_maps(maps))]
    assert len(titles) == MOST_MAPS
    assert titles[0] == "ASVD-I, Own6\n+1.400 nats over dense"
    assert "of 2" not in caption(maps[:2])
    assert len(panels(heat_maps(maps[:3]))) == 3


def panels(figure: Figure) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]


# Figures


def make_ratios(results_dir: Path, ratios: tuple[float, ...] = (0.2, 0.4)) -> None:
    """Store ratios of two rows beyond the paper, of which one is always better, and ASVD-I."""
    make_cell(results_dir, method="dense")
    for ratio in ratios:
        own = {"achieved_ratio": {"layers": ratio + 0.001, "model": ratio}}
        make_cell(results_dir, ratio=ratio, datasets=losing(10 * ratio), **own)
        make_cell(results_dir, ratio=ratio, datasets=losing(5 * ratio), form=allocated("Energy"))
        make_cell(results_dir, ratio=ratio, datasets=losing(ratio), form=PIVOTED)


def test_loss_is_drawn_against_the_achieved_ratio_with_rings_on_the_frontier(
    tmp_path: Path,
) -> None:
    make_ratios(tmp_path)
    figure = loss(group_of(tmp_path))
    (axes,) = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["ASVD-I", "ASVD-I, pivoted", "others", "frontier"]
    (rings,) = [line for line in axes.lines if line.get_label() == "frontier"]
    assert rings.get_markeredgecolor() == INK
    assert list(rings.get_xdata()) == [0.2, 0.4]
    assert list(rings.get_ydata()) == pytest.approx([0.2, 0.4])
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert ([0.201, 0.401], pytest.approx([2.0, 4.0])) in drawn
    assert axes.get_yscale() == "log"  # from 0.2 to 4 nats


def test_of_one_ratio_each_row_has_its_point_and_interval(tmp_path: Path) -> None:
    make_ratios(tmp_path, (0.3,))
    (axes,) = loss(group_of(tmp_path)).axes
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles == ["ASVD-I, pivoted", "ASVD-I, energy", "ASVD-I"]
    assert [text.get_text() for text in axes.texts] == ["+0.300", "+1.500", "+3.000"]
    intervals = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    for (low, high), value in zip(intervals, (0.3, 1.5, 3.0), strict=True):
        assert low < value < high


def test_the_figures_of_a_report_and_their_order(tmp_path: Path) -> None:
    make_ratios(tmp_path)
    make_cell(
        tmp_path, datasets=losing(0.7), form=allocated("Fisher"), ratio=0.4, layers=layers(SHARES)
    )
    report = gather(str(tmp_path))
    names = [figure.name for figure in planned_figures(report)]
    assert names == ["ratio", "loss", "ranks-0.4"]
    written = write(report, tmp_path / "out", ["html"])
    assert tmp_path / "out/figures/ranks-0.4-tiny.svg" in written


def test_nothing_is_cut_off(tmp_path: Path) -> None:
    long = {"method_block": {"name": "mine", "title": "A method with a very long name " * 3}}
    for folder, ratios in (("one", (0.3,)), ("two", (0.1, 0.2, 0.3, 0.4, 0.5))):
        make_ratios(tmp_path / folder, ratios)
        for ratio in ratios:
            own = {"ratio": ratio, "datasets": losing(ratio / 2), "layers": layers(SHARES)} | long
            make_cell(tmp_path / folder, method="mine", form=allocated("Fisher"), **own)
        group = group_of(tmp_path / folder)
        maps = maps_of(build([group])[0])
        for figure in (loss(group), heat_maps(maps)):
            figure.draw_without_rendering()
            tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(tight.x0, tight.y0) >= -0.01
            assert tight.x1 <= width + 0.01
            assert tight.y1 <= height + 0.01


def test_the_same_ranks_are_the_same_file(tmp_path: Path) -> None:
    maps = make_allocations(tmp_path)
    one, two = (save(heat_maps(maps), tmp_path / n, "ranks", ["svg"])[0] for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size < 100_000
