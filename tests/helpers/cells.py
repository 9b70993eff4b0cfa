"""Cells that are run in this process, without the command line."""

from __future__ import annotations

from helpers.configuration import compose
from nsvd_exp.experiment import bases
from nsvd_exp.experiment import session as stages
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.storage.results import Result


def run(*overrides: str) -> Result:
    """The result of the cell that these arguments of the command line name."""
    return run_cell(plan_cell(compose(*overrides)))


def new_process() -> None:
    """Forget what a new process does not know: calibration and bases in memory."""
    stages.release_calibration()
    bases.memory.clear()
