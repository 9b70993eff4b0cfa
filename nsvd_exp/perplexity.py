"""Windows of tokens to negative log-likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvd_exp.errors import NsvdError
from nsvd_exp.progress import Progress

T = TypeVar("T")

# Tokens of the first batch that `auto` tries: enough to fill a GPU, little enough for a laptop.
AUTO_TOKENS = {"cpu": 4096, "cuda": 32768}


def in_batches(
    work: Callable[[Iterator[Tensor]], T],
    rows: Tensor,
    batch: int | str,
    device: torch.device,
    progress: Progress | None = None,
) -> T:
    """Run `work` over the batches of `rows` (rows, length), on `device`.

    With `batch` = `auto`, a run that ends for want of memory is started again from the beginning
    with half the batch, down to 1.
    """
    auto = batch == "auto"
    size = max(1, AUTO_TOKENS[device.type] // rows.shape[1]) if auto else int(batch)

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(rows), size):
            yield rows[start : start + size].to(device)
            if progress:
                progress(min(start + size, len(rows)), len(rows))

    while True:
        try:
            return work(batches())
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if not auto or size == 1:
                raise NsvdError(
                    f"{device} has too little memory for {size} windows of {rows.shape[1]} tokens"
                ) from None
        torch.cuda.empty_cache()
        size //= 2


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch found no memory: on a CPU it says so in the text of a RuntimeError alone."""
    known = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
    return known or "DefaultCPUAllocator" in str(error)


@torch.no_grad()
def window_nll(
    model: nn.Module,
    windows: Tensor,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> list[float]:
    """The negative log-likelihood of each window: the sum over its length - 1 predicted tokens.

    Every window is scored on its own; its first token is given and not scored.

    Args:
        model: a causal language model in eval mode, `model(input_ids=).logits`.
        windows: (windows, length) token ids.

    Returns:
        nats, one number a window, summed in float64 over log-probabilities taken in float32.

    Raises:
        NsvdError: a loss is NaN or Inf; the message names the window.
    """

    def score(batches: Iterator[Tensor]) -> list[float]:
        nll: list[float] = []
        for ids in batches:
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            losses = cross_entropy(
                logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
            )
            nll += losses.view(len(ids), -1).sum(1, dtype=torch.float64).tolist()
        return nll

    nll = in_batches(score, windows, batch, next(model.parameters()).device, progress)
    for index, value in enumerate(nll):
        if not math.isfinite(value):
            raise NsvdError(f"the loss of window {index} of {len(nll)} is {value}")
    return nll


def perplexity(nll: float, tokens: int) -> float:
    """exp(nll / tokens): nll in nats over `tokens` predicted tokens.

    Raises:
        NsvdError: the mean loss is above 709 nats a token, the largest exponent of a float.
    """
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        raise NsvdError(
            f"a mean loss of {nll / tokens:.0f} nats has no finite perplexity"
        ) from None
