"""Fixtures: small random models made from their configs, a word tokenizer, the bundled default."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

# Before any library reads them: a missing name fails at once, in place of after retries.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import hydra
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nsvd_exp.cli.arguments import normalise
from nsvd_exp.config.files import conf_dir, register
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.experiment import bases
from nsvd_exp.experiment import session as stages
from nsvd_exp.methods.base import Statistics
from nsvd_exp.pipeline.calibrate import GramAccumulator

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs {SHARED}: small real models and real text"
)

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


def make_model(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """A random model of this architecture, in float32 and eval mode."""
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def make_tokenizer(words: int = 99) -> PreTrainedTokenizerFast:
    """One token a word `w0`, `w1`, ...; adds no BOS; `<unk>` is special."""
    vocabulary = {"<unk>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def compose(*overrides: str) -> Config:
    """The typed configuration of a command line."""
    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return typed_config(hydra.compose("config", [normalise(o) for o in overrides]))


def words(count: int, seed: int = 0) -> str:
    """Random words of `make_tokenizer`."""
    generator = random.Random(seed)
    return " ".join(f"w{generator.randint(2, 98)}" for _ in range(count))


def new_process() -> None:
    """What a new process starts with: no calibration and no bases in memory."""
    stages.release_calibration()
    bases.memory.clear()


@pytest.fixture(autouse=True)
def nothing_shared() -> None:
    """No calibration and no bases are left over from another test."""
    new_process()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A local mirror of three sets of random words: wikitext2 (train and test), ptb, c4."""
    folder = tmp_path / "data"
    for seed, name in enumerate(("wikitext2/train", "wikitext2/test", "ptb/test", "c4/test")):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": words(40, seed=1000 * seed + row)} for row in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def settings(
    tmp_path: Path, data_dir: Path, model_folder: Callable[..., Path]
) -> Callable[..., list[str]]:
    """Arguments of a small run on a random model: `settings('opt')`."""

    def arguments(name: str = "llama") -> list[str]:
        return [
            "model=hf",
            f"model.name={model_folder(name)}",
            f"data_dir={data_dir}",
            f"results_dir={tmp_path / 'results'}",
            "dataset=[wikitext2,ptb,c4]",
            "calibration.samples=12",
            "calibration.length=24",
            "evaluation.length=32",
            "evaluation.max_windows=6",
        ]

    return arguments


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random model and its tokenizer: `model_folder('opt')`."""

    def save(name: str = "llama", seed: int = 0) -> Path:
        folder = tmp_path / f"{name}-{seed}"
        make_model(name, seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return folder

    return save


def random_weight(m: int, n: int, seed: int = 0) -> torch.Tensor:
    """(m, n), float64, with a decaying spectrum."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, n, generator=generator, dtype=torch.float64) * torch.logspace(
        0, -1, n, dtype=torch.float64
    )


def random_inputs(n: int, tokens: int, seed: int = 1) -> torch.Tensor:
    """X (n, tokens), float64: correlated channels of unequal size, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    X = torch.randn(n, tokens, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0.5, -0.5, n, dtype=torch.float64)[:, None]
    return scales * (mix @ X + X + 0.3)


def statistics_of(X: torch.Tensor) -> Statistics:
    """The statistics of X (n, p), by their definitions."""
    return Statistics(gram=X @ X.T, abs_mean=X.abs().mean(1), mean=X.mean(1), tokens=X.shape[1])


def gram(x: torch.Tensor) -> torch.Tensor:
    """xᵀx of x (p, n) as calibration sums it."""
    accumulator = GramAccumulator(x)
    accumulator.add(x)
    return accumulator.statistics().gram
