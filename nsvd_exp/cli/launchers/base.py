"""What `hydra/launcher=` chooses from: each has an engine run the jobs of a grid."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from nsvd_exp.cli.launchers import local, ray, slurm
from nsvd_exp.cli.launchers.task import Ended, Task, run_task
from nsvd_exp.cli.terminal import stderr
from nsvd_exp.cli.turns import Turns, is_stored
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.progress import Pace, about


class GridLauncher(Launcher):
    """Has an engine run the jobs of a grid, and says what became of each as it ends.

    Attributes:
        is_elsewhere: whether jobs run on other machines.
    """

    is_elsewhere = False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Remember what the jobs are made of.

        Raises:
            NsvdError: the engine is not there, or its settings are wrong.
        """
        self.context, self.function, self.config = hydra_context, task_function, config
        self.pace = Pace(0)
        self.check()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose the jobs and run them; the returns are in their order."""
        loader = self.context.config_loader
        jobs = [loader.load_sweep_config(self.config, list(job)) for job in job_overrides]
        return self.launch_composed(jobs, [None] * len(jobs), initial_job_idx)

    def launch_composed(
        self,
        jobs: Sequence[DictConfig],
        checked: Sequence[Config | None],
        first: int = 0,
        total: int | None = None,
    ) -> list[JobReturn]:
        """Run jobs that are composed already; the returns are in their order.

        Args:
            checked: the configuration of each job without Hydra's part, where it is known.
            first: the number of the first one.
            total: jobs of the whole grid; None: these are all.
        """
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        if first == 0:
            self.pace = Pace(total or len(jobs))
        tasks = [
            self._task(job, config, number)
            for number, (job, config) in enumerate(zip(jobs, checked, strict=True), start=first)
        ]
        stored = {task.number for task in tasks if is_stored(task.config)}
        self.pace.stored += len(stored)
        returns: dict[int, JobReturn] = {}
        for task, returned in self.run(tasks):
            returns[task.number] = returned
            has_worked = getattr(returned.return_value, "state", None) == "done"
            self.pace.end(has_worked, task.number in stored)
            self.say(returned)
        return [returns[number] for number in sorted(returns)]

    def _task(self, composed: DictConfig, checked: Config | None, number: int) -> Task:
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = number
            composed.hydra.sweep.dir = str(self.config.hydra.sweep.dir)
        return Task(composed, self.function, self.context, os.getcwd(), checked)

    def say(self, returned: JobReturn) -> None:
        """Say what became of a job that has ended somewhere else."""
        outcome = returned.return_value
        became = f"{' '.join(filter(None, outcome.label))}: {outcome.state}"
        left = about(self.pace.seconds_left())
        text = f"{self.pace.ended}/{self.pace.total} {became}{left and f', {left}'}"
        stderr().print(text, markup=False, soft_wrap=True)

    def check(self) -> None:
        """Make sure of the engine and its settings before anything starts.

        Raises:
            NsvdError: what is missing or wrong.
        """

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks; yields each with its return when it ends."""


class HereLauncher(GridLauncher):
    """One job after another in this process (`conf/hydra/launcher/here.yaml`)."""

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks one by one; those that other processes are at come last."""
        turns, task = Turns(tasks, self.pace), None
        while turns:
            task = turns.take(after=task)
            returned = run_task(task)
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            if turns.is_over(task, returned):
                yield task, returned

    def say(self, returned: JobReturn) -> None:
        """Say nothing: the job itself has done so, in this process."""


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
        environments = local.environments_for(tasks, self.n_jobs)
        return local.run(tasks, environments, self.pace)


class SlurmLauncher(GridLauncher):
    """Jobs of Slurm (`conf/hydra/launcher/slurm.yaml`)."""

    is_elsewhere = True

    def __init__(self, check_s: float, **settings: Any) -> None:
        self.check_s = check_s
        self.settings = settings

    def check(self) -> None:
        """Check for submitit and Slurm; submitit checks its settings."""
        _require(isinstance(self.check_s, int | float) and self.check_s > 0, check_s=self.check_s)
        slurm.check()

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks as a job array."""
        return slurm.run(tasks, self.check_s, self.settings)


class RayLauncher(GridLauncher):
    """Tasks of Ray (`conf/hydra/launcher/ray.yaml`)."""

    is_elsewhere = True

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def check(self) -> None:
        """Check for Ray, and what a cell asks of it."""
        for name in ("num_gpus", "num_cpus"):
            value = self.settings[name]
            _require(
                value is None or (isinstance(value, int | float) and value >= 0), **{name: value}
            )
        ray.check()

    def run(self, tasks: Sequence[Task]) -> Ended:
        """Run the tasks on a Ray cluster."""
        return ray.run(tasks, **self.settings)


def _require(condition: bool, **setting: Any) -> None:
    if not condition:
        ((name, value),) = setting.items()
        raise NsvdError(f"hydra.launcher.{name}={value}: expected a positive number")
