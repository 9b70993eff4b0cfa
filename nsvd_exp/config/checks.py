"""What the values of settings are held against, and how a text among them is shown."""

from __future__ import annotations

from typing import Any

from nsvd_exp.errors import NsvdError, unknown_name

LONGEST_TITLE = 100  # characters


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raises an NsvdError that names the setting, its value and what was expected."""
    if not condition:
        raise NsvdError(f"{name}={value}: expected {expected}")


def require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises an NsvdError that names the known values."""
    if value not in known:
        raise unknown_name(name, value, known)


def require_batch(name: str, value: Any) -> None:
    """Raises an NsvdError unless it is `auto` or a number of sequences."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(value == "auto" or (whole and value > 0), name, value, "auto, or a whole number > 0")


def shown(text: str, longest: int = LONGEST_TITLE) -> str:
    """A text as it can be shown anywhere: in one line, without control characters or halves of
    characters, and of a length that, for a title, fits a table."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"
