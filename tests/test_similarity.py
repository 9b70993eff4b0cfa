"""Similarity of activations: the cosines, the records that keep them, the command line."""

from __future__ import annotations

import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import Watch, put_text, run, similarities
from helpers.command_line import Capture, Settings, run_done, run_main
from helpers.configuration import compose
from helpers.matrices import inputs_by_hand, random_inputs, statistics_of
from helpers.models import make_model
from helpers.texts import make_tokenizer, token_ids, words
from transformers import AutoModelForCausalLM

from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import calibration_samples, windows
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_similarity
from nsvd_exp.experiment.record import spread
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods.statistics import Calibration
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.calibrate import calibrate
from nsvd_exp.pipeline.inputs import GramAccumulator, MeanAccumulator, Sums, watch
from nsvd_exp.pipeline.similarity import compare, compare_layers, cosine
from nsvd_exp.storage.results import Result, read_similarities

STATISTICS = ("mean", "abs_mean", "gram")


def values_of(record: Result) -> dict[str, dict[str, float | None]]:
    return {row["name"]: {name: row[name] for name in STATISTICS} for row in record["layers"]}


def test_a_cosine_sees_direction_alone() -> None:
    a, b = random_inputs(5, 7), random_inputs(5, 7, seed=2)
    assert cosine(a, a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    expected = float((a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt()))
    assert cosine(a, b) == pytest.approx(expected, rel=1e-14)
    assert cosine(a, b) == cosine(b, a)
    assert cosine(1e-6 * a, 1e6 * b) == pytest.approx(expected, rel=1e-14)
    assert cosine(a.float(), b.float()) == pytest.approx(expected, abs=1e-7)
    for pair in ((a, torch.zeros(5, 7)), (torch.zeros(5, 7), a)):  # 0 has no direction
        assert cosine(*pair) is None
    for x in (random_inputs(31, 1, seed) for seed in range(5)):  # rounding leads beyond 1
        assert cosine(x, x * (1 / 3)) <= 1  # type: ignore[operator]


def test_each_statistic_is_what_its_name_says() -> None:
    X, Y = random_inputs(6, 50), random_inputs(6, 80, seed=5)
    G, H = (X @ X.T).reshape(-1), (Y @ Y.T).reshape(-1)
    found = compare(statistics_of(X), statistics_of(Y))
    assert found["mean"] == pytest.approx(cosine(X.mean(1), Y.mean(1)))
    assert found["abs_mean"] == pytest.approx(cosine(X.abs().mean(1), Y.abs().mean(1)))
    assert found["gram"] == pytest.approx(float(G @ H / G.norm() / H.norm()), rel=1e-13)
    # Neither the scale nor the number of tokens is seen.
    twice = compare(statistics_of(X), statistics_of(torch.cat([3 * Y, 3 * Y], dim=1)))
    assert twice == pytest.approx(found, rel=1e-12)


def test_layers_are_compared_by_their_inputs() -> None:
    model = make_model("llama")  # 2 layers, 32 wide, 48 inside; float32 sums in float64
    layers, ids = find_linears(model, []), token_ids()
    calibration = Calibration(*calibrate(model, layers, ids))
    assert calibration.nbytes == 2 * (3 * 32**2 + 48**2) * 8  # a shared input counts once
    names = ("mlp.down", "self_attn.q", "self_attn.k")
    down, *qk = (f"model.layers.1.{name}_proj" for name in names)

    def compared(ids: torch.Tensor, kind: Any, unseen: str = "") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []

        def keep(_: object, sums: Sums[Any]) -> None:
            sums.reads.pop(unseen, None)
            rows.extend(compare_layers(layers, calibration, sums))

        watch(model, layers, ids, kind, keep, batch=2)
        return rows

    same = compared(ids, GramAccumulator)
    assert [(row["name"], row["n"]) for row in same] == [
        (name, layer.in_features) for name, layer in layers.items()
    ]
    for row in same:
        assert [row[name] for name in STATISTICS] == pytest.approx([1, 1, 1], abs=1e-9)
    other = {row["name"]: row for row in compared(ids[:3] + 1, MeanAccumulator, unseen=down)}
    assert other[qk[0]]["mean"] == other[qk[1]]["mean"] < 0.999
    assert [other[down][name] for name in STATISTICS] == [None, None, None]


def test_spread_is_the_populations_and_leaves_out_what_is_missing() -> None:
    rows = [{"mean": value} for value in (0.5, None, 0.9, 1.0)]
    found = spread(rows, "mean")
    assert found is not None
    assert found.mean == pytest.approx(0.8)
    assert found.std == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.2**2) / 3))
    assert found.layers == 3
    assert spread([{"mean": None}], "mean") is None


