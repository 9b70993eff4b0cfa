"""What can be known of a job is found before any job starts, for every job of a grid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from helpers.cells import put_text, run, setting
from helpers.command_line import Capture, Settings, cells_of, run_done, run_main
from helpers.configuration import compose
from helpers.models import UP, edit_weights
from helpers.texts import make_tokenizer, words
from tokenizers import processors

from nsvd_exp.bundled import TEXT_DIR
from nsvd_exp.cli.arguments import with_lists_of_folders
from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.experiment.check import Checks
from nsvd_exp.experiment.plan import plan_cell, plan_similarity
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.layers import find_linears, not_called
from nsvd_exp.pipeline.evaluate import finite

# What is typed, and what the one message says.
REFUSED = {
    "model.skip=[nope]": "model.skip: 'nope' matches no layer; one is called model.layers.0.self_a",
    "calibration.split=nope": "wikitext2/nope.jsonl (.json, .parquet, .txt, .csv) is not there",
    "calibration.length=65": "calibration.length=65 is more than the 64 positions the model takes",
    "evaluation.length=65": "evaluation.length=65 is more than the 64 positions the model takes",
    "calibration.tokenizer=/no/such": "calibration.tokenizer=/no/such: there is no model folder",
    "cache_dir=/dev/null/x": "cache_dir=/dev/null/x: /dev/null/x cannot be written to (Not a dir",
    "ratio=0.99": "leaves no rank for a 32 x 32 weight (rank 1 stores 64 of its 1024 numbers)",
    "dataset=[snips]": "snips/test.jsonl (.json, .parquet, .txt, .csv) is not there, and dataset",
    "model.name=/no/such": "there is no model folder /no/such",
    "method._target_=nsvd_exp.methods.Nope": "nsvd_exp.methods.Nope cannot be imported",
}


@pytest.mark.parametrize("is_grid", [False, True])
@pytest.mark.parametrize(("typed", "message"), REFUSED.items())
def test_it_is_found_before_anything_is_done(
    settings: Settings, capsys: Capture, typed: str, message: str, is_grid: bool
) -> None:
    """Of a grid the first job is sound, and is not begun."""
    grid = ["-m", "method=dense,asvd_i", "hydra.sweeper.max_batch_size=1"] if is_grid else []
    if "_target_" in typed:
        grid = grid and ["-m", "method=asvd_i", "ratio=0.3,0.5"]
    code, out, err = run_main(capsys, *settings(), *grid, typed)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert cells_of(settings()) == []


@pytest.mark.parametrize("text", [None, "{}"], ids=["missing", "damaged"])
def test_a_tokenizer_that_is_not_there_is_found(
    settings: Settings, capsys: Capture, text: str | None
) -> None:
    arguments = settings()
    path = Path(setting(arguments, "model.name")) / "tokenizer.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    code, _, err = run_main(capsys, *arguments)
    assert code == 2
    assert "its tokenizer cannot be read; it needs a sound tokenizer.json" in err
    assert cells_of(arguments) == []


def test_every_problem_of_a_grid_is_said_once(settings: Settings, capsys: Capture) -> None:
    code, _, err = run_main(
        capsys, *settings(), "-m", "method=svd,asvd_i,nsvd_i", "ratio=0.3,0.99",
        "dataset=[ptb],[ptb,snips]",
    )  # fmt: skip
    assert code == 2
    assert err.count("leaves no rank for a 32 x 32 weight") == 1
    assert err.count("snips/test.jsonl") == 1


def family(tmp_path: Path, config: transformers.PreTrainedConfig) -> list[str]:
    """Settings of a small run on a saved random model of this configuration."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    data = tmp_path / "data"
    return [
        "model=hf", f"model.name={folder}", "model.title=own", "model.max_length=64",
        f"data_dir={data}", f"results_dir={tmp_path}/results", "dataset=[ptb]",
        "calibration.samples=12", "calibration.length=24", "evaluation.length=32",
        "evaluation.max_windows=6",
    ]  # fmt: skip


WIDE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}


