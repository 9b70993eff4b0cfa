"""The tables as records, one a number with all that is known of it: CSV, and W&B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nsvd_exp.report import paper
from nsvd_exp.report.entries import Block, Entry, Line
from nsvd_exp.report.similarities import SimilarityBlock


def numbers_frame(blocks: Sequence[Block]) -> pd.DataFrame:
    """One row a number, with all that is known of it: what CSV and W&B show."""
    return pd.DataFrame([
        _record(block, line, dataset, entry)
        for block in blocks
        for line in block.lines
        for dataset, entry in line.entries.items()
    ])  # fmt: skip


def _record(block: Block, line: Line, dataset: str, entry: Entry) -> dict[str, Any]:
    low, high = entry.interval or (None, None)
    gain_low, gain_high = entry.improvement_interval or (None, None)
    return {
        "table": block.table,
        "model": block.model,
        "setting": "; ".join(block.differences),
        "method": line.row.method,
        "ratio": line.row.ratio,
        "k1": line.row.k1,
        "dataset": dataset,
        "state": entry.state if block.setting else "missing",
        "perplexity": entry.perplexity,
        "deviation": entry.deviation,
        "perplexity_low": low,
        "perplexity_high": high,
        "improvement": entry.improvement,
        "improvement_low": gain_low,
        "improvement_high": gain_high,
        "average_improvement": line.average.value,
        "paper_model": block.paper_model,
        "paper_perplexity": entry.printed,
        "paper_improvement": entry.printed_improvement,
        "paper_note": entry.note,
        "difference": entry.difference,
        **provenance(entry),
    }


def provenance(entry: Entry) -> dict[str, Any]:
    """Where a number came from; of several seeds, all, with spaces between."""

    def joined(values: list[Any]) -> str:
        return " ".join(str(value) for value in values)

    numbers = entry.numbers
    git = [n.stored["environment"].get("git") or {} for n in numbers]
    return {
        "seed": joined([n.seed for n in numbers if n.seed is not None]),
        "key": joined([n.cell["key"] for n in numbers]),
        "commit": joined([g.get("commit", "unknown") + "+" * g.get("dirty", False) for g in git]),
        "measured": joined([n.stored["measured"] for n in numbers]),
        "device": joined([n.stored["environment"]["device"] for n in numbers]),
        "seconds": joined([n.stored["seconds"] for n in numbers]),
        "windows": joined([f"{n.stored['windows']}x{n.stored['length']}" for n in numbers]),
    }


def similarity_frame(blocks: Sequence[SimilarityBlock]) -> pd.DataFrame:
    """Table 2 in numbers: a row a model, statistic and dataset; the paper's alone where nothing is
    stored."""
    columns = ["model", "setting", "statistic", "nearest", "dataset", "mean", "deviation", "layers",
               "key"]  # fmt: skip
    ours = [
        _similarity_record(block, statistic, dataset)
        for block in blocks
        for statistic in block.statistics
        for dataset in block.datasets
    ]
    printed = [(name, *values) for name, values in paper.similarities().items()]
    frame = pd.DataFrame(ours, columns=columns).merge(
        pd.DataFrame(printed, columns=["dataset", "paper_mean", "paper_deviation"]),
        how="left" if ours else "right",
    )
    frame.insert(len(columns) - 1, "paper_model", paper.SIMILARITY_MODEL)
    frame["key"] = frame.pop("key")
    return frame


def _similarity_record(block: SimilarityBlock, statistic: str, dataset: str) -> tuple[Any, ...]:
    found = block.spreads[statistic].get(dataset)
    mean, deviation, layers = (found.mean, found.std, found.layers) if found else (None, None, 0)
    is_nearest, setting = statistic == block.nearest, "; ".join(block.differences)
    key = block.records[dataset]["key"]
    return block.model, setting, statistic, is_nearest, dataset, mean, deviation, layers, key
