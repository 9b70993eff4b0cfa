"""Windows of tokens to negative log-likelihoods."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nsvd_exp.errors import NsvdError
from nsvd_exp.models.batches import STREAMED_TOKENS, fitting_tokens, in_batches
from nsvd_exp.models.blocks import BlockChain, chooses_positions, logits_at
from nsvd_exp.models.hidden_states import HiddenStates
from nsvd_exp.models.loading import to_dtype
from nsvd_exp.models.streamed import Flow, StreamedModel
from nsvd_exp.progress import Progress

# Logits at once: 64 MB in float32 on a CPU, 512 MB on a GPU, where products should be large.
LOGITS = {"cpu": 2**24, "cuda": 2**27}
# Of them in float32 on a CPU at once: 4 MB, which its cache holds (benchmarks/losses.py).
IN_CACHE = 2**20


@torch.no_grad()
def window_nll(
    model: nn.Module,
    windows: Tensor,
    batch: int | str = "auto",
    progress: Progress | None = None,
    logits: int | None = None,
) -> list[float]:
    """The negative log-likelihood of each window: the sum over its length - 1 predicted tokens.

    Every window is scored on its own; its first token is given and not scored.

    Args:
        model: a causal language model in eval mode, `model(input_ids=).logits`.
        windows: (windows, length) token ids.
        logits: how many to hold at once, but no fewer than one position's; None for LOGITS.

    Returns:
        nats, one number for each window, summed in float64 over log-probabilities taken in float32.

    Raises:
        NsvdError: a loss is NaN or Inf; the message names the window.
    """
    device = next(model.parameters()).device

    def score(batches: Iterator[Tensor]) -> list[float]:
        # Read once, at the end: a GPU is not waited for in between.
        return torch.cat([_losses(model, ids, logits) for ids in batches]).tolist()

    tokens = fitting_tokens(model, device) if batch == "auto" else None
    nll = in_batches(score, windows, batch, device, progress, tokens)
    return finite(nll, next(model.parameters()).dtype)


Compressed = Callable[[int], AbstractContextManager[object]]


@torch.no_grad()
def window_nll_streamed(
    streamed: StreamedModel,
    windows: Tensor,
    dtype: torch.dtype,
    compressed: Compressed,
    batch: int | str = "auto",
    progress: Progress | None = None,
) -> list[float]:
    """As `window_nll`, of a model of which one block at a time is in memory.

    Args:
        dtype: of the evaluation.
        compressed: makes a context from the number of a block, whose weights are there in the
            model's own dtype. Inside it the block is what is to be evaluated.

    Raises:
        NsvdError: the blocks cannot be run one by one, or what `compressed` raises.
    """
    blocks = streamed.chain.blocks

    def attempt(batches: Iterator[Tensor]) -> list[float]:
        flow = Flow(streamed, batches, len(windows), dtype)
        for index in range(len(blocks)):
            with streamed.block(index) as block, compressed(index):
                to_dtype(block, dtype)
                flow.push(index)
            if progress:
                progress(index + 1, len(blocks) + 1)
        losses = _streamed_losses(streamed, flow.states, windows, batch, dtype)
        if progress:
            progress(len(blocks) + 1, len(blocks) + 1)
        return losses

    device = streamed.device
    return in_batches(attempt, windows, batch, device, tokens=STREAMED_TOKENS[device.type])


def _streamed_losses(
    streamed: StreamedModel,
    states: HiddenStates,
    ids: Tensor,
    batch: int | str,
    dtype: torch.dtype,
) -> list[float]:
    """nats of each row of ids (rows, length), whose hidden states have left the last block."""
    chain, device = streamed.chain, streamed.device
    in_parts = chooses_positions(chain.model)

    def score(batches: Iterator[Tensor]) -> list[float]:
        losses: list[Tensor] = []
        stop = 0
        for part in batches:
            start, stop = stop, stop + len(part)
            output = chain.output_of(states.get(start, stop))
            if not losses and not chain.ends_with_last_block(part, output):
                raise chain.refusal("are not all there is behind its logits")
            step = positions_at_once(chain.model, part)
            logits_of = functools.partial(chain.logits, part, output)
            losses.append(summed_losses(part, step, logits_of, in_parts))
        return torch.cat(losses).tolist()

    with streamed.rest(dtype):
        return in_batches(score, ids, batch, device, tokens=STREAMED_TOKENS[device.type])


def finite(nll: list[float], dtype: torch.dtype | None = None) -> list[float]:
    """Returns nll; raises an NsvdError that names the window if a loss is not finite.

    Args:
        dtype: of the arithmetic, for the message.
    """
    for index, value in enumerate(nll):
        if not math.isfinite(value):
            is_half = dtype == torch.float16
            advice = " (float16 ends at 65504): try dtype=bfloat16, or evaluation.dtype=float32"
            raise NsvdError(
                f"the loss of window {index} of {len(nll)} is {value}{advice if is_half else ''}"
            )
    return nll


def _losses(model: nn.Module, ids: Tensor, at_once: int | None) -> Tensor:
    """nats (rows,) of ids (rows, length).

    Where one chunk of logits does not hold all positions, the others come from the kept output of
    the last block, by the model's own forward; unless the logits need more than that.
    """
    last, step = ids.shape[1] - 1, positions_at_once(model, ids, at_once)
    if step < last and chooses_positions(model):
        chain = BlockChain(model)
        with chain.keeping() as kept:
            first = logits_at(model, ids, 0, step)
        output = kept[-1]
        if chain.ends_with_last_block(ids, output):
            return summed_losses(
                ids, step, lambda a, b: chain.logits(ids, output, a, b) if a else first
            )
        del first
    return summed_losses(ids, step, functools.partial(logits_at, model, ids), in_parts=False)


def positions_at_once(model: nn.Module, ids: Tensor, logits: int | None = None) -> int:
    """How many positions of all rows of ids (rows, length) have their logits in one chunk."""
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    return max(1, (logits or LOGITS[ids.device.type]) // (len(ids) * vocabulary))


def summed_losses(
    ids: Tensor, step: int, logits_of: Callable[[int, int], Tensor], in_parts: bool = True
) -> Tensor:
    """nats (rows,), float64, of ids (rows, length); no more than `step` positions at a time.

    Args:
        logits_of: (start, stop) to the logits (rows, stop - start, vocabulary) of these positions.
        in_parts: whether to ask it for `step` positions at a time, or once for all.
    """
    last = ids.shape[1] - 1
    whole = None if in_parts else logits_of(0, last)
    total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    for start in range(0, last, step):
        stop = min(start + step, last)
        targets = ids[:, start + 1 : stop + 1].flatten()
        part = logits_of(start, stop) if whole is None else whole[:, start:stop]
        losses = token_losses(part.flatten(0, 1), targets.to(part.device))
        total += losses.view(len(ids), -1).sum(1, dtype=torch.float64).to(total.device)
    return total


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """nats, float32, (positions,), of logits (positions, vocabulary) in any dtype.

    Each position has the same bits, however many are taken at once.
    """
    positions, vocabulary = logits.shape
    at_once = max(1, IN_CACHE // vocabulary) if logits.device.type == "cpu" else positions
    parts = zip(logits.split(at_once), targets.split(at_once), strict=True)
    return torch.cat([cross_entropy(a.float(), b, reduction="none") for a, b in parts])


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


def bits_per_byte(nll: float, size: int | None) -> float | None:
    """nll / ln 2 / bytes: nll in nats over a text of `size` bytes.

    Models with different tokenizers can be compared by it. None where the size is not known, or 0.
    """
    return nll / math.log(2) / size if size else None


def word_perplexity(nll: float, words: int | None) -> float | None:
    """exp(nll / words): nll in nats over a text of `words` words.

    None where their number is not known, or 0, or where the value is beyond the largest float: a
    "word" of a text without spaces can be a whole paragraph.
    """
    try:
        return math.exp(nll / words) if words else None
    except OverflowError:
        return None
