"""The one exception a user is meant to read, and how a misspelt name is answered."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NsvdError(Exception):
    """Something the user can mend. Its message names the thing, what came, and the way out.

    The command line prints the message alone; every other exception is a bug and keeps its
    traceback.
    """


class OutOfMemoryError(NsvdError):
    """A device has too little memory for a piece of work, however small its batches are."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> NsvdError:
    """An error for a `name` that is none of the `known`, with the nearest of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return NsvdError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(known)}")
