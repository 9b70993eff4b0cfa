"""Tasks in the harness's form over the random words of `helpers.texts`, and scores as stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from helpers.report_store import MEASURED, make_cell, sha256
from helpers.texts import words
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.results import Result, ResultFile, cell_file, scores_file

MEAN_OF = {"aggregation": "mean", "higher_is_better": True}


def make_task(folder: Path, name: str = "mine", documents: int = 6, **fields: Any) -> Path:
    """Write a multiple-choice task of random words and its documents; the path of its YAML file.

    Args:
        fields: of the YAML file, to add or to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "context": words(8, seed=row),
            "choices": [words(2 + choice, seed=100 * row + choice) for choice in range(4)],
            "answer": row % 4,
        }
        for row in range(documents)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines)
    definition = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": metric, **MEAN_OF} for metric in ("acc", "acc_norm")],
        "metadata": {"version": 1},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in definition.items() if v is not None}))
    return path


def make_scores(
    results_dir: Path, method: str, correct: dict[str, str], limit: int | None = None, **cell: Any
) -> Result:
    """Store the scores of one cell, as the program does, or add to them.

    Args:
        correct: `0` or `1` for each document, by task.
        cell: as in `make_cell`, which makes the cell too.
    """
    made = make_cell(results_dir, method=method, datasets={"ptb": 20.0}, **cell)
    file: ResultFile = scores_file(cell_file(results_dir, method, made["identity"]))
    own = {name: made[name] for name in made if name not in ("layers", "datasets", "earlier")}
    stored = file.read() or {"tasks": {}, "earlier": []}
    result = own | {"version": file.kind.version} | {n: stored[n] for n in ("tasks", "earlier")}
    for name, text in correct.items():
        score = make_score(name, text, limit)
        result["tasks"][name] = score
    file.write(result)
    return result


def make_score(task: str, correct: str, limit: int | None = None) -> Result:
    """One score, as the program stores it."""
    count, share = len(correct), correct.count("1") / len(correct)
    identity = {"task": task, "version": "1", "config": sha256(task), "fewshot": 0, "limit": limit}
    return {
        "task": task,
        "key": digest(identity),
        "identity": identity,
        "version": "1",
        "fewshot": 0,
        "limit": limit,
        "metric": "acc,none",
        "accuracy": share,
        "stderr": (share * (1 - share) / (count - 1)) ** 0.5,
        "chance": 0.25,
        "metrics": {"acc,none": share},
        "higher_is_better": {"acc": True},
        "documents": count,
        "available": count,
        "correct": correct,
        "documents_sha256": sha256(task, "documents"),
        "is_cut": False,
        "dtype": "float32",
        "seconds": 1.0,
        "measured": MEASURED,
        "environment": {},
    }
