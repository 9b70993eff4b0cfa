"""What the user asked for, resolved: it no longer says `auto` or `main`. Imports no torch.

Batch sizes, devices, paths and titles change no number and stand in no key.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.config.classes import build, refuse_unknown
from nsvd_exp.config.files import expand_path
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig
from nsvd_exp.data.sources import DatasetSource, locate_dataset
from nsvd_exp.experiment.calibration_plan import (
    STAGE_VERSIONS,
    PlannedCalibration,
    PlannedGradients,
    data_dirs,
    plan_calibration,
    plan_gradients,
    with_options,
)
from nsvd_exp.methods import Allocation, Method
from nsvd_exp.models.devices import resolve_device
from nsvd_exp.models.sources import (
    PACKAGE,
    ModelSource,
    locate_model,
    resolve_dtype,
    resolve_length,
)
from nsvd_exp.models.storage import Storage
from nsvd_exp.storage.keys import decimal_text, digest

SETTINGS_WITHOUT_A_NUMBER = (
    *("data_dir", "results_dir", "cache_dir", "cache", "device", "memory", "tracking"),
    *("report", "measure", "similarity", "zeroshot", "tasks", "tasks_dir"),
    *("export", "export_format", "push_to_hub", "generate"),
)


@dataclass(frozen=True)
class Choices:
    """The objects that the configuration's blocks describe.

    Attributes:
        method: None for `dense`.
    """

    method: Method | None
    allocation: Allocation
    storage: Storage

    @property
    def reads_gradients(self) -> bool:
        """Whether gradients of the loss are looked at."""
        method = self.method
        return method is not None and (method.reads_gradients or self.allocation.reads_gradients)

    @property
    def is_calibrated(self) -> bool:
        """Whether activations are looked at, as they are wherever gradients are."""
        method = self.method
        return method is not None and (method.is_calibrated or self.reads_gradients)


def choices_of(config: Config) -> Choices:
    """The method, allocation and storage of a configuration.

    Raises:
        NsvdError: a class or a field that is not there, or a value that it refuses.
    """
    method = None
    if config.compresses:
        method = build(Method, config.method, "method")
    else:
        refuse_unknown(config.method, (), "method", config.method["name"])
    return Choices(
        method,
        build(Allocation, config.allocation, "allocation"),
        build(Storage, config.storage, "storage"),
    )


@dataclass(frozen=True)
class PlannedMeasurement:
    """One perplexity to measure: a dataset at one state, under one protocol."""

    dataset: DatasetConfig
    source: DatasetSource
    identity: dict[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of the identity."""
        return digest(self.identity)


@dataclass(frozen=True)
class Resolved:
    """A configuration with everything in it resolved.

    Attributes:
        dtype, evaluation_dtype: of the model, and of the arithmetic of its evaluation.
        length: tokens a window.
        calibration: None where no activations are looked at.
        gradients: None where none are looked at.
        measurements: one for each dataset, in the order asked for.
    """

    config: Config
    choices: Choices
    model: ModelSource
    device: str
    dtype: str
    evaluation_dtype: str
    length: int
    calibration: PlannedCalibration | None
    gradients: PlannedGradients | None
    measurements: list[PlannedMeasurement]

    @property
    def cache_dir(self) -> Path:
        """Where what cells share is kept."""
        return Path(expand_path(self.config.cache_dir))

    @property
    def results_dir(self) -> Path:
        """Where the store is."""
        return Path(expand_path(self.config.results_dir))


