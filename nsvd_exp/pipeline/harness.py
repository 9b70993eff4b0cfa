"""A model in memory as EleutherAI's lm-evaluation-harness sees it.

The harness's own class for models of transformers is given the model. What it prints goes nowhere;
how far it is is told to a `Progress`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.models.huggingface import HFLM
from torch import Tensor, nn

from nsvd_exp.data.tasks import HARNESS
from nsvd_exp.errors import OutOfMemoryError
from nsvd_exp.models.batches import fitting_tokens, is_out_of_memory
from nsvd_exp.progress import Progress

T = TypeVar("T")

# Logits at once, by type of device: 512 MB on a CPU in float32, 2 GB on a GPU in half precision.
LOGITS = {"cpu": 2**27, "cuda": 2**30}


class InMemory(HFLM):
    """The harness's model class on a model in memory, which tells how far it is."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        max_length: int | None,
        progress: Progress | None,
        batch: int | None,
        tokens: int,
    ) -> None:
        self._progress, self._done, self._total = progress, 0, 0
        self._is_auto, self.tokens = batch is None, tokens
        super().__init__(
            model,
            backend="causal",
            tokenizer=copy.deepcopy(tokenizer),  # it is given a token to pad with
            batch_size=batch or 1,
            max_length=max_length,
        )

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        self._begin(len(requests))
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        self._begin(len(requests))
        self._fit(self.max_length)
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> Any:
        self._begin(len(requests))
        prompt = max((request.args[0] for request in requests), key=len)
        new = max(r.args[1].get("max_gen_toks") or self.max_gen_toks for r in requests)
        self._fit(len(self.tok_encode(prompt)) + new)
        return super().generate_until(requests, disable_tqdm)

    def _loglikelihood_tokens(self, requests: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        self._fit(max(len(context) + len(ending) for _, context, ending in requests))
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def _fit(self, longest: int) -> None:
        """Choose the batch by the tokens of the longest request."""
        if self._is_auto:
            longest = min(longest, self.max_length)
            size = min(self.tokens // longest, max(self._total, 1))
            self.batch_size_per_gpu = max(size, 1)
            self.tokens = self.batch_size_per_gpu * longest

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        logits: Tensor = super()._model_call(inps, *args, **kwargs)
        self._tell(len(inps))
        return logits

    def _model_generate(self, context: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        ids: Tensor = super()._model_generate(context, *args, **kwargs)
        self._tell(len(context))
        return ids

    def _begin(self, total: int) -> None:
        self._done, self._total = 0, total

    def _tell(self, rows: int) -> None:
        # Requests that differ in their last token share a row; a long text has several.
        self._done = min(self._done + rows, self._total)
        if self._progress:
            self._progress(self._done, self._total)


def with_fitting_batch(
    attempt: Callable[[InMemory], T],
    made: Callable[[int | None, int], InMemory],
    model: nn.Module,
    batch: int | str,
) -> T:
    """`attempt` with the batch; with `auto`, with half of it whenever memory runs out.

    Args:
        made: makes the harness's model with a batch, or with None and the tokens of a batch.
    """
    device = next(model.parameters()).device
    tokens = _tokens_at_once(model, device)
    while True:
        lm = made(None if batch == "auto" else int(batch), tokens)
        try:
            return attempt(lm)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch != "auto" or lm.batch_size == 1:
                raise OutOfMemoryError(
                    f"{device} has too little memory for {lm.batch_size} requests at a time"
                ) from None
        torch.cuda.empty_cache()
        tokens = lm.tokens // 2


def _tokens_at_once(model: nn.Module, device: torch.device) -> int:
    """The tokens of the first batch that `auto` tries."""
    vocabulary = model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    return min(fitting_tokens(model, device), LOGITS[device.type] // vocabulary)


def seed_all() -> None:
    """Whatever a task draws, it draws as with the harness's own command."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)


class _Kept(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """What the harness warns of goes into a list; its bars and what it prints go nowhere."""
    logger, kept = logging.getLogger(HARNESS), _Kept()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(kept)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield kept.messages
    finally:
        logger.removeHandler(kept)
        logger.propagate = propagates
