"""The sweeper and launchers of `nsvd_exp`, in the one namespace that Hydra takes plugins from.

What they do stands in `nsvd_exp.cli.sweep` and `nsvd_exp.cli.launchers`.
"""

from nsvd_exp.cli import sweep
from nsvd_exp.cli.launchers import base


class GridSweeper(sweep.GridSweeper):
    """`conf/config.yaml`."""


class HereLauncher(base.HereLauncher):
    """`conf/hydra/launcher/here.yaml`."""


class LocalLauncher(base.LocalLauncher):
    """`conf/hydra/launcher/local.yaml`."""


class SlurmLauncher(base.SlurmLauncher):
    """`conf/hydra/launcher/slurm.yaml`."""


class RayLauncher(base.RayLauncher):
    """`conf/hydra/launcher/ray.yaml`."""
