"""The profile of a compressed model against the dense one, kept in the store.

It is keyed by what can change a time: the model, the protocol, the hardware, the libraries.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.provenance import environment
from nsvd_exp.experiment.record import now
from nsvd_exp.experiment.subject import Loaded, Subject
from nsvd_exp.models.batches import memory_to
from nsvd_exp.models.checkpoint import save
from nsvd_exp.models.layers import replaced
from nsvd_exp.pipeline.dense_twin import multiplied_out
from nsvd_exp.pipeline.profile import Profile, Protocol, Version, profiles
from nsvd_exp.progress import Observer
from nsvd_exp.storage.files import ScratchFolder
from nsvd_exp.storage.results import PROFILE, Result, ResultFile, subject_file

log = logging.getLogger(__name__)

VERSION = 1  # raise it when the code of `nsvd_exp.pipeline.profile` measures something else


def run_profile(
    subject: Subject,
    protocol: Protocol | None = None,
    observer: Observer | None = None,
    is_new: bool = False,
) -> Result:
    """The profile of a compressed model: the stored one, or a new one that is stored then.

    The dense model is the compressed one with each product as one weight: it has the shapes, the
    bytes and the speed of the model that was compressed.

    Args:
        is_new: whether to measure again what is stored.

    Raises:
        NsvdError: the model cannot be made or has no low-rank layers, or the store cannot be
            written; what is stored is damaged.
    """
    protocol, observer = protocol or Protocol(), observer or Observer()
    made_with = environment(subject.device)
    identity = {
        "subject": subject.identity,
        "protocol": {name: _plain(value) for name, value in asdict(protocol).items()},
        **{name: made_with[name] for name in ("device", "hardware", "threads", "libraries")},
        "version": VERSION,
    }
    file = subject_file(subject.results_dir, PROFILE, subject.name, identity)
    with file.lock(log.warning):
        known = None if is_new else file.read()
        if known is not None:
            return known
        with memory_to("hold both models", subject.device), subject.compressed() as loaded:
            measured = _measured(loaded, protocol, observer)
            disk = _disk_bytes(loaded, file)
            dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
        record = _started(subject, file, dtype) | {
            name: {"disk_bytes": disk[name], **_recorded(profile)}
            for name, profile in measured.items()
        }
        record["environment"] = made_with
        file.write(record)
    return record


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _measured(loaded: Loaded, protocol: Protocol, observer: Observer) -> dict[str, Profile]:
    twins = multiplied_out(loaded.model)
    if not twins:
        raise NsvdError("this model has no low-rank layer: it is compared with the dense model")
    versions: dict[str, Version] = {
        "dense": lambda: replaced(loaded.model, twins),
        "compressed": nullcontext,
    }
    return profiles(loaded.model, versions, protocol, observer.progress("profile"))


def _disk_bytes(loaded: Loaded, file: ResultFile) -> dict[str, int]:
    """What the weights take in files, of both versions: each is saved, and removed again."""
    sizes = {}
    for name, format in (("dense", "dense"), ("compressed", "factors")):
        scratch = ScratchFolder(file.folder, ".nsvd_exp-size-")
        try:
            saved = save(loaded.model, scratch.path / name, format=format)
            sizes[name] = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
        finally:
            scratch.remove()
    return sizes


def _started(subject: Subject, file: ResultFile, dtype: str) -> Result:
    cell = subject.result or {}
    return {
        "version": PROFILE.version,
        "status": "done",
        "key": file.key,
        "identity": file.identity,
        "created": now(),
        "subject": subject.name,
        "model": subject.title,
        "cell": cell.get("key"),
        **{name: cell.get(name) for name in ("method", "ratio", "k1", "achieved_ratio")},
        "dtype": dtype,
    }


def _recorded(profile: Profile) -> dict[str, Any]:
    recorded = {
        name: getattr(profile, name)
        for name in ("parameters", "memory_bytes", "step_bytes", "peak_bytes")
    }
    for kind in ("prefill", "decode"):
        recorded[kind] = [
            {
                "batch": speed.batch,
                "length": speed.length,
                "tokens_per_second": speed.tokens_per_second,
                "seconds": list(speed.seconds),
                "flops": speed.flops,
            }
            for speed in getattr(profile, kind)
        ]
    return recorded
