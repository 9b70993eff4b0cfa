"""The command line, in this process or in one of its own, and what it has stored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nsvd_exp.cli.main import main
from nsvd_exp.storage.results import Result, read_all

REPOSITORY = Path(__file__).resolve().parents[2]

Settings = Callable[..., list[str]]
"""The fixture `settings`: the arguments of a small run."""


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
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


def results_dir(arguments: list[str]) -> Path:
    """The folder that these arguments name last."""
    given = [a.partition("=")[2] for a in arguments if a.startswith("results_dir=")]
    return Path(given[-1])


def cells_of(arguments: list[str]) -> list[Result]:
    """What is stored under the results_dir of these arguments."""
    return list(read_all(results_dir(arguments)))
