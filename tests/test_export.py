"""A cell's model as a folder: the one that was measured, to the last bit, or nothing at all."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import run, setting
from helpers.command_line import REPOSITORY, Capture, Settings, cells_of, run_done, run_main
from helpers.configuration import compose
from helpers.fake_hub import fake_hub
from helpers.models import UP, edit_weights

from nsvd_exp.cli.export import about_of, command_of, summary
from nsvd_exp.cli.export import main as export_main
from nsvd_exp.data.text import text_of
from nsvd_exp.data.tokens import windows
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.export import export_cell
from nsvd_exp.experiment.exported import exported
from nsvd_exp.experiment.loaded import LoadedModel, load_dense
from nsvd_exp.experiment.plan import CellPlan, plan_cell
from nsvd_exp.experiment.remeasure import Task, measured_in_its_own_process
from nsvd_exp.experiment.resolve import Resolved
from nsvd_exp.experiment.session import Session
from nsvd_exp.models.checkpoint import load
from nsvd_exp.pipeline.evaluate import window_nll
from nsvd_exp.storage.results import Result


def export_command(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m nsvd_exp.export`, in this process."""
    capsys.readouterr()
    code = export_main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def places(arguments: list[str]) -> list[str]:
    """The options of a command that starts from a cell of these arguments."""
    return [
        *("--results", setting(arguments, "results_dir")),
        *("--model", setting(arguments, "model.name")),
        *("--data-dir", setting(arguments, "data_dir")),
        *("--device", "cpu"),
    ]


def losses_of(folder: Path, plan: CellPlan, dataset: str) -> list[float]:
    """nats of each window of a dataset, by what transformers loads from the folder."""
    from transformers import AutoTokenizer

    measurement = next(m for m in plan.measurements if m.dataset.name == dataset)
    text = text_of(measurement.dataset, "test", measurement.source)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cap = plan.config.evaluation.max_windows
    return window_nll(load(folder), windows(tokenizer, text, plan.length, cap).ids)


def test_the_command_on_the_card_makes_the_same_cell(settings: Settings) -> None:
    for changes in (
        ["method=svd"],
        ["method=nsvd_ii", "k1=0.8", "ratio=0.45"],
        ["method=asvd_0", "method.alpha=0.5", "solver=paper"],
        ["method=nid_i", "calibration.samples=9", "calibration.seed=5"],
        ["method=asvd_i", "model.skip=[model.layers.0.*]", "dtype=bfloat16"],
        ["method=nsvd_i", "method.first=nsvd_exp.methods.EigenASVD"],
    ):
        arguments = settings()
        plan = plan_cell(compose(*arguments, *changes))
        words = shlex.split(command_of(plan))
        assert words[:3] == ["python", "-m", "nsvd_exp"]
        # Of a folder it says the name alone, and of text nothing.
        where = [f"{name}={setting(arguments, name)}" for name in ("model.name", "data_dir")]
        typed = [word for word in words[3:] if not word.startswith("model.name=")]
        again = plan_cell(compose(*typed, *where))
        assert again.file.key == plan.file.key
        assert "/" not in command_of(plan)


def test_the_card_says_what_was_measured(settings: Settings) -> None:
    arguments = [*settings(), "dataset=[wikitext2,ptb]", "evaluation.max_windows=12"]
    run(*arguments, "method=dense", "dataset=[ptb]")
    result = run(*arguments)
    about = about_of(plan_cell(compose(*arguments)), result)
    values = {one.dataset: one for one in about.perplexities}
    assert list(values) == ["WikiText-2", "PTB"]
    ptb = result["datasets"]["ptb"]
    assert values["PTB"].value == ptb["perplexity"]
    assert values["PTB"].interval is not None
    low, high = values["PTB"].interval
    assert low < ptb["perplexity"] < high
    assert values["WikiText-2"].dense is None
    assert values["PTB"].dense is not None
    assert about.layers == result["layers"]
    assert about.ratio == 0.3
    assert about.calibration is not None
    assert "12 x 24 tokens of wikitext2 train" in about.calibration