def resolve(config: Config, calibrated: bool | None = None, is_measured: bool = True) -> Resolved:
    """Resolve what the user asked for. Reads files and may ask the hub; changes nothing.

    Args:
        calibrated: whether it needs calibration statistics; None: as its method does.
        is_measured: whether its datasets are to be there.

    Raises:
        NsvdError: model or dataset cannot be found, or a length is more than the model takes.
    """
    choices = choices_of(config)
    reads_gradients = calibrated is None and choices.reads_gradients
    if calibrated is None:
        calibrated = choices.is_calibrated
    named = config.model
    located = locate_model(named.name, named.revision, named.gguf_file)
    model = with_options(located, config.model)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device, model)
    evaluation_dtype = config.evaluation.dtype or dtype
    length = resolve_length("evaluation.length", config.evaluation.length, model, config.model)
    if calibrated:
        asked = config.calibration.length
        sample_length = resolve_length("calibration.length", asked, model, config.model)
        calibration = dataclasses.replace(config.calibration, length=sample_length)
        config = dataclasses.replace(config, calibration=calibration)
    planned = plan_calibration(config, model, dtype) if calibrated else None
    gradients = None
    if planned is not None and reads_gradients:
        assert choices.method is not None
        tensors = choices.method.reads_of_gradients
        gradients = plan_gradients(config, planned.sources[0], tensors)
    measurements = [
        _plan_measurement(config, dataset, length, dtype, evaluation_dtype)
        for dataset in (config.dataset.values() if is_measured else ())
    ]
    return Resolved(
        config,
        choices,
        model,
        device,
        dtype,
        evaluation_dtype,
        length,
        planned,
        gradients,
        measurements,
    )


def class_identity(built: Any) -> dict[str, Any]:
    """What defines an object that a block of the configuration describes: its class and fields.

    A class of this package is known by its name, so that it may move; another by its dotted path.
    """
    cls = type(built)
    ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
    fields = {f.name: _plain(getattr(built, f.name)) for f in dataclasses.fields(cls) if f.init}
    return {"class": cls.__name__ if ours else f"{cls.__module__}.{cls.__qualname__}", **fields}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return class_identity(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return decimal_text(value) if isinstance(value, float) else value


def _plan_measurement(
    config: Config, dataset: DatasetConfig, length: int, dtype: str, evaluation_dtype: str
) -> PlannedMeasurement:
    source = locate_dataset(dataset, "test", data_dirs(config))
    identity = {
        "source": source.identity,
        "length": length,
        "max_windows": config.evaluation.max_windows,
        "version": STAGE_VERSIONS["evaluate"],
    }
    if config.evaluation.bos != "first":
        identity["bos"] = config.evaluation.bos
    if evaluation_dtype != dtype:
        identity["dtype"] = evaluation_dtype
    return PlannedMeasurement(dataset, source, identity)


def public_config(resolved: Resolved) -> dict[str, Any]:
    """The configuration as it goes into the result: resolved, and without any path."""
    config = dataclasses.asdict(resolved.config)
    for name in SETTINGS_WITHOUT_A_NUMBER:
        del config[name]
    del config["model"]["strict"]
    if config["model"]["gguf_file"] is None:
        del config["model"]["gguf_file"]  # as before there was such a thing
    config["dtype"] = resolved.dtype
    config["evaluation"]["dtype"] = resolved.evaluation_dtype
    config["evaluation"]["length"] = resolved.length
    if config["evaluation"]["bos"] == "first":
        del config["evaluation"]["bos"]  # as before there was a choice
    if not resolved.config.model.name.startswith(PACKAGE):  # such a name holds no path
        config["model"]["name"] = public_name(resolved.model)
    config["model"]["revision"] = resolved.model.commit
    if not config["calibration"]["mix"]:
        del config["calibration"]["mix"]  # as before there was one
    if resolved.gradients is None:
        for name in ("gradient_samples", "labels"):
            del config["calibration"][name]
    if resolved.calibration is None:
        del config["calibration"]
    elif resolved.calibration.tokenizer is not None:
        config["calibration"]["tokenizer"] = public_name(resolved.calibration.tokenizer.source)
    return config


def public_name(source: ModelSource) -> str:
    """The hub id, or the folder's own name without its place."""
    return Path(source.name).name if source.is_local else source.name
