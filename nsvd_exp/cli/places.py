"""What the commands that start from a stored cell have in common: where its things are now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from nsvd_exp.cli import terminal
from nsvd_exp.config.files import register
from nsvd_exp.config.sections import DTYPES
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.stored import Place
from nsvd_exp.report.render.console import discard_stdout, speak_ascii_where_needed

CELL_HELP = "a stored cell: the beginning of its key, its folder's name, or that folder's path"


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that `place_of` reads."""
    options = parser.add_argument_group("where the things of a cell are")
    options.add_argument("--results", default="results", help="the store; default: results")
    options.add_argument("--model", metavar="FOLDER", help="its model, where that is on no hub")
    options.add_argument(
        "--calibration-tokenizer", metavar="FOLDER", help="likewise, where it has one of its own"
    )
    options.add_argument(
        "--data-dir", action="append", default=[], metavar="FOLDER", help="local text, as data_dir="
    )
    options.add_argument("--cache-dir", metavar="FOLDER", help="default: cache/ in the store")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or cuda:all")
    options.add_argument("--dtype", choices=DTYPES, help="default: that of its evaluation")


def place_of(options: argparse.Namespace) -> Place:
    """Where the things of a cell are, by the options of `add_place`."""
    return Place(
        results_dir=options.results,
        cache_dir=options.cache_dir,
        model=options.model,
        calibration_tokenizer=options.calibration_tokenizer,
        data_dir=options.data_dir,
        device=options.device,
        evaluation_dtype=options.dtype,
    )


def run_command(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the arguments (None: `sys.argv`) and do the work; the exit status.

    It is 0, 2 where nothing could be done, or 130 after Ctrl-C.
    """
    speak_ascii_where_needed(sys.stdout, sys.stderr)
    options = parser.parse_args(arguments)
    register()
    try:
        work(options)
        sys.stdout.flush()
    except NsvdError as error:
        terminal.show_error(error)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        discard_stdout()
    except KeyboardInterrupt:
        terminal.stderr().print("interrupted")
        return 130
    return 0
