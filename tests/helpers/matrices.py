"""Random weights and layer inputs, and statistics of inputs by their definitions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.inputs import GramAccumulator


def random_weight(m: int, n: int, seed: int = 0) -> Tensor:
    """(m, n), float64, with a decaying spectrum."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, generator=generator, dtype=torch.float64) * torch.logspace(
        0, -1, n, dtype=torch.float64
    )


def random_inputs(n: int, tokens: int, seed: int = 1) -> Tensor:
    """X (n, tokens), float64: correlated channels of unequal size, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    X = torch.randn(n, tokens, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0.5, -0.5, n, dtype=torch.float64)[:, None]
    return scales * (mix @ X + X + 0.3)


def statistics_of(X: Tensor) -> Statistics:
    """The statistics of X (n, p), by their definitions."""
    return Statistics(gram=X @ X.T, abs_mean=X.abs().mean(1), mean=X.mean(1), tokens=X.shape[1])


INPUTS = {
    "many tokens": lambda n: random_inputs(n, 300),
    "fewer tokens than channels": lambda n: random_inputs(n, 9),
    "dead channels": lambda n: random_inputs(n, 300) * (torch.arange(n) % 7 > 0)[:, None],
}
"""Inputs X (n, tokens) by what is special about them."""


def linears(
    shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: str = "cpu"
) -> dict[str, nn.Linear]:
    """A Linear with a random weight for each name and shape (m, n)."""
    layers = {}
    for seed, (name, (m, n)) in enumerate(shapes.items()):
        layers[name] = nn.Linear(n, m, bias=False)
        layers[name].weight.data = random_weight(m, n, seed).to(device, dtype)
    return layers


def calibration_of(shapes: Mapping[str, tuple[int, int]], seed: int = 1) -> Calibration:
    """A calibration of layers of these shapes, each with inputs of its own."""
    inputs = {
        name: statistics_of(random_inputs(n, 300, seed + place))
        for place, (name, (_, n)) in enumerate(shapes.items())
    }
    return Calibration(inputs, dict(zip(inputs, inputs, strict=True)), {})


def gram(x: Tensor) -> Tensor:
    """xᵀx (n, n) of x (p, n), as calibration sums it."""
    accumulator = GramAccumulator(x)
    accumulator.add(x)
    return accumulator.statistics().gram


def inputs_by_hand(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """The whole input of every block Linear, (tokens, n), by the name of the layer."""
    seen: dict[str, list[Tensor]] = {}
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, name=name: seen.setdefault(name, []).append(args[0].flatten(0, -2))
        )
        for name, layer in find_linears(model, []).items()
    ]
    with torch.no_grad():
        for row in ids:
            model(input_ids=row[None])
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}
