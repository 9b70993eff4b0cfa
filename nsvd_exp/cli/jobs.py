"""The jobs that a process does: each one cell, its scores at tasks, or similarity records.

A job of a grid returns an `Outcome` and never raises, so that no launcher aborts the grid. torch is
imported only once there is work to do.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nsvd_exp.cli import accuracy, terminal
from nsvd_exp.cli.export import export_and_push, export_folder
from nsvd_exp.cli.generate import show_stored
from nsvd_exp.cli.making import BusyError, Maker, title_of
from nsvd_exp.cli.outcome import BUSY, Outcome, outcome
from nsvd_exp.cli.turns import Turn
from nsvd_exp.config.files import register
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan, dense_of
from nsvd_exp.experiment.wording import format_perplexity
from nsvd_exp.storage.results import Result, ResultFile

if TYPE_CHECKING:
    from nsvd_exp.experiment.session import Session

log = logging.getLogger(__name__)


class Jobs:
    """What Hydra calls for each job of a grid, or for the one job of a plain run.

    Args:
        session: what cells share; None: a new one, made with the first cell that is to be done.

    Attributes:
        maker: what the jobs of a process share; anew in each process.
    """

    def __init__(self, session: Session | None = None) -> None:
        self.maker = Maker(session)

    def __call__(self, composed: DictConfig, turn: Turn | None = None) -> Outcome | None:
        """Do a job; what became of it, if it is one of a grid.

        Args:
            turn: the job's place in its grid, where that is known.
        """
        register()  # a launcher's worker starts from nothing
        config = typed_config(composed)
        in_a_grid, alone = {
            "perplexity": (self._cell_outcome, self._show_cell),
            "zeroshot": (self._scores_outcome, self._show_scores),
            "similarity": (self._similarity_outcome, self._show_similarity),
        }[config.measure]
        try:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                became = in_a_grid(config, turn)
                log.info("%s: %s", title_of(config), became.state)
                return became
            alone(config)
            return None
        except BusyError:
            log.info("%s: another process is at it, so it comes later", title_of(config))
            return outcome(BUSY, config)
        except Exception as error:
            if not isinstance(error, NsvdError):
                log.exception("this is a bug in nsvd_exp, or in what it was extended with")
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return outcome("failed", config, message=str(error) or type(error).__name__)
            terminal.show_error(error)
            sys.exit(1)

    def _cell_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        folder = export_folder(config, is_grid=True)
        plan, result, was_done = self.maker.cell(config, turn)
        if result["status"] == "failed" and not was_done:
            return outcome("failed", config, message=result["error"]["message"])
        if folder is not None:
            log.info("%s", export_and_push(plan, result, self.maker.session, folder))
        self.maker.continue_prompts(plan)
        values = {
            name: format_perplexity(measured["perplexity"])
            for name, measured in plan.found(result).items()
        }
        return outcome("skipped" if was_done else "done", config, values, key=plan.file.key)

    def _scores_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        plan, result, was_done = self.maker.scores(config, turn)
        values = accuracy.texts(plan.found(result))
        if result["status"] == "failed" and not was_done:
            return outcome("failed", config, values, result["error"]["message"])
        return outcome("skipped" if was_done else "done", config, values)

    def _similarity_outcome(self, config: Config, turn: Turn | None) -> Outcome:
        plan, records, was_done = self.maker.similarities(config, turn)
        statistic = config.similarity.statistic
        values = {
            record["dataset"]["name"]: terminal.format_similarity(record, statistic)
            for record in records
            if plan.is_done(record)
        }
        failures = [r["error"]["message"] for r in records if not plan.is_done(r)]
        if failures:
            return outcome("failed", config, values, "; ".join(failures))
        return outcome("skipped" if was_done else "done", config, values)

    def _show_cell(self, config: Config) -> None:
        """One cell, shown beside the dense model.

        Raises:
            NsvdError: the cell, or the dense one, failed.
        """
        dense, folder = None, export_folder(config, is_grid=False)
        if config.compresses:
            dense_plan, dense_result, _ = self._cell_or_raise(dense_of(config), is_companion=True)
            dense = dense_plan.found(dense_result)
        plan, result, was_done = self._cell_or_raise(config)
        terminal.show(terminal.cell_table(config, plan.found(result), dense))
        _say_done(plan.file, result, was_done)
        if folder is not None:
            print(export_and_push(plan, result, self.maker.session, folder))
        if config.generate:
            print()
            show_stored([dense_plan, plan] if config.compresses else [plan])

    def _cell_or_raise(
        self, config: Config, is_companion: bool = False
    ) -> tuple[CellPlan, Result, bool]:
        plan, result, was_done = self.maker.cell(config, is_companion=is_companion)
        if result["status"] == "failed" and not was_done:
            raise NsvdError(_problem(result["error"], plan.file))
        self.maker.continue_prompts(plan)
        return plan, result, was_done

    def _show_scores(self, config: Config) -> None:
        """The scores of one cell, shown beside those of the dense model.

        Raises:
            NsvdError: a task failed; what the others gave is shown all the same.
        """
        dense, problems = None, []
        if config.compresses:
            dense_plan, dense_result, was_done = self.maker.scores(
                dense_of(config), is_companion=True
            )
            dense = dense_plan.found(dense_result)
            if dense_result["status"] == "failed" and not was_done:
                problems.append(_problem(dense_result["error"], dense_plan.file))
        plan, result, was_done = self.maker.scores(config)
        if result["status"] == "failed" and not was_done:
            problems.append(_problem(result["error"], plan.file))
        if found := plan.found(result):
            terminal.show(accuracy.table(config, found, dense))
        if problems:
            raise NsvdError("\n".join(dict.fromkeys(problems)))
        _say_done(plan.file, result, was_done)

    def _show_similarity(self, config: Config) -> None:
        """Similarity records, shown over their layers.

        Raises:
            NsvdError: a dataset failed.
        """
        plan, records, was_done = self.maker.similarities(config)
        made = [record for record in records if plan.is_done(record)]
        if made:
            terminal.show(terminal.similarity_table(config, made))
        for record, file in zip(records, plan.files, strict=False):
            if not plan.is_done(record):
                raise NsvdError(_problem(record["error"], file))
        print(f"{'already done' if was_done else 'done'}: {plan.files[0].folder.parent}")


def _say_done(file: ResultFile, result: Result, was_done: bool) -> None:
    achieved = result["achieved_ratio"]
    if achieved:
        print(
            f"parameters removed: {achieved['layers']:.2%} of the compressed layers, "
            f"{achieved['model']:.2%} of the model"
        )
    seconds = ", ".join(f"{stage} {s:.1f} s" for stage, s in result["seconds"].items())
    print(f"{'already done' if was_done else 'done'} ({seconds}): {file.path}")


def _problem(error: dict[str, str], file: ResultFile) -> str:
    where = "" if error["type"] == "NsvdError" else f"\n(traceback in {file.path})"
    return error["message"] + where
