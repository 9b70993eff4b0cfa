"""Small random models of every architecture that the package is tested with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

COMMON = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = COMMON | {"intermediate_size": 48, "max_position_embeddings": 64}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**WIDE),
    "llama_gqa": lambda: transformers.LlamaConfig(**WIDE, num_key_value_heads=2),
    "mistral": lambda: transformers.MistralConfig(**WIDE, num_key_value_heads=2),
    "qwen3": lambda: transformers.Qwen3Config(**WIDE, num_key_value_heads=2, head_dim=8),
    "gemma": lambda: transformers.GemmaConfig(**WIDE, num_key_value_heads=1, head_dim=8),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**WIDE),
    "opt": lambda: transformers.OPTConfig(
        **COMMON, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32
    ),
}

UP = "model.layers.0.mlp.up_proj.weight"
"""One weight of a saved LLaMA."""


def make_model(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """A random model of this architecture, in float32 and eval mode."""
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights of a saved model in place."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})
