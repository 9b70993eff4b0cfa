"""Streams that people read: of a terminal without UTF-8, and of a reader that has seen enough."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

from rich.console import Console

# What stands for characters of tables and messages where the terminal has ASCII alone.
IN_ASCII = {"–": "-", "±": "+-", "−": "-", "…": "...", "×": "x", "ᵀ": "^T", "Σ": "sum", "·": "-"}


class Stdout(Console):
    """stdout, whose reader may have seen enough, as that of `| head` has."""

    def on_broken_pipe(self) -> None:
        discard_stdout()


def discard_stdout() -> None:
    """Let what is still to be printed go nowhere: its reader is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def speak_ascii_where_needed(*streams: TextIO) -> None:
    """Let streams write what they have no character for in ASCII.

    That is much in a stream that is not UTF-8, and in any other half of a character, such as the
    name of a file may hold.
    """
    codecs.register_error("nsvd_ascii", _in_ascii)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "nsvd_ascii":
            encoding = (stream.encoding or "").lower().replace("-", "")
            if stream.errors == "strict" or not encoding.startswith("utf"):
                stream.reconfigure(errors="nsvd_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(character, "?") for character in lacking), error.end
