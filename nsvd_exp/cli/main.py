"""`python -m nsvd_exp`: Hydra's entry, with every problem as one message."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml  # type: ignore[import-untyped]
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nsvd_exp import __version__
from nsvd_exp.cli import terminal
from nsvd_exp.cli.arguments import (
    config_dirs,
    explain,
    normalise,
    refuse_undecodable,
    with_fields_of_grids,
    with_lists_of_folders,
)
from nsvd_exp.cli.jobs import Jobs
from nsvd_exp.cli.outcome import Outcome
from nsvd_exp.config.files import conf_dir, expand_path, register
from nsvd_exp.config.schema import Config, job_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.check import Checks, make_folder
from nsvd_exp.experiment.resolve import choices_of
from nsvd_exp.report.render.console import discard_stdout, speak_ascii_where_needed
from nsvd_exp.storage.cache import Cache


def main(arguments: Sequence[str] | None = None, jobs: Jobs | None = None) -> int:
    """Run the command line; the exit status is 0 if every cell is done.

    Args:
        arguments: what was typed; None: `sys.argv`.
        jobs: what does the jobs, with what it knows already; None: a new one.
    """
    register()
    speak_ascii_where_needed(sys.stdout, sys.stderr)
    given = list(sys.argv[1:] if arguments is None else arguments)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR")
    # Hydra then hands its exceptions over, in place of printing them its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if "--version" in given:
            print(f"nsvd_exp {__version__}", flush=True)
            return 0
        refuse_undecodable(given)
        refuse_without_folder()
        more = config_dirs(given)
        # Options first: argparse takes them in front of the overrides or behind, not in between.
        given = sorted(given, key=lambda argument: argument not in ("-m", "--multirun"))
        typed = [normalise(argument, more) for argument in with_lists_of_folders(given)]
        sys.argv = ["nsvd_exp", *with_fields_of_grids(typed)]
        entry = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
        entry(jobs or Jobs())()
        sys.stdout.flush()
        return 0
    except (NsvdError, HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if wants_traceback == "1":
            raise
        terminal.show_error(NsvdError(explain(error, config_dirs(given))))
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        discard_stdout()
        return 0
    except KeyboardInterrupt:
        terminal.stderr().print("interrupted; what was measured is kept, the same command goes on")
        return 130
    finally:
        if wants_traceback is None:
            del os.environ["HYDRA_FULL_ERROR"]


def refuse_without_folder() -> None:
    """Refuse to work where paths mean nothing.

    Raises:
        NsvdError: the working directory was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise NsvdError(
            "the folder that this was started in is gone: change to one that is there"
        ) from None


def check_composed(composed: DictConfig) -> Config:
    """Range-check a composed job, before any starts; its typed configuration.

    Raises:
        NsvdError: a value is out of range, missing or unknown.
    """
    config = job_config(composed)
    choices_of(config)
    return config


def check_jobs(configs: Sequence[Config], is_elsewhere: bool = False) -> None:
    """Make sure, before any job starts, of all that can be known of each.

    Args:
        is_elsewhere: whether they are to run on other machines.

    Raises:
        NsvdError: every problem that was found, one line or more for each.
    """
    for folder in dict.fromkeys(config.results_dir for config in configs):
        make_folder("results_dir", folder, Path(expand_path(folder)))
    for folder in dict.fromkeys(config.cache_dir for config in configs):
        Cache(Path(expand_path(folder))).tidy()  # of dead processes, with nothing to do as well
    checks = Checks(terminal.say, is_elsewhere)
    problems: dict[str, None] = {}
    for config in configs:
        try:
            checks.check(config)
        except NsvdError as error:
            problems[str(error)] = None
    if problems:
        raise NsvdError("\n".join(problems))


class CheckBeforeRun(Callback):
    """Checks a plain run before Hydra makes its folder; `GridSweeper` does so for a grid."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one message where something is wrong, or a launcher has no grid."""
        try:
            launcher = config.hydra.runtime.choices["hydra/launcher"]
            if launcher != "here":
                raise NsvdError(
                    f"hydra/launcher={launcher} runs grids: add -m (one cell is one too)"
                )
            check_jobs([check_composed(config)])
        except NsvdError as error:
            terminal.show_error(error)
            sys.exit(2)  # Hydra turns any Exception of a callback into a warning


def conclude(outcomes: list[Outcome]) -> int:
    """Show what became of a grid, make its report; the exit status is 1 if a job failed.

    Where every job failed, without a number, there is nothing to show but why.
    """
    failures = terminal.failure_lines(outcomes)
    if any(outcome.values or outcome.state != "failed" for outcome in outcomes):
        _show_grid(outcomes)
    for line in failures:
        terminal.stderr().print(f"failed: {line}", style="red", markup=False, soft_wrap=True)
    return 1 if failures else 0


def _show_grid(outcomes: list[Outcome]) -> None:
    """Its tables and its report."""
    for measure in dict.fromkeys(outcome.measure for outcome in outcomes):
        terminal.show(terminal.grid_table([o for o in outcomes if o.measure == measure]))
    for results_dir in dict.fromkeys(o.reported_in for o in outcomes if o.reported_in):
        from nsvd_exp.report.after_grid import report_grid

        reported = [o for o in outcomes if o.reported_in == results_dir]
        keys = {o.key for o in reported if o.key}
        report_grid(results_dir, keys, is_changed=any(o.state == "done" for o in reported))