def qwen3_next() -> transformers.PreTrainedConfig:
    return transformers.Qwen3NextConfig(
        **WIDE, intermediate_size=48, num_key_value_heads=2, head_dim=8, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
        linear_num_value_heads=4, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip


def mamba() -> transformers.PreTrainedConfig:
    return transformers.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, **IDS)


def gpt2() -> transformers.PreTrainedConfig:
    return transformers.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, **IDS
    )


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize(
    ("config", "refused", "answer"),
    [
        (gpt2, None, None),
        (mamba, "reads its weight without calling it", "backbone.layers.*.mixer.dt_proj"),
        (qwen3_next, "no ratio leaves a rank for", "model.layers.*.mlp.shared_expert_gate"),
    ],
    ids=["gpt2", "mamba", "qwen3_next"],
)  # fmt: skip
def test_the_skip_that_a_refusal_names_is_all_that_a_model_needs(
    tmp_path: Path, capsys: Capture, config: object, refused: str | None, answer: str | None
) -> None:
    arguments = family(tmp_path, config())  # type: ignore[operator]
    if answer is not None:
        code, _, err = run_main(capsys, *arguments)
        assert code == 2
        assert str(refused) in err
        assert f"to leave them dense: model.skip=[{answer}]" in err.replace("\n", "")
        assert cells_of(arguments) == []
        arguments.append(f"model.skip=[{answer}]")
    code, _, err = run_main(capsys, *arguments)
    assert code == 0, err
    if answer is not None:
        assert err.count("own: what is no Linear stays dense, ") == 1
    (cell,) = [cell for cell in cells_of(arguments) if cell["method"] == "nsvd_i"]
    assert len(cell["layers"]) == {"gpt2": 8, "mamba": 6, "qwen3_next": 13}[config.__name__]  # type: ignore[attr-defined]


def test_a_model_is_looked_at_once_for_all_jobs_and_done_jobs_need_none(
    settings: Settings, capsys: Capture
) -> None:
    said: list[str] = []
    arguments = [*settings(), "dataset=[ptb]"]
    checks = Checks(said.append)
    for method in ("asvd_i", "svd", "nsvd_i"):
        checks.check(compose(*arguments, f"method={method}"))
    folder = Path(setting(arguments, "model.name"))
    run_done(capsys, *arguments)
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    with pytest.raises(NsvdError):
        checks.check(compose(*arguments, "method=svd", "ratio=0.9999"))
    assert said == []


def test_a_job_on_another_machine_needs_no_gpu_of_this_one(settings: Settings) -> None:
    config = compose(*settings(), "device=cuda", "dtype=float16")
    Checks(print, is_elsewhere=True).check(config)
    skipping = compose(*settings(), "device=cuda", "dtype=float16", "model.skip=[nope]")
    with pytest.raises(NsvdError, match="skip"):
        Checks(print, is_elsewhere=True).check(skipping)


@pytest.mark.usefixtures("data_dir")
def test_matrices_outside_of_linears_are_refused_on_request(tmp_path: Path) -> None:
    arguments = [*family(tmp_path, mamba()), "method=dense"]
    Checks(print).check(compose(*arguments, "model.strict=true"))
    said: list[str] = []
    Checks(said.append).check(compose(*arguments, "method=svd"))
    assert said == [
        "own: what is no Linear stays dense, 12.2% of the parameters: backbone.layers.*.mixer "
        "(MambaMixer: A_log), backbone.layers.*.mixer.conv1d (Conv1d: weight)"
    ]
    with pytest.raises(LayersError, match=r"mixer.*: holds matrices outside of any Linear"):
        Checks(print).check(compose(*arguments, "method=svd", "model.strict=true"))


def test_what_a_forward_pass_does_not_call_is_found_without_values() -> None:
    for config, uncalled in ((mamba(), ["mixer.dt_proj"]), (gpt2(), []), (qwen3_next(), [])):
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        found = not_called(model.eval(), find_linears(model, []))
        assert {name.split(".", 3)[3] for name in found} == set(uncalled)


