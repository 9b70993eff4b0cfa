"""Scores at tasks: what the harness finds is what we find, and how scores are kept and shown."""

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

import datasets
import pytest
import torch
from helpers.cells import Watch, run
from helpers.command_line import Capture, Log, Settings, cells_of, run_done, run_main
from helpers.configuration import compose
from helpers.tasks import make_task
from helpers.texts import words
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.data.tasks import locate_task
from nsvd_exp.errors import OutOfMemoryError
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run_zeroshot import run_zeroshot
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.zeroshot import plan_zeroshot
from nsvd_exp.storage.results import SCORES, Result, read_records

pytest.importorskip("lm_eval")

from nsvd_exp.pipeline.zeroshot import TaskScore, load_task, score_task

DOCUMENTS = 24


@pytest.fixture(scope="module")
def tiny() -> tuple[nn.Module, Any]:
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture
def zeroshot(settings: Settings, tmp_path: Path) -> list[str]:
    """Arguments of a small run at a task of random words."""
    make_task(tmp_path / "tasks")
    return [
        *settings(),
        "measure=zeroshot",
        "tasks=[mine]",
        f"tasks_dir={tmp_path / 'tasks'}",
    ]


def bundled(name: str) -> list[dict[str, Any]]:
    source = locate_task(name, [])
    lines = source.path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:DOCUMENTS]


def scores(*arguments: str, session: Session | None = None, watch: Watch | None = None) -> Result:
    watch = watch or Watch()
    plan = plan_zeroshot(compose(*arguments))
    return run_zeroshot(plan, session or Session(watch.load), watch)


# What the numbers are


@torch.no_grad()
def log_likelihood(model: nn.Module, tokenizer: Any, context: str, ending: str) -> float:
    """nats of the ending after the context, from the model's own logits."""
    given = len(tokenizer(context)["input_ids"])
    ids = torch.tensor(tokenizer(context + ending)["input_ids"])
    predicted = model(ids[None]).logits[0, :-1].double().log_softmax(-1)
    return float(predicted[range(len(ids) - 1), ids[1:]][given - 1 :].sum())


def test_accuracy_is_that_of_the_likeliest_ending(tiny: tuple[nn.Module, Any]) -> None:
    model, tokenizer = tiny
    found = score_task(
        model, tokenizer, load_task(locate_task("bundled_ending", [])), limit=DOCUMENTS
    )
    plain, per_character = [], []
    for document in bundled("bundled_ending"):
        nats = [
            log_likelihood(model, tokenizer, document["context"], f" {choice}")
            for choice in document["choices"]
        ]
        lengths = map(len, document["choices"])
        normed = [value / length for value, length in zip(nats, lengths, strict=True)]
        plain.append(nats.index(max(nats)) == document["answer"])
        per_character.append(normed.index(max(normed)) == document["answer"])
    assert found.metrics["acc,none"] == statistics.fmean(plain)
    assert (found.metric, found.accuracy) == ("acc_norm,none", statistics.fmean(per_character))
    assert found.correct == "".join(map(str, map(int, per_character)))
    assert found.stderr == pytest.approx(statistics.stdev(per_character) / DOCUMENTS**0.5)
    assert (found.documents, found.available) == (DOCUMENTS, 170)
    assert found.chance == 0.25 < found.accuracy - 3 * found.stderr < 1
    assert not found.is_cut


def test_a_generated_word_is_the_models_greedy_one(tiny: tuple[nn.Module, Any]) -> None:
    model, tokenizer = tiny
    found = score_task(
        model, tokenizer, load_task(locate_task("bundled_word", [])), limit=DOCUMENTS
    )
    right = []
    for document in bundled("bundled_word"):
        ids = tokenizer(document["context"], return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=8, do_sample=False)[0]
        text = tokenizer.decode(made[ids["input_ids"].shape[1] :], skip_special_tokens=True)
        first = re.match(r"\s*(\w+)", text.partition("\n")[0])
        right.append(first is not None and first[1] == document["word"])
    assert (found.metric, found.chance) == ("exact_match,first_word", None)
    assert found.correct == "".join(map(str, map(int, right)))
    assert 0 < found.accuracy < 1


