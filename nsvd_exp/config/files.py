"""The files of `conf/`, and what Hydra is told to read them: the schema and the resolvers."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.config.schema import Config
from nsvd_exp.config.sections import DatasetConfig, ModelConfig
from nsvd_exp.errors import unknown_name


def conf_dir() -> Path:
    """`conf/`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def model_named(name: str, revision: str) -> ModelConfig:
    """The model of `conf/model/<name>.yaml`, or else the hub id or folder `name` at `revision`."""
    if name not in group_choices("model"):  # as `../method/svd` is not, for one
        return ModelConfig(name=name, title=model_title(name), revision=revision)
    written = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    assert isinstance(written, DictConfig)
    merged = OmegaConf.merge(ModelConfig, written.get("model", written))
    model = OmegaConf.to_object(merged)
    assert isinstance(model, ModelConfig)
    return model


def dataset_named(name: str) -> DatasetConfig:
    """The dataset of `conf/dataset/<name>.yaml`.

    Raises:
        NsvdError: there is no such file.
    """
    if name not in group_choices("dataset"):
        raise unknown_name("dataset", name, group_choices("dataset"))
    written = OmegaConf.load(conf_dir() / "dataset" / f"{name}.yaml")
    dataset = OmegaConf.to_object(OmegaConf.merge(DatasetConfig, written))
    assert isinstance(dataset, DatasetConfig)
    return dataset


def expand_path(path: str) -> str:
    """`~` and environment variables filled in, relative to where the command was typed."""
    return str(Path(os.path.expandvars(os.path.expanduser(path))).absolute())


def model_title(name: str) -> str:
    """The end of a hub name or folder; of a snapshot in the hub cache, that of its repository."""
    path = Path(name)
    if path.parent.name == "snapshots" and path.parents[1].name.startswith("models--"):
        return path.parents[1].name.rpartition("--")[2]
    return path.name


def register() -> None:
    """Make the schema and the resolvers of `conf/` known to Hydra. Safe to call again."""
    ConfigStore.instance().store(name="nsvd_exp_schema", node=Config)
    resolvers = {
        "bundled": lambda part: str({"tiny": MODEL_DIR, "text": TEXT_DIR}[part]),
        "path": expand_path,
        "model_title": model_title,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def group_choices(group: str, more: Sequence[str] = ()) -> list[str]:
    """The files of one folder of `conf/`, and of the same one in other folders like it."""
    folders = [conf_dir(), *(Path(expand_path(folder)) for folder in more)]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


@functools.cache
def files_of(group: str) -> dict[str, dict[str, Any]]:
    """What each file of a folder of `conf/` says, by name."""
    paths = sorted((conf_dir() / group).glob("*.yaml"))
    files: dict[str, Any] = {p.stem: OmegaConf.to_container(OmegaConf.load(p)) for p in paths}
    return files


def method_files() -> dict[str, dict[str, Any]]:
    """What each file of `conf/method/` says, by name, in the order in which tables show them."""
    files = files_of("method")
    return dict(sorted(files.items(), key=lambda item: item[1].get("order", math.inf)))
