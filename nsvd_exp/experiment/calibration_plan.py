"""Which statistics a job needs, and what they are kept under: plans of calibrations and gradients.

Imports no torch. Batch sizes, devices, paths and titles change no number and stand in no key.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.config.files import dataset_named, expand_path, group_choices, model_named
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import CalibrationConfig, DatasetConfig, ModelConfig
from nsvd_exp.data.sources import DatasetSource, locate_dataset
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.models.sources import ModelSource, locate_model
from nsvd_exp.storage.keys import decimal_text

# Raise one when the code of that stage changes a number: old results then count as missing.
STAGE_VERSIONS = {
    "calibrate": 1,
    "decompose": 1,
    "evaluate": 1,
    "similarity": 1,
    "gradients": 1,
    "zeroshot": 1,
}

RANDOM = "random"
"""The source of `calibration.mix` that is no text: token ids, each as likely as any other."""


@dataclass(frozen=True)
class PlannedTokenizer:
    """Another model's tokenizer, to draw the calibration's ids."""

    source: ModelSource
    config: ModelConfig


@dataclass(frozen=True)
class PlannedCalibration:
    """The statistics that a job needs; `identity` is what they are kept under.

    Attributes:
        config: with its length resolved.
        source: None for random token ids.
        parts: of a mix, its sources with their weights, which sum to 1, each kept on its own.
    """

    config: CalibrationConfig
    source: DatasetSource | None
    tokenizer: PlannedTokenizer | None
    identity: dict[str, Any]
    parts: tuple[tuple[float, PlannedCalibration], ...] = ()

    @property
    def sources(self) -> list[PlannedCalibration]:
        """The plan of each source; without a mix this one."""
        return [part for _, part in self.parts] or [self]


@dataclass(frozen=True)
class PlannedGradients:
    """The gradients that a job needs; `identity` is what they are kept under.

    Attributes:
        samples: the plan of the samples, the first of which are taken backwards.
        tensors: of TENSORS, which are needed for each layer. They are not in the identity: who has
            more of them serves who needs fewer.
    """

    samples: PlannedCalibration
    tensors: frozenset[str]
    identity: dict[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """The identity without that of the samples."""
        return dict(self.identity["gradients"])

    def serves(self, other: PlannedGradients) -> bool:
        """Whether who has the gradients of this plan has those of the other."""
        return self.tensors >= other.tensors and self.identity == other.identity


def plan_calibration(config: Config, model: ModelSource, dtype: str) -> PlannedCalibration:
    """The calibration of a configuration; of a mix with a plan for each of its sources."""
    asked, about = config.calibration, {"model": model.identity, "dtype": dtype}
    about["skip"] = sorted(config.model.skip)
    alone = dataclasses.replace(asked, mix={})
    first = _plan_source(config, alone, about)
    if not asked.mix:
        return first
    parts = {
        name: _plan_source(config, dataclasses.replace(alone, dataset=dataset), about)
        for name, dataset in _mixed_datasets(config).items()
    }
    tokens = dict(first.identity["tokens"])
    tokens["mix"] = {
        name: part.identity["tokens"] | {"weight": decimal_text(asked.mix[name])}
        for name, part in parts.items()
    }
    # What is left of 1, in the decimals that were typed.
    rest = float(1 - sum(Fraction(repr(weight)) for weight in asked.mix.values()))
    weighed = [(rest, first), *((asked.mix[name], part) for name, part in parts.items())]
    identity = about | {"tokens": tokens}
    return PlannedCalibration(asked, first.source, first.tokenizer, identity, tuple(weighed))


def _plan_source(
    config: Config, calibration: CalibrationConfig, about: dict[str, Any]
) -> PlannedCalibration:
    """The statistics of one dataset, or of random token ids."""
    tokens: dict[str, Any] = {"samples": calibration.samples, "length": calibration.length}
    tokens |= {"seed": calibration.seed, "version": STAGE_VERSIONS["calibrate"]}
    source = tokenizer = None
    if calibration.dataset.name == RANDOM:
        tokens["source"] = RANDOM
    else:
        source = locate_dataset(calibration.dataset, calibration.split, data_dirs(config))
        tokenizer = _plan_tokenizer(config)
        tokens |= {
            "source": source.identity,
            "sampler": calibration.sampler,
            "tokenizer": tokenizer.source.identity if tokenizer else None,
        }
    return PlannedCalibration(calibration, source, tokenizer, about | {"tokens": tokens})


def plan_gradients(
    config: Config, samples: PlannedCalibration, tensors: frozenset[str]
) -> PlannedGradients:
    """Gradients on the first samples of the calibration set, without what is mixed with it."""
    calibration = config.calibration
    about = {
        "samples": min(calibration.gradient_samples, calibration.samples),
        "labels": calibration.labels,
        "version": STAGE_VERSIONS["gradients"],
    }
    return PlannedGradients(samples, tensors, samples.identity | {"gradients": about})


def _mixed_datasets(config: Config) -> dict[str, DatasetConfig]:
    """The sources of `calibration.mix`: a file of `conf/dataset`, or one of the evaluation sets.

    Raises:
        NsvdError: there is no such dataset, or it is the calibration set itself.
    """
    known = [RANDOM, *group_choices("dataset"), *config.dataset]
    found = {}
    for name in config.calibration.mix:
        if name not in known:
            raise unknown_name("source of calibration.mix", name, known)
        if name == config.calibration.dataset.name:
            raise NsvdError(
                f"calibration.mix: {name} is the calibration set itself, which has what is left "
                "of 1: name other sources"
            )
        if name == RANDOM:
            found[name] = DatasetConfig(name=RANDOM, title="random token ids")
        elif name in group_choices("dataset"):
            found[name] = dataset_named(name)
        else:
            found[name] = config.dataset[name]
    return found


def _plan_tokenizer(config: Config) -> PlannedTokenizer | None:
    calibration = config.calibration
    if calibration.tokenizer is None:
        return None
    model = model_named(calibration.tokenizer, calibration.tokenizer_revision)
    model.trust_remote_code |= config.model.trust_remote_code
    try:
        source = locate_model(model.name, model.revision, model.gguf_file, tokenizer_only=True)
    except NsvdError as error:
        raise NsvdError(f"calibration.tokenizer={calibration.tokenizer}: {error}") from None
    return PlannedTokenizer(with_options(source, model), model)


def with_options(source: ModelSource, config: ModelConfig) -> ModelSource:
    """The source with those options in its identity that change what is loaded from it."""
    options: dict[str, Any] = {}
    if config.tokenizer:
        options["tokenizer"] = config.tokenizer
    if config.trust_remote_code:
        options["remote_code"] = True
    return dataclasses.replace(source, identity={**source.identity, **options})


def data_dirs(config: Config) -> list[str]:
    """The folders of local text, in the order in which they are looked through."""
    if not isinstance(config.data_dir, list):
        return [config.data_dir] if config.data_dir else []
    is_bundled = Path(expand_path(config.model.name)) == MODEL_DIR
    return [*config.data_dir, *([str(TEXT_DIR)] if is_bundled else [])]


def calibration_title(calibration: CalibrationConfig) -> str:
    """For people: `256 x 2048 tokens of wikitext2 train`."""
    size = f"{calibration.samples} x {calibration.sample_length}"
    if calibration.dataset.name == RANDOM:
        return f"{size} random token ids"
    return f"{size} tokens of {calibration.dataset.name} {calibration.split}" + _with_mix(
        calibration
    )


def _with_mix(calibration: CalibrationConfig) -> str:
    parts = [f"{weight:g} of {name}" for name, weight in calibration.mix.items()]
    return f", mixed with {', '.join(parts)}" if parts else ""
