"""`python -m nsvd_exp.profile`: size and speed of compressed models, against the dense one."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nsvd_exp.cli import terminal
from nsvd_exp.cli.fitting import Column, Form, Forms, table_of
from nsvd_exp.cli.places import CELL_HELP, add_place, place_of, run_command
from nsvd_exp.progress import ProgressBars
from nsvd_exp.storage.results import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 2 if something could not be measured."""
    return run_command(_parser(), _profile, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m nsvd_exp.profile",
        description="Measure how large compressed models are, and how fast, against the dense "
        "model in the same dtype, in turns; what was measured on this machine is not done again.",
    )
    parser.add_argument(
        "subjects", metavar="FOLDER_OR_CELL", nargs="+", help=f"a saved model, or {CELL_HELP}"
    )
    parser.add_argument("--prefill", type=int, nargs="+", metavar="TOKENS", help="128 512 2048")
    parser.add_argument("--batches", type=int, nargs="+", metavar="ROWS", help="1 8 32")
    parser.add_argument("--steps", type=int, help="tokens made in each run; default: 32")
    parser.add_argument("--repeat", type=int, help="runs that count; default: 7")
    parser.add_argument("--again", action="store_true", help="measure what is stored once more")
    add_place(parser)
    return parser


def _profile(options: argparse.Namespace) -> None:
    from nsvd_exp.experiment.profile import run_profile
    from nsvd_exp.experiment.session import Session
    from nsvd_exp.experiment.subject import subject
    from nsvd_exp.pipeline.profile import Protocol

    given = {
        "prefill": options.prefill and tuple(options.prefill),
        "batches": options.batches and tuple(options.batches),
        "steps": options.steps,
        "repeat": options.repeat,
    }
    protocol = Protocol(**{name: value for name, value in given.items() if value is not None})
    place, session = place_of(options), Session()
    found = [subject(name, place, session) for name in options.subjects]
    for one in found:
        with ProgressBars.showing(one.name) as bars:
            record = run_profile(one, protocol, bars, options.again)
        terminal.show(profile_table(record))


def profile_table(record: Result) -> Forms:
    """A profile: one row for each quantity, dense and compressed, and what counting predicts."""
    dense, compressed = record["dense"], record["compressed"]
    share = compressed["parameters"] / dense["parameters"]
    rows = [
        _size_row(name, dense[field], compressed[field], share)
        for name, field in (
            ("on disk, MB", "disk_bytes"),
            ("in memory, MB", "memory_bytes"),
            ("peak while generating, MB", "peak_bytes"),
        )
    ]
    step_share = dense["step_bytes"] / compressed["step_bytes"]
    for kind, title in (("prefill", "prefill of {length}"), ("decode", "decode, batch {batch}")):
        for ours, theirs in zip(compressed[kind], dense[kind], strict=True):
            name = f"{title.format(**ours)}, tokens/s"
            rows.append(_speed_row(name, theirs, ours, step_share if kind == "decode" else None))
    made_with = record["environment"]
    title = (
        f"{record['subject']} against {record['model']}, {record['dtype']}, on "
        f"{made_with['device']} ({made_with['hardware']}, {made_with['threads']} threads)"
    )
    headings = ("", "dense", "compressed", "times\ndense", "spread", "by\nflops", "by\nbytes")
    columns = [
        Column(heading, [row[i] for row in rows], is_number=i > 0)
        for i, heading in enumerate(headings)
    ]

    def forms(_: int) -> Iterator[Form]:
        yield Form(title, [table_of(columns)])
        yield Form(title, [table_of(columns, is_tight=True)])
        yield Form(title, [table_of(columns[:4], is_tight=True)])

    return forms


Row = tuple[str, str, str, str, str, str, str]


def _size_row(name: str, dense: int | None, compressed: int | None, predicted: float) -> Row:
    if dense is None or compressed is None:
        return (name, "–", "–", "–", "", "", _times(predicted))
    megabytes: Callable[[int], str] = lambda size: f"{size / 1e6:,.1f}"  # noqa: E731
    times = _times(compressed / dense)
    return (name, megabytes(dense), megabytes(compressed), times, "", "", _times(predicted))


def _speed_row(
    name: str, dense: Mapping[str, Any], compressed: Mapping[str, Any], by_bytes: float | None
) -> Row:
    known = None if by_bytes is None else _times(by_bytes)
    if dense["tokens_per_second"] is None:
        return (name, "no memory", "no memory", "–", "", "", known or "")
    ratios = sorted(
        theirs / ours for ours, theirs in zip(compressed["seconds"], dense["seconds"], strict=True)
    )
    return (
        name,
        _rate(dense["tokens_per_second"]),
        _rate(compressed["tokens_per_second"]),
        _times(statistics.median(ratios)),
        f"{ratios[0]:.2f}–{ratios[-1]:.2f}",
        _times(dense["flops"] / compressed["flops"]),
        known or "",
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(value: float) -> str:
    return f"{value:.2f}"