def begin_with_bos(arguments: list[str]) -> None:
    """The model's tokenizer begins every text with `<s>`, as LLaMA's does."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save_pretrained(setting(arguments, "model.name"))


def test_windows_without_the_bos_of_their_tokenizer_are_said_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*settings(), "method=dense"]
    begin_with_bos(arguments)
    session = Session()
    plain = run(*arguments, session=session)
    (message,) = [m for m in caplog.messages if "begins a text with a BOS" in m]
    assert "evaluation.bos=window puts one in front of each" in message
    caplog.clear()
    each = run(*arguments, "evaluation.bos=window", session=session)
    assert caplog.messages == []
    for name, measured in each["datasets"].items():
        assert measured["identity"]["bos"] == "window"
        assert "bos" not in plain["datasets"][name]["identity"]
        assert measured["perplexity"] != plain["datasets"][name]["perplexity"]
    assert each["key"] == plain["key"]
    assert each["config"]["evaluation"]["bos"] == "window"
    assert "bos" not in plain["config"]["evaluation"]


def test_similarity_records_of_the_two_protocols_are_two(settings: Settings) -> None:
    arguments = [*settings(), "measure=similarity", "dataset=[ptb]"]
    keys = {
        file.key
        for bos in ("first", "window")
        for file in plan_similarity(compose(*arguments, f"evaluation.bos={bos}")).files
    }
    assert len(keys) == 2


def test_too_few_calibration_tokens_are_said(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*settings(), "method=asvd_i", "dataset=[ptb]"]
    run(*arguments)
    assert caplog.messages == ["calibrating on 12 x 24 tokens of wikitext2 train"]
    caplog.clear()
    run(*arguments, "calibration.samples=1", "cache.keep=none")
    assert "24 tokens are fewer than the 48 channels of the widest layer input" in caplog.text


def test_special_tokens_in_a_text_are_said_with_the_setting(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*settings(), "method=asvd_i", "dataset=[c4,ptb]", "cache.keep=none"]
    for part in ("c4/test", "ptb/test", "wikitext2/train"):
        put_text(arguments, part, f"{words(300)} <s> {words(300)}")
    run(*arguments)
    said = [m for m in caplog.messages if "special tokens" in m]
    assert len(said) == 2  # those of PTB are read as characters
    for name, place in (("c4", "dataset.c4"), ("wikitext2", "calibration.dataset")):
        assert f"dataset {name}: its text holds <s>, " in caplog.text
        assert f"{place}.split_special_tokens=true reads them" in caplog.text


def test_a_loss_that_is_not_finite_in_float16_says_which_dtype_to_try() -> None:
    for dtype, advice in ((torch.float16, r"try dtype=bfloat16, or evaluation"), (None, "nan$")):
        with pytest.raises(NsvdError, match=rf"window 1 of 2 is nan.*{advice}|{advice}"):
            finite([1.0, float("nan")], dtype)


def test_more_text_stands_before_that_of_the_bundled_model(tmp_path: Path) -> None:
    for number, name in enumerate(("mine", "ptb")):
        path = tmp_path / str(number) / name / "test.txt"
        path.parent.mkdir(parents=True)
        path.write_text(words(10))
    folders = [f"data_dir={tmp_path}/{number}" for number in range(2)]
    (data_dir,) = with_lists_of_folders(folders)
    plan = plan_cell(compose(data_dir, "dataset=[ptb,c4]", "method=dense"))
    files = [measurement.source.files[0] for measurement in plan.measurements]
    assert files[0] == tmp_path / "1/ptb/test.txt"
    assert files[1].is_relative_to(TEXT_DIR)
    with pytest.raises(NsvdError, match="c4/test"):  # one folder alone takes its place
        plan_cell(compose(folders[0], "dataset=[c4]", "method=dense", "dataset.c4.hub=null"))


def test_a_weight_that_only_reading_shows_is_still_found_by_the_job(
    settings: Settings, capsys: Capture
) -> None:
    arguments = settings()
    edit_weights(Path(setting(arguments, "model.name")), lambda t: t[UP].fill_(torch.nan))
    code, _, err = run_main(capsys, *arguments)
    assert code == 1
    assert "holds NaN or Inf" in err
