"""Whether a stored number was made as the paper made its own, and how a run would be repeated.

What the paper's protocol is stands in `conf/`, and is read from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nsvd_exp.config.files import conf_dir, model_named, register
from nsvd_exp.config.schema import DatasetConfig, ModelConfig
from nsvd_exp.data.sources import hub_identity
from nsvd_exp.report import paper
from nsvd_exp.report.numbers import Number
from nsvd_exp.storage.results import Result

PAPERS_LENGTH = 2048  # tokens, of a calibration sample and of a window


@cache
def model_files() -> dict[str, str]:
    """Name of the file in `conf/model` by the model's title."""
    titles = {}
    for path in sorted((conf_dir() / "model").glob("*.yaml")):
        if path.stem != "hf":
            titles[_model(path.stem).title] = path.stem
    return titles


@cache
def _model(name: str) -> ModelConfig:
    register()  # the resolvers that the files use
    return model_named(name, "main")


@cache
def _dataset(name: str) -> DatasetConfig | None:
    path = conf_dir() / "dataset" / f"{name}.yaml"
    if not path.is_file():
        return None
    dataset = OmegaConf.to_object(OmegaConf.merge(DatasetConfig, OmegaConf.load(path)))
    assert isinstance(dataset, DatasetConfig)
    return dataset


@cache
def dataset_titles() -> dict[str, str]:
    """The paper's eight sets: titles, by name."""
    found = {name: _dataset(name) for name in paper.datasets()}
    return {name: dataset.title for name, dataset in found.items() if dataset is not None}


@cache
def default_calibration(model: str | None = None) -> dict[str, Any]:
    """`conf/calibration/default.yaml`, with what the file of a model (its title) says besides."""
    file = None if model is None else model_files().get(model)
    own = {} if file is None else _load(f"model/{file}.yaml").get("calibration", {})
    return _load("calibration/default.yaml") | own


def _load(name: str) -> dict[str, Any]:
    written = OmegaConf.load(conf_dir() / name)
    assert isinstance(written, DictConfig)
    # Not resolved: nothing that refers to other files is asked for.
    content = OmegaConf.to_container(written)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def is_papers(number: Number) -> bool:
    """Whether model, calibration and text are those of the paper's protocol, from the hub.

    A local mirror does not count: nothing says that it holds the same text.
    """
    return (
        _is_papers_model(number.cell)
        and _is_papers_text(number.stored["identity"], number.dataset)
        and _is_papers_calibration(number.cell["identity"].get("calibration"))
    )


def is_papers_similarity(record: Result) -> bool:
    """The same of a similarity record."""
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
        and identity["length"] == PAPERS_LENGTH
        and _is_source(identity["source"], "wikitext2", "train")
    )


def _is_source(source: dict[str, Any], name: str, split: str) -> bool:
    dataset, commit = _dataset(name), source.get("commit")
    return (
        dataset is not None
        and commit is not None
        and source == hub_identity(dataset, split, commit)
        and _is_revision(commit, dataset.revision)
    )


def _is_revision(commit: str, revision: str) -> bool:
    """A pinned revision must be this commit; of a branch nothing more is known."""
    pinned = len(revision) == 40
    return commit == revision or not pinned
