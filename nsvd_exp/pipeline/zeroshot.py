"""A model at one task of EleutherAI's lm-evaluation-harness, which does the scoring."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import hash_string
from torch import nn

from nsvd_exp.data.tasks import TaskSource
from nsvd_exp.errors import NsvdError
from nsvd_exp.pipeline.harness import InMemory, quiet, seed_all, with_fitting_batch
from nsvd_exp.progress import Progress

# The metric that is shown: the first of these that a task has, else the first in its file.
ACCURACIES = ("acc_norm", "acc", "exact_match")
# How the harness begins to say that a request is too long, whose beginning it leaves out.
CUT = ("Combined length of context", "Left truncation applied")


@dataclass(frozen=True)
class TaskScore:
    """What the harness found at one task.

    Attributes:
        metric: the one that is shown, with its filter, as in `metrics`: `acc_norm,none`.
        accuracy: its value, a fraction.
        stderr: its standard error, None where the harness has none.
        chance: the accuracy of guessing; None where there are no choices.
        metrics: all that the harness gives, by its own names; None where it gives no number.
        higher_is_better: by metric.
        documents, available: how many were done, and how many the task has.
        correct: `0` or `1` for each document; None where a document's score is something else.
        documents_sha256: of documents, prompts and targets, as the harness takes it.
        is_cut: whether requests were longer than the model takes, so that they were cut.
    """

    metric: str
    accuracy: float
    stderr: float | None
    chance: float | None
    metrics: dict[str, float | None]
    higher_is_better: dict[str, bool | None]
    documents: int
    available: int
    correct: str | None
    documents_sha256: str
    is_cut: bool


def load_task(source: TaskSource) -> Task:
    """The harness's object for a task, with its documents.

    Raises:
        NsvdError: its dataset cannot be had, or its file is not what the harness takes.
    """
    try:
        with quiet(), _loadable(source) as path:
            seed_all()
            loaded = TaskManager(include_defaults=False).load([str(path)])
    except ConnectionError as error:
        raise NsvdError(
            f"task {source.name}: its dataset cannot be had ({_first_line(error)}): it needs a "
            "network once, or a copy in the cache of Hugging Face (HF_HOME)"
        ) from error
    except Exception as error:
        raise NsvdError(
            f"task {source.name} cannot be used: {source.path}: {_named(error)}"
        ) from error
    task: Task = loaded["tasks"][source.name]
    return task


def score_task(
    model: nn.Module,
    tokenizer: Any,
    task: Task,
    fewshot: int = 0,
    limit: int | None = None,
    batch: int | str = "auto",
    max_length: int | None = None,
    progress: Progress | None = None,
) -> TaskScore:
    """The scores of a model of transformers, in eval mode, at a task that `load_task` has loaded.

    Args:
        tokenizer: the model's; it is left as it is.
        fewshot: examples in front of each document.
        limit: the first so many documents; None for all.
        batch: requests a forward pass; with `auto` a run that ends for want of memory is started
            again with half of them.
        max_length: tokens that the model takes; None: as its configuration says.

    Raises:
        NsvdError: the task cannot be done, or its metric is no fraction.
        OutOfMemoryError: one request, or `batch` of them, are too many.
    """
    name = task.task_name
    task.set_config("num_fewshot", fewshot)

    def attempt(lm: InMemory) -> TaskScore:
        seed_all()
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
        found = evaluate(lm, {"tasks": {name: task}}, limit=limit, log_samples=True)
        assert found is not None  # it is so in another process than the first of several
        return _score(task, found)

    try:
        with quiet() as warnings:
            made = functools.partial(InMemory, model, tokenizer, max_length, progress)
            score = with_fitting_batch(attempt, made, model, batch)
    except NsvdError as error:
        raise type(error)(f"task {name}: {error}") from error
    except Exception as error:
        raise NsvdError(f"task {name} ended with {_named(error)}") from error
    return replace(score, is_cut=any(warning.startswith(CUT) for warning in warnings))


def _score(task: Task, found: Mapping[str, Any]) -> TaskScore:
    """What is kept of the harness's results."""
    name = task.task_name
    measured, samples = found["results"][name], found["samples"][name]
    metrics = {key: _number(value) for key, value in measured.items() if "," in key}
    shown = _shown(task, metrics)
    metric, _, chosen = shown.partition(",")
    accuracy = metrics[shown]
    if accuracy is None or not 0 <= accuracy <= 1:
        raise NsvdError(f"its metric {metric} is {accuracy}, and no fraction from 0 to 1")
    own = [sample for sample in samples if sample["filter"] == chosen]
    hashes = (s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
    return TaskScore(
        metric=shown,
        accuracy=accuracy,
        stderr=metrics.get(f"{metric}_stderr,{chosen}"),
        chance=_chance(task, own),
        metrics=metrics,
        higher_is_better=dict(found["higher_is_better"][name] or {}),
        documents=len(own),
        available=found["n-samples"][name]["original"],
        correct=_correct([sample.get(metric) for sample in own], accuracy),
        documents_sha256=hash_string("".join(hashes)),
        is_cut=False,
    )


def _shown(task: Task, metrics: Mapping[str, float | None]) -> str:
    """The metric that is shown, under its first filter."""
    values = [key for key in metrics if not key.partition(",")[0].endswith("_stderr")]
    by_name = {key.partition(",")[0]: key for key in reversed(values)}
    known = next((by_name[name] for name in ACCURACIES if name in by_name), None)
    better = task.higher_is_better() or {}
    first = next((key for key in values if better.get(key.partition(",")[0], True)), None)
    if known is None and first is None:
        raise NsvdError(f"it has no metric of which more is better: {', '.join(values)}")
    return known or str(first)


def _chance(task: Task, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """The accuracy of guessing: the mean of one over the number of choices of each document."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    counts = [len(task.doc_to_choice(sample["doc"])) for sample in samples]
    return math.fsum(1 / count for count in counts) / len(counts)


def _correct(values: Sequence[Any], accuracy: float) -> str | None:
    """Of each document whether it was right, where the accuracy is the mean of that."""
    if not all(value in (0, 1) for value in values):
        return None
    text = "".join("1" if value else "0" for value in values)
    is_mean = math.isclose(text.count("1") / len(text), accuracy, abs_tol=1e-12)
    return text if is_mean else None


def _number(value: Any) -> float | None:
    """A number as JSON can hold it; None for `N/A` and what is not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def _loadable(source: TaskSource) -> Iterator[Path]:
    """The task's file; where it names data files beside it, one that names their whole paths."""
    if not source.has_own_files:
        yield source.path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source.path.name
        # What `datasets` makes of the files goes with the folder, and not into the user's cache.
        own = {**source.dataset_kwargs, "cache_dir": folder, "keep_in_memory": True}
        said = {"include": str(source.path), "dataset_kwargs": own}
        path.write_text(yaml.safe_dump(said), encoding="utf-8")
        yield path


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _named(error: Exception) -> str:
    """An exception's type and what it says first."""
    return f"{type(error).__name__}: {_first_line(error)}"
