"""The scores of a cell at tasks (`zeroshot.json`): what fits together.

`docs/stored-files.md` describes the fields. Imports no torch.
"""

from __future__ import annotations

import math

from nsvd_exp.storage.kept import TASK_SCORES
from nsvd_exp.storage.keys import digest
from nsvd_exp.storage.validity import ROUNDING, Result


def check_scores(result: Result) -> None:
    """Refuse an accuracy that is not that of its documents.

    Raises:
        DamagedError: something does not fit together.
    """
    TASK_SCORES.check(result, problem_of)


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
