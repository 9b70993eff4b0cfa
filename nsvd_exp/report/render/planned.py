"""Which figures a report has, and in which order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nsvd_exp.report.model import ranks
from nsvd_exp.report.model.report import Report
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.render import (
    equal_size,
    equal_size_figure,
    figures,
    k1_figure,
    profile_figure,
    profile_tables,
    ranks_figure,
)
from nsvd_exp.report.render.text import ratio_title

FIGURE1_CAPTION = (
    "Cosine similarity between the calibration set's activations and each evaluation set's, one "
    "value per compressed layer; statistic: {}."
)
RATIO_CAPTION = "Logarithmic axis; dotted: the dense model."
PROFILE_CAPTION = (
    "In times the dense model's, measured in turns with it on {machine}; dotted: equal. Left: "
    "lower is better; right: higher is."
)
K1_CAPTION = (
    "Left: each set's perplexity against ASVD-I's (positive: lower). Right: the average over the "
    "sets that calibration took nothing from."
)


@dataclass(frozen=True)
class Planned:
    """A figure that can be drawn.

    Attributes:
        draw: takes whether the paper's numbers are to be in it.
        has_paper: whether there are any.
    """

    name: str
    model: str
    title: str
    caption: str
    draw: Callable[[bool], Figure]
    has_paper: bool = False


def planned_figures(report: Report) -> Iterator[Planned]:
    """The figures of every model's main setting; what can be drawn of all models comes first."""
    main = [group for group in report.groups if group.place == 0 and group.ratios]
    yield from _of_ratios(main)
    yield from _of_equal_size(report)
    yield from _of_profiles(report)
    yield from _of_similarities(report)
    yield from _of_k1(main)


def _of_ratios(main: Sequence[Group]) -> Iterator[Planned]:
    for group in (group for group in main if figures.has_ratios(group)):
        draw = functools.partial(figures.against_ratio, group)
        has_paper = figures.has_printed_ratios(group)
        yield Planned("ratio", group.model, "Perplexity and ratio", RATIO_CAPTION, draw, has_paper)


def _of_equal_size(report: Report) -> Iterator[Planned]:
    main = [block for block in report.equal_size if block.group.place == 0]
    for own in equal_size.by_group(main):
        group = own[0].group
        if equal_size_figure.has_losses(group):
            draw = functools.partial(_without_paper, equal_size_figure.loss, group)
            caption = equal_size_figure.caption(group)
            yield Planned("loss", group.model, "Loss and size", caption, draw)
    for block in main:
        if maps := ranks.maps_of(block):
            shown = ratio_title(block.ratio)
            draw = functools.partial(_without_paper, ranks_figure.heat_maps, maps)
            title, name = f"Ranks at {shown} removed", f"ranks-{block.ratio:g}"
            caption = ranks_figure.caption(maps)
            yield Planned(name, block.group.model, title, caption, draw)


def _of_profiles(report: Report) -> Iterator[Planned]:
    for profiled in report.profiles:
        if profile_figure.has_sizes(profiled):
            draw = functools.partial(_without_paper, profile_figure.size_and_speed, profiled)
            caption = PROFILE_CAPTION.format(machine=profiled.machine)
            name = f"profile{profiled.place or ''}"
            yield Planned(name, profiled.model, profile_tables.PROFILES_TITLE, caption, draw)


def _of_similarities(report: Report) -> Iterator[Planned]:
    for alike in report.similarities:
        if alike.place == 0 and alike.statistics:
            caption = FIGURE1_CAPTION.format(alike.shown)
            draw = functools.partial(figures.figure1, alike, alike.shown)
            title = "Similarity of activations, like Figure 1"
            yield Planned("figure1", alike.model, title, caption, draw, alike.comparable)


def _of_k1(main: Sequence[Group]) -> Iterator[Planned]:
    for group in main:
        for method, ratio in k1_figure.k1_curves(group):
            title = f"{group.setting.methods[method].title} and k1"
            draw = functools.partial(_without_paper, k1_figure.against_k1, group, method, ratio)
            yield Planned(f"k1_{method}", group.model, title, K1_CAPTION, draw)


def _without_paper(draw: Callable[..., Figure], *drawn: object) -> Figure:
    """A figure that shows none of the paper's numbers, whether or not they are asked for."""
    *own, _ = drawn
    return draw(*own)
