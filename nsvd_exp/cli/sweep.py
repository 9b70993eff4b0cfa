"""The grid of `python -m nsvd_exp -m`: every job is checked before the first one starts.

It works with every launcher of Hydra; those of this project take the jobs as they were composed to
be checked, others compose them again.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.cli.compose import Composer, Job
from nsvd_exp.cli.terminal import stderr
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError


class GridSweeper(Sweeper):
    """Every combination of the comma-separated values.

    Jobs are launched in the order in which they share most (`nsvd_exp.experiment.order`); what is
    shown at the end is in the order that was typed.

    Args:
        max_batch_size: so many jobs are launched at a time; None: all of them.
        params: values of a preset, which the command line may replace.
        grids: values beside `params`, for a preset of several grids; each job is done once.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: DictConfig | None = None,
        grids: Sequence[DictConfig] = (),
    ) -> None:
        self.max_batch_size = max_batch_size
        self.params = {str(name): value for name, value in (params or {}).items()}
        self.grids = [{str(name): value for name, value in grid.items()} for grid in grids]

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Remember what the jobs are made of, and set the launcher up."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, show what became of it, and exit with 1 if a job failed.

        Raises:
            NsvdError: what can be known of a job is wrong; nothing was started.
        """
        from nsvd_exp.cli.main import check_composed, check_jobs, conclude
        from nsvd_exp.experiment.order import grid_order

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        jobs = self.jobs(arguments, loader)
        if len(jobs) > 1:
            stderr().print(f"{len(jobs)} jobs: all are checked before the first one starts")
        composer = Composer(loader, self.config)
        composed = [composer.compose(job) for job in jobs]
        checked = [check_composed(config) for config in composed]
        check_jobs(checked, self._is_elsewhere())
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: dict[int, JobReturn] = {}
        for batch in self._batches(grid_order(checked)):
            launched = self._launch(jobs, composed, checked, batch, first=len(returns))
            returns |= dict(zip(batch, launched, strict=True))
        in_typed_order = [returns[index] for index in range(len(jobs))]
        code = conclude([returned.return_value for returned in in_typed_order])
        if code:
            sys.exit(code)
        return [in_typed_order]

    def jobs(self, arguments: Sequence[str], loader: ConfigLoader) -> list[Job]:
        """The jobs of the grids under what was typed, each once, in the order of the grids.

        Raises:
            NsvdError: the values of a sweep are no list.
        """
        parser = OverridesParser.create(loader)
        jobs = [self._product(grid, arguments, parser) for grid in self.grids or [{}]]
        return list(dict.fromkeys(itertools.chain(*jobs)))

    def _product(
        self, grid: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser
    ) -> Iterator[Job]:
        from nsvd_exp.cli.arguments import normalise

        given = [normalise(f"{name}={value}") for name, value in {**self.params, **grid}.items()]
        values: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*given, *arguments]):
            name = override.get_key_element()
            if not override.is_sweep_override():
                texts: Iterable[str] = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                texts = override.sweep_string_iterator()
            else:
                raise NsvdError(f"{override.input_line}: expected values to go through, a,b,c")
            values[name] = [f"{name}={text}" for text in texts]
        return itertools.product(*values.values())

    def _batches(self, order: Sequence[int]) -> Iterator[list[int]]:
        size = self.max_batch_size or max(len(order), 1)
        for start in range(0, len(order), size):
            yield list(order[start : start + size])

    def _is_elsewhere(self) -> bool:
        """Whether the jobs run on other machines, as those of a launcher unknown here may."""
        from nsvd_exp.cli.launchers.base import GridLauncher

        if isinstance(self.launcher, GridLauncher):
            return self.launcher.is_elsewhere
        assert self.config is not None
        return str(self.config.hydra.runtime.choices["hydra/launcher"]) != "basic"

    def _launch(
        self,
        jobs: Sequence[Job],
        composed: Sequence[DictConfig],
        checked: Sequence[Config],
        batch: Sequence[int],
        first: int,
    ) -> Sequence[JobReturn]:
        """Launch the jobs with the indices of the batch; the first one gets the number `first`."""
        from nsvd_exp.cli.launchers.base import GridLauncher

        if not isinstance(self.launcher, GridLauncher):
            return self.launcher.launch([list(jobs[index]) for index in batch], first)
        configs, settings = [composed[i] for i in batch], [checked[i] for i in batch]
        return self.launcher.launch_composed(configs, settings, first, total=len(jobs))
