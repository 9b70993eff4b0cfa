"""Calibration's products: panels up to the diagonal of xᵀx, and what a pass without logits saves.

python benchmarks/gram.py [--tokens 4096] [--repeat 7]
"""

from __future__ import annotations

import nsvd_exp  # isort: skip  # noqa: F401 - sets how OpenMP's threads wait, before torch loads it

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from rich.console import Console
from rich.table import Table

from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.inputs import PANEL, GramAccumulator, MeanAccumulator, product

WIDTHS = (512, 1376, 2048, 4096, 5504)


class Whole(GramAccumulator):
    """All of the matrix by one product."""

    def add(self, x: torch.Tensor) -> None:
        MeanAccumulator.add(self, x)
        self._lower += product(x, x)


def times(works: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median seconds of each, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeat):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def of_width(n: int, tokens: int, repeat: int) -> dict[str, float]:
    """Seconds of one batch of a layer input, whole and in panels."""
    x = torch.randn(tokens, n)
    sums = {"whole": Whole(x), "panels": GramAccumulator(x)}
    return times({name: lambda s=s: s.add(x) for name, s in sums.items()}, repeat)


def of_head(vocabulary: int, repeat: int) -> dict[str, float]:
    """Seconds of a small model's calibration, with logits of every position and of one."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    layers, ids = find_linears(model, []), torch.randint(2, vocabulary, (16, 256))
    original = type(model).forward

    def all_logits(self: torch.nn.Module, logits_to_keep: int = 0, **options: object) -> object:
        return original(self, **options)

    def with_all() -> None:
        type(model).forward = all_logits
        try:
            calibrate(model, layers, ids)
        finally:
            type(model).forward = original

    return times({"all": with_all, "one": lambda: calibrate(model, layers, ids)}, repeat)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    console = Console(width=90)
    table = Table(title=f"Gram matrix of {options.tokens} tokens, panels of {PANEL} rows, float32")
    for heading in ("n", "whole, s", "panels, s", "times faster"):
        table.add_column(heading, justify="right")
    for n in WIDTHS:
        found = of_width(n, options.tokens, options.repeat)
        ratio = found["whole"] / found["panels"]
        table.add_row(str(n), f"{found['whole']:.3f}", f"{found['panels']:.3f}", f"{ratio:.2f}")
    console.print(table)
    table = Table(title="Calibration of 16 x 256, hidden size 256, 4 blocks: logits that are made")
    for heading in ("vocabulary", "of all positions, s", "of one, s", "times faster"):
        table.add_column(heading, justify="right")
    for vocabulary in (1024, 8192, 32000):
        found = of_head(vocabulary, options.repeat)
        ratio = found["all"] / found["one"]
        table.add_row(str(vocabulary), f"{found['all']:.3f}", f"{found['one']:.3f}", f"{ratio:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
