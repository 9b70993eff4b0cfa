"""One text as windows of tokens to evaluate on, or as samples of tokens to calibrate on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.storage.keys import token_digest


@dataclass(frozen=True)
class Tokens:
    """Rows of token ids, all of one length.

    Attributes:
        ids: (rows, length).
        bos: whether the first id of the first row is the tokenizer's BOS.
    """

    ids: Tensor
    bos: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of all ids in order."""
        return token_digest(self.ids.flatten().tolist())


def windows(
    tokenizer: Any,
    text: str,
    length: int,
    max_windows: int | None = None,
    split_special_tokens: bool = False,
    name: str = "the text",
    bos: str = "first",
) -> Tokens:
    """`text`, tokenised once and cut into windows of `length` tokens; the tail is dropped.

    Args:
        tokenizer: of Hugging Face; the special tokens that it adds by itself are kept.
        max_windows: keep the first so many; None for all.
        split_special_tokens: whether special tokens that the text spells out, such as `<unk>`, are
            read as ordinary characters.
        name: of the text, for messages.
        bos: `first`, for the BOS that the tokenizer puts in front of the text, if it does; or
            `window`, for one at the start of each window, before length - 1 tokens of the text.

    Raises:
        NsvdError: the text has fewer tokens than one window, or there is no BOS.
    """
    ids = _tokenise(tokenizer, text, split_special_tokens)
    if bos == "window":
        ids = _with_bos_in_each(ids, tokenizer.bos_token_id, length)
    count = len(ids) // length
    if count == 0:
        raise NsvdError(
            f"{name} has {len(ids)} tokens, fewer than one window of {length}: use a smaller "
            "length (evaluation.length)"
        )
    count = min(count, max_windows or count)
    rows = torch.tensor(ids[: count * length]).view(count, length)
    return Tokens(rows, ids[0] == tokenizer.bos_token_id)


def _with_bos_in_each(ids: list[int], bos: int | None, length: int) -> list[int]:
    """The ids of a text with a BOS before every length - 1 of them, and none of its own in front.

    Raises:
        NsvdError: the tokenizer has no BOS.
    """
    if bos is None:
        raise NsvdError("evaluation.bos=window: the tokenizer has no BOS; use evaluation.bos=first")
    text = ids[1:] if ids[:1] == [bos] else ids
    step = length - 1
    return [i for at in range(0, len(text), step) for i in (bos, *text[at : at + step])]


def calibration_samples(
    tokenizer: Any,
    text: str,
    count: int,
    length: int,
    seed: int = 3,
    sampler: str = "svdllm",
    split_special_tokens: bool = False,
    name: str = "the calibration text",
) -> Tokens:
    """At most `count` samples of `length` tokens, drawn at random from `text`.

    Args:
        tokenizer: of Hugging Face; the special tokens that it adds by itself are kept.
        sampler: `svdllm`, which draws offsets in characters, or `tokens`, which draws offsets in
            the tokens of the whole text.
        split_special_tokens: as in `windows`.
        name: of the text, for messages.

    Raises:
        NsvdError: not one sample could be drawn.
    """
    draws = {"svdllm": _draw_by_characters, "tokens": _draw_by_tokens}
    if sampler not in draws:
        raise unknown_name("sampler", sampler, draws)
    samples = draws[sampler](tokenizer, text, count, length, seed, split_special_tokens)
    if not samples:
        raise NsvdError(
            f"{name} ({len(text)} characters) gave no sample of {length} tokens: use a smaller "
            "length (calibration.length), or more text"
        )
    return Tokens(torch.tensor(samples), samples[0][0] == tokenizer.bos_token_id)


def _draw_by_characters(
    tokenizer: Any, text: str, count: int, length: int, seed: int, split_special_tokens: bool
) -> list[list[int]]:
    """SVD-LLM's sampler, which made the paper's numbers.

    Offsets are drawn in characters although the length is in tokens. Ten times as many characters
    are tokenised on their own, and a slice of too few tokens is skipped, not drawn again. The loop
    runs once more than asked for and keeps the first samples.
    """
    last = len(text) - length - 1
    if last < 0:
        return []
    generator = random.Random(seed)
    samples = []
    for _ in range(count + 1):
        start = generator.randint(0, last)
        ids = _tokenise(tokenizer, text[start : start + 10 * length], split_special_tokens)
        if len(ids) >= length:
            samples.append(ids[:length])
    return samples[:count]


def _draw_by_tokens(
    tokenizer: Any, text: str, count: int, length: int, seed: int, split_special_tokens: bool
) -> list[list[int]]:
    """Random offsets in the tokens of the whole text."""
    ids = _tokenise(tokenizer, text, split_special_tokens)
    last = len(ids) - length
    if last < 0:
        return []
    generator = random.Random(seed)
    starts = [generator.randint(0, last) for _ in range(count)]
    return [ids[start : start + length] for start in starts]


def _tokenise(tokenizer: Any, text: str, split_special_tokens: bool) -> list[int]:
    """Token ids of `text`, with the special tokens that the tokenizer adds by itself."""
    encoded = tokenizer(text, split_special_tokens=split_special_tokens, verbose=False)
    return list(encoded["input_ids"])
