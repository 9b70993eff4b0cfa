"""The W&B session of a process: opens runs, and does without a server, a key or a helper process.

Nothing here prompts, waits for long or raises because of what W&B does.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from nsvd_exp.errors import NsvdError

log = logging.getLogger(__name__)

# What a server that does not answer may cost, each once in a process: to open a run, beside the
# 10 s that W&B takes to check the key (WANDB_HTTP_TIMEOUT), and to end one.
SECONDS_TO_OPEN = 20.0
SECONDS_TO_UPLOAD = 30.0

# W&B's 15 s leave a killed cell an empty file, at which `wandb sync` stops for all.
SECONDS_BETWEEN_FLUSHES = 1.0

Run = Any
"""`wandb.Run`: wandb itself is imported only when a run is opened."""


class WandbSession:
    """What a process has learnt of W&B: what failed is not tried again, and not said again.

    Args:
        seconds_to_open: how long a server may take to open a run.
        seconds_to_upload: how long it may take to receive what is left when a run ends.
    """

    def __init__(
        self,
        seconds_to_open: float = SECONDS_TO_OPEN,
        seconds_to_upload: float = SECONDS_TO_UPLOAD,
    ) -> None:
        self.online = self.offline = True  # whether it is worth trying
        self._limits = seconds_to_open, seconds_to_upload
        self._agents_run_is_taken = False
        self._said: set[str] = set()

    def claim(self) -> bool:
        """Whether a cell may have a run: a sweep agent has made one run, for one cell."""
        if not under_agent():
            return True
        if self._agents_run_is_taken:
            self._say("W&B: the agent's run holds one cell; the others have no run")
            return False
        self._agents_run_is_taken = True
        return True

    def open(self, mode: str, directory: Path, **options: Any) -> Run | None:
        """A run, online if that is asked for and works, else on disk; None if neither works.

        Args:
            mode: `online` or `offline`.
            directory: where `wandb/` with the run's files is to be.
            options: of `wandb.init`.
        """
        if mode == "online" and self.online:
            try:
                run = self._init("online", directory, **options)
                self._say(f"W&B: {run.project_url}")
                return run
            except Exception as error:
                self.lost_server(error)
        if self.offline:
            try:
                run = self._init_on_disk(directory, **options)
                self._say(f"W&B: kept on disk; to upload: wandb sync {directory / 'wandb'}")
                return run
            except Exception as error:
                self.offline = False
                self._say(f"W&B: no run can be kept ({first_line(error)})", logging.WARNING)
        return None

    def lost_server(self, error: Exception) -> None:
        """Keep all further runs on disk."""
        self.online = False
        self._say(f"W&B: offline from here on: {first_line(error)}", logging.WARNING)

    def lost_run(self, run: Run, error: Exception) -> None:
        """Say how to upload what an open run was told before it failed; that is on disk."""
        folder = Path(run.dir).parent
        online = not folder.name.startswith("offline")
        command = f"wandb sync {'--include-online ' if online else ''}{folder}"
        reason = first_line(error)
        message = f"W&B: {reason}; to upload what is there: {command}"
        self._say(message, logging.WARNING, about=reason)
        self.online = False

    def _say(self, message: str, level: int = logging.INFO, about: str | None = None) -> None:
        """Log the first of all messages about the same thing."""
        if (about or message) not in self._said:
            self._said.add(about or message)
            log.log(level, message)

    def _init(self, mode: Literal["online", "offline"], directory: Path, **options: Any) -> Run:
        """`wandb.init` that neither asks nor prints, nor waits for long."""
        import wandb

        seconds_to_open, seconds_to_upload = self._limits
        settings = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            symlink=False,  # `latest-run` is of no use to cells that run side by side
            init_timeout=seconds_to_open,
            finish_timeout=seconds_to_upload,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=SECONDS_BETWEEN_FLUSHES,
        )
        wandb.setup(wandb.Settings(silent=True, mode=mode))
        if mode == "online" and not wandb.login(prompt=False):
            raise NsvdError("no API key: type `wandb login`, or set WANDB_API_KEY")
        directory.mkdir(parents=True, exist_ok=True)  # else wandb takes a temporary folder
        return wandb.init(
            mode=mode,
            dir=str(directory),
            settings=settings,
            reinit="create_new",
            resume="allow",  # also offline: a sync then adds to what is there, not over it
            **options,
        )

    def _init_on_disk(self, directory: Path, **options: Any) -> Run:
        """An offline run, if need be through a new helper process: W&B's own may have died."""
        try:
            return self._init("offline", directory, **options)
        except Exception:
            import wandb

            # It exits, in place of raising, where the helper process has failed.
            with suppress(Exception, SystemExit):
                wandb.teardown()
            return self._init("offline", directory, **options)


def under_agent() -> bool:
    """Whether a W&B sweep agent started this process, with a run that it has made."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def first_line(error: Exception) -> str:
    """What went wrong, short; W&B's messages are long, and some are empty."""
    return (str(error) or type(error).__name__).splitlines()[0]
