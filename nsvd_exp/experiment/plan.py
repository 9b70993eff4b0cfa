"""What a cell is: its identity, the keys of its numbers, whether it is done. Imports no torch.

A cell is (model, dtype, method, ratio, k1, solver, calibration), less what its method does not
have: `dense` has model and dtype alone, `svd` no calibration, methods of one stage no k1. The
datasets are not part of it: each number inside the cell has a key of its own. Batch sizes, devices,
paths and titles change no number and stand in no key.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.config.files import expand_path, model_named
from nsvd_exp.config.schema import (
    CalibrationConfig,
    Config,
    DatasetConfig,
    MethodConfig,
    ModelConfig,
)
from nsvd_exp.data.sources import DatasetSource, locate_dataset
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.improvement import REFERENCE_METHOD
from nsvd_exp.models.devices import resolve_device
from nsvd_exp.models.hub import ModelSource, locate_model, resolve_dtype, resolve_length
from nsvd_exp.storage.keys import decimal_text, digest
from nsvd_exp.storage.results import Cell, Result, cell_for, find_number

# Raise one when the code of that stage changes a number: old results then count as missing.
STAGE_VERSIONS = {"calibrate": 1, "decompose": 1, "evaluate": 1, "similarity": 1}

SETTINGS_WITHOUT_A_NUMBER = (
    *("data_dir", "results_dir", "cache_dir", "cache", "device", "memory", "tracking"),
    *("report", "measure", "similarity"),
)


@dataclass(frozen=True)
class PlannedNumber:
    """One perplexity to measure: a dataset at one state, under one protocol."""

    dataset: DatasetConfig
    source: DatasetSource
    identity: dict[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)


@dataclass(frozen=True)
class PlannedTokenizer:
    """Another model's tokenizer, to draw the calibration's ids."""

    source: ModelSource
    config: ModelConfig


@dataclass(frozen=True)
class PlannedCalibration:
    """The statistics a cell needs. `identity` is what they are kept under."""

    source: DatasetSource
    tokenizer: PlannedTokenizer | None
    identity: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """What the user asked for, resolved: nothing in it says `auto` or `main` any more.

    Attributes:
        dtype, evaluation_dtype: of the model, and of the arithmetic of its evaluation.
        length: tokens a window.
        calibration: None for methods that look at no activations.
        numbers: one a dataset, in the order asked for.
    """

    config: Config
    model: ModelSource
    device: str
    dtype: str
    evaluation_dtype: str
    length: int
    calibration: PlannedCalibration | None
    numbers: list[PlannedNumber]

    @property
    def cache_dir(self) -> Path:
        """Where what cells share is kept."""
        return Path(expand_path(self.config.cache_dir))

    @property
    def results_dir(self) -> Path:
        """Where the store is."""
        return Path(expand_path(self.config.results_dir))


@dataclass(frozen=True)
class Plan(Resolved):
    """A cell to be done."""

    cell: Cell

    def found(self, result: Result | None) -> dict[str, Result]:
        """The stored measurements that this plan asks for, by dataset."""
        numbers = {n.dataset.name: find_number(result, n.dataset.name, n.key) for n in self.numbers}
        return {name: number for name, number in numbers.items() if number is not None}

    def missing(self, result: Result | None) -> list[PlannedNumber]:
        """The numbers that the stored result does not have."""
        found = self.found(result)
        return [number for number in self.numbers if number.dataset.name not in found]

    def is_done(self, result: Result | None) -> bool:
        """Whether every number that this plan asks for is there.

        A cell may hold them and have failed all the same, at a dataset that another run asked for.
        """
        return result is not None and result["status"] != "partial" and not self.missing(result)


def plan_cell(config: Config) -> Plan:
    """The cell that the user asked for. Reads files and may ask the hub; changes nothing.

    Raises:
        NsvdError: as `resolve`.
    """
    resolved = resolve(config, config.method.calibrated)
    return Plan(**vars(resolved), cell=cell_for(resolved.results_dir, _identity(resolved)))


def resolve(config: Config, calibrated: bool) -> Resolved:
    """Resolve what the user asked for. Reads files and may ask the hub; changes nothing.

    Args:
        calibrated: whether it needs calibration statistics.

    Raises:
        NsvdError: model or dataset cannot be found, or a length is more than the model takes.
    """
    located = locate_model(config.model.name, config.model.revision)
    model = _with_options(located, config.model)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device, model)
    evaluation_dtype = config.evaluation.dtype or dtype
    length = resolve_length("evaluation.length", config.evaluation.length, model, config.model)
    if calibrated:
        asked = config.calibration.length
        sample_length = resolve_length("calibration.length", asked, model, config.model)
        calibration = dataclasses.replace(config.calibration, length=sample_length)
        config = dataclasses.replace(config, calibration=calibration)
    planned = _plan_calibration(config, model, dtype) if calibrated else None
    numbers = [
        _plan_number(config, dataset, length, dtype, evaluation_dtype)
        for dataset in config.dataset.values()
    ]
    return Resolved(config, model, device, dtype, evaluation_dtype, length, planned, numbers)


def _identity(resolved: Resolved) -> dict[str, Any]:
    config, method, calibration = resolved.config, resolved.config.method, resolved.calibration
    identity: dict[str, Any] = {
        "model": resolved.model.identity,
        "dtype": resolved.dtype,
        "method": method_identity(method),
    }
    if method.compresses:
        identity["ratio"] = decimal_text(config.ratio)
        identity["solver"] = config.solver
        identity["skip"] = sorted(config.model.skip)
        identity["version"] = STAGE_VERSIONS["decompose"]
    if method.nested:
        identity["k1"] = decimal_text(config.k1)
    if calibration is not None:
        identity["calibration"] = calibration.identity["tokens"]
    return identity


def method_identity(method: MethodConfig) -> dict[str, Any]:
    """What defines a method, without the settings it does not have."""
    return {k: v for k, v in dataclasses.asdict(method).items() if v is not None}


def _plan_calibration(config: Config, model: ModelSource, dtype: str) -> PlannedCalibration:
    calibration = config.calibration
    source = locate_dataset(calibration.dataset, calibration.split, config.data_dir)
    tokenizer = _plan_tokenizer(config)
    tokens = {
        "source": source.identity,
        "samples": calibration.samples,
        "length": calibration.length,
        "seed": calibration.seed,
        "sampler": calibration.sampler,
        "tokenizer": tokenizer.source.identity if tokenizer else None,
        "version": STAGE_VERSIONS["calibrate"],
    }
    identity = {
        "model": model.identity,
        "dtype": dtype,
        "skip": sorted(config.model.skip),
        "tokens": tokens,
    }
    return PlannedCalibration(source, tokenizer, identity)


def _plan_tokenizer(config: Config) -> PlannedTokenizer | None:
    calibration = config.calibration
    if calibration.tokenizer is None:
        return None
    model = model_named(calibration.tokenizer, calibration.tokenizer_revision)
    model.trust_remote_code |= config.model.trust_remote_code
    try:
        source = locate_model(model.name, model.revision, tokenizer_only=True)
    except NsvdError as error:
        raise NsvdError(f"calibration.tokenizer={calibration.tokenizer}: {error}") from None
    return PlannedTokenizer(_with_options(source, model), model)


def _with_options(source: ModelSource, config: ModelConfig) -> ModelSource:
    """The source with those options in its identity that change what is loaded from it."""
    options: dict[str, Any] = {}
    if config.tokenizer:
        options["tokenizer"] = config.tokenizer
    if config.trust_remote_code:
        options["remote_code"] = True
    return dataclasses.replace(source, identity={**source.identity, **options})


def _plan_number(
    config: Config, dataset: DatasetConfig, length: int, dtype: str, evaluation_dtype: str
) -> PlannedNumber:
    source = locate_dataset(dataset, "test", config.data_dir)
    identity = {
        "source": source.identity,
        "length": length,
        "max_windows": config.evaluation.max_windows,
        "version": STAGE_VERSIONS["evaluate"],
    }
    if evaluation_dtype != dtype:
        identity["dtype"] = evaluation_dtype
    return PlannedNumber(dataset, source, identity)


def dense_of(config: Config) -> Config:
    """The same with `method=dense`: what a compressed model is compared with."""
    return dataclasses.replace(config, method=MethodConfig(name="dense", whitening=None))


def reference_of(config: Config) -> Config:
    """The same with `method=asvd_i`: what the improvement of a method is taken over."""
    return dataclasses.replace(config, method=MethodConfig(REFERENCE_METHOD, "cholesky"))


def public_config(plan: Resolved) -> dict[str, Any]:
    """The configuration as it goes into the result: resolved, and without any path."""
    config = dataclasses.asdict(plan.config)
    for name in SETTINGS_WITHOUT_A_NUMBER:
        del config[name]
    config["dtype"] = plan.dtype
    config["evaluation"]["dtype"] = plan.evaluation_dtype
    config["evaluation"]["length"] = plan.length
    config["method"] = method_identity(plan.config.method)
    config["model"] |= {"name": public_name(plan.model), "revision": plan.model.commit}
    if plan.calibration is None:
        del config["calibration"]
    elif plan.calibration.tokenizer is not None:
        config["calibration"]["tokenizer"] = public_name(plan.calibration.tokenizer.source)
    return config


def public_name(source: ModelSource) -> str:
    """The hub id, or the folder's own name without its place."""
    return Path(source.name).name if source.is_local else source.name


def calibration_title(calibration: CalibrationConfig) -> str:
    """For people: `256 x 2048 tokens of wikitext2 train`."""
    return (
        f"{calibration.samples} x {calibration.sample_length} tokens of "
        f"{calibration.dataset.name} {calibration.split}"
    )
