"""Small real models and real text: the numbers mean something, and both solvers agree on them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.cells import run as run_cell
from helpers.shared import SHARED, needs_shared
from transformers import AutoModelForCausalLM, AutoTokenizer

from nsvd_exp.experiment.session import Session
from nsvd_exp.storage.results import Result

pytestmark = needs_shared

DATASETS = ("wikitext2", "c4", "snips", "alpaca_eval", "cmrc_cn", "alpaca_eval_jp")
WINDOWS = 16

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a cell on a real model: `run("real9m", "method=svd")`. All tests share one session."""
    results, session = tmp_path_factory.mktemp("results"), Session()

    def cell(model: str, *overrides: str) -> Result:
        return run_cell(
            "model=hf",
            f"model.name={SHARED / 'models' / model}",
            f"data_dir={SHARED / 'data'}",
            f"results_dir={results}",
            "dtype=float32",
            "ratio=0.5",
            "evaluation.length=256",
            f"evaluation.max_windows={WINDOWS}",
            "calibration.length=256",
            "calibration.samples=16",
            *overrides,
            session=session,
        )

    return cell


def digest_by_hand(ids: list[int]) -> str:
    """SHA-256 of token ids, 4 bytes each, little-endian."""
    return hashlib.sha256(b"".join(i.to_bytes(4, "little") for i in ids)).hexdigest()


def test_dense_perplexity_on_real_text_is_the_hand_computation(run: Run) -> None:
    rows = [f"dataset.{name}.rows=200" for name in DATASETS]
    result = run("stories260k", "method=dense", f"dataset=[{','.join(DATASETS)}]", *rows)
    folder = SHARED / "models" / "stories260k"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in DATASETS:
        lines = (SHARED / "data" / name / "test.jsonl").read_text(encoding="utf-8").splitlines()
        text = "\n\n".join(json.loads(line)["text"] for line in lines[:200])
        ids = torch.tensor(tokenizer(text)["input_ids"][: WINDOWS * 256]).view(WINDOWS, 256)
        with torch.no_grad():
            losses = [float(model(input_ids=row[None], labels=row[None]).loss) for row in ids]
        measured = result["datasets"][name]
        assert measured["perplexity"] == pytest.approx(math.exp(sum(losses) / WINDOWS), rel=1e-4)
        assert measured["token_sha256"] == digest_by_hand(ids.flatten().tolist())


@pytest.mark.parametrize("model", ["stories260k", "real9m"])
def test_activation_aware_methods_are_best_at_what_they_minimise(run: Run, model: str) -> None:
    """On every real layer: ASVD-I has the least activation loss, SVD the least weight loss, and
    NSVD lies between them in both."""
    settings = ("dataset=[snips]", "evaluation.max_windows=2", "k1=0.8")
    losses = {
        method: run(model, f"method={method}", *settings)["layers"]
        for method in ("svd", "asvd_0", "asvd_i", "nsvd_i")
    }
    for svd, asvd_0, asvd_i, nsvd in zip(*losses.values(), strict=True):
        assert asvd_i["activation_loss"] <= nsvd["activation_loss"] + 1e-9
        assert asvd_i["activation_loss"] <= asvd_0["activation_loss"] + 1e-9
        assert svd["weight_loss"] <= nsvd["weight_loss"] <= asvd_i["weight_loss"] + 1e-9


def test_the_solvers_agree_on_a_real_model(run: Run) -> None:
    for method in ("asvd_i", "nsvd_i", "nid_i"):
        ours, papers = (
            run("stories260k", f"method={method}", f"solver={solver}", "dataset=[wikitext2,c4]")
            for solver in ("basis", "paper")
        )
        for name in ("wikitext2", "c4"):
            a, b = (r["datasets"][name]["perplexity"] for r in (ours, papers))
            assert a == pytest.approx(b, rel=1e-3)


def test_calibration_pays_on_the_calibration_set(run: Run) -> None:
    """What the field rests on: the dense model first, then ASVD-I, then ASVD-0, then plain SVD."""
    perplexities = [
        run("stories260k", f"method={method}", "dataset=[wikitext2]")["datasets"]["wikitext2"][
            "perplexity"
        ]
        for method in ("dense", "asvd_i", "asvd_0", "svd")
    ]
    assert perplexities == sorted(perplexities)


def test_a_tokenizer_that_knows_unk_reads_it_as_characters_in_ptb(run: Run, tmp_path: Path) -> None:
    """LLaMA's tokenizer maps `<unk>` to an id of its own; PTB's file says to read characters."""
    data = tmp_path / "data" / "ptb"
    data.mkdir(parents=True)
    rows = [{"sentence": f"the <unk> of N {word} fell"} for word in ("bonds", "stocks")] * 40
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = SHARED / "models" / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "\n\n".join(row["sentence"] for row in rows)
    for split in (True, False):
        result = run(
            "stories260k", "method=dense", "dataset=[ptb]", f"data_dir={data.parent}",
            "evaluation.length=64", f"dataset.ptb.split_special_tokens={split}",
        )  # fmt: skip
        measured = result["datasets"]["ptb"]
        ids = tokenizer(text, split_special_tokens=split)["input_ids"]
        assert (tokenizer.unk_token_id in ids) == (not split)
        assert measured["token_sha256"] == digest_by_hand(ids[: measured["windows"] * 64])
