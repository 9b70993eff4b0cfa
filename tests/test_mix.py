"""Calibration on several sources: the mix by its definition, its keys, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.cells import Watch, run, similarities
from helpers.configuration import compose
from helpers.matrices import random_inputs, statistics_of
from helpers.texts import make_tokenizer, words

from nsvd_exp.data.tokens import random_samples
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.improvement import calibration_sets
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods.mixing import mixed_calibration, mixed_statistics
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.report.model.agreement import agrees, cell_agreement
from nsvd_exp.report.model.methods import row_of

Settings = Callable[..., list[str]]
MIX = "calibration.mix={random: 0.1, ptb: 0.3}"


@pytest.fixture
def arguments(settings: Settings, data_dir: Path) -> list[str]:
    """A small run, with a text of ptb to calibrate on."""
    rows = [{"text": words(40, seed=row)} for row in range(60)]
    (data_dir / "ptb/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*settings(), "method=asvd_i", "ratio=0.3", "dataset=[wikitext2,c4]"]


def test_a_mix_is_the_weighted_sum_of_gram_matrices_at_one_scale() -> None:
    one, other = (
        statistics_of(random_inputs(12, tokens, seed)) for seed, tokens in ((1, 90), (2, 40))
    )
    mixed = mixed_statistics([(0.7, one), (0.3, other)])
    assert mixed.tokens == 130
    means = [s.gram / s.tokens for s in (one, other)]
    sizes = [gram.diagonal().mean() for gram in means]
    expected = sizes[0] * (0.7 * means[0] / sizes[0] + 0.3 * means[1] / sizes[1])
    torch.testing.assert_close(mixed.gram / mixed.tokens, expected)
    for name in ("abs_mean", "mean"):
        values = [
            getattr(s, name) / size.sqrt() for s, size in zip((one, other), sizes, strict=True)
        ]
        expected = sizes[0].sqrt() * (0.7 * values[0] + 0.3 * values[1])
        torch.testing.assert_close(getattr(mixed, name), expected)


def test_a_mix_with_itself_is_itself_and_a_scale_of_a_source_does_not_matter() -> None:
    one, other = (statistics_of(random_inputs(12, 90, seed)) for seed in (1, 2))
    itself = mixed_statistics([(0.4, one), (0.6, one)])
    torch.testing.assert_close(itself.gram / itself.tokens, one.gram / one.tokens)
    torch.testing.assert_close(itself.abs_mean, one.abs_mean)
    larger = dataclasses.replace(
        other, gram=100 * other.gram, abs_mean=10 * other.abs_mean, mean=10 * other.mean
    )
    plain, scaled = (mixed_statistics([(0.4, one), (0.6, s)]) for s in (other, larger))
    for name in ("gram", "abs_mean", "mean"):
        torch.testing.assert_close(getattr(plain, name), getattr(scaled, name))
    silent = dataclasses.replace(other, gram=0 * other.gram)
    torch.testing.assert_close(mixed_statistics([(0.4, one), (0.6, silent)]).mean, 0.4 * one.mean)


def test_an_input_that_another_part_names_otherwise_is_found_by_its_reader() -> None:
    one, other = (statistics_of(random_inputs(5, 40, seed)) for seed in (1, 2))
    first = Calibration({"q": one}, {"q": "q", "k": "q"})
    second = Calibration({"k": other}, {"q": "k", "k": "k"})
    mixed = mixed_calibration([(0.5, first), (0.5, second)], {})
    assert (len(mixed.inputs), list(mixed.inputs)) == (1, ["q"])
    expected = mixed_statistics([(0.5, one), (0.5, other)])
    torch.testing.assert_close(mixed.of("k").gram, expected.gram)


def test_random_samples_are_any_ids_after_a_bos_where_a_text_has_one() -> None:
    tokenizer = make_tokenizer()
    known = set(tokenizer.get_vocab().values())
    samples = random_samples(tokenizer, 20, 30, seed=1)
    assert samples.ids.shape == (20, 30)
    assert set(samples.ids.flatten().tolist()) <= known
    assert len(set(samples.ids.flatten().tolist())) > 0.8 * len(known)
    assert torch.equal(samples.ids, random_samples(tokenizer, 20, 30, seed=1).ids)
    assert not torch.equal(samples.ids, random_samples(tokenizer, 20, 30, seed=2).ids)
    few = random_samples(tokenizer, 20, 30, seed=1, below=7)
    assert int(few.ids.max()) < 7
    has_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    assert samples.bos == has_bos
    assert set(samples.ids[:, 0].tolist()) == {tokenizer.bos_token_id} or not has_bos


def test_a_mix_keys_what_is_calibrated_and_no_mix_is_no_other_cell(arguments: list[str]) -> None:
    def identity(*more: str) -> dict[str, object]:
        return plan_cell(compose(*arguments, *more)).file.identity

    assert identity("calibration.mix={}") == identity()
    keyed = identity(MIX)["calibration"]
    assert {name: value for name, value in keyed.items() if name != "mix"} == (
        identity()["calibration"]
    )
    assert keyed["mix"]["random"] == {
        "source": "random", "samples": 12, "length": 24, "seed": 3, "version": 1, "weight": "0.1",
    }  # fmt: skip
    assert keyed["mix"]["ptb"]["weight"] == "0.3"
    assert set(keyed["mix"]["ptb"]["source"]) == set(keyed["source"])
    other = identity("calibration.mix={random: 0.2, ptb: 0.3}")
    assert other["calibration"] != keyed
    assert "calibration" not in identity(MIX, "method=svd")


def test_a_cell_of_a_mix_is_calibrated_once_on_each_source(arguments: list[str]) -> None:
    watch = Watch()
    session = Session(watch.load)
    plain = run(*arguments, session=session, watch=watch)
    assert watch.begun["calibrate"] == 1
    mixed = run(*arguments, MIX, session=session, watch=watch)
    assert watch.begun["calibrate"] == 3
    other = run(*arguments, MIX.replace("0.1", "0.2"), session=session, watch=watch)
    assert watch.begun["calibrate"] == 3
    numbers = [cell["datasets"]["c4"]["perplexity"] for cell in (plain, mixed, other)]
    assert len(set(numbers)) == 3
    record = mixed["calibration"]
    assert record["title"].endswith("wikitext2 train, mixed with 0.1 of random, 0.3 of ptb")
    assert {name: part["weight"] for name, part in record["mix"].items()} == {
        "random": 0.1, "ptb": 0.3,
    }  # fmt: skip
    assert record["token_sha256"] == plain["calibration"]["token_sha256"]
    assert "mix" not in plain["config"]["calibration"]
    assert mixed["config"]["calibration"]["mix"] == {"random": 0.1, "ptb": 0.3}
    # The report: rows of one table, which is not averaged over the sets of either.
    cells = (plain, mixed, other)
    assert [row_of(cell).method for cell in cells] == [
        "asvd_i", "asvd_i, 10% random, 30% ptb", "asvd_i, 20% random, 30% ptb",
    ]  # fmt: skip
    one, *others = map(cell_agreement, cells)
    assert all(agrees(one, of_mix) for of_mix in others)
    assert calibration_sets(mixed["config"]["calibration"]) == ["wikitext2", "ptb"]


def test_a_mix_is_the_same_in_memory_streamed_and_read_back(
    arguments: list[str], tmp_path: Path
) -> None:
    places = [
        [f"results_dir={tmp_path}/{number}", *more]
        for number, more in enumerate(
            (["cache.keep=none"], [], ["memory=streamed"], ["memory=streamed", "cache.keep=none"])
        )
    ]
    numbers = [run(*arguments, MIX, *place)["datasets"]["c4"]["perplexity"] for place in places]
    assert numbers[1] == numbers[0]
    assert numbers[2:] == pytest.approx(numbers[:1] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("{ranodm: 0.1}", "unknown source of calibration.mix 'ranodm'. Did you mean random?"),
        ("{wikitext2: 0.1}", "calibration.mix: wikitext2 is the calibration set itself"),
        ("random", "calibration.mix=random: expected weights by name"),
        ("{ptb: much}", "calibration.mix.ptb=much: expected a weight"),
        ("{ptb: 0}", "calibration.mix.ptb=0: expected a weight, 0 < weight < 1"),
        ("{ptb: 0.5, random: 0.5}", "expected weights that sum to less than 1"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(arguments: list[str], mix: str, message: str) -> None:
    with pytest.raises(NsvdError) as caught:
        plan_cell(compose(*arguments, f"calibration.mix={mix}"))
    assert message in str(caught.value)


def test_similarity_compares_with_one_text(arguments: list[str]) -> None:
    with pytest.raises(NsvdError, match="leave out the mix"):
        similarities(*arguments, "measure=similarity", MIX)
