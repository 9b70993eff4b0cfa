"""A text continued by a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.loading import check_vocabulary


@dataclass(frozen=True)
class Choice:
    """How each token is chosen.

    Attributes:
        temperature: of sampling, > 0; None: the most probable token, always.
        seed: of sampling.
    """

    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise NsvdError(f"temperature={self.temperature}: expected a number > 0")


GREEDY = Choice()


@dataclass(frozen=True)
class Continuation:
    """What a model made of a prompt.

    Attributes:
        text: what follows the prompt, without special tokens.
        tokens: how many were made.
        has_ended: whether the last one is the model's end of a text.
    """

    text: str
    tokens: int
    has_ended: bool


@torch.no_grad()
def continued(
    model: nn.Module, tokenizer: Any, prompt: str, tokens: int = 64, choice: Choice = GREEDY
) -> Continuation:
    """Continue a prompt, by up to so many tokens.

    Options of the model's own generation config, such as a temperature, have no part in it, but for
    the tokens that end a text. The state of torch's random numbers is left as it is.

    Args:
        model: a causal language model of transformers, in eval mode.

    Raises:
        NsvdError: the prompt is empty, or too long for the positions that the model has.
    """
    device = next(model.parameters()).device
    inputs = tokenizer(prompt, return_tensors="pt")
    ids = inputs["input_ids"].to(device)
    if not ids.numel():
        raise NsvdError("the prompt is empty, and the tokenizer adds no token in front of a text")
    check_vocabulary(model, ids)
    _check_positions(model, ids.shape[1], tokens)
    own: Any = getattr(model, "generation_config", None)
    ends = None if own is None else own.eos_token_id
    last = ends[0] if isinstance(ends, list) else ends
    is_sampled = choice.temperature is not None
    config = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=is_sampled,
        num_beams=1,
        eos_token_id=ends,
        pad_token_id=0 if last is None else last,
        **({"temperature": choice.temperature, "top_k": 0, "top_p": 1.0} if is_sampled else {}),
    )
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), _configured(model, config):
        torch.manual_seed(choice.seed)
        made = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids)
        )[0]
    new = made[ids.shape[1] :].tolist()
    return Continuation(
        _after(tokenizer, ids[0].tolist(), new),
        len(new),
        bool(new) and new[-1] in (ends if isinstance(ends, list) else [ends]),
    )


@contextmanager
def _configured(model: Any, config: GenerationConfig) -> Iterator[None]:
    """The model with this generation config, and nothing of its own, which would fill the gaps."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


def _after(tokenizer: Any, before: list[int], new: list[int]) -> str:
    """The text of the new tokens: decoded with those before them, which may make it begin with a
    space that is not there when they are decoded by themselves."""
    whole = str(tokenizer.decode([*before, *new], skip_special_tokens=True))
    start = str(tokenizer.decode(before, skip_special_tokens=True))
    if whole.startswith(start):
        return whole[len(start) :]
    # The prompt ends within a character, say.
    return str(tokenizer.decode(new, skip_special_tokens=True))


def _check_positions(model: nn.Module, before: int, tokens: int) -> None:
    """Refuse more tokens than the model has positions for."""
    if tokens < 1:
        raise NsvdError(f"tokens={tokens}: expected a number > 0")
    limit = positions_of(model)
    if limit is not None and before + tokens > limit:
        raise NsvdError(
            f"{before} tokens of the prompt and {tokens} more are above the {limit} positions of "
            "the model: give a shorter prompt, or ask for fewer tokens"
        )


def positions_of(model: nn.Module) -> int | None:
    """How many tokens the model takes; None where its configuration does not say."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len"):
        if getattr(text, name, None):
            return int(getattr(text, name))
    return None
