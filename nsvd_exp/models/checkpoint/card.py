"""The model card of a compressed model: what it was made of, how, and what it measures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCardData, try_to_load_from_cache
from huggingface_hub.repocard import metadata_load

LICENSE_FIELDS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Perplexity:
    """What was measured on one dataset.

    Attributes:
        dataset: its name.
        value: of the compressed model.
        interval: the ends of its confidence interval, 95 %; None where it is not known.
        dense: of the dense model; None where it is not known.
    """

    dataset: str
    value: float
    interval: tuple[float, float] | None = None
    dense: float | None = None


@dataclass(frozen=True)
class About:
    """What a model card says beyond what the model itself shows. What is not given is left out.

    Attributes:
        method: by which it was compressed.
        ratio: the fraction of the compressed weights' parameters that was to be removed.
        calibration: on what.
        command: that makes it again.
        base: the dense model: its name on the hub, or what it is called.
        revision: its commit.
        license: `license`, `license_name`, `license_link`, as its own card has them (`license_of`).
            Empty: looked up by the name that its configuration has.
        protocol: how perplexities were measured.
        perplexities: one for each dataset.
        layers: rows of the table by layer, as `Compression.layers` or a stored result has them.
    """

    method: str | None = None
    ratio: float | None = None
    calibration: str | None = None
    command: str | None = None
    base: str | None = None
    revision: str | None = None
    license: Mapping[str, str] = field(default_factory=dict)
    protocol: str | None = None
    perplexities: Sequence[Perplexity] = ()
    layers: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Size:
    """What a model with low-rank layers takes.

    Attributes:
        layers: how many there are.
        kept: numbers that stand for their weights.
        weights: numbers of these weights when they were dense.
        parameters: of the whole model; a tied one counts once.
        dtype: of its weights.
    """

    layers: int
    kept: int
    weights: int
    parameters: int
    dtype: str


def is_hub_name(name: str) -> bool:
    """Whether a name is one of a repository on the hub, and of no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()


def license_of(name: str, revision: str | None = None) -> dict[str, str]:
    """The licence of a model, from its card or config.json: of a folder, or in the hub's cache.

    Args:
        name: folder, or name on the hub, which is not asked.
        revision: of the hub's; None: main.

    Returns:
        Those of `LICENSE_FIELDS` that it has; none where nothing says so.
    """
    for file in ("README.md", "config.json"):
        path = _file_of(name, file, revision)
        if path is not None:
            content = _metadata(path) if file == "README.md" else _object(path)
            found = {key: content[key] for key in LICENSE_FIELDS if _is_text(content.get(key))}
            if "license" in found:
                return found
    return {}


def _file_of(name: str, file: str, revision: str | None) -> Path | None:
    path = Path(name) / file
    if is_hub_name(name):
        cached = try_to_load_from_cache(name, file, revision=revision)
        path = Path(cached) if isinstance(cached, str) else path
    return path if path.is_file() else None


def _metadata(card: Path) -> dict[str, Any]:
    try:
        return metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):  # a card with something else at its head
        return {}


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def card(about: About, size: Size, format: str, version: str) -> str:
    """The text of README.md.

    Args:
        format: `factors` or `dense`.
        version: of nsvd_exp.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["nsvd_exp", "low-rank"],
        base_model=about.base if about.base and is_hub_name(about.base) else None,
        **{key: about.license[key] for key in LICENSE_FIELDS if key in about.license},
    )
    base = about.base or "A language model"
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {base}, compressed to low rank",
        _introduction(base, size, format, version),
        _table(("", ""), _how(about)),
        "## Size",
        _table(("", ""), _sizes(size, format)),
        "## Perplexity" if about.perplexities else "",
        _perplexities(about.perplexities),
        about.protocol or "",
        "## Loading",
        _loading(format),
        "[layers.json](layers.json) has one row for each low-rank layer.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(base: str, size: Size, format: str, version: str) -> str:
    made = f"made with nsvd_exp {version}"
    if format == "factors":
        return (
            f"{base} with {size.layers} of its linear layers replaced by low-rank ones, {made}. "
            "Each weight of such a layer is a product of two thin factors."
        )
    return (
        f"{base} with {size.layers} of its linear layers of low rank, {made}. The factors are "
        "multiplied out, for engines that know no factors: each weight is their product, computed "
        f"in float64 and rounded once to {size.dtype}. It is as large as the model that it was "
        "made of, and its logits are those of the factors up to rounding."
    )


def _how(about: About) -> dict[str, str]:
    facts = {
        "method": about.method,
        "parameters to be removed": None if about.ratio is None else f"{about.ratio:.0%}",
        "calibration": about.calibration,
        "command": None if about.command is None else f"`{about.command}`",
        "revision of the dense model": about.revision,
        "licence of the dense model": about.license.get("license_name")
        or about.license.get("license"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sizes(size: Size, format: str) -> dict[str, str]:
    facts = {"parameters": f"{size.parameters:,} ({size.dtype})"}
    if format == "factors" and size.layers:
        dense = size.parameters - size.kept + size.weights
        facts["of the dense model"] = f"{dense:,} ({_removed(size.parameters, dense)} removed)"
        facts["in the low-rank weights"] = (
            f"{size.kept:,} of {size.weights:,} ({_removed(size.kept, size.weights)} removed)"
        )
    return facts


def _removed(kept: int, dense: int) -> str:
    return f"{1 - kept / dense:.2%}"


def _perplexities(measured: Sequence[Perplexity]) -> str:
    rows = {
        one.dataset: (
            f"{one.value:.4f}",
            "" if one.interval is None else "{:.4f} to {:.4f}".format(*one.interval),
            "" if one.dense is None else f"{one.dense:.4f}",
        )
        for one in measured
    }
    return _table(("dataset", "perplexity", "95 % interval", "dense"), rows)


def _loading(format: str) -> str:
    if format == "dense":
        options, note = "", ""
    else:
        options = ", trust_remote_code=True"
        note = (
            "`trust_remote_code=True` runs `modeling_nsvd.py` and `lowrank.py`, which lie beside "
            "the weights. With nsvd_exp installed it is not needed: `import nsvd_exp; "
            "nsvd_exp.register()` first. Without either transformers refuses the weights.\n\n"
        )
    return (
        f"{note}```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'name = "FOLDER"  # this folder, or the name of its repository\n'
        f"model = AutoModelForCausalLM.from_pretrained(name{options})\n"
        "tokenizer = AutoTokenizer.from_pretrained(name)\n```"
    )


def _table(head: Sequence[str], rows: Mapping[str, str | tuple[str, ...]]) -> str:
    """A table of Markdown, without columns that nothing stands in; empty without rows."""
    lines = [(name, *((row,) if isinstance(row, str) else row)) for name, row in rows.items()]
    if not lines:
        return ""
    used = [i for i in range(len(head)) if any(line[i] for line in lines)]
    whole = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(_cell(line[i]) for i in used)} |" for line in whole)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
