"""Models on the hub, in a folder or in a package, and exactly which ones. Imports no torch.

A folder is known by the SHA-256 of its content, a hub repository by its commit: branches and tags
are resolved before anything is keyed by them. The same goes for the length and the dtype that a
model's config.json names, so that whether a cell is done can be told without torch, transformers or
a tokenizer.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsvd_exp.config.files import expand_path
from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.gguf import gguf_config
from nsvd_exp.models.hub import hub_commit, hub_file
from nsvd_exp.storage.files import path_component
from nsvd_exp.storage.keys import file_digest, model_folder_digest

PACKAGE = "package:"

# Of weights that a config.json or an index may name.
WEIGHTS_SUFFIXES = (".safetensors", ".safetensors.index.json")
SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelSource:
    """A model at one exact state.

    Attributes:
        name: folder or hub id, as transformers takes it.
        commit: of the hub repository; None for a folder.
        identity: what keys are made of; holds no path.
        config: its config.json, or what a GGUF file says in place of one.
        gguf_file: the name of the GGUF file that it is read from; None: there is a config.json.
    """

    name: str
    commit: str | None
    identity: dict[str, Any]
    config: dict[str, Any]
    gguf_file: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether `name` is a folder."""
        return self.commit is None


def locate_model(
    name: str, revision: str = "main", gguf_file: str | None = None, tokenizer_only: bool = False
) -> ModelSource:
    """The model folder, or else the hub repository, that `name` stands for.

    Args:
        gguf_file: the name of a GGUF file in it, which then is all that is read of it.
        tokenizer_only: whether a folder without config.json will do.

    Raises:
        NsvdError: neither is there, it has no config.json or no such GGUF file, or names weights
            outside of itself.
    """
    folder = _folder(name)
    if folder.is_dir():
        if gguf_file is not None:
            return _local_gguf(folder, gguf_file)
        config_path = folder / "config.json"
        if not (config_path.is_file() or tokenizer_only):
            raise NsvdError(f"model folder {name} has no config.json{_gguf_advice(folder)}")
        config = _read_json(config_path) if config_path.is_file() else {}
        _refuse_weights_elsewhere(folder, config)
        return ModelSource(str(folder), None, {"sha256": model_folder_digest(folder)}, config)
    if name.startswith(("/", "./", "../", "~")):
        raise NsvdError(f"there is no model folder {folder}")
    commit = hub_commit(name, revision, "model")
    identity = {"hub": name, "commit": commit}
    if gguf_file is not None:
        config = gguf_config(hub_file(name, gguf_file, commit, "model"))
        return ModelSource(name, commit, {**identity, "gguf_file": gguf_file}, config, gguf_file)
    config = _read_json(hub_file(name, "config.json", commit, "model"))
    return ModelSource(name, commit, identity, config)


def _folder(name: str) -> Path:
    """The folder that a model's name stands for, if it is one at all.

    Raises:
        NsvdError: it is to be that of a Python package which is not installed.
    """
    if not name.startswith(PACKAGE):
        return Path(expand_path(name))
    package = name.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise NsvdError(f"model.name={name}: there is no Python package '{package}' installed here")
    return Path(spec.submodule_search_locations[0])


def _local_gguf(folder: Path, file: str) -> ModelSource:
    path = folder / path_component("model.gguf_file", file)
    if not path.is_file():
        raise NsvdError(f"model folder {folder} has no file {file}{_gguf_advice(folder)}")
    return ModelSource(
        str(folder), None, {"gguf_sha256": file_digest(path)}, gguf_config(path), file
    )


def _gguf_advice(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.gguf"))
    return f"; it has GGUF files: model.gguf_file={names[0]}" if names else ""


def _refuse_weights_elsewhere(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a model folder that says its weights are in a file which its digest does not cover.

    A file may be a link, as all are in the hub's cache: the digest is of what is read through it.

    Raises:
        NsvdError: config.json or an index of shards names such a file, or is damaged.
    """
    named: list[tuple[str, Any]] = []
    if "transformers_weights" in config:
        named.append(("config.json", config["transformers_weights"]))
    for index in sorted(folder.glob("*.index.json")):
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise NsvdError(f"{index} has no weight_map")
        named += [(index.name, shard) for shard in shards.values()]
    present = {path.name for path in folder.iterdir() if path.is_file()}
    for file, name in dict.fromkeys((file, str(name)) for file, name in named):
        suffixes = (".bin",) if file.endswith(".bin.index.json") else WEIGHTS_SUFFIXES
        if name not in present or name.startswith(".") or not name.endswith(suffixes):
            raise NsvdError(
                f"model folder {folder}: {file} says that weights are in '{name}', which is no "
                f"*{suffixes[0]} file in the folder itself"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise NsvdError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise NsvdError(f"{path} holds no JSON object")
    return content


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config.json that describes the language model (multimodal ones nest it)."""
    return dict(config.get("text_config") or config)


def max_length(source: ModelSource, model: ModelConfig) -> int:
    """How many positions the model takes, in tokens.

    Raises:
        NsvdError: its config.json does not say, and neither does `model.max_length`.
    """
    config = _text_config(source.config)
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
    for value in (model.max_length, *(config.get(name) for name in names)):
        if value:
            return int(value)
    raise NsvdError(f"config.json of {model.name} names no maximal length: give model.max_length=")


def resolve_length(name: str, asked: int | None, source: ModelSource, model: ModelConfig) -> int:
    """The tokens of one window: what was asked for, or the smaller of 2048 and the model's limit.

    Args:
        name: of the setting, for messages.

    Raises:
        NsvdError: more was asked for than the model takes.
    """
    limit = max_length(source, model)
    length = min(2048, limit) if asked is None else asked
    if length > limit:
        raise NsvdError(
            f"{name}={length} is more than the {limit} positions the model takes: use {limit} or "
            "less (model.max_length= if its config.json is wrong)"
        )
    return length


def resolve_dtype(dtype: str, device: str, source: ModelSource) -> str:
    """`auto` as float32 on a CPU and the checkpoint's own dtype on CUDA.

    Raises:
        NsvdError: the checkpoint does not say which dtype it has.
    """
    if dtype != "auto":
        return dtype
    if device == "cpu":
        return "float32"
    for config in (source.config, _text_config(source.config)):
        named = config.get("dtype") or config.get("torch_dtype")
        if named:
            return str(named).removeprefix("torch.")
    if source.is_local:
        paths = sorted(Path(source.name).glob("*.safetensors"))
        found = next(filter(None, map(_safetensors_dtype, paths)), None)
        if found:
            return found
    raise NsvdError(f"config.json of {source.name} names no dtype: give dtype=float16, say")


def _safetensors_dtype(path: Path) -> str | None:
    """The dtype of the first floating tensor, from the file's header; None where there is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, path.stat().st_size))
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
    except ValueError:
        raise NsvdError(f"{path} is damaged: it has no safetensors header") from None
    dtypes = (SAFETENSORS_DTYPES.get(tensor["dtype"]) for tensor in tensors.values())
    return next(filter(None, dtypes), None)
