"""Random words, the tokenizer that knows them, and random token ids."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast


def make_tokenizer(words: int = 99) -> PreTrainedTokenizerFast:
    """One token for each word `w0`, `w1`, ...; adds no BOS; `<unk>` is special."""
    vocabulary = {"<unk>": 0, "<s>": 1} | {f"w{i}": i for i in range(2, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def words(count: int, seed: int = 0) -> str:
    """Random words of `make_tokenizer`."""
    generator = random.Random(seed)
    return " ".join(f"w{generator.randint(2, 98)}" for _ in range(count))


def token_ids(samples: int = 7, length: int = 16) -> Tensor:
    """Random token ids (samples, length) of `make_tokenizer`."""
    return torch.randint(2, 99, (samples, length), generator=torch.Generator().manual_seed(0))
