"""The dense layers that a model's low-rank layers stand for: each product as one weight."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from nsvd_exp.models.modeling_nsvd import describe


@torch.no_grad()
def multiplied_out(model: nn.Module) -> dict[str, nn.Module]:
    """A dense layer for each low-rank one, by name, of the class that the architecture has there.

    Each weight is the product of its factors, computed in float64 and rounded once to the dtype of
    these. The model stays as it is; biases are shared with it.

    Args:
        model: of transformers.
    """
    forms = describe(model)
    with torch.device("meta"):
        empty: Any = type(model)(copy.deepcopy(model.config)) if forms else None
    twins: dict[str, nn.Module] = {}
    for name in forms:
        layer: Any = model.get_submodule(name)
        W = copy.deepcopy(layer).double().weight.to(next(layer.parameters()).dtype)
        twin = copy.deepcopy(empty.get_submodule(name))
        weight = W.T.contiguous() if isinstance(twin, Conv1D) else W
        twin.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            twin.bias = nn.Parameter(layer.bias.data, requires_grad=False)
        twins[name] = twin
    return twins
