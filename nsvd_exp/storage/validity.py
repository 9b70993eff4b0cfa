"""Whether a `result.json` can be believed: its checksum, its key, and the numbers in it.

A result is read by every run and every report, perhaps years after it was written and after it was
copied about. What does not fit together does not count: a lost bit, a number that was changed by
hand, an identity with the key of another one.

`docs/stored-files.md` describes the fields. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nsvd_exp.storage.files import DamagedError, checksum
from nsvd_exp.storage.kept import MEASUREMENTS
from nsvd_exp.storage.keys import digest

Result = dict[str, Any]

# Relative: what sums and powers of float64 differ by between machines.
ROUNDING = 1e-9
STATUSES = ("done", "failed", "partial")
# The last line of a file, which is not part of what it is the checksum of.
SEAL = re.compile(rb',\n "checksum": (\d+)\n}\n\Z')
SURROGATE = re.compile("[\ud800-\udfff]")


class VersionError(DamagedError):
    """A result of a version that this program does not know."""


@dataclass(frozen=True)
class Kind:
    """A kind of result: cells, similarity records, or a cell's scores at tasks.

    Attributes:
        folder: under `results_dir`, where results of this kind are.
        version: of the fields of `result.json`, as they are written.
        unsealed: the versions of earlier programs, which wrote no checksum.
        fields: those without which a file is damaged, and their types in JSON.
        file: its name, in a folder of its own or in that of a cell.
        check: raises DamagedError where the numbers in a result do not fit together.
    """

    folder: str
    version: int
    unsealed: tuple[int, ...]
    fields: Mapping[str, type]
    file: str = "result.json"
    check: Callable[[Result], None] = lambda result: None


def sealed(result: Result) -> bytes:
    """The content of a `result.json`: JSON whose last field is the checksum of all before it.

    Raises:
        ValueError: the result holds what JSON cannot.
    """
    content = {name: value for name, value in result.items() if name != "checksum"}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # Half of a character, such as a file name that is not UTF-8 has, can only stand escaped.
    text = SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    head = text.removesuffix("\n}").encode()
    return head + f',\n "checksum": {checksum([head])}\n}}\n'.encode()


def parsed(content: bytes, kind: Kind) -> Result:
    """The result in the content of a `result.json`, without its checksum.

    Raises:
        DamagedError: it is not as it was written, or does not fit together.
        VersionError: it is of a version that this program does not know.
    """
    try:
        return _checked(content, kind)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None
    except RecursionError:
        raise DamagedError("it is nested too deeply") from None


def _checked(content: bytes, kind: Kind) -> Result:
    seal = SEAL.search(content, max(0, len(content) - 100))
    if seal is not None and int(seal[1]) != checksum([memoryview(content)[: seal.start()]]):
        raise DamagedError("its checksum is wrong")
    result = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    version = result["version"]
    if version != kind.version and version not in kind.unsealed:
        raise VersionError(f"{version}")
    if seal is None and (version == kind.version or "checksum" in result):
        raise DamagedError("its checksum is missing")
    result.pop("checksum", None)
    lacking = kind.fields.keys() - result.keys()
    if lacking:
        raise DamagedError(f"it lacks {', '.join(sorted(lacking))}")
    for name, expected in kind.fields.items():
        if not isinstance(result[name], expected):
            raise DamagedError(f"{name} is no {expected.__name__}")
    if result["status"] not in STATUSES:
        raise DamagedError(f"its status is {result['status']!r}")
    if digest(result["identity"]) != result["key"]:
        raise DamagedError("its key is not that of its identity")
    kind.check(result)
    return result


def _refuse_constant(name: str) -> None:
    raise DamagedError(f"it holds {name}")


def check_measurements(result: Result) -> None:
    """Refuse a perplexity that is not the one of its losses."""
    MEASUREMENTS.check(result, problem_of)


def problem_of(measured: Result) -> str | None:
    """What does not fit together in a measurement; None where everything does."""
    perplexity, nll, tokens = measured["perplexity"], measured["nll"], measured["tokens"]
    losses, windows = measured["window_nll"], measured["windows"]
    if digest(measured["identity"]) != measured["key"]:
        return "the key is not that of the identity"
    if tokens != windows * (measured["length"] - 1) or len(losses) != windows:
        return f"{tokens} tokens and {len(losses)} of window_nll do not fit {windows} windows"
    if not all(map(math.isfinite, (perplexity, nll, *losses))):
        return "a perplexity or a loss is not finite"
    if perplexity < 1 - ROUNDING:
        return f"a perplexity of {perplexity} is below 1"
    if not math.isclose(perplexity, math.exp(nll / tokens), rel_tol=ROUNDING):
        return f"perplexity {perplexity} is not exp(nll / tokens)"
    if not math.isclose(math.fsum(losses), nll, rel_tol=ROUNDING, abs_tol=ROUNDING):
        return "nll is not the sum of window_nll"
    return None
