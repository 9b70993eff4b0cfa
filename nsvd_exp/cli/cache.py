"""`python -m nsvd_exp.cache`: what `cache_dir` holds, and clearing it."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.cache import KINDS, Cache, Entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 2 if it is wrong or nothing could be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given or ["list"])
    folder = Path(expand_path(options.cache_dir))
    try:
        if not folder.is_dir():
            raise NsvdError(f"{folder} is not there: --cache-dir=FOLDER says which one")
        if options.command == "clear":
            _clear(Cache(folder), options)
        else:
            _list(Cache(folder))
    except (NsvdError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m nsvd_exp.cache", description=__doc__)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--cache-dir", default="results/cache", help="default: results/cache")
    commands = parser.add_subparsers(dest="command", metavar="list | clear", required=True)
    commands.add_parser("list", parents=[place], help="what is kept, least recently used first")
    clear = commands.add_parser(
        "clear",
        parents=[place],
        help="remove what is not in use",
        description="Remove the entries that match all given options; what is in use stays.",
    )
    clear.add_argument("--all", action="store_true", help="everything")
    clear.add_argument("--kind", choices=KINDS, help="calibration statistics, or output bases")
    clear.add_argument("--model", help="of models whose title contains this, in any case")
    clear.add_argument(
        "--older-than", type=float, metavar="DAYS", help="not used for that many days"
    )
    return parser


def _list(cache: Cache) -> None:
    entries, temporaries = cache.entries(), cache.temporaries()
    total = sum(entry.bytes for entry in entries) + sum(one.bytes for one in temporaries)
    table = Table(title=f"{cache.folder}: {_size(total)}")
    for heading in ("kind", "model", "of", "size", "last used", "in use by"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for entry in entries:
        size, used = _size(entry.bytes), _time(entry.used)
        table.add_row(entry.kind, *_about(entry), size, used, _users(entry))
    for temporary in temporaries:
        size, used = _size(temporary.bytes), _time(temporary.used)
        user = "nobody: goes with the next run" if temporary.is_dead else "a living process"
        path = str(temporary.path.relative_to(cache.folder))
        table.add_row("temporary", "", path, size, used, user)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _clear(cache: Cache, options: argparse.Namespace) -> None:
    wanted = _wanted(options)
    cache.tidy()
    gone, kept = cache.remove(wanted)
    for entry in kept:
        print(f"in use by {_users(entry)}, stays: {entry.kind}, {', '.join(_about(entry))}")
    size = _size(sum(entry.bytes for entry in gone))
    print(f"removed {len(gone)} of {len(gone) + len(kept)} entries, {size}")


def _wanted(options: argparse.Namespace) -> Callable[[Entry], bool]:
    """Whether an entry is among those that the options name.

    Raises:
        NsvdError: the options name nothing, or contradict each other.
    """
    narrowed = [options.kind, options.model, options.older_than] != [None] * 3
    if options.all == narrowed:
        raise NsvdError("clear takes either --all, or any of --kind, --model, --older-than")
    days = options.older_than
    if days is not None and not 0 <= days < math.inf:
        raise NsvdError(f"--older-than={days:g}: expected a number of days >= 0")
    since = time.time() - (options.older_than or 0.0) * 86400

    def wanted(entry: Entry) -> bool:
        model = entry.about.get("model", "")
        return (
            options.kind in (None, entry.kind)
            and (options.model is None or options.model.lower() in model.lower())
            and (options.older_than is None or entry.used < since)
        )

    return wanted


def _about(entry: Entry) -> tuple[str, str]:
    """What an entry is of: the model, and its calibration and metric."""
    model = " ".join(filter(None, (entry.about.get("model"), entry.about.get("dtype"))))
    of = " under ".join(filter(None, (entry.about.get("calibration"), entry.about.get("metric"))))
    return model or f"unknown ({entry.key[:8]})", of


def _users(entry: Entry) -> str:
    return ", ".join(entry.users)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _size(size: int) -> str:
    """A number of bytes in a readable unit."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
