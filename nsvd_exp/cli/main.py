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
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from nsvd_exp.cli import terminal as display
from nsvd_exp.cli.arguments import explain, normalise
from nsvd_exp.cli.terminal import Outcome, TerminalObserver
from nsvd_exp.config.files import conf_dir, expand_path, register
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import Plan, dense_of, plan_cell
from nsvd_exp.experiment.similarity_plan import SimilarityPlan, plan_similarity
from nsvd_exp.experiment.wording import format_perplexity, label_of
from nsvd_exp.progress import Observer, Observers
from nsvd_exp.storage.results import Cell, Result
from nsvd_exp.tracking.session import Session as WandbSession
from nsvd_exp.tracking.session import under_agent

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
        entry(Job(WandbSession()))()
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


def check_composed(composed: DictConfig) -> Config:
    """Range-check a composed job, before any starts; its typed configuration.

    Raises:
        NsvdError: a value is out of range or missing, or a folder cannot be written.
    """
    task = copy.deepcopy(composed)
    with read_write(task), open_dict(task):
        del task["hydra"]
    config = typed_config(task)
    make_results_dir(config.results_dir)
    return config


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


@dataclass(frozen=True)
class Job:
    """What Hydra calls for each job of a grid, or for the one job of a plain run.

    Attributes:
        wandb: what all jobs of a process share. A job that goes to another process takes a copy.
    """

    wandb: WandbSession

    def __call__(self, composed: DictConfig) -> Outcome | None:
        """Do the job; what became of it, if it is one of a grid."""
        register()  # a launcher's worker starts from nothing
        config = typed_config(composed)
        in_grid = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            if in_grid:
                outcome = outcome_of(config, self.wandb)
                log.info("%s: %s", " ".join(filter(None, outcome.label)), outcome.state)
                return outcome
            if config.measure == "similarity":
                single_similarity(config)
            else:
                single(config, self.wandb)
            return None
        except Exception as error:
            if not isinstance(error, NsvdError):
                log.exception("this is a bug in nsvd_exp, or in what it was extended with")
            if in_grid:
                return failed(config, str(error) or type(error).__name__)
            report_error(error)
            sys.exit(1)


def run(config: Config, wandb: WandbSession, companion: bool = False) -> tuple[Plan, Result, bool]:
    """Do a cell unless it is done: its plan, its result, and whether it was done already.

    Args:
        companion: it is only there for another one to be compared with.

    Raises:
        NsvdError: model or dataset cannot be found; nothing is stored then.
    """
    plan = plan_cell(config)
    tracker = tracker_of(plan, wandb, companion)
    result = plan.cell.read()
    if result is not None and plan.is_done(result):
        tracker.skipped(result)
        return plan, result, True
    # The first import of torch and transformers takes seconds: only for a cell that is to be done.
    from nsvd_exp.experiment.run import run_cell

    title = " ".join(filter(None, label_of(config)))
    with TerminalObserver.showing(title) as bars, closing(Observers(bars, tracker)) as observer:
        return plan, run_cell(plan, observer), False


def run_similarity(config: Config) -> tuple[SimilarityPlan, list[Result], bool]:
    """Make the similarity records that are not done: the plan, all records, whether all were done.

    Raises:
        NsvdError: model or dataset cannot be found; nothing is stored then.
    """
    plan = plan_similarity(config)
    stored = [record.read() for record in plan.records]
    done = [result for result in stored if result is not None and plan.is_done(result)]
    if len(done) == len(plan.records):
        return plan, done, True
    from nsvd_exp.experiment.similarity_run import run_similarities

    with TerminalObserver.showing(" ".join(label_of(config))) as terminal:
        return plan, run_similarities(plan, terminal), False


def tracker_of(plan: Plan, wandb: WandbSession, companion: bool) -> Observer:
    """Who follows this cell for Weights & Biases: nobody, unless `tracking.mode` says so."""
    if plan.config.tracking.mode == "disabled":
        return Observer()
    from nsvd_exp.tracking.cell import CellTracker

    if companion and under_agent():
        return Observer()  # an agent's run is for the cell that the agent asked for
    preset = HydraConfig.get().runtime.choices.get("experiment")
    return CellTracker(plan, preset, wandb)


