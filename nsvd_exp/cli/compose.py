"""The configurations of a grid's jobs, as Hydra composes them and in a fraction of its time.

Hydra reads and merges every file of `conf/` anew for each job. Here it does so once for each choice
of files; the values of a job are then set on a copy, as Hydra itself sets them last of all.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

Job = tuple[str, ...]
"""What one job is told, `name=value` each."""


class Composer:
    """Composes the jobs of a grid; what is unusual in a job, Hydra composes as a whole.

    Args:
        loader: Hydra's.
        master: the configuration that Hydra has composed for the grid.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._parser = OverridesParser.create(loader)
        self._parsed: dict[str, Override] = {}
        self._bases: dict[Job, bytes] = {}
        self._groups: dict[str, bool] = {}
        given = master.hydra.overrides.hydra
        self._is_usual = not any("hydra.searchpath" in override for override in given)

    def compose(self, job: Job) -> DictConfig:
        """The configuration of a job, Hydra's own part included.

        Raises:
            HydraException: as Hydra's own `load_sweep_config`.
        """
        try:
            overrides = [self._parse(text) for text in job]
            choices = tuple(str(o.input_line) for o in overrides if self._is_choice(o))
            values = [o for o in overrides if not self._is_choice(o)]
            if self._is_usual and all(map(_is_plain, values)):
                return self._with_values(self._base(choices), overrides, values)
        except (HydraException, OmegaConfBaseException):
            pass  # Hydra itself finds the error again, and says which override it comes from
        return self._loader.load_sweep_config(self._master, list(job))

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            (self._parsed[text],) = self._parser.parse_overrides([text])
        return self._parsed[text]

    def _is_choice(self, override: Override) -> bool:
        """Whether an override chooses a file, by Hydra's own rule."""
        name = override.key_or_group
        if name not in self._groups:
            self._groups[name] = bool(self._loader.get_group_options(name, results_filter=None))
        return self._groups[name] and not isinstance(override.value(), dict)

    def _base(self, choices: Job) -> DictConfig:
        """A new copy of what Hydra makes of the choices of files alone."""
        if choices not in self._bases:
            composed = self._loader.load_sweep_config(self._master, list(choices))
            self._bases[choices] = pickle.dumps(composed)
        copy: DictConfig = pickle.loads(self._bases[choices])
        return copy

    def _with_values(
        self, base: DictConfig, overrides: Sequence[Override], values: Sequence[Override]
    ) -> DictConfig:
        for override in values:
            OmegaConf.update(base, override.key_or_group, override.value(), merge=True)
        job: Any = base.hydra.job
        naming = job.config.override_dirname
        named = [o for o in overrides if o.key_or_group not in naming.exclude_keys]
        dirname = naming.item_sep.join(sorted(str(o.input_line) for o in named))
        with read_write(base.hydra), open_dict(base.hydra):
            base.hydra.overrides.task = [override.input_line for override in overrides]
            job.override_dirname = dirname.replace("=", naming.kv_sep)
        return base


def _is_plain(override: Override) -> bool:
    """Whether an override does nothing but give a setting, which is there, another value."""
    return (
        override.type == OverrideType.CHANGE
        and override.package is None
        and not override.is_hydra_override()
        and not override.is_sweep_override()
        and not isinstance(override.value(), dict)
    )
