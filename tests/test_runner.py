"""A whole cell: against a hand-made one, interrupted, failed, widened, resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import Watch, put_text, run, setting
from helpers.command_line import Log, Settings
from helpers.configuration import compose
from helpers.matrices import inputs_by_hand
from helpers.methods import WHITENINGS, best, best_under
from helpers.texts import make_tokenizer
from transformers import AutoModelForCausalLM

from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import calibration_samples, windows
from nsvd_exp.experiment.plan import CellPlan, plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods import NSVD
from nsvd_exp.models.layers import find_linears
from nsvd_exp.storage.results import Result


def rank_keeping(tenths: int, m: int, n: int) -> int:
    """The largest rank whose two factors keep so many tenths of the m n numbers."""
    return tenths * m * n // (10 * (m + n))


CLASSES = {"svd": "SVD", "asvd_0": "ASVD", "asvd_i": "CholeskyASVD", "asvd_ii": "EigenASVD"}


def papers_weight(method: str, W: torch.Tensor, X: torch.Tensor, k: int, k1: float) -> torch.Tensor:
    """Ŵ by the paper's own words: S, its inverse, truncated SVDs. X is (n, p)."""
    first = NSVD(k1=k1).ranks(k)[0] if method.startswith("nsvd") else k
    S = WHITENINGS[CLASSES[method.replace("nsvd", "asvd")]](X)
    stage_one = best_under(S, W, first)
    return stage_one + best(W - stage_one, k - first)


def cell_by_hand(settings: list[str], method: str, dtype: str = "float32") -> dict[str, float]:
    """The perplexities of a cell by definition: Ŵ (float64) in place of W, evaluated in float32.

    `dtype` is that of the model while it is calibrated.
    """
    plan = plan_cell(compose(*settings, f"method={method}", "ratio=0.4", "k1=0.7"))
    model = AutoModelForCausalLM.from_pretrained(plan.model.name, dtype=dtype).eval()
    tokenizer, config = make_tokenizer(), plan.config
    if plan.calibration is not None:
        text = text_of(config.calibration.dataset, "train", plan.calibration.source)
        samples = calibration_samples(tokenizer, text, 12, 24).ids
        inputs = inputs_by_hand(model, samples)
    for name, layer in find_linears(model, []).items():
        W = layer.weight.data.double()
        X = inputs[name].double().T if plan.calibration else W.new_ones(W.shape[1], 1)
        k = rank_keeping(6, *W.shape)
        layer.weight.data = papers_weight(method, W, X, k, 0.7).float()
    model.float()
    losses = losses_by_hand(model, plan)
    return {name: math.exp(math.fsum(of) / len(of)) for name, of in losses.items()}


def losses_by_hand(model: Any, plan: CellPlan) -> dict[str, list[float]]:
    """nats per predicted token of each of the 6 windows of 32 tokens, by dataset."""
    losses = {}
    for measurement in plan.measurements:
        text = text_of(measurement.dataset, "test", measurement.source)
        ids = windows(make_tokenizer(), text, 32, 6).ids
        with torch.no_grad():
            found = [float(model(input_ids=w[None], labels=w[None]).loss) for w in ids]
        losses[measurement.dataset.name] = found
    return losses


def perplexities(result: Result) -> dict[str, float]:
    return {name: measured["perplexity"] for name, measured in result["datasets"].items()}


@pytest.mark.parametrize("solver", ["basis", "paper"])
@pytest.mark.parametrize("method", [*CLASSES, "nsvd_i", "nsvd_ii"])
def test_a_cell_is_what_the_paper_says(settings: Settings, method: str, solver: str) -> None:
    arguments = settings("llama_gqa")
    result = run(*arguments, f"method={method}", "ratio=0.4", "k1=0.7", f"solver={solver}")
    assert perplexities(result) == pytest.approx(cell_by_hand(arguments, method), rel=1e-4)


@pytest.mark.parametrize("method", ["svd", "asvd_0", "asvd_i"])
def test_factors_have_the_precision_of_the_evaluation(settings: Settings, method: str) -> None:
    """SVD-LLM's setting, calibrated in half precision, evaluated in single: nothing is rounded
    to half precision in between."""
    arguments = [*settings("llama_gqa"), f"method={method}", "ratio=0.4"]
    result = run(*arguments, "dtype=bfloat16", "evaluation.dtype=float32")
    expected = cell_by_hand(arguments, method, "bfloat16")
    assert perplexities(result) == pytest.approx(expected, rel=1e-5)


