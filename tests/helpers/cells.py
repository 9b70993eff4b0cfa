"""Cells that are run in this process, without the command line."""

from __future__ import annotations

from helpers.configuration import compose
from nsvd_exp.experiment.plan import plan_cell
from nsvd_exp.experiment.run import run_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.storage.results import Result


def run(*overrides: str, session: Session | None = None) -> Result:
    """The result of the cell that these arguments of the command line name.

    Args:
        session: of earlier cells; None: a new one, as in a new process.
    """
    return run_cell(plan_cell(compose(*overrides)), session or Session())
