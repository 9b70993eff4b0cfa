"""`python -m nsvd_exp.report`: the paper's tables and figure from a `results_dir`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsvd_exp.cli import terminal as display
from nsvd_exp.errors import NsvdError, unknown_name

if TYPE_CHECKING:
    from nsvd_exp.report.make import Report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nsvd_exp.report",
        description="The paper's tables and figure, beside the paper's own numbers, from what is "
        "stored. Writes RESULTS_DIR/report/index.html and a file a table and format.",
        epilog="Exit status: 0 all done, 1 something asked for could not be, 2 nothing could.",
    )
    add = parser.add_argument
    add("results_dir", nargs="?", default="results", metavar="RESULTS_DIR", help="[results]")
    add("--model", metavar="TITLE", help="one model alone, by its title in the tables")
    add("--tables", metavar="1,3", help="which of Tables 1 to 6; 2 is Figure 1 too [all]")
    add("--format", metavar="md,tex", help="which of md, tex, csv, html [all]")
    add("--out", metavar="FOLDER", help="[RESULTS_DIR/report]")
    add("--compare", metavar="OTHER", help="another results_dir: show what differs from it")
    add(
        "--wandb",
        nargs="?",
        const="online",
        choices=("online", "offline"),
        help="also log the report to Weights & Biases [online]",
    )
    add("--project", default="nsvd_exp", help="of Weights & Biases [nsvd_exp]")
    add("--entity", help="of Weights & Biases: user or team [the account's default]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = parser().parse_args(arguments)
    complaints: list[str] = []
    try:
        complaints += _run(options)
    except NsvdError as error:
        _complain(str(error))
        return 2
    for complaint in complaints:
        _complain(complaint)
    return 1 if complaints else 0


def _complain(message: str) -> None:
    display.stderr().print(f"error: {message}", style="bold red", markup=False, soft_wrap=True)


def _run(options: argparse.Namespace) -> list[str]:
    """Make what is asked for; one message for each thing that could not be made."""
    # pandas and matplotlib take a second: not for --help, nor for a mistyped option.
    from nsvd_exp.report import make

    numbers, complaints = _chosen("table", options.tables, [str(n) for n in make.TABLES])
    formats, unknown = _chosen("format", options.format, list(make.FORMATS))
    complaints += unknown
    if not numbers or not formats:
        raise NsvdError("\n".join(complaints))
    if options.wandb and "html" not in formats:
        raise NsvdError("--wandb logs the page too: leave out --format, or name html in it")
    report = make.gather(options.results_dir, [int(n) for n in numbers], options.model)
    out = Path(options.out or Path(options.results_dir) / "report")
    written = make.write(report, out, formats)
    if options.compare:
        written += _compare(options, out)
    _say(report, out, len(written), formats)
    if options.wandb:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("nsvd_exp").setLevel(logging.INFO)  # says where the run is
        make.log_to_wandb(report, written, options.wandb, options.project, options.entity)
    return complaints + report.problems


def _chosen(kind: str, asked: str | None, known: list[str]) -> tuple[list[str], list[str]]:
    """The names asked for that there are, and a message for each that there is not."""
    if asked is None:
        return known, []
    names = [name.strip() for name in asked.split(",")]
    complaints = [str(unknown_name(kind, name, known)) for name in names if name not in known]
    return [name for name in known if name in names], complaints


def _compare(options: argparse.Namespace, out: Path) -> list[Path]:
    from nsvd_exp.report import compare, make

    here, there = (make.contents_of(folder) for folder in (options.results_dir, options.compare))
    comparison = compare.compare(here, there, options.model)
    display.show(compare.table(comparison))
    return make.write_comparison(comparison, out)


def _say(report: Report, out: Path, files: int, formats: Sequence[str]) -> None:
    for what, command in report.gaps:
        print(f"{what}\n    {command}")
    page = out / "index.html"
    print(f"{files} files in {out}" + (f"; to look at: {page}" if "html" in formats else ""))


if __name__ == "__main__":
    sys.exit(main())
