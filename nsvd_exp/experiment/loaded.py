"""The dense model of a job, loaded whole or to be brought block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.models.devices import gpus_of
from nsvd_exp.models.loading import load_model, load_streamed, load_tokenizer
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.storage.cache import STREAMED
from nsvd_exp.storage.files import ScratchFolder


@dataclass
class LoadedModel:
    """A dense model, its tokenizer, and what brings its weights where they are not in memory."""

    model: nn.Module
    tokenizer: Any
    streamed: StreamedModel | None = None


def load_dense(plan: Resolved, is_streamed: bool) -> LoadedModel:
    """The dense model of the plan, from its checkpoint."""
    config = plan.config.model
    if is_streamed:
        streamed = _streamed(plan)
        return LoadedModel(streamed.model, load_tokenizer(plan.model, config), streamed)
    model = load_model(plan.model, config, plan.dtype, plan.device)
    return LoadedModel(model, load_tokenizer(plan.model, config))


def _streamed(plan: Resolved) -> StreamedModel:
    """The model of the plan, on the first of its GPUs."""
    place = next(iter(gpus_of(plan.device)), "cpu")
    try:
        plan.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = plan.config.cache_dir
        raise NsvdError(f"cache_dir={name} cannot be written to: {error}") from None
    own = ScratchFolder(plan.cache_dir, STREAMED)
    model, weights = load_streamed(plan.model, plan.config.model, plan.dtype, own.path)
    return StreamedModel(model, weights, torch.device(place), plan.cache_dir, own)
