"""A saved model measured on one dataset in a process of its own, which knows its folder alone.

`python -m nsvd_exp.experiment.remeasure` reads a `Task` as JSON and prints an `Answer`. The numbers
have every bit of those in another process if what the sums are made of is the same: the weights and
their dtype, the ids, the rows in a forward pass, the device, the number of threads, and the
libraries. A `Task` holds all of these that are not the machine's.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from nsvd_exp.data.tokens import windows
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.checkpoint import load
from nsvd_exp.models.devices import ALL_GPUS
from nsvd_exp.pipeline.evaluate import window_nll


@dataclass(frozen=True)
class Task:
    """What is to be measured.

    Attributes:
        folder: of the model and its tokenizer.
        text: of the dataset, as a whole.
        name: of the dataset, for messages.
        length, max_windows, split_special_tokens, bos: as in `nsvd_exp.data.tokens.windows`.
        batch: windows in a forward pass.
        device: a resolved one.
        threads: of torch.
    """

    folder: str
    text: str
    name: str
    length: int
    max_windows: int | None
    split_special_tokens: bool
    bos: str
    batch: int
    device: str
    threads: int


@dataclass(frozen=True)
class Answer:
    """What was measured.

    Attributes:
        window_nll: nats of each window.
        token_sha256: of the ids.
    """

    window_nll: list[float]
    token_sha256: str


def measured_in_its_own_process(task: Task) -> Answer:
    """The task, done by a new process.

    Raises:
        NsvdError: it ends without an answer.
    """
    command = [sys.executable, "-m", "nsvd_exp.experiment.remeasure"]
    # Escaped, so that half a character gets through as well.
    given = json.dumps(dataclasses.asdict(task))
    ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    try:
        return Answer(**json.loads(ended.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        raise NsvdError(
            f"a process of its own could not measure it on {task.name}: {last}"
        ) from None


def measured(task: Task) -> Answer:
    """The task, done by this process.

    Raises:
        NsvdError: the folder cannot be loaded, or a loss is not finite.
    """
    torch.set_num_threads(task.threads)
    place: Any = {"cpu": None, ALL_GPUS: "balanced"}.get(task.device, task.device)
    model = load(Path(task.folder), device_map=place)
    tokenizer = AutoTokenizer.from_pretrained(task.folder, local_files_only=True)
    tokens = windows(
        tokenizer,
        task.text,
        task.length,
        task.max_windows,
        task.split_special_tokens,
        f"dataset {task.name}",
        task.bos,
    )
    return Answer(window_nll(model, tokens.ids, task.batch), tokens.sha256)


def main() -> int:
    """A task from stdin, its answer to stdout; or why there is none, as the last line of stderr."""
    try:
        answer = measured(Task(**json.load(sys.stdin)))
    except NsvdError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(json.dumps(dataclasses.asdict(answer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
