"""The paper's protocol, and whether a stored measurement followed it.

The protocol is read from `conf/`: the models, the evaluation sets and the default calibration.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nsvd_exp.config.files import (
    conf_dir,
    dataset_named,
    group_choices,
    model_named,
    register,
)
from nsvd_exp.config.sections import DatasetConfig, ModelConfig
from nsvd_exp.report.model import paper
from nsvd_exp.report.model.measurements import Measurement
from nsvd_exp.storage.results import Result

PAPERS_LENGTH = 2048  # tokens, of a calibration sample and of a window


@cache
def model_files() -> dict[str, str]:
    """The name of each model's file in `conf/model`, by the model's title."""
    return {_model(name).title: name for name in group_choices("model") if name != "hf"}


@cache
def _model(name: str) -> ModelConfig:
    register()  # the resolvers that the files use
    return model_named(name, "main")


@cache
def _dataset(name: str) -> DatasetConfig | None:
    return dataset_named(name) if name in group_choices("dataset") else None


@cache
def dataset_titles() -> dict[str, str]:
    """The titles of the paper's eight evaluation sets, by name."""
    found = {name: _dataset(name) for name in paper.datasets()}
    return {name: dataset.title for name, dataset in found.items() if dataset is not None}


@cache
def default_calibration(model: str | None = None) -> dict[str, Any]:
    """`conf/calibration/default.yaml`, changed by what the model's own file says.

    Args:
        model: a title; None for the default alone.
    """
    file = None if model is None else model_files().get(model)
    own = {} if file is None else _load(f"model/{file}.yaml").get("calibration", {})
    return _load("calibration/default.yaml") | own


def _load(name: str) -> dict[str, Any]:
    written = OmegaConf.load(conf_dir() / name)
    assert isinstance(written, DictConfig)
    # Unresolved: no caller asks for a setting that refers to another file.
    content = OmegaConf.to_container(written)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def is_papers(measurement: Measurement) -> bool:
    """Whether model, calibration and text are those of the paper's protocol, from the hub.

    A local mirror does not count: nothing says that it holds the same text.
    """
    return (
        _is_papers_model(measurement.cell)
        and _is_papers_text(measurement.stored["identity"], measurement.dataset)
        and _is_papers_calibration(measurement.cell["identity"].get("calibration"))
    )


def is_papers_similarity(record: Result) -> bool:
    """Whether a similarity record followed the paper's protocol; see `is_papers`."""
    return (
        _is_papers_model(record)
        and _is_papers_text(record["identity"]["dataset"], record["dataset"]["name"])
        and _is_papers_calibration(record["identity"]["calibration"])
    )


def _is_papers_model(result: Result) -> bool:
    name = model_files().get(result["model"])
    if name is None:
        return False
    model, found = _model(name), result["identity"]["model"]
    return found.get("hub") == model.name and _is_revision(found["commit"], model.revision)


def _is_papers_text(identity: Mapping[str, Any], dataset: str) -> bool:
    full = (identity["length"], identity["max_windows"]) == (PAPERS_LENGTH, None)
    return full and _is_source(identity["source"], dataset, "test")


def _is_papers_calibration(identity: dict[str, Any] | None) -> bool:
    if identity is None:
        return True  # the method has none
    default = default_calibration()
    names = ("samples", "seed", "sampler", "tokenizer")
    return (
        all(identity[name] == default[name] for name in names)
        and "mix" not in identity
        and identity["length"] == PAPERS_LENGTH
        and _is_source(identity["source"], "wikitext2", "train")
    )


def _is_source(source: dict[str, Any], name: str, split: str) -> bool:
    """Whether these rows are the hub's, selected and joined as `conf/dataset/<name>.yaml` says."""
    dataset, commit = _dataset(name), source.get("commit")
    if dataset is None or commit is None:
        return False
    files, split_name = list(dataset.files.get(split, [])), dataset.splits[split]
    expected = vars(dataset) | {"files": files, "split": split_name, "commit": commit}
    # A local file is known by other names (its hash), which the hub's rows do not have.
    return source.items() <= expected.items() and _is_revision(commit, dataset.revision)


def _is_revision(commit: str, revision: str) -> bool:
    """Whether the commit may be that of `revision`: a branch may have been at any commit."""
    pinned = len(revision) == 40
    return commit == revision or not pinned
