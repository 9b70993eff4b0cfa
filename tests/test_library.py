"""The library: the same numbers as the command line, in place and undone, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cells import run
from helpers.configuration import EIGHT
from helpers.methods import Ridge, Squarest, every_method, every_solver
from helpers.models import make_model
from helpers.texts import make_tokenizer, words
from transformers import AutoModelForCausalLM, AutoTokenizer

import nsvd_exp as nx
from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.methods import NSVD, SVD, Method
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import find_linears, parameter_count
from nsvd_exp.models.lowrank import LowRankLinear

TEXTS = [words(40, seed) for seed in range(60)]
TOKENIZER = make_tokenizer()
SAMPLES = nx.samples(TEXTS, TOKENIZER, count=12, length=24)
WINDOWS = nx.windows(TEXTS[:20], TOKENIZER, length=32, max_windows=6)


@pytest.fixture(scope="module")
def bundled() -> tuple[Any, Any]:
    """The bundled model and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """The statistics of the random model that `make_model("llama")` makes."""
    return nx.calibrate(make_model("llama"), SAMPLES)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=WINDOWS.ids).logits


IMPORTING = """
import sys

def loaded():
    return {name.split(".")[1] for name in sys.modules if name.startswith("nsvd_exp.")}

import nsvd_exp as nx
assert set(nx.__all__) <= set(dir(nx))
assert loaded() == set(), loaded()
nx.NsvdError, nx.methods.NSVD(k1=0.5)
assert loaded() == {"errors", "methods"}, loaded()
assert not {"torch", "scipy", "transformers", "hydra", "omegaconf"} & set(sys.modules)
nx.compress
assert "torch" in sys.modules and not {"experiment", "cli", "report", "tracking"} & loaded()
"""


def test_a_name_is_loaded_with_what_it_needs_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    assert all(getattr(nx, name) is not None for name in nx.__all__)
    assert len(dir(nx)) == len(set(dir(nx)))
    with pytest.raises(AttributeError, match="module 'nsvd_exp' has no attribute 'compres'"):
        nx.compres  # noqa: B018


def test_a_dataset_is_named_or_given_as_strings(bundled: tuple[Any, Any]) -> None:
    _, tokenizer = bundled
    for name in EIGHT:
        windows = nx.windows(name, tokenizer, 64, max_windows=3, data_dir=TEXT_DIR)
        assert windows.ids.shape == (3, 64)
    texts = [json.loads(line)["text"] for line in (TEXT_DIR / "c4/test.jsonl").open()]
    named, own = (nx.windows(text, tokenizer, 64, data_dir=TEXT_DIR) for text in ("c4", texts))
    assert torch.equal(named.ids[:5], own.ids[:5])
    for sampler in ("svdllm", "tokens"):
        options = {"count": 5, "length": 32, "sampler": sampler}
        samples = nx.samples("wikitext2", tokenizer, **options, data_dir=str(TEXT_DIR))
        assert samples.ids.shape == (5, 32)
        assert nx.samples(TEXTS, TOKENIZER, **options).ids.shape == (5, 32)
        other = nx.samples("wikitext2", tokenizer, **options, seed=4, data_dir=TEXT_DIR)
        assert not torch.equal(samples.ids, other.ids)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nx.windows("wikitext", TOKENIZER), "unknown dataset 'wikitext'. .*mean wikitext2"),
        (lambda: nx.samples("wikitxt2", TOKENIZER), "unknown dataset 'wikitxt2'. .*mean wikitext2"),
        (
            lambda: nx.samples(TEXTS, TOKENIZER, sampler="token"),
            "unknown sampler 'token'. .*tokens",
        ),
        (lambda: nx.windows(["w1 w2"], TOKENIZER), "the text has 2 tokens, fewer than one window"),
        (lambda: nx.samples(["w1 w2"], TOKENIZER), "the text .* gave no sample of 2048 tokens"),
        (lambda: nx.samples([], TOKENIZER), "the text .0 characters. gave no sample"),
    ],
)
def test_a_text_that_does_not_do_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(nx.NsvdError, match=message):
        make()


def test_a_calibration_says_what_it_was_made_from(calibration: Calibration) -> None:
    sizes = {"samples": 12, "tokens": 12 * 24}
    assert calibration.record == sizes | {"token_sha256": SAMPLES.sha256, "bos": False}
    assert list(calibration.reads) == list(find_linears(make_model("llama"), []))
    assert {statistics.tokens for statistics in calibration.inputs.values()} == {12 * 24}


