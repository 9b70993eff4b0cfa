"""The one exception a user is meant to read, and how what is wrong is put into words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase


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


class LayersError(NsvdError):
    """Layers that cannot be compressed: all of them at once, with what leaves them dense.

    Args:
        reasons: why, by the name of the layer.
        others: names of layers that can be compressed.
        skip: the patterns of model.skip that are given already.

    Attributes:
        reasons: as given.
    """

    def __init__(
        self, reasons: Mapping[str, str], others: Iterable[str], skip: Sequence[str] = ()
    ) -> None:
        self.reasons = dict(reasons)
        others = set(others) - self.reasons.keys()
        patterns = _patterns(self.reasons, others)
        # Of one layer its name says more than a pattern.
        shown = self.reasons.keys() if len(self.reasons) == 1 else dict.fromkeys(patterns.values())
        groups: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            groups.setdefault(reason, []).append(name)
        lines = []
        for reason, names in groups.items():
            of_group = dict.fromkeys(n if n in shown else patterns[n] for n in names)
            count = f" ({len(names)} layers)" if len(names) > len(of_group) else ""
            lines.append(f"{', '.join(of_group)}{count}: {reason}")
        text = lines[0]
        if len(lines) > 1:
            text = "\n  ".join([f"{len(self.reasons)} layers cannot be compressed:", *lines])
        if others:  # else nothing would be left to compress
            end = "; " if len(lines) == 1 else "\n"
            it = "it" if len(self.reasons) == 1 else "them"
            text += f"{end}to leave {it} dense: model.skip=[{','.join([*skip, *shown])}]"
        super().__init__(text)


def _patterns(names: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """For each name a pattern for that layer in all blocks, unless it matches one of `others`."""
    patterns = {name: re.sub(r"(?<=\.)\d+(?=\.)", "*", name, count=1) for name in names}
    taken = {
        pattern
        for pattern in set(patterns.values())
        if any(fnmatchcase(o, pattern) or fnmatchcase(o, f"{pattern}.*") for o in others)
    }
    return {name: name if pattern in taken else pattern for name, pattern in patterns.items()}
