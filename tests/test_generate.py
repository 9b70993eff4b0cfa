"""A text continued: by definition, the same each time, and kept beside the cell it is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.cells import Watch, run, setting
from helpers.command_line import Capture, Settings, run_done
from helpers.configuration import compose
from helpers.models import make_model
from helpers.texts import make_tokenizer

from nsvd_exp.cli.generate import main
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import compressed
from nsvd_exp.experiment.continuations import PROMPTS, TOKENS, continuations_file, run_continuations
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.checkpoint import save
from nsvd_exp.pipeline.generate import Choice, continued
from nsvd_exp.storage.results import CONTINUATIONS, read_records

PROMPT = "w5 w17 w3"


def command(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m nsvd_exp.generate`, in this process."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@torch.no_grad()
def most_probable(model: torch.nn.Module, ids: list[int], tokens: int) -> list[int]:
    """Greedy decoding by definition: a whole forward pass for each token."""
    for _ in range(tokens):
        ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids


@pytest.mark.parametrize("architecture", ["llama_gqa", "opt", "gpt_neox", "gemma"])
def test_it_takes_the_most_probable_token(architecture: str) -> None:
    model, tokenizer = make_model(architecture), make_tokenizer()
    model.generation_config.eos_token_id = None
    # What a checkpoint recommends has no part in it.
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0)
    made = continued(model, tokenizer, PROMPT, 12)
    ids = most_probable(model, tokenizer(PROMPT)["input_ids"], 12)
    assert PROMPT + made.text == tokenizer.decode(ids, skip_special_tokens=True)
    assert (made.tokens, made.has_ended) == (12, False)


def test_it_stops_where_the_text_ends() -> None:
    model, tokenizer = make_model("llama"), make_tokenizer()
    model.generation_config.eos_token_id = None
    ids = most_probable(model, tokenizer(PROMPT)["input_ids"], 5)
    model.generation_config.eos_token_id = [98, ids[5]]
    made = continued(model, tokenizer, PROMPT, 20)
    assert (made.tokens, made.has_ended) == (ids[3:].index(ids[5]) + 1, True)


def test_a_seed_draws_the_same_text_and_leaves_the_state_alone() -> None:
    model, tokenizer = make_model("llama"), make_tokenizer()
    state = torch.get_rng_state()
    drawn = [continued(model, tokenizer, PROMPT, 20, Choice(1.0, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(state, torch.get_rng_state())
    # At a temperature near 0 the most probable token is all there is.
    assert continued(model, tokenizer, PROMPT, 20, Choice(1e-4)) == continued(
        model, tokenizer, PROMPT, 20
    )


def test_what_cannot_be_continued_is_said() -> None:
    model, tokenizer = make_model("llama"), make_tokenizer()
    for prompt, tokens, problem in (
        ("", 5, "the prompt is empty"),
        (PROMPT, 0, "tokens=0: expected a number > 0"),
        (PROMPT, 62, "3 tokens of the prompt and 62 more are above the 64 positions"),
    ):
        with pytest.raises(NsvdError, match=problem):
            continued(model, tokenizer, prompt, tokens)
    assert continued(model, tokenizer, PROMPT, 61).tokens == 61
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(NsvdError, match=r"temperature=.*: expected a number > 0"):
            Choice(temperature)
    with pytest.raises(NsvdError, match="gives the id 150, but the model has 99 embeddings"):
        continued(model, make_tokenizer(200), "w150", 3)


def test_a_cell_keeps_three_continuations_once(settings: Settings) -> None:
    arguments, watch = [*settings(), "dataset=[ptb]"], Watch()
    run(*arguments)
    plan, session = plan_cell(compose(*arguments)), Session(watch.load)
    first = run_continuations(plan, session)
    assert [text["prompt"] for text in first["texts"]] == list(PROMPTS)
    with compressed(plan, session) as made:
        for text in first["texts"]:
            again = continued(made.model, made.tokenizer, text["prompt"], TOKENS)
            assert (again.text, again.tokens) == (text["text"], text["tokens"])
    loaded = watch.begun["load resident"]
    assert run_continuations(plan, Session(watch.load)) == first
    assert watch.begun["load resident"] == loaded  # it is in the store
    assert list(read_records(plan.results_dir, CONTINUATIONS)) == [first]
    assert first["subject"] == plan.file.folder.name
    other = plan_cell(compose(*arguments, "evaluation.dtype=bfloat16"))
    assert continuations_file(other).key != first["key"]


def test_generate_true_is_for_the_cell_and_the_dense_model(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    run_done(capsys, *arguments)
    kept = tmp_path / "results" / CONTINUATIONS.folder
    assert not kept.exists()
    out = run_done(capsys, *arguments, "generate=true")
    assert "already done" in out
    shown = [line for line in out.splitlines() if line in PROMPTS]
    assert shown == list(PROMPTS)
    assert out.count("dense (llama-0), 48 tokens") == out.count("compressed (nsvd_i-0.3-") == 3
    records = list(read_records(tmp_path / "results", CONTINUATIONS))
    assert [record["method"] for record in records] == ["dense", "nsvd_i"]
    run_done(capsys, "-m", *arguments, "generate=true", "report=false", "method=svd,nsvd_i")
    assert len(list(read_records(tmp_path / "results", CONTINUATIONS))) == 3
    assert str(tmp_path) not in json.dumps(records)


def test_a_terminal_shows_dense_beside_compressed(settings: Settings, capsys: Capture) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    key, dense = run(*arguments)["key"], run(*arguments, "method=dense")["key"]
    where = [
        *("--results", setting(arguments, "results_dir"), "--device", "cpu"),
        *("--model", setting(arguments, "model.name")),
        *("--data-dir", setting(arguments, "data_dir")),
    ]
    code, out, _ = command(capsys, key, PROMPT, "--tokens", "9", *where)
    assert code == 0
    lines = [line for line in out.splitlines() if line]
    assert lines[0] == PROMPT
    assert lines[1] == "dense (llama-0), 9 tokens"
    assert lines[3].startswith("compressed (nsvd_i-0.3-0.95-")
    model = make_model("llama")
    assert lines[2] == continued(model, make_tokenizer(), PROMPT, 9).text.strip()
    code, out, _ = command(capsys, dense, PROMPT, "--tokens", "9", *where)
    assert (code, out.count(" tokens")) == (0, 1)  # it is the dense model
    code, _, err = command(capsys, key, PROMPT, "--seed", "3", *where)
    assert (code, "belong to --sample" in err) == (2, True)
    drawn = [key, PROMPT, "--tokens", "9", "--sample", "--seed", "3", *where]
    code, first, _ = command(capsys, *drawn)
    assert (code, command(capsys, *drawn)[1]) == (0, first)
    assert command(capsys, "nowhere", PROMPT, *where)[0] == 2


def test_a_folder_is_continued_with_its_dense_model_where_that_is_known(
    settings: Settings, tmp_path: Path, capsys: Capture, model_folder: Callable[..., Path]
) -> None:
    plan = plan_cell(compose(*settings(), "method=svd"))
    with compressed(plan, Session()) as made:
        folder = save(made.model, tmp_path / "saved", made.tokenizer)
        expected = continued(made.model, made.tokenizer, PROMPT, 9).text.strip()
    code, out, err = command(capsys, str(folder), PROMPT, "--tokens", "9", "--device", "cpu")
    assert code == 0
    assert [expected] == [line for line in out.splitlines() if line][2:]
    assert "does not say which dense model" in err
    base = ["--model", str(plan.model.name)]
    code, out, _ = command(capsys, str(folder), PROMPT, "--tokens", "9", "--device", "cpu", *base)
    assert (code, out.count(" tokens")) == (0, 2)
    # One that says which it is of takes no other.
    (folder / "export.json").write_text(json.dumps({"model_source": plan.model.identity}))
    other = ["--model", str(model_folder("llama", 7))]
    code, _, err = command(capsys, str(folder), PROMPT, "--device", "cpu", *other)
    assert (code, "not the model that this one was made of" in err) == (2, True)
