"""Cells and similarity records made in this process, without the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch

from helpers.configuration import compose
from nsvd_exp.experiment.loaded import LoadedModel, load_dense
from nsvd_exp.experiment.plan import plan_cell, plan_similarity
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.run_similarity import run_similarities
from nsvd_exp.experiment.session import Session
from nsvd_exp.progress import Observer
from nsvd_exp.storage.results import Result

OUT_OF_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB")


class Watch(Observer):
    """Counts how often each stage was begun; at one of them the work breaks off.

    Stages are `load resident`, `load streamed`, and those whose progress is told.

    Args:
        at: the stage that breaks off.
        error: what it raises.
        times: how often it does, before it works.
    """

    def __init__(self, at: str = "", error: BaseException = OUT_OF_MEMORY, times: int = 1) -> None:
        self.at, self.error, self.times = at, error, times
        self.begun: Counter[str] = Counter()

    def progress(self, stage: str) -> None:
        self.begun[stage] += 1
        if stage == self.at and self.begun[stage] <= self.times:
            raise self.error

    def load(self, plan: Resolved, is_streamed: bool) -> LoadedModel:
        self.progress("load streamed" if is_streamed else "load resident")
        return load_dense(plan, is_streamed)


def run(
    *overrides: str,
    session: Session | None = None,
    watch: Watch | None = None,
    status: str = "done",
) -> Result:
    """The result of the cell that these arguments of the command line name.

    Args:
        session: that of a process that has done other cells; None: a new one's.
        status: that the result has to have.
    """
    watch = watch or Watch()
    result = run_cell(plan_cell(compose(*overrides)), session or Session(watch.load), watch)
    assert result["status"] == status, result["error"]
    return result


def similarities(
    *overrides: str, session: Session | None = None, watch: Watch | None = None
) -> list[Result]:
    """The similarity records that these arguments name, as `run` does a cell."""
    watch, plan = watch or Watch(), plan_similarity(compose(*overrides))
    return run_similarities(plan, session or Session(watch.load), watch)


def setting(arguments: list[str], name: str) -> str:
    """The value that these arguments give a setting."""
    return [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")][-1]


def put_text(arguments: list[str], part: str, text: str) -> None:
    """Make this the text of a dataset's split, `ptb/test`, in these arguments' data_dir."""
    path = Path(setting(arguments, "data_dir")) / f"{part}.jsonl"
    path.write_text(json.dumps({"text": text}) + "\n")
