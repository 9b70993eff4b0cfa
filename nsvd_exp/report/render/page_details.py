"""What the page shows of a number on request: where it came from, and how sure it is.

The page keeps these details apart from its tables, as lists without names in which what repeats
stands once, so that ten thousand numbers stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.report.model.contrasts import Contrast
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.intervals import Interval, interval
from nsvd_exp.report.model.measurements import Measurement
from nsvd_exp.report.model.paper import Row
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.render.text import (
    group_title,
    nats,
    percent,
    ratio_title,
    row_title,
)
from nsvd_exp.storage.results import Result, ResultFile, cell_file, similarity_file

KEY_DIGITS = 16

ENTRY_LABELS = (
    "perplexity", "deviation over seeds", "95% interval", "nats over dense (95%)",
    "against ASVD-I (95%)", "bits per byte", "word perplexity", "state", "layers",
)  # fmt: skip
RUN_LABELS = ("perplexity", "seed", "seconds")
PLACE_LABELS = ("windows", "measured", "commit", "device")
CELL_LABELS = ("cell", "key", "seconds by stage")


class Details:
    """Collects details. Each has an index, by which the page finds it."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, list[Any], list[list[Any]]]] = []
        self._known: dict[tuple[str, int, Row, str], int] = {}
        self._texts: dict[str, int] = {}
        self._places: dict[tuple[str, ...], int] = {}
        self._cells: dict[str, tuple[int, tuple[str, str, str]]] = {}

    @property
    def data(self) -> dict[str, Any]:
        """All details as JSON.

        An entry begins with the indices of its two titles; a run ends with those of its place and
        its cell.
        """
        return {
            "labels": [ENTRY_LABELS, RUN_LABELS, PLACE_LABELS, CELL_LABELS],
            "entries": self._entries,
            "texts": list(self._texts),
            "places": list(self._places),
            "cells": [shown for _, shown in self._cells.values()],
        }

    def of_entry(self, group: Group, line: Line, dataset: str) -> int | None:
        """Add an entry, once; its index, or None for an entry of which nothing is stored."""
        entry = line.entries[dataset]
        key = group.model, group.place, line.row, dataset
        if entry.state != "missing" and key not in self._known:
            where = (group_title(group), row_title(line), ratio_title(line.row.ratio))
            self._known[key] = self._add(
                " · ".join(filter(None, where)), group.datasets[dataset], *self._of(entry)
            )
        return self._known.get(key)

    def _of(self, entry: Entry) -> tuple[list[str | None], list[list[Any]]]:
        several = len(entry.measurements) > 1
        values = [
            None if entry.perplexity is None else format_perplexity(entry.perplexity),
            None if entry.deviation is None else format_perplexity(entry.deviation),
            _bounds(entry.interval),
            None if entry.over_dense is None else _over_dense(entry.over_dense),
            None if entry.over_reference is None else _over_reference(entry.over_reference),
            *(
                None if several else _optional(entry, n)
                for n in ("bits_per_byte", "word_perplexity")
            ),
            {"failed": f"failed: {entry.message}", "partial": "unfinished"}.get(entry.state),
        ]
        by_seed = sorted(entry.measurements, key=lambda measurement: measurement.seed or 0)
        return values, [self._run(measurement, several) for measurement in by_seed]

    def of_similarity(
        self, block: SimilarityBlock, title: str, statistic: str, dataset: str
    ) -> int:
        """Add one similarity; its index."""
        record = block.records[dataset]
        values: list[str | None] = [None] * len(ENTRY_LABELS)
        values[-1] = str(block.spreads[statistic][dataset].layers)
        seed = record["identity"]["calibration"]["seed"]
        place = self._place(record["dataset"], record["updated"], record["environment"])
        cell = self._cell(record, lambda: similarity_file(Path(), dataset, record["identity"]))
        run = [None, seed, None, place, cell]
        return self._add(f"{block.model} · {title}", block.datasets[dataset], values, [run])

    def _add(
        self, title: str, dataset: str, values: list[str | None], runs: list[list[Any]]
    ) -> int:
        while values and values[-1] is None:
            values.pop()
        titles = (self._texts.setdefault(t, len(self._texts)) for t in (title, dataset))
        self._entries.append((*titles, values, runs))  # type: ignore[arg-type]
        return len(self._entries) - 1

    def _run(self, measurement: Measurement, several: bool) -> list[Any]:
        stored, cell = measurement.stored, measurement.cell
        return [
            format_perplexity(measurement.perplexity) if several else None,
            measurement.seed,
            round(stored["seconds"], 2),
            self._place(stored, stored["measured"], stored["environment"]),
            self._cell(cell, lambda: cell_file(Path(), cell["method"], cell["identity"])),
        ]

    def _place(
        self, protocol: Mapping[str, Any], measured: str, environment: Mapping[str, Any]
    ) -> int:
        windows = f"{protocol['windows']} x {protocol['length']} tokens"
        git = environment["git"]
        commit = "unknown" if git is None else git["commit"] + " + changes" * git["dirty"]
        device = f"{environment['device']}, {environment['hardware']}"
        place = (windows, _time(measured), commit, device)
        return self._places.setdefault(place, len(self._places))

    def _cell(self, result: Result, file: Callable[[], ResultFile]) -> int:
        if result["key"] not in self._cells:
            stages = ", ".join(f"{name} {spent:.1f}" for name, spent in result["seconds"].items())
            shown = (file().folder.as_posix(), result["key"][:KEY_DIGITS], stages)
            self._cells[result["key"]] = len(self._cells), shown
        return self._cells[result["key"]][0]


def _over_dense(contrast: Contrast) -> str:
    text = nats(contrast.log_ratio)
    if contrast.spread is None:
        return text
    return f"{text} ({' to '.join(map(nats, interval(contrast.log_ratio, contrast.spread)))})"


def _over_reference(contrast: Contrast) -> str:
    direction = "lower" if contrast.improvement >= 0 else "higher"
    text = f"{percent(abs(contrast.improvement)).removeprefix('+')} {direction}"
    bounds = contrast.improvement_interval
    return text if bounds is None else f"{text} ({' to '.join(map(percent, bounds))})"


def _bounds(bounds: Interval | None) -> str | None:
    return None if bounds is None else " to ".join(map(format_perplexity, bounds))


def _optional(entry: Entry, name: str) -> str | None:
    """A field that older measurements lack."""
    value = entry.measurements[0].stored.get(name) if entry.measurements else None
    return None if value is None else format_perplexity(value)


def _time(stamp: str) -> str:
    """An ISO date in UTC as `2026-01-02 03:04 UTC`."""
    return f"{stamp[:10]} {stamp[11:16]} UTC"
