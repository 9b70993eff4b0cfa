"""Files of a report: each is replaced as a whole, and a place that takes none is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.files import write_atomically


def put(path: Path, text: str) -> Path:
    """Replace the file by this text, in UTF-8; returns its path."""
    # Half of a character, such as the name of a file may hold, becomes `?`.
    write_atomically(path, lambda file: file.write_bytes(text.encode(errors="replace")))
    return path


@contextmanager
def writing(what: str, place: Path, kind: str) -> Iterator[None]:
    """Inside, an OSError becomes an NsvdError.

    Args:
        what: is written, as a subject in front of `cannot be written`.
        place: where to.
        kind: of the place, which `--out` gives: a folder or a file.
    """
    try:
        yield
    except OSError as error:
        raise NsvdError(
            f"{what} cannot be written to {place}: {error.strerror}; give another {kind}, --out"
        ) from None
