"""The tables as records, one per number with all that is known about it: for CSV and for W&B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block, Line


def csv_text(frame: pd.DataFrame) -> str:
    """The frame as CSV, with the same line ends on every system."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def perplexity_frame(blocks: Sequence[Block]) -> pd.DataFrame:
    """The perplexity tables: one row per place of a table."""
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
        **_provenance(entry),
    }


def _provenance(entry: Entry) -> dict[str, Any]:
    """Where a number came from; several seeds are separated by spaces."""

    def joined(values: list[Any]) -> str:
        return " ".join(str(value) for value in values)

    found = entry.measurements
    git = [m.stored["environment"].get("git") or {} for m in found]
    return {
        "seed": joined([m.seed for m in found if m.seed is not None]),
        "key": joined([m.cell["key"] for m in found]),
        "commit": joined([g.get("commit", "unknown") + "+" * g.get("dirty", False) for g in git]),
        "measured": joined([m.stored["measured"] for m in found]),
        "device": joined([m.stored["environment"]["device"] for m in found]),
        "seconds": joined([m.stored["seconds"] for m in found]),
        "windows": joined([f"{m.stored['windows']}x{m.stored['length']}" for m in found]),
    }


def similarity_frame(blocks: Sequence[SimilarityBlock]) -> pd.DataFrame:
    """Table 2: one row per model, statistic and dataset; the paper's alone if nothing is stored."""
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


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """One row per measurement that both stores have."""
    return pd.DataFrame([
        {
            "model": pair.here.cell["model"],
            **pair.here.row._asdict(),
            "dataset": pair.here.dataset,
            "seed": pair.here.seed,
            "here": pair.here.perplexity,
            "there": pair.there.perplexity,
            "difference": pair.difference,
            "key_here": pair.here.cell["key"],
            "key_there": pair.there.cell["key"],
        }
        for pair in comparison.pairs
    ])  # fmt: skip
