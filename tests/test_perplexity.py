"""Perplexity against a hand computation."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from helpers.models import CONFIGS, WIDE, make_model
from helpers.texts import token_ids
from torch.nn.functional import cross_entropy

from nsvd_exp.errors import NsvdError, OutOfMemoryError
from nsvd_exp.models.batches import in_batches
from nsvd_exp.models.blocks import chooses_positions
from nsvd_exp.pipeline import evaluate
from nsvd_exp.pipeline.evaluate import perplexity, token_losses, window_nll


def windows() -> torch.Tensor:
    return token_ids(5, 12)


@pytest.mark.parametrize("name", CONFIGS)
def test_nll_is_the_hand_computation(name: str) -> None:
    """-sum of log softmax(logits at t)[token at t + 1], one window and one token at a time."""
    model, ids = make_model(name).double(), windows()
    assert model.config._attn_implementation == "sdpa"  # holds no matrix of attention weights
    nll = window_nll(model, ids, batch=2)
    for row, value in zip(ids, nll, strict=True):
        with torch.no_grad():
            logits = model(input_ids=row[None]).logits[0]
        by_hand = 0.0
        for t in range(len(row) - 1):
            scores = logits[t].tolist()
            top = max(scores)
            log_sum = top + math.log(math.fsum(math.exp(s - top) for s in scores))
            by_hand += log_sum - scores[int(row[t + 1])]
        assert value == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 5, "auto"])
def test_the_batch_size_shows_only_as_rounding(batch: int | str) -> None:
    model, ids = make_model("llama"), windows()
    assert window_nll(model, ids, batch) == pytest.approx(window_nll(model, ids, 2), rel=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("positions", [1, 4, 7])
def test_no_more_logits_than_a_chunk_are_made(name: str, positions: int) -> None:
    """And the losses are those of all logits at once."""
    model, ids = make_model(name), windows()
    whole, made = window_nll(model, ids, 2), []
    assert chooses_positions(model)
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _, args, logits: made.append(logits.numel() / 99)
    )
    in_chunks = window_nll(model, ids, 2, logits=2 * 99 * positions)
    assert in_chunks == pytest.approx(whole, rel=1e-6)
    handle.remove()
    assert max(made) <= 2 * positions


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("at_once", [1, 3, 11, 64])
def test_a_position_has_the_same_loss_however_many_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, at_once: int
) -> None:
    positions, vocabulary = 11, 5003
    draw = torch.Generator().manual_seed(0)
    logits = (9 * torch.randn(positions, vocabulary, generator=draw)).to(dtype)
    targets = torch.randint(vocabulary, (positions,), generator=draw)
    monkeypatch.setattr(evaluate, "IN_CACHE", at_once * vocabulary + 7)
    losses = token_losses(logits, targets)
    assert torch.equal(losses, cross_entropy(logits.float(), targets, reduction="none"))
    exact = cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-5)


def test_logits_are_scaled_and_capped_as_the_model_does() -> None:
    """What a model does behind its head is part of its forward, not of ours."""
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        **WIDE, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.05
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    whole = window_nll(model, windows())
    assert window_nll(model, windows(), logits=5 * 99 * 3) == pytest.approx(whole, rel=1e-6)
    model.config.final_logit_softcapping = None
    assert window_nll(model, windows(), logits=5 * 99 * 3) != pytest.approx(whole, rel=1e-3)


class Total(torch.nn.Module):
    """Logits from the sum of all blocks' outputs; may be asked for some positions alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(99, 8)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        self.head = torch.nn.Linear(8, 99)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(
        self, input_ids: torch.Tensor, use_cache: bool = False, logits_to_keep: int | Any = 0
    ) -> Any:
        hidden = total = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
            total = total + hidden
        if isinstance(logits_to_keep, torch.Tensor):
            total = total[:, logits_to_keep]
        return type("Output", (), {"logits": self.head(total)})


class Plain(Total):
    """For all positions only."""

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:  # type: ignore[override]
        return super().forward(input_ids)


@pytest.mark.parametrize("kind", [Total, Plain])
def test_a_head_that_cannot_be_run_alone_gives_all_its_logits_at_once(kind: type[Total]) -> None:
    model, ids = kind(), windows()
    assert window_nll(model, ids, logits=99) == pytest.approx(window_nll(model, ids), rel=1e-6)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    model = make_model("llama")
    model.lm_head.weight.data.zero_()
    assert perplexity(sum(window_nll(model, windows())), 5 * 11) == pytest.approx(99, rel=1e-6)


def test_a_loss_that_is_not_finite_names_the_window() -> None:
    model, ids = make_model("llama"), windows()
    model.model.embed_tokens.weight.data[50] = float("nan")
    ids[ids == 50] = 51
    ids[3, 4] = 50
    with pytest.raises(NsvdError, match="the loss of window 3 of 5 is nan"):
        window_nll(model, ids)
    with pytest.raises(NsvdError, match="a mean loss of 800 nats"):  # beyond any float
        perplexity(8000.0, 10)


def test_batches_cover_all_rows_and_tell_how_far_they_are() -> None:
    told: list[tuple[int, int]] = []
    rows = torch.arange(10).view(5, 2)
    cpu = torch.device("cpu")
    seen = in_batches(list, rows, 2, cpu, lambda done, total: told.append((done, total)))
    assert torch.equal(torch.cat(seen), rows)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_auto_halves_the_batch_until_it_fits_down_to_one_window() -> None:
    sizes: list[int] = []

    def work(batches: object) -> int:
        size = len(next(iter(batches)))  # type: ignore[call-overload]
        sizes.append(size)
        if size > fitting:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return size

    rows, fitting, cpu = torch.zeros(5000, 8, dtype=torch.long), 60, torch.device("cpu")
    assert in_batches(work, rows, "auto", cpu) <= fitting
    assert all(a // 2 == b for a, b in pairwise(sizes))
    fitting = 0
    with pytest.raises(OutOfMemoryError, match="too little memory for 1 windows of 8 tokens"):
        in_batches(work, rows, "auto", cpu)