def test_model_and_tokenizer_are_left_as_they_were_and_the_batch_changes_no_choice(
    tiny: tuple[nn.Module, Any],
) -> None:
    model, _ = tiny
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    tokenizer.pad_token = None
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def score(batch: int | str) -> TaskScore:
        task = load_task(locate_task("bundled_ending", []))
        return score_task(model, tokenizer, task, limit=6, batch=batch)

    assert score(1).correct == score(5).correct == score("auto").correct
    assert tokenizer.pad_token is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_where_memory_runs_out_the_batch_is_halved(tiny: tuple[nn.Module, Any]) -> None:
    model, tokenizer = tiny
    seen: list[int] = []

    def refuse(limit: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen.append(len(args[0]))
            if len(args[0]) > limit:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        return hook

    def score(limit: int, batch: int | str) -> TaskScore:
        seen.clear()
        handle = model.get_submodule("model.embed_tokens").register_forward_pre_hook(refuse(limit))
        try:
            task = load_task(locate_task("bundled_ending", []))
            return score_task(model, tokenizer, task, limit=4, batch=batch)
        finally:
            handle.remove()

    assert score(3, "auto").documents == 4
    assert seen[0] > 3
    assert max(seen[-4:]) <= 3
    for limit, batch in ((0, "auto"), (3, 8)):
        with pytest.raises(OutOfMemoryError, match=r"^task bundled_ending: cpu has too little"):
            score(limit, batch)


def test_what_the_model_cannot_take_is_said(
    zeroshot: list[str], tmp_path: Path, caplog: Log
) -> None:
    path = tmp_path / "tasks/mine.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["context"] = words(100)  # the model takes 64 tokens
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (score,) = scores(*zeroshot, "method=dense")["tasks"].values()
    assert score["is_cut"]
    assert "task mine: some requests are longer than the model takes" in caplog.text


def test_few_shot_examples_stand_in_front(zeroshot: list[str]) -> None:
    plain, few = (
        scores(*zeroshot, "method=dense", f"zeroshot.fewshot={count}")["tasks"]["mine"]
        for count in (0, 2)
    )
    assert (plain["fewshot"], few["fewshot"]) == (0, 2)
    assert plain["documents_sha256"] != few["documents_sha256"]  # prompts are part of it
    assert plain["key"] != few["key"]


def test_local_data_leave_nothing_in_the_cache_of_datasets(tmp_path: Path) -> None:
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "json"
    before = set(cache.glob("*"))
    make_task(tmp_path / "tasks")
    task = load_task(locate_task("mine", [str(tmp_path / "tasks")]))
    assert len(task.eval_docs) == 6
    assert set(cache.glob("*")) == before


# How scores are kept


def test_a_compressed_model_is_scored_and_the_dense_one_is_back(zeroshot: list[str]) -> None:
    session = Session()
    before = run(*zeroshot, "measure=perplexity", "method=dense", "dataset=[ptb]", session=session)
    made = scores(*zeroshot, "ratio=0.5", session=session)
    assert made["status"] == "done", made["error"]
    assert made["achieved_ratio"]["layers"] == pytest.approx(0.5, abs=0.1)
    assert made["calibration"]["token_sha256"]
    assert set(made["seconds"]) == {"load", "calibrate", "decompose", "evaluate"}
    after = run(
        *zeroshot, "measure=perplexity", "method=dense", "dataset=[ptb,c4]", session=session
    )
    assert after["datasets"]["ptb"] == before["datasets"]["ptb"]
    cell = plan_cell(compose(*zeroshot, "ratio=0.5")).file
    assert made["key"] == cell.key
    assert not cell.path.exists()  # a cell need not have perplexities
    (stored,) = read_records(cell.folder.parents[1], SCORES)
    assert stored == json.loads(json.dumps(made))
    assert "lm_eval" in stored["environment"]["libraries"]
    text = (cell.folder / "zeroshot.json").read_text()
    assert str(cell.folder.parents[2]) not in text  # no path of this machine


def test_it_goes_on_by_task_and_what_is_stored_is_not_done_again(
    zeroshot: list[str], tmp_path: Path
) -> None:
    make_task(tmp_path / "tasks", "other")
    dense = [*zeroshot, "method=dense"]
    first = scores(*dense)["tasks"]["mine"]
    watch = Watch()
    both = scores(*dense, "tasks=[mine,other]", watch=watch)
    assert both["tasks"]["mine"] == first
    assert (watch.begun["mine"], watch.begun["other"]) == (0, 1)
    limited = scores(*dense, "tasks=[mine,other]", "zeroshot.limit=2")
    assert limited["tasks"]["mine"]["documents"] == 2
    assert limited["earlier"] == [both["tasks"]["mine"], both["tasks"]["other"]]
    watch = Watch()
    again = scores(*dense, "tasks=[mine,other]", watch=watch)
    assert again == limited  # those without a limit are there too
    assert not watch.begun


def test_a_task_that_fails_stops_no_other(
    zeroshot: list[str], tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "tasks"
    make_task(folder, "on_the_hub", dataset_path="someone/no-such-set", dataset_kwargs=None)
    make_task(folder, "misspelt", metric_list=[{"metric": "akk"}])
    make_task(folder, "no_fraction", process_results="!function utils.score")
    path = folder / "no_fraction.yaml"
    path.write_text(path.read_text().replace("'!function utils.score'", "!function utils.score"))
    (folder / "utils.py").write_text("def score(doc, results):\n    return {'acc': 7.0}\n")
    names = "tasks=[on_the_hub,misspelt,no_fraction,mine]"
    result = scores(*zeroshot, "method=dense", names)
    assert (result["status"], list(result["tasks"])) == ("failed", ["mine"])
    hub, misspelt, fraction = result["error"]["message"].splitlines()
    assert re.match(r"task on_the_hub: its dataset cannot be had \(Couldn't reach .*HF_HOME", hub)
    assert re.match(rf"task misspelt cannot be used: {folder}/misspelt.yaml: \w+Error", misspelt)
    assert fraction == "task no_fraction: its metric acc is 7.0, and no fraction from 0 to 1"

    code, out, err = run_main(capsys, *zeroshot, "method=dense", names)
    assert (code, "mine" in out) == (1, True)
    assert "error: task on_the_hub: its dataset" in err
    assert "zeroshot.json" not in out
    make_task(folder, "misspelt")
    watch = Watch()
    mended = scores(*zeroshot, "method=dense", "tasks=[misspelt,mine]", watch=watch)
    assert (mended["status"], watch.begun["mine"]) == ("done", 0)


def test_a_run_that_is_interrupted_goes_on_at_the_next_task(
    zeroshot: list[str], tmp_path: Path
) -> None:
    make_task(tmp_path / "tasks", "other")
    dense = [*zeroshot, "method=dense", "tasks=[mine,other]"]
    with pytest.raises(KeyboardInterrupt):
        scores(*dense, watch=Watch(at="other", error=KeyboardInterrupt()))
    plan = plan_zeroshot(compose(*dense))
    stored = plan.file.read()
    assert stored is not None
    assert (stored["status"], list(stored["tasks"])) == ("partial", ["mine"])
    watch = Watch()
    assert scores(*dense, watch=watch)["status"] == "done"
    assert watch.begun["mine"] == 0


def test_a_streamed_model_is_refused_in_one_message(zeroshot: list[str]) -> None:
    result = scores(*zeroshot, "method=dense", "memory=streamed")
    assert result["status"] == "failed"
    assert "streamed" in result["error"]["message"]
    assert "memory=resident" in result["error"]["message"]


# What is shown


def test_one_cell_is_shown_beside_the_dense_model(
    zeroshot: list[str], tmp_path: Path, capsys: Capture
) -> None:
    make_task(tmp_path / "tasks", "other", documents=9)
    arguments = [*zeroshot, "tasks=[mine,other]", "ratio=0.5"]
    out = run_done(capsys, *arguments)
    assert cells_of(arguments) == []
    dense, own = sorted(read_records(tmp_path / "results", SCORES), key=lambda r: r["method"])
    assert (dense["method"], own["method"]) == ("dense", "nsvd_i")
    for name in ("mine", "other"):
        (line,) = [line for line in out.splitlines() if line.startswith((f" {name}", name))]
        values = [r["tasks"][name]["accuracy"] for r in (dense, own)]
        shown = re.findall(r"([+−]?[\d.]+) ±", line)
        assert shown[:2] == [f"{100 * value:.1f}" for value in values]
        less = f"{100 * (values[1] - values[0]):+.1f}".replace("-", "−")
        assert shown[2] == less
        assert "25.0" in line
        assert "acc_norm" in line
    (line,) = [line for line in out.splitlines() if line.strip().startswith("mean")]
    accuracies = [score["accuracy"] for score in own["tasks"].values()]
    errors = [score["stderr"] for score in own["tasks"].values()]
    expected = f"{50 * sum(accuracies):.1f} ± {50 * math.hypot(*errors):.1f}"
    assert expected in line
    assert "of the compressed layers" in out
    assert "already done" in run_done(capsys, *arguments)


def test_a_grid_does_each_cell_once_beside_perplexity(
    zeroshot: list[str], tmp_path: Path, capsys: Capture
) -> None:
    arguments = [*zeroshot, "method=dense,svd", "ratio=0.3,0.5", "dataset=[ptb]"]
    out = run_done(capsys, "-m", *arguments, "measure=perplexity,zeroshot")
    assert "Perplexity (3 done, 1 skipped)" in out
    assert "Accuracy in %, ± standard error (3 done, 1 skipped)" in out
    assert len(list(read_records(tmp_path / "results", SCORES))) == len(cells_of(arguments)) == 3
    out = run_done(capsys, "-m", *arguments)
    assert "(4 skipped)" in out
    report = tmp_path / "results/report"
    assert "Accuracy at tasks" in (report / "index.html").read_text()
    assert (report / "accuracy.md").is_file()


@pytest.mark.slow
def test_the_bundled_tasks_run_on_a_fresh_machine_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nsvd_exp", "measure=zeroshot", "results_dir=results"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bundled_ending" in done.stdout
    assert "it/s" not in done.stderr + done.stdout  # no bar of the harness
    dense, own = sorted(read_records(tmp_path / "results", SCORES), key=lambda r: r["method"])
    for name, score in dense["tasks"].items():
        assert score["accuracy"] > own["tasks"][name]["accuracy"]
    assert dense["tasks"]["bundled_ending"]["accuracy"] > 0.7
