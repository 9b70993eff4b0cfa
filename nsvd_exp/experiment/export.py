"""A cell's model as a folder of its own, which a fresh process has found to be that model.

The folder appears under its name once it is whole and checked: one dataset of the cell, that with
the fewest tokens, was measured again with what a new process loaded from it. The losses have every
bit of those that are stored or, where these were made on another machine or with other threads, of
those that the model in memory has in this process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nsvd_exp.config.files import expand_path
from nsvd_exp.data.text import text_of
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import CompressedModel, compressed
from nsvd_exp.experiment.exported import RECORD, VERSION, Export, exported
from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.experiment.provenance import environment
from nsvd_exp.experiment.record import now
from nsvd_exp.experiment.remeasure import Answer, Task, measured_in_its_own_process
from nsvd_exp.experiment.resolve import PlannedMeasurement, public_name
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.batches import RESIDENT_TOKENS, fitting_tokens
from nsvd_exp.models.checkpoint import About, save
from nsvd_exp.models.layers import replaced
from nsvd_exp.pipeline.dense_twin import multiplied_out
from nsvd_exp.pipeline.evaluate import perplexity, window_nll
from nsvd_exp.progress import Observer
from nsvd_exp.storage.files import ScratchFolder, write_text
from nsvd_exp.storage.results import Result


def export_cell(
    plan: CellPlan,
    result: Result,
    session: Session,
    folder: str,
    about: About,
    format: str = "factors",
    observer: Observer | None = None,
) -> Export:
    """Make a cell's model again, save it, and have a fresh process measure what was saved.

    A folder that holds this very export is left as it is.

    Args:
        result: the stored one, of a cell that is done.
        about: for the model card.
        format: `factors` or `dense`.

    Raises:
        NsvdError: the folder holds something else, or cannot be written; the model cannot be made,
            or is not the same when it is loaded again. Nothing is left of the folder then.
    """
    target = Path(expand_path(folder))
    known = exported(target, plan, format)
    if known is not None:
        return known
    measurement = _smallest(plan, result)
    with _beside(target) as scratch, compressed(plan, session, observer) as made:
        saved = save(made.model, scratch / target.name, made.tokenizer, about, format)
        record = {
            "version": VERSION,
            "key": plan.file.key,
            "model": plan.config.model.title,
            "model_source": {"name": public_name(plan.model), **plan.model.identity},
            "format": format,
            "dtype": plan.evaluation_dtype,
            "created": now(),
            "checked": _Check(plan, session, made, format).of(saved, measurement, result),
            "environment": environment(plan.device),
        }
        write_text(saved / RECORD, json.dumps(record, indent=1) + "\n")
        saved.rename(target)
    return Export(target, record)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same disk, that goes with all it holds."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = ScratchFolder(target.parent, ".nsvd_exp-export-")
        try:
            yield scratch.path
        finally:
            scratch.remove()
    except OSError as error:
        raise NsvdError(f"{target} cannot be written: {error}") from error


def _smallest(plan: CellPlan, result: Result) -> PlannedMeasurement:
    """The measurement of the plan with the fewest tokens, by what is stored."""
    found = plan.found(result) or result["datasets"]
    planned = [m for m in plan.measurements if m.dataset.name in found] or plan.measurements
    stored = result["datasets"]
    return min(planned, key=lambda m: stored.get(m.dataset.name, {}).get("tokens", math.inf))


@dataclass(frozen=True)
class _Check:
    plan: CellPlan
    session: Session
    made: CompressedModel
    format: str

    def of(self, saved: Path, measurement: PlannedMeasurement, result: Result) -> dict[str, Any]:
        """Measure the saved model; what was found.

        Raises:
            NsvdError: it is not the model in memory.
        """
        name, task = measurement.dataset.name, self._task(saved, measurement)
        fresh = measured_in_its_own_process(task)
        stored = self.plan.found(result).get(name)
        checked = {
            "dataset": name,
            "perplexity": _perplexity(fresh.window_nll, task.length),
            "stored": None if stored is None else stored["perplexity"],
            "in_memory": None,
            "batch": task.batch,
            "threads": task.threads,
        }
        if stored is not None and fresh == Answer(stored["window_nll"], stored["token_sha256"]):
            return checked
        own = self._in_memory(measurement, task)
        checked["in_memory"] = _perplexity(own.window_nll, task.length)
        if fresh != own:
            raise NsvdError(
                f"the export is not the model in memory: on {name} a fresh process has the "
                f"perplexity {checked['perplexity']!r}, this one {checked['in_memory']!r}; "
                "nothing was kept of it"
            )
        return checked

    def _task(self, saved: Path, measurement: PlannedMeasurement) -> Task:
        plan, dataset = self.plan, measurement.dataset
        evaluation, model = plan.config.evaluation, self.made.model
        device = next(model.parameters()).device
        batch = evaluation.batch
        if batch == "auto":
            tokens = min(RESIDENT_TOKENS[device.type], fitting_tokens(model, device))
            batch = max(1, tokens // plan.length)
        return Task(
            folder=str(saved),
            text=text_of(dataset, "test", measurement.source),
            name=dataset.name,
            length=plan.length,
            max_windows=evaluation.max_windows,
            split_special_tokens=dataset.split_special_tokens,
            bos=evaluation.bos,
            batch=batch,
            device=plan.device,
            threads=torch.get_num_threads(),
        )

    def _in_memory(self, measurement: PlannedMeasurement, task: Task) -> Answer:
        texts, model = {measurement.key: task.text}, self.made.model
        tokens = self.session.windows(self.plan, measurement, texts)
        layers = multiplied_out(model) if self.format == "dense" else {}
        with replaced(model, layers):
            return Answer(window_nll(model, tokens.ids, task.batch), tokens.sha256)


def _perplexity(window_nll: list[float], length: int) -> float:
    return perplexity(math.fsum(window_nll), len(window_nll) * (length - 1))