def similarities_by_hand(arguments: list[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Of every dataset and layer, from the inputs that hooks see, kept whole, in float64."""
    plan = plan_similarity(compose(*arguments))
    model = AutoModelForCausalLM.from_pretrained(plan.model.name).eval()
    tokenizer, config = make_tokenizer(), plan.config
    text = text_of(config.calibration.dataset, "train", plan.calibration.source)
    X = inputs_by_hand(model, calibration_samples(tokenizer, text, 12, 24).ids)
    found = {}
    for measurement in plan.measurements:
        text = text_of(measurement.dataset, "test", measurement.source)
        Y = inputs_by_hand(model, windows(tokenizer, text, 32, 6).ids)
        found[measurement.dataset.name] = {
            name: compare(statistics_of(X[name].double().T), statistics_of(Y[name].double().T))
            for name in X
        }
    return found


@pytest.mark.parametrize("architecture", ["llama_gqa", "opt"])
def test_a_record_is_what_the_models_inputs_say(settings: Settings, architecture: str) -> None:
    arguments = [*settings(architecture), "evaluation.batch=4"]
    records = {record["dataset"]["name"]: record for record in similarities(*arguments)}
    assert [record["status"] for record in records.values()] == ["done"] * 3
    for dataset, expected in similarities_by_hand(arguments).items():
        found = values_of(records[dataset])
        assert found.keys() == expected.keys()
        for layer, values in expected.items():
            assert found[layer] == pytest.approx(values, abs=1e-5), (dataset, layer)


def test_a_record_says_what_it_was_made_of_and_holds_no_path(
    settings: Settings, tmp_path: Path
) -> None:
    arguments, watch = settings(), Watch()
    cell = run(*arguments, "method=asvd_i", "dataset=[ptb]")
    (record,) = similarities(*arguments, "dataset=[ptb]", watch=watch)
    assert (record["status"], watch.begun["calibrate"]) == ("done", 0)  # the cell's statistics
    measured = cell["datasets"]["ptb"]
    assert record["dataset"] == {
        "name": "ptb",
        "title": "PTB",
        "tokens": 6 * 32,
        "token_sha256": measured["token_sha256"],
        **{name: measured[name] for name in ("windows", "length", "max_windows", "bos")},
    }
    assert record["calibration"] == cell["calibration"]
    assert record["statistics"] == list(STATISTICS)
    assert set(record["seconds"]) == {"load", "calibrate", "evaluate"}
    assert record["peak_memory"]["host_bytes"] > 1e8
    assert not record["config"].keys() & {"method", "ratio", "k1", "solver", "results_dir"}
    assert str(tmp_path) not in json.dumps(record)
    assert list(read_similarities(tmp_path / "results")) == [record]
    folder = next((tmp_path / "results/similarities").iterdir())
    assert folder.name == f"ptb-{record['key'][:16]}"


def test_the_key_is_of_what_changes_a_number(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb]"]

    def key(*overrides: str) -> str:
        (file,) = plan_similarity(compose(*arguments, *overrides)).files
        return file.key

    same = ("method=svd", "ratio=0.5", "k1=0.5", "solver=paper", "evaluation.dtype=bfloat16",
            "evaluation.batch=1", "memory=streamed", "similarity.statistic=gram",
            "similarity.gram_limit_gb=0")  # fmt: skip
    assert {key(override) for override in same} == {key()}
    different = ("calibration.seed=4", "calibration.samples=3", "calibration.length=8",
                 "evaluation.length=16", "evaluation.max_windows=3", "dtype=bfloat16",
                 "model.skip=[model.layers.0]", "dataset=[c4]")  # fmt: skip
    assert len({key(override) for override in different} | {key()}) == len(different) + 1


def test_what_is_there_is_not_made_again_and_a_wider_run_adds(settings: Settings) -> None:
    arguments, watch = settings(), Watch()
    (first,) = similarities(*arguments, "dataset=[ptb]")
    wider = similarities(*arguments, watch=watch)
    assert watch.begun == {"load resident": 1, "wikitext2": 1, "c4": 1}
    assert first in wider
    nothing = Watch()
    assert similarities(*arguments, watch=nothing) == wider
    assert not nothing.begun


def test_gram_above_the_limit_is_made_when_it_is_asked_for(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb]", "similarity.gram_limit_gb=0"]
    (without,) = similarities(*arguments)
    assert without["statistics"] == ["mean", "abs_mean"]
    assert {row["gram"] for row in without["layers"]} == {None}
    assert not plan_similarity(compose(*arguments, "similarity.statistic=gram")).is_done(without)
    # A failure costs nothing of what there is.
    watch = Watch("ptb", RuntimeError("a cosmic ray"))
    (failed,) = similarities(*arguments, "similarity.statistic=gram", watch=watch)
    assert (failed["status"], failed["error"]["message"]) == ("failed", "a cosmic ray")
    for name in ("layers", "statistics", "dataset", "calibration"):
        assert failed[name] == without[name]
    assert plan_similarity(compose(*arguments)).is_done(failed)
    (asked,) = similarities(*arguments, "similarity.statistic=gram")
    assert (asked["status"], asked["error"]) == ("done", None)
    assert asked["statistics"] == list(STATISTICS)
    assert asked["created"] == without["created"]
    for before, after in zip(without["layers"], asked["layers"], strict=True):
        assert after["gram"] is not None
        assert after == before | {"gram": after["gram"]}
    # And back: nothing is made again.
    assert similarities(*arguments) == [asked]


def test_the_limit_is_of_all_gram_matrices_together(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    size = 2 * (3 * 32**2 + 48**2) * 8 / 1e9
    (above,) = similarities(*arguments, f"similarity.gram_limit_gb={size:.9f}")
    assert "gram" not in above["statistics"]
    arguments.append("dataset=[c4]")
    (below,) = similarities(*arguments, f"similarity.gram_limit_gb={size * 1.01:.9f}")
    assert "gram" in below["statistics"]


def test_a_dataset_that_fails_does_not_stop_the_others(settings: Settings) -> None:
    arguments = settings()
    put_text(arguments, "ptb/test", words(20))
    by_name = {record["dataset"]["name"]: record for record in similarities(*arguments)}
    statuses = {name: record["status"] for name, record in by_name.items()}
    assert statuses == {"wikitext2": "done", "ptb": "failed", "c4": "done"}
    assert "ptb has 20 tokens, fewer than one window of 32" in by_name["ptb"]["error"]["message"]
    assert by_name["ptb"]["layers"] == by_name["ptb"]["statistics"] == []


def test_a_model_that_cannot_be_calibrated_fails_once(settings: Settings, tmp_path: Path) -> None:
    session, broken = Session(), Watch("calibrate", NsvdError("no memory"))
    (only,) = similarities(*settings(), session=session, watch=broken)
    assert (only["dataset"]["name"], only["status"]) == ("wikitext2", "failed")
    assert "in progress" in only["error"]["traceback"]
    assert len(list(read_similarities(tmp_path / "results"))) == 1
    records = similarities(*settings(), session=session)
    assert [record["status"] for record in records] == ["done"] * 3


def test_a_layer_that_reads_zeros_is_missing_and_said(
    settings: Settings, model_folder: Callable[..., Path], capsys: Capture
) -> None:
    model = make_model("llama")
    model.model.layers[1].input_layernorm.weight.data.zero_()
    folder = model_folder("llama", 3)
    model.save_pretrained(folder)
    arguments = [*settings(), f"model.name={folder}", "dataset=[ptb]"]
    out = run_done(capsys, *arguments, "measure=similarity")
    (record,) = similarities(*arguments)
    missing = [row["name"] for row in record["layers"] if row["mean"] is None]
    assert missing == [f"model.layers.1.self_attn.{name}_proj" for name in "qkvo"]
    assert {row["gram"] for row in record["layers"] if row["name"] in missing} == {None}
    assert "10 of 14" in out
    assert "nan" not in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version": 1, "stat', "is damaged .*move it away"),
        ('{"version": 3}', "has result version 3"),
        ('{"version": 1}', "is damaged .*it lacks created, dataset"),
    ],
)
def test_a_damaged_record_is_one_message_with_the_way_out(
    settings: Settings, text: str, message: str
) -> None:
    file = plan_similarity(compose(*settings())).files[1]
    file.folder.mkdir(parents=True)
    file.path.write_text(text)
    with pytest.raises(NsvdError, match=rf"similarities/ptb-.*result\.json {message}"):
        similarities(*settings())


def test_one_run_shows_every_statistic(settings: Settings, capsys: Capture) -> None:
    arguments = [*settings(), "measure=similarity", "similarity.statistic=abs_mean"]
    out = run_done(capsys, *arguments)
    (header,) = [line for line in out.splitlines() if "dataset" in line]
    assert re.findall(r"\w*mean|gram", header) == ["abs_mean", "mean", "gram"]
    for record in similarities(*arguments):
        (line,) = [line for line in out.splitlines() if f" {record['dataset']['title']} " in line]
        shown = re.findall(r"(-?\d\.\d{3}) ± (\d\.\d{3})", line)
        for (mean, std), name in zip(shown, ("abs_mean", "mean", "gram"), strict=True):
            values = [row[name] for row in record["layers"]]
            assert mean == f"{statistics.fmean(values):.3f}"
            assert std == f"{statistics.pstdev(values):.3f}"
    assert "12 x 24 tokens of wikitext2 train" in out
    assert "already done" in run_main(capsys, *arguments)[1]


def test_a_grid_of_both_measures_ends_with_a_table_of_each(
    settings: Settings, capsys: Capture
) -> None:
    arguments = settings()
    arguments.remove("dataset=[wikitext2,ptb,c4]")
    grid = ["-m", *arguments, "measure=similarity,perplexity", "method=svd", "report=false"]
    out = run_done(capsys, *grid, "dataset=ptb,c4")
    assert "Similarity, mean ± std over layers (2 done)" in out
    assert "Perplexity (2 done)" in out
    wider = run_done(capsys, *grid, "dataset=[ptb,c4,wikitext2]", "ratio=0.3,0.4")
    assert "(1 done, 1 skipped)" in wider


def test_a_grid_says_which_dataset_failed_and_shows_the_others(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "measure=similarity", "report=false"]
    put_text(arguments, "ptb/test", words(20))
    code, out, err = run_main(capsys, "-m", *arguments)
    assert code == 1
    assert "(1 failed)" in out
    assert len(re.findall(r"\d ± \d", out)) == 2
    assert "llama-0 similarity (mean): dataset ptb has 20 tokens" in err
    code, out, err = run_main(capsys, *arguments)
    assert code == 1
    assert "error: dataset ptb has 20 tokens" in err
    assert len(re.findall(r"\d ± \d", out)) == 6


def test_deciding_that_all_is_done_imports_no_torch(settings: Settings, capsys: Capture) -> None:
    arguments = [*settings(), "measure=similarity"]
    run_done(capsys, *arguments)
    program = (
        "import sys; from nsvd_exp.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert "already done" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
