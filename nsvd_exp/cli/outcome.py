"""What became of one job of a grid."""

from __future__ import annotations

from dataclasses import dataclass

from hydra.core.hydra_config import HydraConfig

from nsvd_exp.config.schema import Config
from nsvd_exp.experiment.wording import label_of

BUSY = "busy"


@dataclass(frozen=True)
class Outcome:
    """What became of one job of a grid.

    Attributes:
        state: `done`, `skipped` (it was in the store already) or `failed`; `BUSY` where another
            process is at it, and the job comes again later.
        measure: `perplexity`, `zeroshot` or `similarity`.
        label: what the columns of its measure say.
        overrides: what the job was told, `name=value`.
        values: by dataset or task, of those that this job asked for, as they are shown.
        message: why it failed.
        key: of the cell, where its perplexities are what was asked for.
        reported_in: the `results_dir` whose report is to be made after the grid; None: no report.
    """

    state: str
    measure: str
    label: tuple[str, ...]
    overrides: tuple[str, ...]
    values: dict[str, str]
    message: str = ""
    key: str | None = None
    reported_in: str | None = None


def outcome(
    state: str,
    config: Config,
    values: dict[str, str] | None = None,
    message: str = "",
    key: str | None = None,
) -> Outcome:
    """The outcome of the job that Hydra is at."""
    return Outcome(
        state,
        config.measure,
        label_of(config),
        tuple(HydraConfig.get().overrides.task),
        values or {},
        message,
        key,
        config.results_dir if config.report else None,
    )
