"""The command line as a user types it: one cell, grids, interruptions, and everything mistyped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.cells import put_text
from helpers.command_line import (
    REPOSITORY,
    Capture,
    Settings,
    cells_of,
    command,
    results_dir,
    run_done,
    run_main,
    run_process,
    wait_until,
)
from helpers.texts import words
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

from nsvd_exp.cli.arguments import normalise, setting_names, with_fields_of_grids
from nsvd_exp.config.files import conf_dir
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.storage.results import read_all


def test_one_cell_is_shown_beside_the_dense_model(settings: Settings, capsys: Capture) -> None:
    arguments = settings()
    out = run_done(capsys, *arguments)
    dense, nsvd = sorted(cells_of(arguments), key=lambda r: r["method"])
    assert (dense["method"], nsvd["method"]) == ("dense", "nsvd_i")
    for title, name in (("WikiText-2", "wikitext2"), ("PTB", "ptb"), ("C4", "c4")):
        (line,) = [line for line in out.splitlines() if f" {title} " in line]
        values = [r["datasets"][name]["perplexity"] for r in (dense, nsvd)]
        shown = [format_perplexity(v) for v in (*values, values[1] / values[0])]
        assert line.removeprefix(f" {title} ").split()[:3] == shown
    assert f"{nsvd['achieved_ratio']['layers']:.2%} of the compressed layers" in out
    assert "already done" in run_done(capsys, *arguments)


def test_a_grid_does_each_cell_once_and_says_what_was_there(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "report=false"]
    arguments += ["method=dense,svd,nsvd_i", "ratio=0.3,0.5"]
    assert "5 done, 1 skipped" in run_done(capsys, *arguments, "-m")  # dense has no ratio
    assert len(cells_of(arguments)) == 5
    before = cells_of(arguments)
    out = run_done(capsys, "-m", *arguments, "k1=0.95,0.5")
    assert "(2 done, 10 skipped)" in out  # two new k1 of nsvd_i; the others have none
    assert [r for r in cells_of(arguments) if r in before] == before


def test_a_grid_ends_with_the_table_it_has_changed_and_names_the_page(
    settings: Settings, capsys: Capture, tmp_path: Path
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "ratio=0.3"]
    out = run_done(capsys, "-m", *arguments, "method=asvd_i,svd")
    page = tmp_path / "results" / "report" / "index.html"
    assert "nats/" in out  # the results at this ratio, with their averages
    assert "NSVD-I" not in out
    assert f"report: {page}" in out.replace("\n", "")
    made = page.read_bytes()
    out = run_done(capsys, "-m", *arguments, "method=nsvd_i", "k1=0.9,0.8")
    assert all(title in out for title in ("SVD", "ASVD-I", "NSVD-I 0.9", "NSVD-I 0.8"))
    assert page.read_bytes() != made
    page.write_text("as it was")
    out = run_done(capsys, "-m", *arguments, "method=asvd_i,svd")
    assert "2 skipped" in out
    assert f"report: {page}" in out.replace("\n", "")
    assert page.read_text() == "as it was"  # nothing new: not made again
    assert "report:" not in run_done(capsys, "-m", *arguments, "method=asvd_0", "report=false")


def test_a_report_that_cannot_be_made_fails_no_grid(
    settings: Settings, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "report").write_text("a file in its place")
    arguments = [*settings(), "dataset=[ptb]", "method=svd"]
    code, out, err = run_main(capsys, "-m", *arguments)
    assert code == 0
    assert "1 done" in out
    assert "no report:" in err
    assert "report:" not in out


def test_no_number_is_cut_short_in_a_narrow_terminal(
    settings: Settings, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    arguments = settings()
    run_done(capsys, *arguments, "method=svd")
    out = run_done(capsys, "-m", *arguments, "method=svd,dense", "report=false")
    for cell in cells_of(arguments):
        for number in cell["datasets"].values():
            assert format_perplexity(number["perplexity"]) in out.split()


def test_datasets_are_an_axis_of_a_grid(settings: Settings, capsys: Capture) -> None:
    arguments = [*settings(), "report=false"]
    arguments.remove("dataset=[wikitext2,ptb,c4]")
    assert "2 done" in run_done(capsys, "-m", *arguments, "datasets=ptb,c4", "method=svd")
    (cell,) = cells_of(arguments)
    assert set(cell["datasets"]) == {"ptb", "c4"}
    out = run_done(capsys, "-m", *arguments, "dataset=[ptb],[ptb,wikitext2]", "method=svd")
    assert "1 done, 1 skipped" in out


def test_jobs_that_differ_in_other_settings_can_be_told_apart(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "report=false", "-m", "ratio=0.3"]
    for method, field, values in (
        ("asvd_i", "calibration.seed", ["1", "2"]),
        ("asvd_0", "method.alpha", ["0.25", "0.5", "1"]),
    ):
        out = run_done(capsys, *arguments, f"method={method}", f"{field}={','.join(values)}")
        rows = [line for line in out.splitlines() if " done " in line and f" {method} " in line]
        assert re.findall(rf" {field}=(\S+) ", " ".join(rows)) == values
        assert "data_dir" not in out
        cells = [cell for cell in cells_of(arguments) if cell["method"] == method]
        assert len({cell["key"] for cell in cells}) == len(cells) == len(values)


def test_globs_and_ranges_are_axes_and_a_computed_ratio_is_the_typed_one(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]", "report=false"]
    run_done(capsys, *arguments, "method=svd", "ratio=0.3")  # and dense, beside it
    grid = ["method=glob([d*,s*],exclude=*_*)", "ratio=range(0.1,0.31,0.1)"]
    assert "(2 done, 4 skipped)" in run_done(capsys, "-m", *arguments, *grid)


def test_a_failed_cell_does_not_stop_the_grid(settings: Settings, capsys: Capture) -> None:
    arguments = [*settings(), "method=svd", "report=false"]
    put_text(arguments, "c4/test", "w2 w3")
    grid = [*arguments, "ratio=0.3,0.5", "dataset=[ptb],[c4]"]
    code, out, err = run_main(capsys, "-m", *grid)
    assert code == 1
    assert "2 done, 2 failed" in out
    assert err.count("dataset c4 has 2 tokens, fewer than one window of 32") == 2
    assert {cell["status"] for cell in cells_of(arguments)} == {"done"}  # as far as it was asked
    code, out, err = run_main(capsys, "-m", *grid, "method=asvd_0", "dataset=[c4]")
    assert (code, out) == (1, "")  # no table without a number, and no report
    assert err.count("failed: ") == 2
    failed = [cell for cell in cells_of(arguments) if cell["method"] == "asvd_0"]
    assert {cell["status"] for cell in failed} == {"failed"}
    assert "Traceback" in failed[0]["error"]["traceback"]


def test_nothing_is_written_outside_of_results_dir(
    settings: Settings, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNS", "runs")
    arguments = [a for a in settings() if not a.startswith("results_dir")]
    for given, place in (
        ("results_dir=~/my $RUNS/é", home / "my runs" / "é"),
        ("results_dir=relative/place", work / "relative" / "place"),
    ):
        run_done(capsys, *arguments, "dataset=[ptb]", "method=svd", given)
        assert {path.name for path in place.iterdir()} == {"cells", "hydra"}
    assert [path.name for path in work.iterdir()] == ["relative"]
    assert [path.name for path in home.iterdir()] == ["my runs"]


BAD_INPUT = {
    "method=nsvd": "unknown method 'nsvd'. Did you mean svd or nsvd_i",
    "model=lama_7b": "unknown model 'lama_7b'. Did you mean llama_7b",
    "dataset=[wikitext,ptb]": "unknown dataset 'wikitext'. Did you mean wikitext2",
    "calibration.dataset=c5": "unknown dataset 'c5'. Did you mean c4",
    "method=[svd,asvd_i]": "expected one name",
    "dataset=null": "expected a name",
    "dataset=[]": "expected a name",
    "rato=0.3": "unknown setting 'rato'. Did you mean ratio",
    "calibration.sample=3": "Did you mean calibration.samples",
    "ratio=0": "ratio=0.0: expected 0 < ratio < 1",
    "ratio=1": "ratio=1.0: expected 0 < ratio < 1",
    "ratio=much": "could not be converted to Float",
    "k1=1.2": "k1=1.2: expected 0 < k1 <= 1",
    "dataset=[ptb": "A list is written [a,b]",
    "dataset=ptb,c4": "a grid is written with -m",
    "device=tpu": "expected auto, cpu, cuda, cuda:N or cuda:all",
    "dtype=int8": "unknown dtype 'int8'",
    "solver=exact": "unknown solver 'exact'",
    "evaluation.batch=0": "expected auto, or a whole number > 0",
    "evaluation.length=65": "is more than the 64 positions the model takes",
    "calibration.length=65": "is more than the 64 positions the model takes",
    "calibration.dataset=c4": "c4/train.jsonl (.json, .parquet, .txt, .csv) is not there (",
    "model.skip=[nothing]": "'nothing' matches no layer",
    "model.name=/no/such/folder": "there is no model folder",
    "model.name=some-body/some-model": "the hub cannot be reached",
    "dataset=[snips]": "snips/test.jsonl (.json, .parquet, .txt, .csv) is not there, and dataset",
    "dataset=[cmrc_cn]": "cmrc_cn/test.jsonl (.json, .parquet, .txt, .csv) is not there, and",
    "data_dir=/no/such/folder": "there is no folder",
    "results_dir=/dev/null": "results_dir=/dev/null: /dev/null cannot be written to",
    "results_dir=/proc/x": "results_dir=/proc/x: /proc/x cannot be written to",
    "cache_dir=/dev/null/x": "cache_dir=/dev/null/x: /dev/null/x cannot be written to",
    "calibration.tokenizer=/no/such": "calibration.tokenizer=/no/such: there is no model folder",
    "model.skip=all": "A list is written [a,b]",
    "model.skip=['*']": "hold no Linear to compress that model.skip leaves",
    "device=cuda": "there is no CUDA device here",
    "method=svd method.reading=scalar": "unknown setting 'method.reading'",
    "method=asvd_iii method.reading=scaled": "unknown reading 'scaled'. Did you mean scalar",
    "method=asvd_0 method.alpha=-1": "alpha=-1.0: expected a number >= 0",
    "method.first=nsvd_exp.methods.Choleski": "nsvd_exp.methods.Choleski cannot be imported",
    "-m ratio=0.3,1.5": "ratio=1.5: expected 0 < ratio < 1",
    "-m method=svd,nsvd_x": "unknown method 'nsvd_x'. Did you mean nsvd_i",
    "-m ratio=interval(0.1,0.5)": "ratio=interval(0.1,0.5): expected values to go through, a,b,c",
    "-m hydra/launcher=lokal": "unknown hydra/launcher 'lokal'. Did you mean local",
    "hydra/launcher=local": "hydra/launcher=local runs grids: add -m",
    "-m hydra/launcher=local hydra.launcher.n_jobs=0": "n_jobs=0: expected a positive number",
    "-m hydra/launcher=local hydra.launcher.n_jobs=two": "n_jobs=two: expected a positive number",
    "-m hydra/launcher=ray hydra.launcher.num_gpus=-1": "num_gpus=-1: expected a positive number",
    "-m hydra/launcher=slurm hydra.launcher.check_s=0": "check_s=0: expected a positive number",
    "-m hydra/launcher=local hydra.launcher.jobs=2": "unknown setting 'hydra.launcher.jobs'",
    "-m hydra/launcher=local device=cuda:1": "there is no CUDA device here",
    "-m hydra/launcher=local ratio=0.3,1.5": "ratio=1.5",
}


@pytest.mark.parametrize(("typed", "message"), BAD_INPUT.items())
def test_bad_input_is_one_clear_message(
    settings: Settings, capsys: Capture, typed: str, message: str
) -> None:
    arguments = settings()
    code, out, err = run_main(capsys, *arguments, *typed.split(" "))
    assert code in (1, 2)
    assert message in err
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert out == ""
    assert not [r for r in cells_of(arguments) if r["status"] == "done" and r["method"] != "dense"]
    if "-m " in typed or "hydra/launcher" in typed:  # is found before the first job of a grid
        assert code == 2
        assert cells_of(arguments) == []


@pytest.mark.parametrize("launcher", ["here", "basic"])
def test_files_are_composed_once_and_a_launcher_of_hydra_composes_each_job_again(
    settings: Settings, capsys: Capture, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    composed: list[tuple[str, ...]] = []
    real = ConfigLoaderImpl.load_sweep_config

    def counted(self: ConfigLoaderImpl, master: DictConfig, overrides: list[str]) -> DictConfig:
        composed.append(tuple(overrides))
        return real(self, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    arguments = [*settings(), "dataset=[ptb]", "-m", "method=svd", "ratio=0.3,0.5,0.6"]
    arguments += ["report=false", f"hydra/launcher={launcher}", "hydra.sweeper.max_batch_size=2"]
    assert "(3 done)" in run_done(capsys, *arguments)
    chosen, *again = composed
    assert set(chosen) == {"model=hf", "dataset=[ptb]", "method=svd"}
    ratios = [next(o for o in job if o.startswith("ratio=")) for job in again]
    assert ratios == ([] if launcher == "here" else ["ratio=0.3", "ratio=0.5", "ratio=0.6"])
    folders = [path.parent.name for path in results_dir(arguments).glob("hydra/*/*/log.txt")]
    assert sorted(folders) == ["0", "1", "2"]  # those of the second batch are not the first's


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("datasets=[a,b]", "dataset=[a,b]"),
        ("calibration.dataset=c4", "dataset@calibration.dataset=c4"),
        ("-m", "-m"),
        ("ratio=0.1,0.2", "ratio=0.1,0.2"),
        ("+experiment=smoke", "+experiment=smoke"),
        ("results_dir=a/b-c.d", "results_dir=a/b-c.d"),
        ("results_dir=a b", 'results_dir="a b"'),
        ("results_dir='a b'", "results_dir='a b'"),
        ("results_dir=${oc.env:X}/y", "results_dir=${oc.env:X}/y"),
        ("model.name=a/b,c/d", "model.name=a/b,c/d"),
        ("data_dir=[a/b]", "data_dir=[a/b]"),
    ],
)
def test_arguments_are_put_as_hydra_takes_them(typed: str, given: str) -> None:
    assert normalise(typed) == given


def test_a_field_that_is_given_to_several_methods_is_given_to_each() -> None:
    typed = ["-m", "method=kfac,asvd_ridge", "method.ridge=0.3", "method.target=diagonal,identity"]
    typed += ["allocation.floor=0.1", "ratio=0.1,0.3", "method.first={_target_: a.B, x: 1}"]
    assert with_fields_of_grids(typed) == [
        *("-m", "method=kfac,asvd_ridge", "method.ridge=choice(0.3)"),
        *("method.target=diagonal,identity", "allocation.floor=0.1", "ratio=0.1,0.3"),
        "method.first=choice({_target_: a.B, x: 1})",
    ]
    assert with_fields_of_grids(typed[2:]) == typed[2:]


def test_a_grid_of_methods_takes_a_field_that_the_default_does_not_have(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "-m", "dataset=[ptb]", "report=false"]
    arguments += ["method=asvd_ridge,kfac", "method.ridge=0.3"]
    assert "(2 done)" in run_done(capsys, *arguments)
    stored = read_all(results_dir(arguments))
    cells = {cell["method"]: cell["identity"]["method"] for cell in stored}
    assert [cells[name]["ridge"] for name in ("asvd_ridge", "kfac")] == ["0.3", "0.3"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=../dataset/ptb", "the model name '../dataset/ptb' begins with a dot"),
        ("method=svd,../model/tiny", "the method name '../model/tiny' begins with a dot"),
        ("dataset=[ptb,a/b]", "the dataset name 'a/b' holds a separator of paths"),
        ("calibration.dataset=/etc/passwd", "name '/etc/passwd' holds a separator of paths"),
    ],
)
def test_a_choice_is_a_name_and_no_path(capsys: Capture, typed: str, said: str) -> None:
    code, out, err = run_main(capsys, "-m", typed)
    assert (code, out) == (2, "")
    assert said in err


def test_what_a_dead_process_left_goes_with_a_run_that_has_nothing_to_do(
    settings: Settings, capsys: Capture
) -> None:
    arguments = [*settings(), "method=dense", "dataset=[ptb]"]
    run_done(capsys, *arguments)
    left = results_dir(arguments) / "cache" / ".streamed.dead"
    left.mkdir(parents=True, exist_ok=True)
    (left / "model.safetensors").write_bytes(bytes(8))
    assert "already done" in run_done(capsys, *arguments)
    assert not left.exists()


def test_help_and_configuration_are_there_to_read(capsys: Capture) -> None:
    out = run_done(capsys, "--help")
    for name in ("nsvd_i", "llama_7b", "alpaca_eval_jp", "evaluation.", "results_dir"):
        assert name in out
    assert max(map(len, out.splitlines())) <= 130
    of_dataset = {f.name for f in fields(DatasetConfig)}
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    names = setting_names(Config)
    for name in names:
        last, is_block = name.rpartition(".")[2], any(n.startswith(f"{name}.") for n in names)
        assert f"{last}=" in out or is_block or last in of_dataset | groups, name
    assert "reading: scalar" in run_done(capsys, "--cfg", "job", "method=asvd_iii")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert run_done(capsys, "--version") == f"nsvd_exp {project['version']}\n"


def test_a_reader_that_has_seen_enough_is_no_error(settings: Settings, capsys: Capture) -> None:
    """As that of `| head` has; what is done all the same is said by the exit status."""
    grid = [*settings(), "-m", "dataset=[ptb]", "method=svd", "report=false"]
    run_done(capsys, *grid)
    for arguments in (["--help"], ["--version"], grid):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            command(*arguments), stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
        os.close(write)
        assert done.returncode == 0
        assert not re.search("error|Traceback", done.stderr), done.stderr


@pytest.mark.slow
def test_a_killed_cell_goes_on_where_it_stopped(settings: Settings, tmp_path: Path) -> None:
    """SIGKILL while it evaluates; the same command does the rest and measures nothing twice."""
    arguments = [*settings(), "method=dense", "evaluation.max_windows=null", "evaluation.batch=1"]
    data = tmp_path / "data"
    (data / "ptb/test.jsonl").write_text(json.dumps({"text": words(400_000)}) + "\n")
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: any(cell["datasets"] for cell in cells_of(arguments)), 120, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = cells_of(arguments)
    assert left["status"] == "partial"
    assert set(left["datasets"]) == {"wikitext2"}
    (data / "ptb/test.jsonl").write_text(json.dumps({"text": words(400)}) + "\n")
    done = run_process(*arguments)
    assert done.returncode == 0, done.stderr
    (result,) = cells_of(arguments)
    assert result["status"] == "done"
    assert result["datasets"]["wikitext2"] == left["datasets"]["wikitext2"]


def test_it_runs_from_anywhere_and_deciding_that_all_is_done_imports_no_torch(
    settings: Settings, tmp_path: Path, capsys: Capture
) -> None:
    arguments = [*settings(), "dataset=[ptb]"]
    run_done(capsys, *arguments)
    program = (
        "import sys; from nsvd_exp.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, check=True, cwd=elsewhere,
    )  # fmt: skip
    assert "already done" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_a_built_wheel_carries_configuration_and_bundled_default(tmp_path: Path) -> None:
    """Unpacked somewhere else and run from there, with nothing of the checkout in reach.

    A cell without tracking and without a report needs neither wandb nor pandas.
    """
    pytest.importorskip("hatchling", reason="builds the wheel; part of the dev extra")
    build = (
        "import sys; from hatchling.builders.wheel import WheelBuilder as Builder; "
        "next(Builder(sys.argv[1]).build(directory=sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", build, str(REPOSITORY), str(tmp_path)],
        check=True, cwd=REPOSITORY, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    program = (
        "import sys, nsvd_exp.cli.main as c; print(c.__file__, c.conf_dir()); "
        "code = c.main(sys.argv[1:]); "
        "print(code, sorted({'wandb', 'wandb_workspaces', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "dataset=[snips]", "evaluation.max_windows=1"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{site}/nsvd_exp/cli/main.py {site}/nsvd_exp/conf")
    assert (site / "nsvd_exp/bundled/tasks/bundled_word.yaml").is_file()
    assert "SNIPS" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_conf_is_at_the_top_level() -> None:
    assert conf_dir() == REPOSITORY / "conf"