def test_dense_is_the_model_as_it_is(settings: Settings) -> None:
    plan = plan_cell(compose(*settings(), "method=dense"))
    result = run_cell(plan, Session())
    model = AutoModelForCausalLM.from_pretrained(plan.model.name).eval()
    for name, losses in losses_by_hand(model, plan).items():
        stored = result["datasets"][name]
        assert stored["perplexity"] == pytest.approx(math.exp(math.fsum(losses) / 6), rel=1e-5)
        assert stored["tokens"] == 6 * 31
        assert stored["nll"] == pytest.approx(31 * math.fsum(losses), rel=1e-5)
        assert stored["window_nll"] == pytest.approx([31 * loss for loss in losses], rel=1e-5)
    assert result["ratio"] is result["k1"] is result["solver"] is result["calibration"] is None


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt_neox", "gemma"])
@pytest.mark.parametrize("method", ["svd", "asvd_iii", "nsvd_i", "nid_i"])
def test_the_achieved_ratio_keeps_the_budget(
    settings: Settings, architecture: str, method: str
) -> None:
    result = run(*settings(architecture), f"method={method}", "ratio=0.3", "dataset=[ptb]")
    table = result["layers"]
    kept = sum(row["k"] * (row["m"] + row["n"]) for row in table)
    assert result["achieved_ratio"]["layers"] == 1 - kept / sum(r["m"] * r["n"] for r in table)
    assert 0.3 <= result["achieved_ratio"]["layers"] < 0.4
    assert 0 < result["achieved_ratio"]["model"] < result["achieved_ratio"]["layers"]
    for row in table:
        assert row["k"] == rank_keeping(7, row["m"], row["n"])
        if method in ("nsvd_i", "nid_i"):
            assert row["k1"] == NSVD(k1=0.95).ranks(row["k"])[0]
        assert 0 < row["weight_loss"] < 1
        assert (row["activation_loss"] is None) == (method == "svd")


