"""The tables as records, one per number with all that is known about it: for CSV and for W&B."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from nsvd_exp.report.model import paper
from nsvd_exp.report.model.comparison import Comparison
from nsvd_exp.report.model.entries import Entry
from nsvd_exp.report.model.intervals import Interval
from nsvd_exp.report.model.results import Group, Line
from nsvd_exp.report.model.similarities import SimilarityBlock
from nsvd_exp.report.model.tables import Block

# Fields that newer measurements have, so that models of different tokenizers can be compared.
OTHER_UNITS = ("bits_per_byte", "word_perplexity")


Record = dict[str, Any]


def csv_text(records: Sequence[Record]) -> str:
    """The records as CSV, with the same line ends on every system; what is missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0] if records else [])
    writer.writerows(record.values() for record in records)
    return text.getvalue()


def of_results(groups: Sequence[Group]) -> list[Record]:
    """All that is stored: one record per model, setting, method, ratio, k1 and dataset."""
    return [
        _record(group, line, dataset, entry)
        for group in groups
        for line in group.lines
        for dataset, entry in line.entries.items()
    ]


def of_layout(blocks: Sequence[Block], with_paper: bool) -> list[Record]:
    """The blocks laid out like one of the paper's tables: one record per place."""
    return [
        {"layout": block.table}
        | _record(block.group, line, dataset, entry)
        | (_printed(block, line, entry) if with_paper else {})
        for block in blocks
        for line in block.lines
        for dataset, entry in line.entries.items()
    ]


def _record(group: Group, line: Line, dataset: str, entry: Entry) -> Record:
    over, average = entry.over_reference, line.average
    return {
        "model": group.model,
        "setting": "; ".join(group.differences),
        "method": line.method.name,
        "form": line.row.method.removeprefix(line.method.name).removeprefix(", "),
        "ratio": line.row.ratio,
        "k1": line.row.k1,
        "dataset": dataset,
        "state": entry.state,
        "perplexity": entry.perplexity,
        "deviation": entry.deviation,
        **bounds_of("perplexity", entry.interval),
        "times_dense": entry.times_dense,
        "nats_over_dense": entry.over_dense.log_ratio if entry.over_dense else None,
        "improvement": entry.improvement,
        **bounds_of("improvement", over.improvement_interval if over else None),
        "averaged_over": " ".join(average.sets),
        "average_improvement": average.improvement,
        **bounds_of("average_improvement", average.improvement_interval),
        "average_nats_over_dense": average.nats,
        **bounds_of("average_nats_over_dense", average.nats_interval),
        **{name: _mean(entry, name) for name in OTHER_UNITS},
        **_provenance(entry),
    }


def bounds_of(name: str, bounds: Interval | None) -> dict[str, float | None]:
    low, high = bounds or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _mean(entry: Entry, name: str) -> float | None:
    """The mean of an optional field of the measurements; None where one of them lacks it."""
    values = [m.stored[name] for m in entry.measurements if m.stored.get(name) is not None]
    return statistics.fmean(values) if values and len(values) == len(entry.measurements) else None


def _printed(block: Block, line: Line, entry: Entry) -> Record:
    """What the paper prints at the same place."""
    return {
        "paper_model": block.paper_model,
        "paper_perplexity": entry.printed,
        "paper_improvement": entry.printed_improvement,
        "paper_average_improvement": line.average.printed,
        "paper_note": entry.note,
        "difference": entry.difference,
    }


def _provenance(entry: Entry) -> Record:
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


def of_similarities(blocks: Sequence[SimilarityBlock], with_paper: bool) -> list[Record]:
    """The similarities, laid out like Table 2: one record per model, statistic and dataset."""
    return [
        _similarity_record(block, statistic, dataset)
        | (_printed_similarity(dataset) if with_paper else {})
        for block in blocks
        for statistic in block.statistics
        for dataset in block.datasets
    ]


def _similarity_record(block: SimilarityBlock, statistic: str, dataset: str) -> Record:
    found = block.spreads[statistic].get(dataset)
    return {
        "model": block.model,
        "setting": "; ".join(block.differences),
        "statistic": statistic,
        "nearest": statistic == block.nearest,
        "dataset": dataset,
        "mean": found.mean if found else None,
        "deviation": found.std if found else None,
        "layers": found.layers if found else 0,
        "key": block.records[dataset]["key"],
    }


def _printed_similarity(dataset: str) -> Record:
    mean, deviation = paper.similarities().get(dataset, (None, None))
    model = paper.SIMILARITY_MODEL
    return {"paper_model": model, "paper_mean": mean, "paper_deviation": deviation}


def of_comparison(comparison: Comparison) -> list[Record]:
    """One record per measurement that both stores have."""
    return [
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
    ]
