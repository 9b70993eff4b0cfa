"""Losses from logits on a CPU: of a whole chunk in float32, and in parts that a cache holds.

python benchmarks/losses.py [--repeat 7]

A chunk of logits, in bfloat16, is what evaluation holds at once on a CPU. Both ways give the same
bits, which is checked here too.
"""

from __future__ import annotations

import nsvd_exp  # isort: skip  # noqa: F401 - sets how OpenMP's threads wait, before torch loads it

import argparse

import torch
from gram import times
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

from nsvd_exp.pipeline.evaluate import LOGITS, token_losses

# LLaMA's, SmolLM2's, Qwen2's, Gemma 3's.
VOCABULARIES = (32000, 49152, 151936, 262144)


def of_vocabulary(vocabulary: int, repeat: int) -> dict[str, float]:
    """Milliseconds a position: `whole` and `parts`."""
    positions = LOGITS["cpu"] // vocabulary
    logits = torch.randn(positions, vocabulary).bfloat16()
    targets = torch.randint(vocabulary, (positions,))

    def whole() -> torch.Tensor:
        return cross_entropy(logits.float(), targets, reduction="none")

    def parts() -> torch.Tensor:
        return token_losses(logits, targets)

    if not torch.equal(whole(), parts()):
        raise AssertionError("the losses differ")
    found = times({"whole": whole, "parts": parts}, repeat)
    return {name: 1e3 * seconds / positions for name, seconds in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    table = Table(title=f"Losses from logits, {torch.get_num_threads()} threads, ms a position")
    for heading in ("vocabulary", "whole chunk", "in parts", "times faster"):
        table.add_column(heading, justify="right")
    for vocabulary in VOCABULARIES:
        found = of_vocabulary(vocabulary, options.repeat)
        ratio = found["whole"] / found["parts"]
        cells = (f"{found['whole']:.3f}", f"{found['parts']:.3f}", f"{ratio:.1f}")
        table.add_row(str(vocabulary), *cells)
    Console(width=90).print(table)


if __name__ == "__main__":
    main()