def test_what_cannot_be_exported_is_said_before_the_work(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    arguments, folder = [*settings(), "dataset=[ptb]"], tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    code, _, err = run_main(capsys, *arguments, f"export={folder}")
    assert code == 1
    assert f"{folder} holds something else: give another folder" in err
    code, _, err = run_main(capsys, *arguments, f"export={tmp_path / 'x'}", "method=dense")
    assert code == 1
    assert "nothing to export" in err
    code, _, err = run_main(capsys, *arguments, "export_format=gguf")
    assert code == 2
    assert "unknown export_format 'gguf'" in err
    code, _, err = run_main(capsys, *arguments, f"export={tmp_path / 'x'}", "measure=zeroshot")
    assert (code, "measure=perplexity beside it" in err) == (2, True)
    code, _, err = run_main(capsys, *arguments, "push_to_hub=me/mine")
    assert (code, "export=FOLDER beside it" in err) == (2, True)
    assert not cells_of(arguments)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_command_refuses_cells_and_names_by_one_message(
    settings: Settings, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    arguments, target = [*settings(), "dataset=[ptb]"], tmp_path / "out"
    where = places(arguments)
    assert export_command(capsys, "abc", str(target), *where)[0] == 2
    key = run(*arguments, "method=svd")["key"]
    dense = run(*arguments, "method=dense")["key"]
    code, _, err = export_command(capsys, dense, str(target), *where)
    assert (code, "nothing to export" in err) == (2, True)
    code, _, err = export_command(capsys, key, str(target), *where, "--push", "me/mine")
    assert (code, "takes a token" in err) == (2, True)
    pushed = ["method=asvd_i", f"export={target}", "push_to_hub=me/mine"]
    code, _, err = run_main(capsys, *arguments, *pushed)
    assert (code, "takes a token" in err) == (1, True)
    edit_weights(Path(setting(arguments, "model.name")), lambda tensors: tensors[UP].mul_(2))
    code, _, err = export_command(capsys, key, str(target), *where)
    assert (code, "no longer what it was: the model" in err) == (2, True)
    assert not target.exists()


@pytest.mark.slow
def test_what_a_grid_exports_is_pushed(settings: Settings, tmp_path: Path) -> None:
    arguments, target = [*settings(), "dataset=[ptb]"], tmp_path / "out"
    grid = ["-m", "method=dense,svd", "ratio=0.3,0.5", "report=false"]
    pushed = [f"export={target}", "push_to_hub=me/mine"]
    with fake_hub() as hub:
        # huggingface_hub reads where the hub is when it is imported.
        done = subprocess.run(
            [sys.executable, "-m", "nsvd_exp", *arguments, *grid, *pushed],
            env=os.environ | hub.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    folders = {f"me/mine-{folder.name}": folder for folder in target.iterdir()}
    assert len(folders) == 2
    assert hub.private == hub.repositories.keys() == folders.keys()
    for name, folder in folders.items():
        assert hub.repositories[name] == {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "method"), [("llama_gqa", "svd"), ("opt", "nsvd_i"), ("gemma", "nid_i")]
)
def test_an_export_is_the_model_that_was_measured(
    settings: Settings, tmp_path: Path, capsys: Capture, architecture: str, method: str
) -> None:
    arguments = [*settings(architecture), f"method={method}", "dataset=[ptb,c4]"]
    folder = tmp_path / "made" / "here"
    out = run_done(capsys, *arguments, f"export={folder}")
    assert "as stored" in out
    plan = plan_cell(compose(*arguments))
    result = plan.file.read()
    assert result is not None
    for name in ("ptb", "c4"):
        assert losses_of(folder, plan, name) == result["datasets"][name]["window_nll"]
    checked = json.loads((folder / "export.json").read_text())["checked"]
    assert checked["dataset"] in ("ptb", "c4")
    assert checked["perplexity"] == checked["stored"]
    assert result["datasets"][checked["dataset"]]["perplexity"] == checked["stored"]
    assert str(tmp_path) not in "".join(
        path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".md")
    )
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    # The same command finds it there; in another format, or of another cell, it is in the way.
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert "as stored" in run_done(capsys, *arguments, f"export={folder}")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    code, _, err = run_main(capsys, *arguments, f"export={folder}", "export_format=dense")
    assert code == 1
    assert f"holds cell {plan.file.key[:16]} as factors in float32: give another" in err


@pytest.mark.slow
def test_a_grid_exports_each_compressed_cell(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "report=false", f"export={tmp_path / 'all'}"]
    run_done(capsys, "-m", *arguments, "method=dense,svd,nsvd_i")
    folders = sorted(path.name for path in (tmp_path / "all").iterdir())
    plans = [plan_cell(compose(*arguments, f"method={m}")) for m in ("nsvd_i", "svd")]
    assert folders == [plan.file.folder.name for plan in plans]
    for plan in plans:
        found = exported(tmp_path / "all" / plan.file.folder.name, plan, "factors")
        assert found is not None
        assert found.record["checked"]["in_memory"] is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_weights_are_the_same_numbers_up_to_one_rounding(
    settings: Settings, tmp_path: Path, capsys: Capture, dtype: str
) -> None:
    arguments = [*settings("opt"), "dataset=[ptb]"]
    key = run(*arguments)["key"]
    options = [*places(arguments), "--format", "dense", "--dtype", dtype]
    code, out, err = export_command(capsys, key[:9], str(tmp_path / "dense"), *options)
    assert code == 0, err
    assert "as the model in memory" in out
    assert "quantization_config" not in json.loads((tmp_path / "dense/config.json").read_text())
    checked = json.loads((tmp_path / "dense/export.json").read_text())["checked"]
    assert checked["in_memory"] == checked["perplexity"]
    if dtype == "float32":
        assert checked["perplexity"] == pytest.approx(checked["stored"], rel=1e-5)
    else:
        assert checked["stored"] is None


def exporting(
    settings: Settings, session: Session, folder: Path, edit: Any = None
) -> tuple[CellPlan, Result, Any]:
    """Export an SVD cell, whose stored measurement `edit` may change before."""
    arguments = [*settings(), "dataset=[ptb]", "method=svd"]
    result, plan = run(*arguments), plan_cell(compose(*arguments))
    if edit is not None:
        edit(result["datasets"]["ptb"])
    return (
        plan,
        result,
        lambda: export_cell(plan, result, session, str(folder), about_of(plan, result)),
    )


@pytest.mark.slow
def test_a_number_of_another_machine_is_measured_anew(settings: Settings, tmp_path: Path) -> None:
    def elsewhere(measured: Result) -> None:
        measured["window_nll"][0] = math.nextafter(measured["window_nll"][0], math.inf)
        measured["perplexity"] *= 1 + 1e-12

    _, result, work = exporting(settings, Session(), tmp_path / "out", elsewhere)
    made = work()
    checked = made.record["checked"]
    assert checked["perplexity"] == checked["in_memory"]
    assert checked["stored"] == result["datasets"]["ptb"]["perplexity"] != checked["in_memory"]
    assert "as the model in memory; stored is" in summary(made)


@pytest.mark.slow
def test_a_folder_that_is_another_model_is_not_kept(settings: Settings, tmp_path: Path) -> None:
    """What a checkpoint does not hold, such as a hook on the model, it cannot give back."""

    def load_hooked(plan: Resolved, is_streamed: bool) -> LoadedModel:
        loaded = load_dense(plan, is_streamed)
        output: Any = loaded.model.get_output_embeddings()  # type: ignore[operator]
        output.register_forward_hook(lambda module, inputs, logits: logits * 1.001)
        return loaded

    def hooked_number(measured: Result) -> None:
        measured["window_nll"][0] += 1

    folder = tmp_path / "new" / "out"
    *_, work = exporting(settings, Session(load_hooked), folder, hooked_number)
    with pytest.raises(NsvdError, match="the export is not the model in memory: on ptb a fresh"):
        work()
    assert list(folder.parent.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_cannot_measure_says_why(tmp_path: Path) -> None:
    task = Task(str(tmp_path), "w5 " * 99, "ptb", 16, None, False, "first", 1, "cpu", 1)
    with pytest.raises(NsvdError, match=r"could not measure it on ptb: .*no config.json"):
        measured_in_its_own_process(task)


@pytest.mark.slow
def test_threads_and_batch_are_those_of_this_process(settings: Settings, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        *_, work = exporting(settings, Session(), tmp_path / "out")
        checked = work().record["checked"]
    finally:
        torch.set_num_threads(before)
    assert (checked["threads"], checked["batch"]) == (1, 4096 // 32)
