"""What a cell's model makes of three fixed prompts, kept in the store (`generate=true`).

It is no part of a cell: it has a key of its own, of the cell's key, the prompts and the dtype.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nsvd_exp.experiment.plan import CellPlan
from nsvd_exp.experiment.provenance import environment
from nsvd_exp.experiment.record import now
from nsvd_exp.storage.results import CONTINUATIONS, Result, ResultFile, subject_file

if TYPE_CHECKING:
    from nsvd_exp.experiment.session import Session

log = logging.getLogger(__name__)

PROMPTS = (
    "The keeper of the lighthouse opened the door and",
    "The largest city in the country is",
    "To bake a good loaf of bread, you first",
)
TOKENS = 48
VERSION = 1  # raise it when the code of `nsvd_exp.pipeline.generate` makes other tokens


def continuations_file(plan: CellPlan) -> ResultFile:
    """Where the continuations of a cell's model stand."""
    identity: dict[str, Any] = {
        "cell": plan.file.key,
        "dtype": plan.evaluation_dtype,
        "prompts": list(PROMPTS),
        "tokens": TOKENS,
        "version": VERSION,
    }
    return subject_file(plan.results_dir, CONTINUATIONS, plan.file.folder.name, identity)


def run_continuations(plan: CellPlan, session: Session) -> Result:
    """The greedy continuations of `PROMPTS` by the model of a cell, from the store or new ones.

    Raises:
        NsvdError: the model cannot be made, or has too few positions; what is stored is damaged.
    """
    file = continuations_file(plan)
    with file.lock(log.warning):
        known = file.read()
        if known is not None:
            return known
        record = _record(plan, session, file)
        file.write(record)
    return record


def _record(plan: CellPlan, session: Session, file: ResultFile) -> Result:
    from nsvd_exp.experiment.compressed import compressed
    from nsvd_exp.pipeline.generate import continued

    with compressed(plan, session) as made:
        texts = [
            {"prompt": prompt, **asdict(continued(made.model, made.tokenizer, prompt, TOKENS))}
            for prompt in PROMPTS
        ]
    config = plan.config
    return {
        "version": CONTINUATIONS.version,
        "status": "done",
        "key": file.key,
        "identity": file.identity,
        "created": now(),
        "subject": plan.file.folder.name,
        "model": config.model.title,
        "method": config.method["name"],
        "ratio": config.ratio if config.compresses else None,
        "k1": config.method.get("k1"),
        "dtype": plan.evaluation_dtype,
        "tokens": TOKENS,
        "texts": texts,
        "environment": environment(plan.device),
    }
