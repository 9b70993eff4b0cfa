"""The scripts of `sweeps/`: which commands they run, with a stand-in for Python that notes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SWEEPS = Path(__file__).resolve().parent.parent / "sweeps"
PRESETS = ["figure1", "table1", "table2", "table3", "table4", "table5", "table6"]
SIX = "dataset=[wikitext2,c4,snips,alpaca_eval,cmrc_cn,alpaca_eval_jp]"

# Notes its arguments; the exit status of a command that holds $FAILING is $CODE.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$NOTES"
if [[ -n "$FAILING" && "$*" == *"$FAILING"* ]]; then exit "$CODE"; fi
"""


class Script:
    """Runs a script from a folder that is not the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def run(
        self, name: str, *arguments: str, failing: str = "", code: int = 1, **variables: str
    ) -> tuple[int, list[str]]:
        """The exit status, and the commands that were run."""
        notes = self.folder / "notes"
        notes.unlink(missing_ok=True)
        given = {"PYTHON": str(self.python), "NOTES": str(notes), "FAILING": failing,
                 "CODE": str(code), **variables}  # fmt: skip
        done = subprocess.run(
            [str(SWEEPS / name), *arguments],
            env=os.environ | given, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_a_script_can_be_run_and_is_bash() -> None:
    for path in SWEEPS.glob("*.sh"):
        assert os.access(path, os.X_OK), path
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_all_runs_every_preset_and_then_the_report(script: Script) -> None:
    code, commands = script.run("all.sh", "model=tiny", "results_dir=some/where", "ratio=0.3")
    given = "model=tiny results_dir=some/where ratio=0.3"
    assert code == 0
    assert commands == [
        *(f"-m nsvd_exp experiment={preset} report=false {given}" for preset in PRESETS),
        "-m nsvd_exp.report some/where",
    ]
    assert script.run("all.sh")[1][-1] == "-m nsvd_exp.report results"
    # It goes on after a failed cell, and says so.
    code, commands = script.run("all.sh", failing="table1")
    assert code == 1
    assert len(commands) == 8
    assert script.run("all.sh", failing="report")[0] == 1


@pytest.mark.parametrize("code", [2, 130])
def test_all_ends_with_a_wrong_command_line_and_an_interrupt(script: Script, code: int) -> None:
    ended, commands = script.run("all.sh", failing="table1", code=code)
    assert ended == code
    begun = [command.split()[2] for command in commands]
    assert begun == ["experiment=figure1", "experiment=table1"]


def test_small_model_runs_three_tables_and_their_report(script: Script) -> None:
    code, commands = script.run("small_model.sh", "models/mine", "texts")
    assert code == 0
    assert [command.rpartition("experiment=")[2] for command in commands[:3]] == [
        "table1 ratio=0.3,0.5,0.7,0.8,0.9",
        "table3 ratio=0.8",
        "table4 ratio=0.8",
    ]
    for command in commands[:3]:
        assert "model=hf model.name=models/mine data_dir=texts results_dir=results/mine" in command
        assert SIX in command
    assert commands[3] == "-m nsvd_exp.report results/mine --tables 1,3,4"
    # And takes a place and settings of its own.
    given = ("m", "d", "out", "evaluation.max_windows=2", "ratio=0.5")
    code, commands = script.run("small_model.sh", *given, failing="table3")
    assert code == 1
    assert all(command.endswith("evaluation.max_windows=2 ratio=0.5") for command in commands[:3])
    assert all("results_dir=out" in command for command in commands[:3])
    assert commands[3] == "-m nsvd_exp.report out --tables 1,3,4"
    assert script.run("small_model.sh", "m") == (2, [])


def test_real_model_runs_what_is_published_of_real_models(script: Script) -> None:
    given = ("texts", "out", "model=mine", "ratio=0.5", "calibration.samples=8")
    code, commands = script.run("real_model.sh", *given)
    assert code == 0
    presets = [c.partition("experiment=")[2].split()[0] for c in commands if "experiment=" in c]
    assert presets == ["table1", "beyond", "table3", "table4", "figure1"]
    for command in commands[:-1]:
        assert f"data_dir=texts results_dir=out {SIX} " in command
        assert command.split().index("model=mine") > command.split().index("calibration.length=512")
    assert all(c.endswith(" ".join(given[2:])) for c in commands if "experiment=" in c)
    assert [c.split()[-1] for c in commands[5:8]] == ["calibration.samples=256"] * 3
    assert commands[8:] == ["-m nsvd_exp.report out --tables 1,2,3,4"]
    assert script.run("real_model.sh", *given, failing="table3")[0] == 1
    assert script.run("real_model.sh", "texts", "out") == (2, [])


def test_slurm_runs_one_preset_a_task(script: Script) -> None:
    ended = [
        script.run("slurm.sh", "results_dir=x", SLURM_ARRAY_TASK_ID=str(task)) for task in range(6)
    ]
    assert sorted(ended) == [
        (0, [f"-m nsvd_exp experiment={name} report=false results_dir=x"])
        for name in PRESETS
        if name != "table2"
    ]
