"""`python -m nsvd_exp.report`: the tables, figures and page of a `results_dir`."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.report.model.comparison import Comparison, compare
from nsvd_exp.report.model.report import TABLES, Report, contents_of, gather
from nsvd_exp.report.render import terminal
from nsvd_exp.report.render.console import speak_ascii_where_needed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nsvd_exp.report",
        description="Shows the stored results: which method is best, every number in one table, "
        "plots, and the layouts of the paper's tables. Writes RESULTS_DIR/report/index.html, and "
        "one file per table and format.",
        epilog="Exit status: 0 if all was made, 1 if a part could not be made, 2 if nothing could.",
    )
    add = parser.add_argument
    add("results_dir", nargs="?", default="results", metavar="RESULTS_DIR", help="[results]")
    add("--model", metavar="TITLE", help="show this model only, and all of its figures")
    add(
        "--tables",
        metavar="1,3",
        help="which of the paper's Tables 1 to 6 to lay results out like; 2 includes Figure 1 "
        "[those of which a row is stored]",
    )
    add("--paper", action="store_true", help="show the paper's own numbers beside the stored ones")
    add("--format", metavar="md,tex", help="which of md, tex, csv, html [all]")
    add("--out", metavar="FOLDER", help="where to write [RESULTS_DIR/report]")
    add("--compare", metavar="OTHER", help="show how RESULTS_DIR differs from this other one")
    add(
        "--wandb",
        nargs="?",
        const="online",
        choices=("online", "offline"),
        help="also log the report to Weights & Biases [online]",
    )
    add("--project", default="nsvd_exp", help="project of Weights & Biases [nsvd_exp]")
    add("--entity", help="user or team of Weights & Biases [the account's default]")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    speak_ascii_where_needed(sys.stdout, sys.stderr)
    options = parser().parse_args(arguments)
    try:
        complaints = _run(options)
    except NsvdError as error:
        terminal.complain(f"error: {error}")
        return 2
    for complaint in complaints:
        terminal.complain(f"error: {complaint}")
    return 1 if complaints else 0


def _run(options: argparse.Namespace) -> list[str]:
    """Make what is asked for; returns a message for each thing that could not be made."""
    # pandas and matplotlib take a second: not for --help, nor for a mistyped option.
    from nsvd_exp.report import make

    numbers, complaints = _chosen("table", options.tables, [str(n) for n in TABLES])
    formats, unknown = _chosen("format", options.format, list(make.FORMATS))
    complaints += unknown
    if not numbers or not formats:
        raise NsvdError("\n".join(complaints))
    if options.wandb and "html" not in formats:
        raise NsvdError("--wandb logs the page too: leave out --format, or name html in it")
    report = gather(options.results_dir, [int(n) for n in numbers], options.model)
    # What cannot be compared is said before anything is written.
    compared = None if options.compare is None else _compared(options)
    out = Path(expand_path(options.out or f"{options.results_dir}/report"))
    terminal.show_headlines(report.groups)
    terminal.show_results(report.groups)
    terminal.show_profiles(report.profiles)
    written = make.write(report, out, formats, options.paper, all_figures=bool(options.model))
    if compared:
        terminal.show_comparison(compared)
        written += make.write_comparison(compared, out)
    _say(report, out, len(written), formats)
    if options.wandb:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("nsvd_exp").setLevel(logging.INFO)  # says where the run is
        make.log_to_wandb(report, written, options.wandb, options.project, options.entity)
    return complaints + report.problems


def _chosen(kind: str, asked: str | None, known: list[str]) -> tuple[list[str], list[str]]:
    """The known names among those asked for, and a message for each unknown one."""
    if asked is None:
        return known, []
    names = [name.strip() for name in asked.split(",")]
    complaints = [str(unknown_name(kind, name, known)) for name in names if name not in known]
    return [name for name in known if name in names], complaints


def _compared(options: argparse.Namespace) -> Comparison:
    """The store beside the other one.

    Raises:
        NsvdError: there is no other one, or the two have no measurement in common.
    """
    here, there = (contents_of(folder) for folder in (options.results_dir, options.compare))
    found = compare(here, there, options.model)
    if not found.pairs:
        titles = [sorted(set(contents.titles.values())) for contents in (here, there)]
        raise NsvdError(
            f"--compare: no measurement of {options.results_dir} (of {', '.join(titles[0])}) is in "
            f"{options.compare} (of {', '.join(titles[1])}) too: model, text, method, settings and "
            "calibration must be the same"
        )
    return found


def _say(report: Report, out: Path, files: int, formats: Sequence[str]) -> None:
    terminal.show_gaps(report.gaps)
    page = out / "index.html"
    look = f"; to look at: {page}" if "html" in formats else ""
    terminal.say(f"{files} files in {out}{look}")


if __name__ == "__main__":
    # A store is many objects that stay until the process ends. To look for garbage among them, on
    # the way and once more at the end, would find none and take a fifth of the time.
    gc.disable()
    status = main()
    gc.freeze()
    sys.exit(status)
