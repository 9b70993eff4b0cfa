"""LLaMA-type models with random weights, on the bundled tokenizer and text.

Random weights change no time: every product and every eigenproblem has the size it has anyway, and
the flat spectra are, if anything, the hard case for an iterative solver. The perplexities mean
nothing (about the size of the vocabulary); `check` makes sure that they are numbers.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.storage.results import Result

# Of the bundled model.
VOCABULARY, POSITIONS = 2048, 256


@dataclass(frozen=True)
class Size:
    """Hidden size and number of layers: `512x8`."""

    hidden: int
    layers: int

    def __str__(self) -> str:
        return f"{self.hidden}x{self.layers}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """The size that is written `512x8`."""
        hidden, _, layers = text.partition("x")
        return cls(int(hidden), int(layers))

    def config(self, vocabulary: int = VOCABULARY, positions: int = POSITIONS) -> Any:
        """LLaMA's proportions: 11008 / 4096 for the MLP, heads of 64 (128 from 4096 on)."""
        return transformers.LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 43 // 16,
            num_hidden_layers=self.layers,
            num_attention_heads=max(self.hidden // (128 if self.hidden >= 4096 else 64), 1),
            vocab_size=vocabulary,
            max_position_embeddings=positions,
        )


LLAMA_7B = Size(4096, 32)


def on_device(config: Any, dtype: torch.dtype, device: str, seed: int = 0) -> Any:
    """The model in eval mode, made where it is used: nothing on disk, nothing on the host."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def save(folder: Path, size: Size) -> Path:
    """A checkpoint in `folder`, with the bundled tokenizer."""
    transformers.logging.disable_progress_bar()
    on_device(size.config(), torch.float32, "cpu").save_pretrained(folder)
    return with_tokenizer(folder)


def save_config(folder: Path, config: Any) -> Path:
    """A model folder without weights, for `random_weights.py`.

    Its file of weights is empty: without any, the command line refuses the folder before the work.
    """
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return with_tokenizer(folder)


def with_tokenizer(folder: Path) -> Path:
    """Put the bundled tokenizer beside the model."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL_DIR / name, folder)
    return folder


def check(results: Iterable[Result]) -> list[Result]:
    """The results, each done and with perplexities that are numbers.

    Raises:
        RuntimeError: one is not: what it took then says nothing.
    """
    found = list(results)
    for result in found:
        if result["status"] != "done":
            raise RuntimeError(f"{result['method']} {result['ratio']}: {result['error']}")
        for name, number in result["datasets"].items():
            if not math.isfinite(number["perplexity"]) or number["perplexity"] > 1e6:
                raise RuntimeError(f"{result['method']}, {name}: {number['perplexity']}")
    return found
