"""`python -m nsvd_exp` on a model folder without weights (as `made.save_config` writes one): they
are made at random on the device.

    python benchmarks/random_weights.py -m experiment=table1 model=tiny model.name=FOLDER

LLaMA-7B needs no 14 GB on a disk then. Not for results: nothing says which weights they were.
"""

import nsvd_exp  # isort: skip # noqa: F401 - before torch: it says how OpenMP's threads wait

import sys

import torch
import transformers
from made import on_device

from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.main import main
from nsvd_exp.experiment.loaded import LoadedModel
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.loading import load_tokenizer


def load_random(plan: Resolved, _: bool) -> LoadedModel:
    """A model of the plan's architecture, on its device, with random weights."""
    known = transformers.AutoConfig.from_pretrained(plan.model.name)
    model = on_device(known, getattr(torch, plan.dtype), plan.device)
    return LoadedModel(model, load_tokenizer(plan.model, plan.config.model))


if __name__ == "__main__":
    sys.exit(main(jobs=Jobs(session=Session(load_random))))
