"""`python -m nsvd_exp.report.claims`: the paper's claims, checked on stored results."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.report.model.checked import checked_in
from nsvd_exp.report.model.subjects import papers_subject
from nsvd_exp.report.render import terminal
from nsvd_exp.report.render.claims import page
from nsvd_exp.report.render.console import speak_ascii_where_needed
from nsvd_exp.report.writing import put, writing


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nsvd_exp.report.claims",
        description="Checks each claim of the paper on each model of which results are stored, "
        "with a paired 95% interval and a verdict at each ratio, and writes one page of Markdown.",
        epilog="Exit status: 0 if the page was made, 2 if not.",
    )
    add = parser.add_argument
    add("results_dirs", nargs="+", metavar="RESULTS_DIR", help="one or more stores")
    add("--out", metavar="FILE", help="where to write [standard output]")
    return parser


def claims_text(results_dirs: Sequence[str], out: str | None = None) -> str:
    """The page, with the command that makes it.

    Args:
        out: the file that the command names; None for none.

    Raises:
        NsvdError: a store has no result.
    """
    words = ["python", "-m", "nsvd_exp.report.claims", *results_dirs]
    command = shlex.join([*words, *(["--out", out] if out else [])])
    return page(checked_in(results_dirs), papers_subject(), command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    speak_ascii_where_needed(sys.stdout, sys.stderr)
    options = parser().parse_args(arguments)
    try:
        text = claims_text(options.results_dirs, options.out)
        if options.out:
            out = Path(expand_path(options.out))
            with writing("the claims page", out, "file"):
                put(out, text)
    except NsvdError as error:
        terminal.complain(f"error: {error}")
        return 2
    print(f"claims: {options.out}" if options.out else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
