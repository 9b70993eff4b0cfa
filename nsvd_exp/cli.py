"""`python -m nsvd_exp`: Hydra's entry, with every problem as one message.

A job returns an `Outcome` and never raises, so that no launcher aborts a grid. torch is imported
only once there is work to do.
"""

from __future__ import annotations

import copy
import difflib
import logging
import os
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from nsvd_exp import display
from nsvd_exp.cells import Plan, dense_of, plan_cell
from nsvd_exp.display import Outcome, TerminalObserver, label_of
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.schema import Config, register, typed_config
from nsvd_exp.store import Result, find_number

log = logging.getLogger(__name__)

# What a user types, and the group of conf/ that it names.
ALIASES = {"datasets": "dataset", "calibration.dataset": "dataset@calibration.dataset"}
PATH_SETTINGS = ("data_dir", "results_dir", "cache_dir", "model.name", "calibration.tokenizer")
SINGLE_CHOICES = ("model", "method", "calibration", "experiment", "dataset@calibration.dataset")


LIST_SYNTAX = (
    "A list is written [a,b], in quotes for the shell: 'dataset=[ptb,c4]'; a grid is written with "
    "-m and without brackets: -m dataset=ptb,c4"
)


def conf_dir() -> Path:
    """`conf/`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 if every cell is done."""
    register()
    given = list(sys.argv[1:] if arguments is None else arguments)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR")
    # Hydra then hands its exceptions over, in place of printing them its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        # Options first: argparse takes them in front of the overrides or behind, not in between.
        given = sorted(given, key=lambda argument: argument not in ("-m", "--multirun"))
        sys.argv = ["nsvd_exp", *map(normalise, given)]
        entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
        entry(job)()
        return 0
    except (NsvdError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback == "1":
            raise
        report_error(error)
        return 2
    except KeyboardInterrupt:
        display.stderr().print("interrupted; what was measured is kept, the same command goes on")
        return 130
    finally:
        if wants_traceback is None:
            del os.environ["HYDRA_FULL_ERROR"]


def report_error(error: Exception) -> None:
    """One message on stderr."""
    message = f"error: {explain(error)}"
    display.stderr().print(message, style="bold red", markup=False, soft_wrap=True)


def normalise(argument: str) -> str:
    """One argument as Hydra takes it: the aliases, and paths with `~`, variables or spaces.

    Raises:
        NsvdError: a list where one name belongs, or nothing where a name belongs.
    """
    match = re.match(r"^(\+*)([\w.@]+)=(.*)$", argument, re.DOTALL)
    if not match:
        return argument
    prefix, name, value = match.groups()
    group = ALIASES.get(name, name)
    if group in SINGLE_CHOICES and value.startswith("["):
        raise NsvdError(f"{name}={value}: expected one name (a grid is written -m {name}=a,b)")
    if group in (*SINGLE_CHOICES, "dataset") and value in ("", "null", "[]"):
        choices = ", ".join(group_choices(group.partition("@")[0]))
        raise NsvdError(f"{name}={value}: expected a name. Known: {choices}")
    if name in PATH_SETTINGS and not value.startswith(("'", '"')) and "," not in value:
        value = _quoted_path(value)
    return f"{prefix}{group}={value}"


def group_choices(group: str) -> list[str]:
    """The files of one folder of `conf/`."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _quoted_path(value: str) -> str:
    """A path that Hydra's grammar takes: `~` and other characters it refuses, in quotes."""
    expanded = os.path.expandvars(os.path.expanduser(value))
    if re.fullmatch(r"[\w./\\:%+@?*|${}-]*", expanded, re.ASCII):
        return expanded
    escaped = expanded.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def explain(error: Exception) -> str:
    """What went wrong and the way out; Hydra's own wording where that says both."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return str(unknown_name(group, name, group_choices(group)))
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        known = sorted({*setting_names(Config), *ALIASES})
        close = difflib.get_close_matches(unknown[1], known, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return f"unknown setting '{unknown[1]}'.{hint} All of them: python -m nsvd_exp --cfg job"
    if isinstance(error, OverrideParseException):
        return f"{text.splitlines()[0]}\n{LIST_SYNTAX}"
    ambiguous = re.match(r"Ambiguous value for argument '([^']+)'", text)
    if ambiguous:
        return f"{ambiguous[1]} may be a list or a grid. {LIST_SYNTAX}"
    if isinstance(error.__cause__, Exception):
        text = f"{text.splitlines()[0]}: {str(error.__cause__).splitlines()[0]}"
    return text


def setting_names(schema: type, prefix: str = "") -> list[str]:
    """Every name the schema knows, with dots."""
    names: list[str] = []
    for name, default in typing.get_type_hints(schema).items():
        names.append(f"{prefix}{name}")
        if is_dataclass(default):
            names += setting_names(typing.cast(type, default), f"{prefix}{name}.")
    return names


def check_composed(composed: DictConfig) -> None:
    """Range-check a composed job, before any starts.

    Raises:
        NsvdError: a value is out of range or missing.
    """
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        del task["hydra"]
    typed_config(task)


class CheckBeforeRun(Callback):
    """Range-checks a plain run before Hydra makes its folder; `GridSweeper` does so for a grid."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one message where a value is out of range."""
        try:
            check_composed(config)
        except NsvdError as error:
            report_error(error)
            sys.exit(2)  # Hydra turns any Exception of a callback into a warning


def job(composed: DictConfig) -> Outcome | None:
    """One job of a grid, or the one job of a plain run."""
    register()  # a launcher's worker starts from nothing
    config = typed_config(composed)
    in_grid = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        if in_grid:
            outcome = outcome_of(config, *run(config))
            log.info("%s: %s", " ".join(filter(None, outcome.label)), outcome.state)
            return outcome
        single(config)
        return None
    except Exception as error:
        if not isinstance(error, NsvdError):
            log.exception("this is a bug in nsvd_exp, or in what it was extended with")
        if in_grid:
            return failed(config, str(error) or type(error).__name__)
        report_error(error)
        sys.exit(1)


def run(config: Config) -> tuple[Plan, Result, bool]:
    """Do a cell unless it is done: its plan, its result, and whether it was done already.

    Raises:
        NsvdError: model or dataset cannot be found; nothing is stored then.
    """
    plan = plan_cell(config)
    result = plan.cell.read()
    if result is not None and plan.is_done(result):
        return plan, result, True
    # The first import of torch and transformers takes seconds: only for a cell that is to be done.
    from nsvd_exp.runner import run_cell

    with TerminalObserver.showing(" ".join(filter(None, label_of(config)))) as observer:
        return plan, run_cell(plan, observer), False


def numbers_of(plan: Plan, result: Result) -> dict[str, Result]:
    """The stored measurements that this plan asks for, by dataset."""
    found = {n.dataset.name: find_number(result, n.dataset.name, n.key) for n in plan.numbers}
    return {name: number for name, number in found.items() if number is not None}


def outcome_of(config: Config, plan: Plan, result: Result, was_done: bool) -> Outcome:
    """What became of a job that ran, or was done already."""
    if result["status"] == "failed":
        return failed(config, result["error"]["message"])
    perplexities = {name: n["perplexity"] for name, n in numbers_of(plan, result).items()}
    return Outcome("skipped" if was_done else "done", label_of(config), perplexities)


def failed(config: Config, message: str) -> Outcome:
    """A job that could not be done."""
    return Outcome("failed", label_of(config), {}, message)


def single(config: Config) -> None:
    """One cell, shown beside the dense model.

    Raises:
        NsvdError: the cell, or the dense one, failed.
    """
    dense = None
    if config.method.compresses:
        dense = numbers_of(*_run_or_raise(dense_of(config))[:2])
    plan, result, was_done = _run_or_raise(config)
    console = display.stdout()
    console.print(display.cell_table(config, numbers_of(plan, result), dense))
    if result["achieved_ratio"]:
        achieved = result["achieved_ratio"]
        console.print(
            f"parameters removed: {achieved['layers']:.2%} of the compressed layers, "
            f"{achieved['model']:.2%} of the model"
        )
    seconds = ", ".join(f"{stage} {s:.1f} s" for stage, s in result["seconds"].items())
    console.print(f"{'already done' if was_done else 'done'} ({seconds}): {plan.cell.path}")


def _run_or_raise(config: Config) -> tuple[Plan, Result, bool]:
    plan, result, was_done = run(config)
    if result["status"] == "failed":
        error = result["error"]
        where = "" if error["type"] == "NsvdError" else f"\n(traceback in {plan.cell.path})"
        raise NsvdError(error["message"] + where)
    return plan, result, was_done


def conclude(outcomes: list[Outcome]) -> int:
    """Show what became of a grid; the exit status is 1 if a job failed."""
    display.stdout().print(display.grid_table(outcomes))
    failures = display.failure_lines(outcomes)
    for line in failures:
        display.stderr().print(f"failed: {line}", style="red", markup=False, soft_wrap=True)
    return 1 if failures else 0
