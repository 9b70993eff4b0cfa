"""Jobs for launchers to run in other processes, which can import this module."""

from __future__ import annotations

import json
import os


class NotesItsProcess:
    """Appends to the file $NOTES, as JSON: its process, GPU and threads, and its number of jobs."""

    def __init__(self) -> None:
        self.jobs = 0

    def __call__(self, _: object) -> str:
        import torch

        self.jobs += 1
        gpu, threads = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.get_num_threads()
        with open(os.environ["NOTES"], "a") as file:
            file.write(json.dumps([os.getpid(), gpu, threads, self.jobs]) + "\n")
        return "noted"
