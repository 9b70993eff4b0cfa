"""Jobs for launchers to run in other processes, which can import this module."""

from __future__ import annotations

import json
import os


def note_process(_: object) -> str:
    """Append the process, its GPU and its threads to the file $NOTES, as a line of JSON."""
    import torch

    noted = os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), torch.get_num_threads()
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(noted) + "\n")
    return "noted"
