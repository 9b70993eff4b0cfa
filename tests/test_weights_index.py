"""What a model folder says its weights are in: only files that its key is made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import make_model
from helpers.texts import make_tokenizer

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.loading import load_model
from nsvd_exp.models.sources import locate_model

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A saved LLaMA whose weights are in several files."""
    folder = tmp_path / "model"
    make_model("llama").save_pretrained(folder, max_shard_size="30KB")
    make_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    config = ModelConfig(name=str(folder), title="model")
    return dict(load_model(locate_model(str(folder)), config, "float32", "cpu").state_dict())


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content))


def last_shard(folder: Path) -> str:
    return str(sorted(folder.glob("*.safetensors"))[-1].name)


def renamed(folder: Path, name: str) -> None:
    """The last shard of a folder under another name, in the index too."""
    old = last_shard(folder)
    place = folder / name
    place.parent.mkdir(exist_ok=True)
    (folder / old).rename(place)
    edit_json(
        folder / INDEX,
        lambda index: index.update(
            weight_map={k: name if v == old else v for k, v in index["weight_map"].items()}
        ),
    )


def test_shards_in_the_folder_are_loaded(sharded: Path) -> None:
    expected = make_model("llama").state_dict()
    assert all(torch.equal(load(sharded)[name], expected[name]) for name in expected)
    before = locate_model(str(sharded)).identity
    renamed(sharded, "other.safetensors")
    assert load(sharded).keys() == expected.keys()
    assert locate_model(str(sharded)).identity != before


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "sub/inside.safetensors",
        "./same.safetensors",
        ".hidden.safetensors",
        "weights.bin",
        "weights.npz",
    ],
)
def test_a_shard_that_the_key_does_not_cover_is_refused(sharded: Path, name: str) -> None:
    renamed(sharded, name)
    with pytest.raises(NsvdError, match=r"index\.json says that weights are in .*, which is no"):
        locate_model(str(sharded))


def test_an_absolute_name_and_a_missing_shard_are_refused(sharded: Path, tmp_path: Path) -> None:
    name = last_shard(sharded)
    shutil.copy(sharded / name, tmp_path / "x.safetensors")
    renamed(sharded, str(tmp_path / "x.safetensors"))
    with pytest.raises(NsvdError, match="which is no"):
        locate_model(str(sharded))
    edit_json(sharded / INDEX, lambda index: index.update(weight_map={"a": "gone.safetensors"}))
    with pytest.raises(NsvdError, match=r"'gone\.safetensors', which is no"):
        locate_model(str(sharded))


def test_the_links_of_a_hub_cache_are_what_they_point_to(sharded: Path, tmp_path: Path) -> None:
    """As in models--org--name/snapshots/COMMIT: each file is a link to ../../blobs/HASH."""
    expected = locate_model(str(sharded)).identity
    snapshot, blobs = tmp_path / "hub/snapshots/0123", tmp_path / "hub/blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(sharded.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert locate_model(str(snapshot)).identity == expected
    assert load(snapshot).keys() == load(sharded).keys()
    shutil.copy(sharded / "config.json", (snapshot / last_shard(sharded)).resolve())
    assert locate_model(str(snapshot)).identity != expected


@pytest.mark.parametrize(
    ("name", "is_loaded"),
    [("own.safetensors", True), ("sub/own.safetensors", False), ("../own.safetensors", False)],
)
def test_weights_that_the_config_names_are_covered_too(
    tmp_path: Path, name: str, is_loaded: bool
) -> None:
    folder = tmp_path / "model"
    make_model("llama").save_pretrained(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "model.safetensors").rename(folder / name)
    edit_json(folder / "config.json", lambda config: config.update(transformers_weights=name))
    if is_loaded:
        assert load(folder)
        return
    with pytest.raises(NsvdError, match=r"config\.json says that weights are in"):
        locate_model(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": ["model.safetensors"]}', "has no weight_map"),
        ('{"weight_map": {"a": 3}}', "which is no"),
        ("[" * 200_000, "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_a_damaged_index_is_one_message(sharded: Path, content: str, message: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(NsvdError, match=message):
        locate_model(str(sharded))
