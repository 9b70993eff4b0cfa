"""`python -m nsvd_exp` on a model folder without weights: they are made at random on the device.

    python benchmarks/random_weights.py -m experiment=table1 model=tiny model.name=FOLDER

LLaMA-7B needs no 14 GB on a disk then. Not for results: nothing says which weights they were.
"""

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import sys
from typing import Any

import torch
import transformers
from made import on_device

from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.main import main
from nsvd_exp.experiment.session import Session


def load_random(source: Any, config: Any, dtype: str, device: str, *_: Any, **__: Any) -> Any:
    """In place of `nsvd_exp.models.loading.load_model`."""
    known = transformers.AutoConfig.from_pretrained(source.name)
    return on_device(known, getattr(torch, dtype), device)


if __name__ == "__main__":
    sys.exit(main(jobs=Jobs(session=Session(load_model=load_random))))
