"""What composing and checking the jobs of a large grid costs, before the first one starts.

    python benchmarks/composing.py [--jobs 200]

Hydra composes each job on its own; `nsvd_exp.cli.compose` composes each choice of files once. Both
are timed over the same jobs, whose configurations are compared, and so is the check of ranges.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from nsvd_exp.cli.compose import Composer, Job
from nsvd_exp.cli.main import check_composed
from nsvd_exp.config.files import conf_dir, method_files, register
from nsvd_exp.experiment.order import grid_order

T = TypeVar("T")

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
FRACTIONS = (0.99, 0.95, 0.9, 0.8)


def jobs_of(results_dir: str) -> list[Job]:
    """The jobs of a grid over methods, ratios and k1, as the sweeper writes them."""
    grid = itertools.product(method_files(), RATIOS, FRACTIONS)
    return [
        (f"results_dir={results_dir}", f"method={method}", f"ratio={ratio}", f"k1={k1}")
        for method, ratio, k1 in grid
    ]


def timed(title: str, work: Callable[[], T]) -> T:
    """What the work returns; its seconds are printed."""
    start = time.perf_counter()
    made = work()
    print(f"{title:40} {time.perf_counter() - start:6.1f} s")
    return made


def main() -> None:
    """Print the seconds of each way and of the check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    count = parser.parse_args().jobs
    register()
    setup_globals()
    version.setbase("1.3")
    loader = ConfigLoaderImpl(create_config_search_path(str(conf_dir())))
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    with tempfile.TemporaryDirectory() as folder:
        jobs = jobs_of(folder)[:count]
        print(f"{len(jobs)} jobs")
        by_hydra = timed(
            "composed by Hydra", lambda: [loader.load_sweep_config(master, list(j)) for j in jobs]
        )
        composer = Composer(loader, master)
        ours = timed("composed by nsvd_exp", lambda: [composer.compose(job) for job in jobs])
        same = [OmegaConf.to_yaml(c) for c in by_hydra] == [OmegaConf.to_yaml(c) for c in ours]
        checked = timed("checked", lambda: [check_composed(config) for config in ours])
        timed("put in order", lambda: grid_order(checked))
    print("the configurations are the same" if same else "the configurations DIFFER")


if __name__ == "__main__":
    main()