@every_method
@every_solver
def test_a_model_is_compressed_in_place_and_restored(
    method: Method, solver: str, calibration: Calibration
) -> None:
    model = make_model("llama")
    before, dense, parameters = logits(model), find_linears(model, []), parameter_count(model)
    report = nx.compress(model, method, 0.3, calibration, solver=solver)
    layers = {name: model.get_submodule(name) for name in dense}
    assert all(isinstance(layer, LowRankLinear) for layer in layers.values())
    assert [(row["name"], row["k"]) for row in report.layers] == [
        (name, layer.rank) for name, layer in layers.items()
    ]
    assert report.achieved_ratio["layers"] >= 0.3
    removed = parameters - parameter_count(model)
    assert report.achieved_ratio["model"] == pytest.approx(removed / parameters)
    assert not torch.equal(logits(model), before)
    assert nx.perplexity(model, WINDOWS, batch=2) > 1
    with pytest.raises(nx.NsvdError, match="low-rank already: put the dense layer back first"):
        nx.compress(model, method, 0.3, calibration)
    report.restore()
    assert {name: model.get_submodule(name) for name in dense} == dense
    assert torch.equal(logits(model), before)


def test_one_calibration_serves_methods_and_ratios_of_ones_own(calibration: Calibration) -> None:
    model = make_model("llama")
    removed = []
    for ratio in np.arange(0.1, 0.6, 0.2):  # numbers of NumPy, too
        method = NSVD(k1=np.float64(0.9), first=Ridge())
        report = nx.compress(model, method, ratio, calibration, allocation=Squarest())
        removed.append(report.achieved_ratio["layers"])
        report.restore()
    assert removed == sorted(removed)


def unchanged_after(message: str, *args: Any, **options: Any) -> None:
    """Check that `compress` refuses these arguments and leaves the model as it was."""
    model = make_model("llama")
    dense, before = find_linears(model, []), logits(model)
    with pytest.raises(nx.NsvdError, match=message):
        nx.compress(model, *args, **options)
    assert {name: model.get_submodule(name) for name in dense} == dense
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, 30, float("nan")])
def test_a_ratio_out_of_range_changes_nothing(ratio: float) -> None:
    unchanged_after(rf"ratio={ratio}: expected 0 < ratio < 1", SVD(), ratio)


def test_a_layer_that_cannot_be_factorised_changes_nothing(calibration: Calibration) -> None:
    unchanged_after("needs a calibration", NSVD(), 0.3)
    unchanged_after(r"model\.layers\.\*\.\S+ .*: ratio=0.99 leaves no rank", SVD(), 0.99)
    last = "model.layers.1.mlp.down_proj"
    reads = {name: read for name, read in calibration.reads.items() if name != last}
    some = Calibration(calibration.inputs, reads, {})
    unchanged_after(rf"{last}: the calibration has no statistics", NSVD(), 0.3, some)


def test_skipped_layers_stay_dense() -> None:
    model = make_model("llama")
    skip = ["*.mlp", "model.layers.1"]
    calibration = nx.calibrate(model, SAMPLES, skip)
    report = nx.compress(model, NSVD(), 0.3, calibration, skip)
    attention = [f"model.layers.0.self_attn.{letter}_proj" for letter in "qkvo"]
    assert list(calibration.reads) == [row["name"] for row in report.layers] == attention
    with pytest.raises(nx.NsvdError, match=r"'\*\.mpl' matches no layer"):
        nx.calibrate(model, SAMPLES, ["*.mpl"])

    unchanged_after("needs a calibration", NSVD(), 0.3)
    unchanged_after(r"model\.layers\.\*\.\S+ .*: ratio=0.99 leaves no rank", SVD(), 0.99)


@pytest.mark.parametrize("name", ["random", "bundled"])
def test_the_numbers_are_those_of_the_command_line(
    name: str, settings: Callable[..., list[str]], bundled: tuple[Any, Any], data_dir: Path
) -> None:
    """By the paper's route bit by bit; else to the rounding of the bases that cells share."""
    (model, tokenizer), folder, arguments = (make_model("llama"), TOKENIZER), data_dir, settings()
    if name == "bundled":
        (model, tokenizer), folder = bundled, TEXT_DIR
        arguments = [a for a in arguments if not a.startswith(("model", "data_dir"))]
        arguments.append(f"data_dir={folder}")
    samples = nx.samples("wikitext2", tokenizer, count=12, length=24, data_dir=folder)
    windows = nx.windows("ptb", tokenizer, 32, max_windows=6, data_dir=folder)
    calibration = nx.calibrate(model, samples)
    method = nx.methods.NID(k1=0.8, first=nx.methods.EigenASVD())
    arguments += ["dataset=[ptb]", "method=nid_ii", "k1=0.8", "ratio=0.3", "device=cpu"]
    for solver in ("paper", "basis"):
        result = run(*arguments, f"solver={solver}")
        report = nx.compress(model, method, 0.3, calibration, solver=solver)
        ours, theirs = nx.perplexity(model, windows), result["datasets"]["ptb"]["perplexity"]
        report.restore()
        assert ours == (theirs if solver == "paper" else pytest.approx(theirs, rel=1e-6))
        assert solver == "basis" or report.layers == result["layers"]
        assert report.achieved_ratio == result["achieved_ratio"]
        assert result["calibration"].items() >= calibration.record.items()
