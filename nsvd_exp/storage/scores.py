"""The scores of a cell at tasks (`zeroshot.json`): what fits together, which are current.

`docs/stored-files.md` describes the fields. Imports no torch.
"""

from __future__ import annotations

import math

from nsvd_exp.storage.files import DamagedError
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.validity import ROUNDING, Result


def check_scores(result: Result) -> None:
    """Refuse an accuracy that is not that of its documents.

    Raises:
        DamagedError: something does not fit together.
    """
    for name, score in result["tasks"].items():
        if score["task"] != name:
            raise DamagedError(f"under {name} stands a score at {score['task']}")
    for score in (*result["tasks"].values(), *result["earlier"]):
        problem = problem_of(score)
        if problem:
            raise DamagedError(f"{score['task']}: {problem}")


def problem_of(score: Result) -> str | None:
    """What does not fit together in a score; None where everything does."""
    accuracy, error, documents = score["accuracy"], score["stderr"], score["documents"]
    correct = score["correct"]
    if digest(score["identity"]) != score["key"]:
        return "the key is not that of the identity"
    if not 0 <= accuracy <= 1:
        return f"an accuracy of {accuracy} is no fraction"
    if error is not None and not 0 <= error < math.inf:
        return f"a standard error of {error}"
    if correct is None:
        return None
    if len(correct) != documents or set(correct) - {"0", "1"}:
        return f"correct does not hold a 0 or a 1 for each of {documents} documents"
    if not math.isclose(accuracy, correct.count("1") / documents, abs_tol=ROUNDING):
        return f"accuracy {accuracy} is not that of its documents"
    return None


def find_score(result: Result | None, name: str, key: str) -> Result | None:
    """The score at task `name` with this key, or None."""
    if result is None:
        return None
    current = result["tasks"].get(name)
    candidates = ([current] if current else []) + result["earlier"]
    return next((s for s in candidates if s["task"] == name and s["key"] == key), None)


def put_score(result: Result, score: Result) -> None:
    """Make `score` the current one at its task.

    One made otherwise (limit, examples, another version) moves to `earlier`; nothing is dropped.
    """
    name = score["task"]
    others = [s for s in result["earlier"] if (s["task"], s["key"]) != (name, score["key"])]
    previous = result["tasks"].get(name)
    if previous is not None and previous["key"] != score["key"]:
        others.append(previous)
    result["earlier"] = others
    result["tasks"][name] = score
