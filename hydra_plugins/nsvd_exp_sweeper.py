"""Hydra's basic sweeper; checks every job before the first starts, shows a table at the end.

Hydra takes sweepers from the `hydra_plugins` namespace alone, hence the place of this file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """The grid of `python -m nsvd_exp -m`. Works with every launcher."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and range-check every job.

        Raises:
            NsvdError: a value is out of range; the message names the job.
        """
        from nsvd_exp.cli import check_composed

        assert self.hydra_context is not None
        assert self.config is not None
        loader = self.hydra_context.config_loader
        for overrides in batch:
            check_composed(loader.load_sweep_config(self.config, list(overrides)))

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, show what became of it, and exit with 1 if a cell failed."""
        from nsvd_exp.arguments import normalise
        from nsvd_exp.cli import conclude

        self.params = dict(normalise(f"{k}={v}").split("=", 1) for k, v in self.params.items())
        batches = super().sweep(arguments)
        code = conclude([job.return_value for batch in batches for job in batch])
        if code:
            sys.exit(code)
        return batches
