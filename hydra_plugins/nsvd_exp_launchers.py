"""What `hydra/launcher=local`, `=slurm` and `=ray` stand for.

Hydra takes launchers from the `hydra_plugins` namespace alone, hence the place of this file; the
engines are in `nsvd_exp/launchers`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

if TYPE_CHECKING:
    from nsvd_exp.cli.launchers.task import Ended, Task


class GridLauncher(Launcher):
    """Composes the jobs of a grid here and has an engine run them elsewhere."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Remember what the jobs are made of.

        Raises:
            NsvdError: the engine is not there, or its settings are wrong.
        """
        self.context, self.function, self.config = hydra_context, task_function, config
        self.check()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs, saying what became of each as it ends; the returns are in their order."""
        from nsvd_exp.cli import terminal as display

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        tasks = list(self._tasks(job_overrides, initial_job_idx))
        returns: dict[int, JobReturn] = {}
        for task, returned in self.run(tasks):
            returns[task.composed.hydra.job.num] = returned
            outcome = returned.return_value
            text = f"{len(returns)}/{len(tasks)} {' '.join(filter(None, outcome.label))}: "
            display.stderr().print(text + outcome.state, markup=False, soft_wrap=True)
        return [returns[number] for number in sorted(returns)]

    def _tasks(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[Task]:
        from nsvd_exp.cli.launchers.task import Task

        for number, overrides in enumerate(job_overrides, start=first):
            composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(composed):
                composed.hydra.job.id = composed.hydra.job.num = number
                composed.hydra.sweep.dir = str(self.config.hydra.sweep.dir)
            yield Task(composed, self.function, self.context, os.getcwd())

    @abstractmethod
    def check(self) -> None:
        """Make sure of the engine and its settings before anything starts.

        Raises:
            NsvdError: what is missing or wrong.
        """

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks; yields each with its return when it ends."""


def _require(condition: bool, **setting: Any) -> None:
    from nsvd_exp.errors import NsvdError

    if not condition:
        ((name, value),) = setting.items()
        raise NsvdError(f"hydra.launcher.{name}={value}: expected a positive number")


class LocalLauncher(GridLauncher):
    """Processes of this machine (`conf/hydra/launcher/local.yaml`)."""

    def __init__(self, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs

    def check(self) -> None:
        """Check `n_jobs`."""
        if self.n_jobs is not None:
            _require(isinstance(self.n_jobs, int) and self.n_jobs > 0, n_jobs=self.n_jobs)

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks in processes."""
        from nsvd_exp.cli.launchers import local

        return local.run(tasks, local.environments_for(tasks, self.n_jobs))


class SlurmLauncher(GridLauncher):
    """Jobs of Slurm (`conf/hydra/launcher/slurm.yaml`)."""

    def __init__(self, check_s: float, **settings: Any) -> None:
        self.check_s = check_s
        self.settings = settings

    def check(self) -> None:
        """Check for submitit and Slurm; submitit checks its settings."""
        from nsvd_exp.cli.launchers import slurm

        _require(isinstance(self.check_s, int | float) and self.check_s > 0, check_s=self.check_s)
        slurm.check()

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks as a job array."""
        from nsvd_exp.cli.launchers import slurm

        return slurm.run(tasks, self.check_s, self.settings)


class RayLauncher(GridLauncher):
    """Tasks of Ray (`conf/hydra/launcher/ray.yaml`)."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def check(self) -> None:
        """Check for Ray, and what a cell asks of it."""
        from nsvd_exp.cli.launchers import ray

        for name in ("num_gpus", "num_cpus"):
            value = self.settings[name]
            _require(
                value is None or (isinstance(value, int | float) and value >= 0), **{name: value}
            )
        ray.check()

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks on a Ray cluster."""
        from nsvd_exp.cli.launchers import ray

        return ray.run(tasks, **self.settings)
