"""Hydra's basic sweeper; checks every job before the first starts, shows a table at the end.

Hydra takes sweepers from the `hydra_plugins` namespace alone, hence the place of this file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ComposedOnce(ConfigLoaderImpl):
    """Hands a job the configuration that was composed to check it; composing costs 0.1 s a job.

    A launcher's worker gets none of them, and composes its own job.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        vars(self).update(vars(loader))
        self._checked: dict[tuple[str, ...], DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_checked": {}}

    def check(self, master_config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Compose a job's configuration and keep it for `load_sweep_config`."""
        composed = super().load_sweep_config(master_config, list(overrides))
        self._checked[tuple(overrides)] = composed
        return composed

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """What `check` has kept, once: the launcher writes into it. Else composed anew."""
        checked = self._checked.pop(tuple(sweep_overrides), None)
        return (
            super().load_sweep_config(master_config, sweep_overrides)
            if checked is None
            else checked
        )


class GridSweeper(BasicSweeper):
    """The grid of `python -m nsvd_exp -m`. Works with every launcher.

    Jobs are launched in the order in which they share most (`nsvd_exp.experiment.order`); what is
    shown at the end is in the order that was typed.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """As `BasicSweeper`, with a loader that composes each job once."""
        self._loader = ComposedOnce(hydra_context.config_loader)
        hydra_context = HydraContext(self._loader, hydra_context.callbacks)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """The next jobs, composed and range-checked, in the order to launch them.

        Raises:
            NsvdError: a value is out of range; the message names the job.
        """
        from nsvd_exp.cli.main import check_composed
        from nsvd_exp.experiment.order import grid_order

        assert self.config is not None
        batch = super().get_job_batch()
        configs = [
            check_composed(self._loader.check(self.config, overrides)) for overrides in batch
        ]
        order = grid_order(configs)
        self._orders.append(order)
        return [batch[index] for index in order]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing more to check: `get_job_batch` has composed every job."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, show what became of it, and exit with 1 if a cell failed."""
        from nsvd_exp.cli.arguments import normalise
        from nsvd_exp.cli.main import conclude

        self._orders: list[list[int]] = []
        self.params = dict(normalise(f"{k}={v}").split("=", 1) for k, v in self.params.items())
        launched = super().sweep(arguments)
        batches = [_typed_order(*pair) for pair in zip(self._orders, launched, strict=True)]
        code = conclude([job.return_value for batch in batches for job in batch])
        if code:
            sys.exit(code)
        return batches


def _typed_order(order: Sequence[int], launched: Sequence[Any]) -> list[Any]:
    """The returns of the jobs, `order` being the places that they were taken from."""
    return [job for _, job in sorted(zip(order, launched, strict=True), key=lambda pair: pair[0])]
