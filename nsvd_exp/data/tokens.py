"""One text as windows of tokens to evaluate on, or as samples of tokens to calibrate on."""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
        bytes: in UTF-8, of the text of all tokens but the first of each row; None where the
            tokenizer does not tell where in the text its tokens stand.
        words: of that text, separated by white space; None where `bytes` is.
    """

    ids: Tensor
    bos: bool
    bytes: int | None = None
    words: int | None = None

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
    has_offsets = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(
        text,
        split_special_tokens=split_special_tokens,
        return_offsets_mapping=has_offsets,
        verbose=False,
    )
    ids = list(encoded["input_ids"])
    ends = text_ends(encoded["offset_mapping"]) if has_offsets else [0] * len(ids)
    if bos == "window":
        ids, ends = _with_bos_in_each(ids, ends, tokenizer.bos_token_id, length)
    count = len(ids) // length
    if count == 0:
        raise NsvdError(
            f"{name} has {len(ids)} tokens, fewer than one window of {length}: use a smaller "
            "length (evaluation.length)"
        )
    count = min(count, max_windows or count)
    rows = torch.tensor(ids[: count * length]).view(count, length)
    has_bos = ids[0] == tokenizer.bos_token_id
    if not has_offsets:
        return Tokens(rows, has_bos)
    parts = [(ends[row * length], ends[(row + 1) * length - 1]) for row in range(count)]
    return Tokens(rows, has_bos, *bytes_and_words(text, parts))


def text_ends(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Where in the text each token ends, in characters; the next one's text begins there.

    A character that several tokens share belongs to the last of them, with which it is known. One
    that is in no token, such as a space that the tokenizer drops, belongs to the token after it. A
    token without a place in the text, such as an added BOS, has none of it.

    Args:
        offsets: (start, stop) of each token, as the tokenizer gives them.
    """
    ends: list[int] = []
    start_of_next = None
    for start, stop in reversed(offsets):
        if stop <= start:
            ends.append(0)  # no place: it ends where the token before it does
            continue
        ends.append(stop if start_of_next is None else min(stop, start_of_next))
        start_of_next = start if start_of_next is None else min(start, start_of_next)
    return list(accumulate(reversed(ends), max))


def bytes_and_words(text: str, parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """UTF-8 bytes and words of the parts (start, stop) of a text, in characters.

    A word is what stands between white space in the whole text, and counts where its last character
    is.
    """
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    size = sum(len(text[start:stop].encode("utf-8", "surrogatepass")) for start, stop in parts)
    words = sum(bisect_right(ends, stop) - bisect_right(ends, start) for start, stop in parts)
    return size, words


def _with_bos_in_each(
    ids: list[int], ends: list[int], bos: int | None, length: int
) -> tuple[list[int], list[int]]:
    """The ids of a text with a BOS before every length - 1 of them, and none of its own in front.

    Args:
        ends: where in the text each of them ends; the BOS ends where the token before it does.

    Raises:
        NsvdError: the tokenizer has no BOS.
    """
    if bos is None:
        raise NsvdError("evaluation.bos=window: the tokenizer has no BOS; use evaluation.bos=first")
    first, step = int(ids[:1] == [bos]), length - 1
    with_bos: list[int] = []
    their_ends: list[int] = []
    for at in range(first, len(ids), step):
        with_bos += [bos, *ids[at : at + step]]
        their_ends += [ends[at - 1] if at else 0, *ends[at : at + step]]
    return with_bos, their_ends


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


def random_samples(
    tokenizer: Any, count: int, length: int, seed: int = 3, below: int | None = None
) -> Tokens:
    """Samples that are no text: token ids drawn one by one, each as likely as any other.

    Where the tokenizer begins a text with its BOS, so does each sample.

    Args:
        below: what all ids are below, such as the number of a model's embeddings; None: any.
    """
    ids = sorted(i for i in set(tokenizer.get_vocab().values()) if below is None or i < below)
    generator = random.Random(seed)
    samples = [[generator.choice(ids) for _ in range(length)] for _ in range(count)]
    begins_with = _tokenise(tokenizer, "a", split_special_tokens=False)[:1]
    has_bos = begins_with == [tokenizer.bos_token_id]
    if has_bos:
        samples = [[*begins_with, *sample[1:]] for sample in samples]
    return Tokens(torch.tensor(samples), has_bos)


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