def test_an_interrupted_cell_goes_on_with_the_datasets_it_lacks(settings: Settings) -> None:
    plan, interrupted = plan_cell(compose(*settings())), Watch("ptb", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_cell(plan, Session(), interrupted)
    left = plan.file.read()
    assert left is not None
    assert left["status"] == "partial"
    assert list(left["datasets"]) == ["wikitext2"]
    assert not plan.is_done(left)
    watch = Watch()
    result = run_cell(plan, Session(), watch)
    assert result["status"] == "done"
    assert list(result["datasets"]) == ["wikitext2", "ptb", "c4"]
    assert result["datasets"]["wikitext2"] == left["datasets"]["wikitext2"]
    assert watch.begun == {"decompose": 1, "ptb": 1, "c4": 1}  # and the statistics are kept


def test_a_failed_cell_keeps_its_traceback_and_its_measurements_and_can_be_done_later(
    settings: Settings,
) -> None:
    arguments = settings()
    ray = Watch("ptb", RuntimeError("a cosmic ray"))
    result = run(*arguments, watch=ray, status="failed")
    error = result["error"]
    assert (error["type"], error["message"]) == ("RuntimeError", "a cosmic ray")
    assert "in progress" in error["traceback"]
    assert list(result["datasets"]) == ["wikitext2"]
    again = run(*arguments)
    assert again["error"] is None
    assert len(again["datasets"]) == 3


def test_a_failure_leaves_the_next_cell_a_dense_model(settings: Settings, tmp_path: Path) -> None:
    """A cell that breaks while its two-factor layers are in the model does not leave them there."""
    arguments, session = [*settings(), "dataset=[ptb]"], Session()
    run(*arguments, session=session, watch=Watch("ptb", RuntimeError()), status="failed")
    after = run(*arguments, "method=dense", session=session)
    fresh = run(*arguments, "method=dense", f"results_dir={tmp_path / 'other'}")
    assert after["datasets"]["ptb"]["nll"] == fresh["datasets"]["ptb"]["nll"]


def test_a_wider_run_adds_and_another_protocol_keeps_both(settings: Settings) -> None:
    arguments, session = settings(), Session()
    first = run(*arguments, "dataset=[ptb]", session=session)
    wider = run(*arguments, "dataset=[ptb,c4]", session=session)
    assert list(wider["datasets"]) == ["ptb", "c4"]
    assert wider["datasets"]["ptb"] == first["datasets"]["ptb"]
    shorter = run(*arguments, "dataset=[ptb]", "evaluation.length=16", session=session)
    assert shorter["key"] == first["key"]
    assert shorter["datasets"]["ptb"]["length"] == 16
    assert shorter["earlier"] == [first["datasets"]["ptb"]]
    # And back: nothing is measured again.
    assert plan_cell(compose(*arguments, "dataset=[ptb]")).is_done(shorter)


def test_a_wider_run_that_fails_or_is_killed_costs_no_measurement(settings: Settings) -> None:
    arguments = settings()
    narrow = [*arguments, "dataset=[ptb]"]
    first = run(*narrow)
    wide = plan_cell(compose(*arguments))
    for error in (KeyboardInterrupt(), RuntimeError()):
        with suppress(KeyboardInterrupt):
            assert run_cell(wide, Session(), Watch("wikitext2", error))["status"] == "failed"
        stored = wide.file.read()
        assert stored is not None
        assert (stored["status"], stored["error"]) == ("done", None)
        assert stored["datasets"] == first["datasets"]
        assert stored["layers"] == first["layers"]
        assert plan_cell(compose(*narrow)).is_done(stored)
        assert not wide.is_done(stored)


def test_statistics_are_made_once_and_read_by_other_cells(
    settings: Settings, tmp_path: Path
) -> None:
    arguments, session, watch = [*settings(), "dataset=[ptb]"], Session(), Watch()
    first = run(*arguments, "method=asvd_i", session=session, watch=watch)
    run(*arguments, "method=nsvd_i", "ratio=0.5", session=session, watch=watch)
    second = run(*arguments, "method=asvd_0", watch=watch)  # another process
    assert watch.begun["calibrate"] == 1
    assert second["calibration"] == first["calibration"]
    assert first["calibration"]["samples"] == 12
    assert first["calibration"]["tokens"] == 12 * 24
    run(*arguments, "method=asvd_i", "calibration.seed=4", session=session, watch=watch)
    assert watch.begun["calibrate"] == 2
    run(*arguments, "method=svd", session=session, watch=watch)
    assert watch.begun["calibrate"] == 2
    assert len(list((tmp_path / "results/cache/calibration").glob("*/index.json"))) == 2


@pytest.mark.parametrize("keep", ["none", "statistics"])
def test_two_sessions_share_nothing_but_cache_dir(settings: Settings, keep: str) -> None:
    arguments = [*settings(), "dataset=[ptb]", f"cache.keep={keep}"]
    own, other = Watch(), Watch()
    session = Session(own.load)
    for ratio in (0.3, 0.5):
        run(*arguments, f"ratio={ratio}", session=session, watch=own)
    run(*arguments, "ratio=0.7", watch=other)
    assert (own.begun["load resident"], own.begun["calibrate"]) == (1, 1)
    assert other.begun["load resident"] == 1
    assert other.begun["calibrate"] == (1 if keep == "none" else 0)


def test_damaged_statistics_are_made_again_and_said(
    settings: Settings, tmp_path: Path, caplog: Log
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    first = run(*arguments, "method=asvd_i")
    kept = next((tmp_path / "results/cache/calibration").glob("*/*.safetensors"))
    kept.write_bytes(kept.read_bytes()[:1000])
    nested = run(*arguments, "method=nsvd_i", "k1=1")
    assert "damaged" in caplog.text
    assert nested["datasets"]["ptb"]["nll"] == first["datasets"]["ptb"]["nll"]


def test_a_result_says_what_it_was_made_with_and_holds_no_path(
    settings: Settings, tmp_path: Path
) -> None:
    result = run(*settings())
    text = json.dumps(result)
    assert str(tmp_path) not in text
    assert result["environment"]["libraries"]["torch"] == torch.__version__
    assert result["environment"]["device"] == "cpu"
    assert set(result["seconds"]) == {"load", "calibrate", "decompose", "evaluate"}
    assert result["peak_memory"]["host_bytes"] > 1e8
    assert result["model"] == "llama-0"
    assert result["config"]["ratio"] == result["ratio"] == 0.3
    assert (result["method"], result["k1"]) == ("nsvd_i", 0.95)
    assert result["config"]["method"]["title"] == "NSVD-I"
    stored = json.loads(plan_cell(compose(*settings())).file.path.read_text())
    assert stored.pop("checksum") is not None
    assert stored == json.loads(text)


def test_evaluation_in_another_dtype_leaves_the_dense_model_alone(settings: Settings) -> None:
    arguments, session = [*settings(), "dataset=[ptb]"], Session()
    single = run(*arguments, session=session)["datasets"]["ptb"]
    half = run(*arguments, "evaluation.dtype=bfloat16", session=session)["datasets"]["ptb"]
    assert half["dtype"] == "bfloat16"
    assert half["nll"] != single["nll"]
    assert half["nll"] == pytest.approx(single["nll"], rel=2e-2)
    again = run(*arguments, "method=dense", session=session)["datasets"]["ptb"]
    fresh = run(*arguments, "method=dense", f"results_dir={setting(arguments, 'results_dir')}2")
    assert again["dtype"] == "float32"
    assert again["window_nll"] == fresh["datasets"]["ptb"]["window_nll"]


def test_calibration_on_the_ids_of_another_tokenizer(
    settings: Settings, model_folder: Callable[..., Path]
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    own = run(*arguments)
    # A folder of another model, whose tokenizer knows fewer words.
    other = model_folder("opt", 3)
    make_tokenizer(20).save_pretrained(other)
    foreign = run(*arguments, f"calibration.tokenizer={other}")
    assert foreign["key"] != own["key"]
    assert foreign["calibration"]["token_sha256"] != own["calibration"]["token_sha256"]
    assert foreign["config"]["calibration"]["tokenizer"] == other.name
    token_hashes = {r["datasets"]["ptb"]["token_sha256"] for r in (own, foreign)}
    assert len(token_hashes) == 1
    # Ids beyond the embedding are refused.
    make_tokenizer(500).save_pretrained(other)
    put_text(arguments, "wikitext2/train", "w300 " * 3000)
    result = run(*arguments, f"calibration.tokenizer={other}", status="failed")
    problem = "the tokenizer gives the id 300, but the model has 99 embeddings"
    assert problem in result["error"]["message"]