def outcome_of(config: Config, wandb: WandbSession) -> Outcome:
    """Do a job of a grid, unless it is done already, and say what became of it."""
    if config.measure == "similarity":
        return _similarity_outcome(config)
    plan, result, was_done = run(config, wandb)
    if result["status"] == "failed" and not was_done:
        return failed(config, result["error"]["message"])
    values = {
        name: format_perplexity(number["perplexity"]) for name, number in plan.found(result).items()
    }
    return _succeeded(config, was_done, values, plan.cell.key)


def _similarity_outcome(config: Config) -> Outcome:
    plan, records, was_done = run_similarity(config)
    values = {
        record["dataset"]["name"]: display.format_similarity(record, config.similarity.statistic)
        for record in records
        if plan.is_done(record)
    }
    failures = [r["error"]["message"] for r in records if not plan.is_done(r)]
    if failures:
        return failed(config, "; ".join(failures), values)
    return _succeeded(config, was_done, values)


def _succeeded(
    config: Config, was_done: bool, values: dict[str, str], key: str | None = None
) -> Outcome:
    return _outcome(config, "skipped" if was_done else "done", values, key=key)


def failed(config: Config, message: str, values: dict[str, str] | None = None) -> Outcome:
    """A job that could not be done, or only for the datasets that have `values`."""
    return _outcome(config, "failed", values or {}, message)


def _outcome(
    config: Config, state: str, values: dict[str, str], message: str = "", key: str | None = None
) -> Outcome:
    reported_in = config.results_dir if config.report else None
    label = label_of(config)
    return Outcome(state, config.measure, label, overrides(), values, message, key, reported_in)


def overrides() -> tuple[str, ...]:
    """What this job of a grid was told on the command line."""
    return tuple(HydraConfig.get().overrides.task)


def single(config: Config, wandb: WandbSession) -> None:
    """One cell, shown beside the dense model.

    Raises:
        NsvdError: the cell, or the dense one, failed.
    """
    dense = None
    if config.method.compresses:
        dense_plan, dense_result, _ = _run_or_raise(dense_of(config), wandb, companion=True)
        dense = dense_plan.found(dense_result)
    plan, result, was_done = _run_or_raise(config, wandb)
    display.show(display.cell_table(config, plan.found(result), dense))
    if result["achieved_ratio"]:
        achieved = result["achieved_ratio"]
        print(
            f"parameters removed: {achieved['layers']:.2%} of the compressed layers, "
            f"{achieved['model']:.2%} of the model"
        )
    seconds = ", ".join(f"{stage} {s:.1f} s" for stage, s in result["seconds"].items())
    print(f"{'already done' if was_done else 'done'} ({seconds}): {plan.cell.path}")


def single_similarity(config: Config) -> None:
    """Similarity records, shown over their layers.

    Raises:
        NsvdError: a dataset failed.
    """
    plan, records, was_done = run_similarity(config)
    made = [record for record in records if plan.is_done(record)]
    if made:
        display.show(display.similarity_table(config, made))
    for record, place in zip(records, plan.records, strict=False):
        if not plan.is_done(record):
            raise NsvdError(_problem(record["error"], place))
    print(f"{'already done' if was_done else 'done'}: {plan.records[0].folder.parent}")


def _run_or_raise(
    config: Config, wandb: WandbSession, companion: bool = False
) -> tuple[Plan, Result, bool]:
    plan, result, was_done = run(config, wandb, companion)
    if result["status"] == "failed" and not was_done:
        raise NsvdError(_problem(result["error"], plan.cell))
    return plan, result, was_done


def _problem(error: dict[str, str], place: Cell) -> str:
    where = "" if error["type"] == "NsvdError" else f"\n(traceback in {place.path})"
    return error["message"] + where


def conclude(outcomes: list[Outcome]) -> int:
    """Show what became of a grid, make its report; the exit status is 1 if a job failed."""
    for measure in dict.fromkeys(outcome.measure for outcome in outcomes):
        display.show(display.grid_table([o for o in outcomes if o.measure == measure]))
    for results_dir in dict.fromkeys(o.reported_in for o in outcomes if o.reported_in):
        from nsvd_exp.report.after_grid import report_grid

        report_grid(results_dir, [o for o in outcomes if o.reported_in == results_dir])
    failures = display.failure_lines(outcomes)
    for line in failures:
        display.stderr().print(f"failed: {line}", style="red", markup=False, soft_wrap=True)
    return 1 if failures else 0
