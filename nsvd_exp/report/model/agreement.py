"""What two stored results must agree in before they are compared or averaged.

Two measurements stand in one table only where model, precision, solver, calibration, protocol, text
and tokens are the same. All of this is flattened into one `Agreement` per measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nsvd_exp.config.checks import shown
from nsvd_exp.storage.results import Result

Agreement = dict[str, str]
"""The settings behind a measurement, as text, by name."""

SHOWN_DIGITS = 12  # of a hash


def cell_agreement(result: Result) -> Agreement:
    """What the measurements of a cell depend on, without the calibration's seed.

    A setting that the method does not have is left out, so the cell agrees with any value of it.
    """
    identity = result["identity"]
    agreement = _flat("model", identity["model"])
    agreement["dtype"] = identity["dtype"]
    if identity["method"] is not None:
        # The rows of one table differ in the method's fields, the mix, the gradients' samples and
        # labels, the allocation, the storage.
        leaves = _flat(f"method {result['method']}", identity["method"])
        agreement |= {k: v for k, v in leaves.items() if k.endswith((".class", ".version"))}
    if "gradients" in identity:
        agreement["gradients"] = str(identity["gradients"]["version"])
    for name, title in (("solver", "solver"), ("skip", "model.skip"), ("version", "decomposition")):
        if name in identity:
            agreement[title] = str(identity[name])
    calibration = identity.get("calibration")
    if calibration is not None:
        leaves = _flat("calibration", {k: v for k, v in calibration.items() if k != "seed"})
        agreement |= {k: v for k, v in leaves.items() if not _is_of_a_mix(k)}
        if result["calibration"] is not None:
            tokens = f"calibration tokens of seed {calibration['seed']}"
            agreement[tokens] = result["calibration"]["token_sha256"]
    return agreement


def _is_of_a_mix(name: str) -> bool:
    """Whether this is the weight or the seed of a source that was mixed in."""
    return name.startswith("calibration.mix.") and name.endswith((".weight", ".seed"))


def evaluation_agreement(measurement: Mapping[str, Any]) -> Agreement:
    """What one stored measurement depends on besides its cell: protocol, text and tokens."""
    identity, name = measurement["identity"], measurement["dataset"]
    agreement = {
        "evaluation.length": str(measurement["length"]),
        "evaluation.max_windows": str(measurement["max_windows"]),
        "evaluation.bos": _bos(identity),
        "evaluation.dtype": measurement["dtype"],
        "evaluation": str(identity["version"]),
        f"tokens of {name}": measurement["token_sha256"],
    }
    return agreement | _flat(name, identity["source"])


def _bos(protocol: Mapping[str, Any]) -> str:
    return "each" if protocol.get("bos") == "window" else "the first"


def similarity_agreement(record: Result) -> Agreement:
    """What a similarity record depends on."""
    identity, dataset = record["identity"], record["dataset"]
    protocol = identity["dataset"]
    agreement = {
        "dtype": identity["dtype"],
        "model.skip": str(identity["skip"]),
        "similarity": str(identity["version"]),
        "evaluation.length": str(protocol["length"]),
        "evaluation.max_windows": str(protocol["max_windows"]),
        "evaluation.bos": _bos(protocol),
        "calibration tokens": record["calibration"]["token_sha256"],
        f"tokens of {dataset['name']}": dataset["token_sha256"],
    }
    agreement |= _flat("model", identity["model"]) | _flat("calibration", identity["calibration"])
    return agreement | _flat(dataset["name"], protocol["source"])


def _flat(prefix: str, tree: Mapping[str, Any]) -> Agreement:
    """`{"a": {"b": 1}}` as `{"prefix.a.b": "1"}`."""
    leaves: Agreement = {}
    for name, value in tree.items():
        key = f"{prefix}.{name}"
        leaves |= _flat(key, value) if isinstance(value, Mapping) else {key: str(value)}
    return leaves


def agrees(one: Agreement, other: Agreement) -> bool:
    """Whether the two have the same value wherever both have one."""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def merged(seen: Iterable[Agreement]) -> list[Agreement]:
    """The largest agreements without a contradiction; each of `seen` agrees with one or more."""
    count = Counter(frozenset(agreement.items()) for agreement in seen)
    # The most specific ones first: what leaves a setting open joins those that have fixed it.
    ordered = sorted(count, key=lambda items: (len(items), count[items]), reverse=True)
    largest: list[Agreement] = []
    for agreement in map(dict, ordered):
        fitting = [known for known in largest if agrees(agreement, known)]
        for known in fitting:
            known |= agreement
        if not fitting:
            largest.append(agreement)
    return largest


# What a setting is called; `{}` is its value. A setting that is not here goes by its own name.
WORDS = {
    "dtype": "weights in {}",
    "solver": "solver {}",
    "model.skip": "without the layers {}",
    "decomposition": "version {} of the decomposition",
    "evaluation": "version {} of the evaluation",
    "gradients": "version {} of the gradients",
    "evaluation.length": "windows of {} tokens",
    "evaluation.max_windows": "{} windows per set",
    "evaluation.bos": "BOS at the start of {} window",
    "evaluation.dtype": "evaluated in {}",
    "calibration.samples": "calibrated on {} samples",
    "calibration.length": "calibration samples of {} tokens",
    "calibration.sampler": "calibration samples drawn as {} does",
    "calibration.tokenizer": "calibration samples drawn by the tokenizer {}",
    "calibration.version": "version {} of the calibration",
    "calibration.source.hub": "calibrated on {}",
    "calibration.source.sha256": "calibrated on the file {}",
}
WORDS_WITHOUT_A_VALUE = {
    "model.skip": "no layer skipped",
    "evaluation.max_windows": "all windows of each set",
    "calibration.tokenizer": "calibration samples drawn by the model's own tokenizer",
}


def differences(one: Agreement, other: Agreement) -> list[str]:
    """Where `one` differs from `other`, in words: `2 windows per set`."""
    differ = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    # Other settings give other tokens: tokens are named only where nothing else explains them.
    causes = [name for name in differ if not _is_about_tokens(name)]
    return [shown(_words(name, one[name])) for name in causes or differ]


def _words(name: str, value: str) -> str:
    if value in ("None", "[]") and name in WORDS_WITHOUT_A_VALUE:
        return WORDS_WITHOUT_A_VALUE[name]
    if name in WORDS:
        return WORDS[name].format(_short(value.strip("[]").replace("'", "")))
    return f"{name.replace('.', ' ').replace('_', ' ')} {_short(value)}"


def _is_about_tokens(name: str) -> bool:
    return name.startswith(("tokens of ", "calibration tokens"))


def _short(value: str) -> str:
    is_hash = len(value) in (40, 64) and not set(value) - set("0123456789abcdef")
    return value[:SHOWN_DIGITS] if is_hash else value
