"""The command line, in this process or in one of its own, and what it has stored."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nsvd_exp.cli.main import main
from nsvd_exp.storage.results import Result, read_all

REPOSITORY = Path(__file__).resolve().parents[2]

Settings = Callable[..., list[str]]
"""The fixture `settings`: the arguments of a small run."""

Capture = pytest.CaptureFixture[str]
Log = pytest.LogCaptureFixture


def run_done(capsys: Capture, *arguments: str) -> str:
    """What the command line prints when all is done, in this process."""
    code, out, err = run_main(capsys, *arguments)
    assert code == 0, err
    return out


def run_main(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command line, in this process."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def command(*arguments: str) -> list[str]:
    """The command line as a command of a new process."""
    return [sys.executable, "-m", "nsvd_exp", *arguments]


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, timeout=180
    )


def wait_until(
    happened: Callable[[], bool], seconds: int, process: subprocess.Popen[str] | None = None
) -> None:
    """Wait, at most so long, for what happens before this process ends."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


def results_dir(arguments: list[str]) -> Path:
    """The folder that these arguments name last."""
    given = [a.partition("=")[2] for a in arguments if a.startswith("results_dir=")]
    return Path(given[-1])


def cells_of(arguments: list[str]) -> list[Result]:
    """What is stored under the results_dir of these arguments."""
    return list(read_all(results_dir(arguments)))
