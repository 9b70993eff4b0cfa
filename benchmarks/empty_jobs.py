"""`python -m nsvd_exp` with nothing in it: the same configuration composed by Hydra's own sweeper.

python benchmarks/empty_jobs.py -m experiment=table1 model=tiny
"""

import sys

import hydra
from omegaconf import DictConfig

from nsvd_exp.config.files import conf_dir, register

BARE = [
    "hydra/sweeper=basic",
    "~hydra.callbacks.check",
]


def job(_: DictConfig) -> None:
    """Nothing."""


if __name__ == "__main__":
    register()
    sys.argv += BARE
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(job)()
