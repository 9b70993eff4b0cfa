"""Perplexity against a hand computation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from conftest import CONFIGS, make_model

from nsvd_exp.errors import NsvdError
from nsvd_exp.perplexity import in_batches, perplexity, window_nll


def windows(count: int = 5, length: int = 12) -> torch.Tensor:
    return torch.randint(2, 99, (count, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_nll_is_the_hand_computation(name: str) -> None:
    """-sum of log softmax(logits at t)[token at t + 1], one window and one token at a time."""
    model, ids = make_model(name).double(), windows()
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


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    model, ids = make_model("llama"), windows()
    model.lm_head.weight.data.zero_()
    nll = sum(window_nll(model, ids))
    assert perplexity(nll, 5 * 11) == pytest.approx(99, rel=1e-6)


def test_a_loss_that_is_not_finite_names_the_window() -> None:
    model, ids = make_model("llama"), windows()
    model.model.embed_tokens.weight.data[50] = float("nan")
    ids[ids == 50] = 51
    ids[3, 4] = 50
    with pytest.raises(NsvdError, match="the loss of window 3 of 5 is nan"):
        window_nll(model, ids)


def test_a_loss_beyond_any_float_is_an_error() -> None:
    with pytest.raises(NsvdError, match="a mean loss of 800 nats"):
        perplexity(8000.0, 10)


def test_batches_cover_all_rows_and_tell_how_far_they_are() -> None:
    told: list[tuple[int, int]] = []
    rows = torch.arange(10).view(5, 2)
    cpu = torch.device("cpu")
    seen = in_batches(list, rows, 2, cpu, lambda done, total: told.append((done, total)))
    assert torch.equal(torch.cat(seen), rows)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_auto_halves_the_batch_until_it_fits() -> None:
    sizes: list[int] = []

    def work(batches: object) -> int:
        size = len(next(iter(batches)))  # type: ignore[call-overload]
        sizes.append(size)
        if size > 60:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return size

    rows = torch.zeros(5000, 8, dtype=torch.long)
    assert in_batches(work, rows, "auto", torch.device("cpu")) <= 60
    assert sizes == sorted(sizes, reverse=True)
    assert all(a // 2 == b for a, b in pairwise(sizes))


def test_one_window_that_does_not_fit_is_an_error() -> None:
    def work(batches: object) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(NsvdError, match="too little memory for 1 windows of 8 tokens"):
        in_batches(work, torch.zeros(3, 8, dtype=torch.long), "auto", torch.device("cpu"))
