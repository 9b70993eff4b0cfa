"""Small random models of many architectures with low-rank layers, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import nsvd_exp as nx
from helpers.models import COMMON, CONFIGS, WIDE
from helpers.texts import token_ids
from nsvd_exp.models.loading import to_dtype

SPECIAL = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
GROUPED = WIDE | SPECIAL | {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    **{name: CONFIGS[name] for name in ("llama", "mistral", "qwen3", "gpt_neox")},
    "gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, head_dim=8),  # tied
    "opt": lambda: transformers.OPTConfig(  # biases; tied
        **COMMON, **SPECIAL, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32
    ),
    "phi3": lambda: transformers.Phi3Config(**GROUPED),  # queries, keys and values in one
    "gpt2": lambda: transformers.GPT2Config(  # Conv1D, biases; tied
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, **SPECIAL
    ),
    "mixtral": lambda: transformers.MixtralConfig(  # fused experts, which stay dense
        **GROUPED, num_local_experts=4, num_experts_per_tok=2
    ),
}
TIED = ("gemma3", "opt", "gpt2")
IDS = token_ids(3, 20)


def make_dense(name: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A random model of this architecture in eval mode, whose biases are not 0."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()
    for path, parameter in model.named_parameters():
        if path.endswith("bias"):
            nn.init.normal_(parameter)
    to_dtype(model, dtype)
    return model


def make_compressed(name: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """Such a model, of whose compressed weights' parameters 30 % are removed."""
    model = make_dense(name, dtype, seed)
    nx.compress(model, nx.methods.SVD(), 0.3)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """(3, 20, vocabulary) of `IDS`."""
    out = model(input_ids=IDS).logits
    assert isinstance(out, Tensor)
    return out


def generated(model: Any) -> Tensor:
    """What it goes on with after the first tokens, greedily and with a KV cache."""
    start = IDS[:, :5]
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    ids = model.generate(start, attention_mask=torch.ones_like(start), use_cache=True, **options)
    assert isinstance(ids, Tensor)
    return ids


def weights_in(folder: Path) -> dict[str, Tensor]:
    """All tensors of a saved model, by name."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def names_in(path: Path) -> set[str]:
    """The names of the tensors in one file."""
    with safe_open(path, framework="pt") as file:
        return set(file.keys())
