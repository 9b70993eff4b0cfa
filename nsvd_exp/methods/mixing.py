"""Statistics of a mix of texts: a weighted sum of what is known of each, at one scale.

With G_s the Gram matrix of the inputs that source s gives a layer, d_s its mean diagonal, and w_s
weights that sum to 1, the mix is

    G / p = (d_1 / p_1) sum_s w_s G_s / d_s,

so that a source counts by its weight, however many tokens it has and however large its activations
are; the first source says what is large. Means are mixed at the scale of sqrt(d_s / p_s).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nsvd_exp.methods.statistics import Calibration, Statistics

Parts = Sequence[tuple[float, Calibration]]
"""Calibrations of one model, each with its weight; the weights sum to 1."""


def mixed_calibration(parts: Parts, record: Mapping[str, Any]) -> Calibration:
    """The calibration of a mix. Its statistics are made when they are asked for, and not held."""
    reads = parts[0][1].reads
    return Calibration(_MixedInputs(parts), reads, record)


def mixed_statistics(parts: Sequence[tuple[float, Statistics]]) -> Statistics:
    """The statistics of one layer input in a mix, in float64."""
    tokens = sum(statistics.tokens for _, statistics in parts)
    sizes = [float(s.gram.diagonal().double().mean()) / s.tokens for _, s in parts]

    def mixed(values: list[Tensor], power: float, first: int = 0) -> Tensor:
        total = torch.zeros_like(values[0], dtype=torch.float64)
        rest = parts[first:], sizes[first:], values[first:]
        for (weight, _), size, value in zip(*rest, strict=True):
            if size > 0:  # else its inputs are 0
                total += weight / size**power * value.to(total.device, torch.float64)
        return total * sizes[0] ** power

    means = [s.gram / s.tokens for _, s in parts]
    return Statistics(
        gram=mixed(means, 1.0) * tokens,
        mixed=mixed(means, 1.0, first=1) * tokens,
        abs_mean=mixed([s.abs_mean for _, s in parts], 0.5),
        mean=mixed([s.mean for _, s in parts], 0.5),
        tokens=tokens,
    )


class _MixedInputs(Mapping[str, Statistics]):
    """The statistics of each distinct layer input, mixed when they are asked for."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Statistics:
        first = self._parts[0][1].inputs[name]
        # An input is named by a layer that reads it, whatever it is named by in another part.
        others = [(weight, part.of(name)) for weight, part in self._parts[1:]]
        return mixed_statistics([(self._parts[0][0], first), *others])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0][1].inputs)

    def __len__(self) -> int:
        return len(self._parts[0][1].inputs)
