"""Profiles: what is counted is right, and what was measured is kept; no test says how fast."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import OUT_OF_MEMORY, Watch, run, setting
from helpers.command_line import Capture, Settings
from helpers.configuration import compose
from helpers.models import make_model
from helpers.texts import token_ids

from nsvd_exp.cli.profile import main, profile_table
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import compressed
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.profile import run_profile
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.stored import Place
from nsvd_exp.experiment.subject import subject
from nsvd_exp.library import compress
from nsvd_exp.methods import SVD
from nsvd_exp.models.checkpoint import save
from nsvd_exp.models.layers import replaced
from nsvd_exp.pipeline.dense_twin import multiplied_out
from nsvd_exp.pipeline.profile import Protocol, profiles
from nsvd_exp.storage.results import PROFILE, read_records

SMALL = Protocol(prefill=(8, 16, 999), batches=(1, 3), prompt=4, steps=3, repeat=3)
OPTIONS = ["--prefill", "8", "999", "--batches", "1", "3", "--steps", "3", "--repeat", "2"]


def cell(settings: Settings, *changes: str) -> tuple[list[str], str, Place]:
    """The arguments of a cell that is done, its key, and where its things are."""
    arguments = [*settings(), "dataset=[ptb]", *changes]
    key = run(*arguments)["key"]
    place = Place(
        results_dir=setting(arguments, "results_dir"),
        model=setting(arguments, "model.name"),
        data_dir=[setting(arguments, "data_dir")],
        device="cpu",
    )
    return arguments, key, place


@pytest.mark.parametrize("architecture", ["llama_gqa", "opt", "gpt_neox", "gemma"])
def test_the_dense_twin_is_the_model_of_the_products(architecture: str) -> None:
    model, ids = make_model(architecture), token_ids(2, 12)
    parameters = {name: p.shape for name, p in model.named_parameters()}
    dense = model(input_ids=ids).logits
    report = compress(model, SVD(), 0.3)
    low_rank = model(input_ids=ids).logits
    with replaced(model, multiplied_out(model)):
        assert {name: p.shape for name, p in model.named_parameters()} == parameters
        twin = model(input_ids=ids).logits
    torch.testing.assert_close(twin, low_rank, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(twin, dense, rtol=1e-2, atol=1e-2)
    assert torch.equal(model(input_ids=ids).logits, low_rank)  # it stays as it is
    report.restore()
    assert multiplied_out(model) == {}


@pytest.mark.parametrize("architecture", ["llama", "gemma"])  # the latter's embeddings are tied
def test_sizes_and_operations_are_those_counted_by_hand(architecture: str) -> None:
    model = make_model(architecture)
    report = compress(model, SVD(), 0.4)
    twins = multiplied_out(model)
    measured = profiles(
        model, {"dense": lambda: replaced(model, twins), "compressed": nullcontext}, SMALL
    )
    dense, low_rank = measured["dense"], measured["compressed"]
    removed = sum(row["m"] * row["n"] - row["k"] * (row["m"] + row["n"]) for row in report.layers)
    assert dense.parameters - low_rank.parameters == removed
    assert dense.memory_bytes - low_rank.memory_bytes == 4 * removed
    assert low_rank.parameters == sum(p.numel() for p in model.parameters())
    table = model.get_input_embeddings().weight.numel()
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert low_rank.step_bytes == 4 * (low_rank.parameters - (0 if is_tied else table))
    assert [speed.length for speed in low_rank.prefill] == [8, 16]  # 999 are beyond the model
    assert [(speed.batch, speed.length) for speed in low_rank.decode] == [(1, 3), (3, 3)]
    for ours, theirs in zip(low_rank.prefill, dense.prefill, strict=True):
        # A multiplication and an addition for each number of a weight and each token.
        assert theirs.flops - ours.flops == 2 * removed * ours.length
    for ours, theirs in zip(low_rank.decode, dense.decode, strict=True):
        prompt_and_steps = SMALL.prompt + SMALL.steps
        assert theirs.flops - ours.flops == 2 * removed * ours.batch * prompt_and_steps
        assert len(ours.seconds) == len(theirs.seconds) == SMALL.repeat
        assert ours.tokens_per_second is not None
        assert ours.tokens_per_second > 0
    for profile in measured.values():
        assert profile.peak_bytes is None or profile.peak_bytes >= profile.memory_bytes


def test_what_does_not_fit_is_missing_and_the_rest_is_measured() -> None:
    model = make_model("llama")
    compress(model, SVD(), 0.4)
    layer = model.model.layers[0]

    @contextmanager
    def small_memory() -> Iterator[None]:
        def refuse(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            if len(inputs[0]) > 2:
                raise OUT_OF_MEMORY

        handle = layer.register_forward_pre_hook(refuse)
        yield
        handle.remove()

    measured = profiles(model, {"a": nullcontext, "b": small_memory}, SMALL)
    for profile in measured.values():  # of both: a comparison needs two
        assert [speed.tokens_per_second is None for speed in profile.decode] == [False, True]
        assert all(speed.tokens_per_second for speed in profile.prefill)


def test_lengths_that_make_no_sense_are_refused() -> None:
    model = make_model("llama")
    with pytest.raises(NsvdError, match="the model takes 64 tokens, fewer than any prompt"):
        profiles(model, {"a": nullcontext}, Protocol(prefill=(65,)))
    for wrong in ({"prefill": ()}, {"batches": (0,)}, {"repeat": 0}, {"steps": -1}):
        with pytest.raises(NsvdError, match="expected lengths, batches and counts > 0"):
            Protocol(**wrong)  # type: ignore[arg-type]


def test_a_profile_is_kept_with_what_it_was_measured_on(settings: Settings, tmp_path: Path) -> None:
    _, key, place = cell(settings)
    watch, store = Watch(), tmp_path / "results"
    record = run_profile(subject(key, place, Session(watch.load)), SMALL, watch)
    assert watch.begun["load resident"] == watch.begun["profile"] == 1
    assert record["cell"] == key
    assert (record["method"], record["ratio"], record["dtype"]) == ("nsvd_i", 0.3, "float32")
    assert record["identity"]["protocol"]["steps"] == 3
    assert record["identity"]["threads"] == torch.get_num_threads()
    sizes = {name: record[name]["disk_bytes"] for name in ("dense", "compressed")}
    for name in sizes:
        header = sizes[name] - record[name]["memory_bytes"]
        assert 0 < header < 20_000  # all that is there is on disk, and names and shapes
    assert sizes["compressed"] < sizes["dense"]
    again = run_profile(subject(key, place, Session(watch.load)), SMALL, watch)
    assert again == record
    assert list(read_records(store, PROFILE)) == [record]
    assert watch.begun["profile"] == 1
    new = run_profile(subject(key, place, Session()), SMALL, is_new=True)
    assert new["key"] == record["key"]
    assert (
        new["compressed"]["prefill"][0]["seconds"] != record["compressed"]["prefill"][0]["seconds"]
    )
    assert str(tmp_path) not in json.dumps(record)
    leftovers = [path.name for path in (store / "profiles").glob("*/.nsvd*")]
    assert leftovers == []


def test_the_dense_model_is_not_compared(settings: Settings) -> None:
    _, key, place = cell(settings, "method=dense")
    with pytest.raises(NsvdError, match="no low-rank layer"):
        run_profile(subject(key, place, Session()), SMALL)


def test_a_terminal_shows_cells_and_folders(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    arguments, key, place = cell(settings)
    with compressed(plan_cell(compose(*arguments)), Session()) as made:
        folder = save(made.model, tmp_path / "saved", made.tokenizer)
    where = [
        *("--results", place.results_dir, "--device", "cpu", "--model", str(place.model)),
        *("--data-dir", place.data_dir[0]),
    ]
    assert main([key[:9], str(folder), *OPTIONS, *where]) == 0
    out = capsys.readouterr().out
    assert out.count("against llama-0, float32, on cpu") == 2
    for row in ("on disk, MB", "prefill of 8, tokens/s", "decode, batch 3, tokens/s"):
        assert out.count(row) == 2
    assert "prefill of 999" not in out
    assert main(["nowhere", *OPTIONS, *where]) == 2
    assert "there is no cell 'nowhere'" in capsys.readouterr().err


def test_a_table_says_what_did_not_fit_and_compares_in_pairs() -> None:
    def side(parameters: int, seconds: list[float], flops: int) -> dict[str, Any]:
        runs = {"batch": 1, "length": 10, "seconds": seconds, "flops": flops}
        none = {"batch": 32, "length": 10, "seconds": [], "flops": 0, "tokens_per_second": None}
        rate = {"tokens_per_second": 10 / sorted(seconds)[1]}
        return {
            "parameters": parameters,
            "memory_bytes": 4 * parameters,
            "peak_bytes": None,
            "step_bytes": 4 * parameters,
            "disk_bytes": 4 * parameters + 100,
            "prefill": [runs | rate],
            "decode": [none],
        }

    record = {
        "subject": "svd-0.5-abc",
        "model": "m",
        "dtype": "float32",
        "environment": {"device": "cpu", "hardware": "h", "threads": 2},
        "dense": side(2_000_000, [3.0, 2.0, 4.0], 800),
        "compressed": side(1_000_000, [2.0, 2.0, 1.0], 200),
    }
    (form, *_) = profile_table(record)(80)
    (table,) = form.tables
    cells = {
        str(row[0]): [str(text) for text in row]
        for row in zip(*(c.cells for c in table.columns), strict=True)
    }
    assert cells["in memory, MB"][1:4] == ["8.0", "4.0", "0.50"]
    assert cells["peak while generating, MB"][1:4] == ["–", "–", "–"]
    assert cells["prefill of 10, tokens/s"][1:] == ["3.33", "5", "1.50", "1.00–4.00", "4.00", ""]
    assert cells["decode, batch 32, tokens/s"][1:4] == ["no memory", "no memory", "–"]
    assert cells["decode, batch 32, tokens/s"][6] == "2.00"
