"""`python -m nsvd_exp`: Hydra's entry, with every problem as one message.

A job returns an `Outcome` and never raises, so that no launcher aborts a grid. torch is imported
only once there is work to do.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from nsvd_exp import display
from nsvd_exp.arguments import explain, normalise
from nsvd_exp.cells import Plan, dense_of, plan_cell
from nsvd_exp.display import Outcome, TerminalObserver, label_of
from nsvd_exp.errors import NsvdError
from nsvd_exp.schema import Config, conf_dir, expand_path, register, typed_config
from nsvd_exp.store import Result, find_number

log = logging.getLogger(__name__)


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


def check_composed(composed: DictConfig) -> None:
    """Range-check a composed job, before any starts.

    Raises:
        NsvdError: a value is out of range or missing, or a folder cannot be written.
    """
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        del task["hydra"]
    config = typed_config(task)
    make_results_dir(config.results_dir)


@functools.lru_cache
def make_results_dir(folder: str) -> None:
    """Make sure of the folder before Hydra writes to it.

    Raises:
        NsvdError: it cannot be made or written to.
    """
    path = Path(expand_path(folder))
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise NsvdError(f"results_dir={folder}: {path} cannot be written to; give another folder")


class CheckBeforeRun(Callback):
    """Range-checks a plain run before Hydra makes its folder; `GridSweeper` does so for a grid."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one message where a value is out of range, or a launcher has no grid."""
        try:
            launcher = config.hydra.runtime.choices["hydra/launcher"]
            if launcher != "basic":
                raise NsvdError(
                    f"hydra/launcher={launcher} runs grids: add -m (one cell is one too)"
                )
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
    if result["status"] == "failed" and not was_done:
        return failed(config, result["error"]["message"])
    perplexities = {name: n["perplexity"] for name, n in numbers_of(plan, result).items()}
    state = "skipped" if was_done else "done"
    return Outcome(state, label_of(config), overrides(), perplexities)


def failed(config: Config, message: str) -> Outcome:
    """A job that could not be done."""
    return Outcome("failed", label_of(config), overrides(), {}, message)


def overrides() -> tuple[str, ...]:
    """What this job of a grid was told on the command line."""
    return tuple(HydraConfig.get().overrides.task)


def single(config: Config) -> None:
    """One cell, shown beside the dense model.

    Raises:
        NsvdError: the cell, or the dense one, failed.
    """
    dense = None
    if config.method.compresses:
        dense = numbers_of(*_run_or_raise(dense_of(config))[:2])
    plan, result, was_done = _run_or_raise(config)
    display.show(display.cell_table(config, numbers_of(plan, result), dense))
    if result["achieved_ratio"]:
        achieved = result["achieved_ratio"]
        print(
            f"parameters removed: {achieved['layers']:.2%} of the compressed layers, "
            f"{achieved['model']:.2%} of the model"
        )
    seconds = ", ".join(f"{stage} {s:.1f} s" for stage, s in result["seconds"].items())
    print(f"{'already done' if was_done else 'done'} ({seconds}): {plan.cell.path}")


def _run_or_raise(config: Config) -> tuple[Plan, Result, bool]:
    plan, result, was_done = run(config)
    if result["status"] == "failed" and not was_done:
        error = result["error"]
        where = "" if error["type"] == "NsvdError" else f"\n(traceback in {plan.cell.path})"
        raise NsvdError(error["message"] + where)
    return plan, result, was_done


def conclude(outcomes: list[Outcome]) -> int:
    """Show what became of a grid; the exit status is 1 if a job failed."""
    display.show(display.grid_table(outcomes))
    failures = display.failure_lines(outcomes)
    for line in failures:
        display.stderr().print(f"failed: {line}", style="red", markup=False, soft_wrap=True)
    return 1 if failures else 0
