"""What the page shows of a number on request: where it came from, and how sure it is.

The page keeps these details apart from its tables, as lists without names, so that thousands of
numbers stay small.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.intervals import Interval
from nsvd_exp.report.model.measurements import Measurement
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block, Line
from nsvd_exp.report.render.text import percent, ratio_title, row_title
from nsvd_exp.storage.results import Result, cell_file, similarity_file

KEY_DIGITS = 16

ENTRY_LABELS = (
    "perplexity", "deviation over seeds", "95% interval", "over ASVD-I", "paired 95% interval",
    "the paper's", "ours against the paper's", "in the paper", "state", "layers",
)  # fmt: skip
RUN_LABELS = ("perplexity", "seed", "windows", "measured", "seconds")
PLACE_LABELS = ("commit", "device")
CELL_LABELS = ("cell", "key", "seconds by stage")


class Details:
    """Collects details. Each has an index, by which the page finds it."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, list[str | None], list[list[Any]]]] = []
        self._places: dict[tuple[str, ...], int] = {}
        self._cells: dict[tuple[str, ...], int] = {}

    @property
    def data(self) -> dict[str, Any]:
        """All details as JSON; a run ends with the indices of its place and its cell."""
        return {
            "labels": [ENTRY_LABELS, RUN_LABELS, PLACE_LABELS, CELL_LABELS],
            "entries": self._entries,
            "places": list(self._places),
            "cells": list(self._cells),
        }

    def of_entry(self, block: Block, line: Line, dataset: str, entry: Entry) -> int | None:
        """Add an entry; its index, or None for an entry of which nothing is stored."""
        if entry.state == "missing":
            return None
        where = [block.model, row_title(line), ratio_title(line.row.ratio), block.datasets[dataset]]
        low_high = entry.interval
        values = [
            None if entry.perplexity is None else f"{entry.perplexity:.6g}",
            None if entry.deviation is None else f"{entry.deviation:.3g}",
            None if low_high is None else f"{low_high[0]:.6g} to {low_high[1]:.6g}",
            None if entry.improvement is None else _improvement(entry.improvement),
            _percents(entry.improvement_interval),
            _papers(block, entry),
            None if entry.difference is None else percent(entry.difference),
            entry.note,
            {"failed": f"failed: {entry.message}", "partial": "unfinished"}.get(entry.state),
            None,
        ]
        several = len(entry.measurements) > 1
        by_seed = sorted(entry.measurements, key=lambda measurement: measurement.seed or 0)
        runs = [self._run(measurement, several) for measurement in by_seed]
        return self._add(" · ".join(filter(None, where)), values, runs)

    def of_similarity(
        self, block: SimilarityBlock, title: str, statistic: str, dataset: str
    ) -> int:
        """Add one similarity; its index."""
        record = block.records[dataset]
        values: list[str | None] = [None] * len(ENTRY_LABELS)
        values[-1] = str(block.spreads[statistic][dataset].layers)
        windows = f"{record['dataset']['windows']} x {record['dataset']['length']} tokens"
        folder = similarity_file(Path(), dataset, record["identity"]).folder
        seed = str(record["identity"]["calibration"]["seed"])
        place, cell = self._place(record["environment"]), self._cell(record, folder)
        run = [None, seed, windows, _time(record["updated"]), None, place, cell]
        return self._add(f"{block.model} · {title} · {block.datasets[dataset]}", values, [run])

    def _add(self, title: str, values: list[str | None], runs: list[list[Any]]) -> int:
        self._entries.append((title, values, runs))
        return len(self._entries) - 1

    def _run(self, measurement: Measurement, several: bool) -> list[Any]:
        stored, cell = measurement.stored, measurement.cell
        return [
            f"{measurement.perplexity:.6g}" if several else None,
            None if measurement.seed is None else str(measurement.seed),
            f"{stored['windows']} x {stored['length']} tokens",
            _time(stored["measured"]),
            f"{stored['seconds']:.2f}",
            self._place(stored["environment"]),
            self._cell(cell, cell_file(Path(), cell["method"], cell["identity"]).folder),
        ]

    def _place(self, environment: Mapping[str, Any]) -> int:
        git = environment["git"]
        commit = "unknown" if git is None else git["commit"] + " + changes" * git["dirty"]
        device = f"{environment['device']}, {environment['hardware']}"
        return self._places.setdefault((commit, device), len(self._places))

    def _cell(self, result: Result, folder: Path) -> int:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result["seconds"].items())
        cell = (folder.as_posix(), result["key"][:KEY_DIGITS], stages)
        return self._cells.setdefault(cell, len(self._cells))


def _improvement(value: float) -> str:
    direction = "lower" if value >= 0 else "higher"
    return f"{percent(value)} (perplexity {100 * abs(value):.1f}% {direction})"


def _percents(bounds: Interval | None) -> str | None:
    return None if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def _papers(block: Block, entry: Entry) -> str | None:
    if entry.printed is None:
        return None
    own = f"{entry.printed:g}"
    if entry.printed_improvement is not None:
        own += f", {percent(entry.printed_improvement)} over ASVD-I"
    return own if block.paper_model == block.model else f"{own} ({block.paper_model})"


def _time(stamp: str) -> str:
    """An ISO date in UTC as `2026-01-02 03:04 UTC`."""
    return f"{stamp[:10]} {stamp[11:16]} UTC"
