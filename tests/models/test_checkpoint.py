"""A compressed model that is saved is, loaded by transformers, the same model to the bit."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compressed import (
    ARCHITECTURES,
    IDS,
    TIED,
    generated,
    logits,
    make_compressed,
    make_dense,
    names_in,
    weights_in,
)
from helpers.texts import make_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import nsvd_exp as nx
from nsvd_exp.models import storage as storage_module
from nsvd_exp.models.modeling_nsvd import AUTO_MAP, LAYERS, TRAVELLING, describe
from nsvd_exp.models.storage import Storage

every_architecture = pytest.mark.parametrize("name", list(ARCHITECTURES))
every_storage = pytest.mark.parametrize(
    "storage",
    [
        kind()
        for kind in vars(storage_module).values()
        if isinstance(kind, type) and issubclass(kind, Storage) and kind is not Storage
    ],
    ids=lambda storage: storage.name,
)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "saved"


def same(one: Any, other: Any) -> bool:
    """Whether two models hold the same numbers, and compute the same ones."""
    a, b = one.state_dict(), other.state_dict()
    held = a.keys() == b.keys() and all(
        a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a
    )
    return held and torch.equal(logits(one), logits(other))


@every_architecture
@every_dtype
def test_a_model_comes_back_to_the_bit(name: str, dtype: torch.dtype, folder: Path) -> None:
    model = make_compressed(name, dtype)
    config, before = model.config.to_json_string(), logits(model)
    assert nx.save(model, folder) == folder
    # What was saved is as it was.
    assert model.config.to_json_string() == config
    assert torch.equal(logits(model), before)
    assert not hasattr(model, "hf_quantizer")

    loaded: Any = nx.load(folder)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert describe(loaded) == describe(model) != {}
    assert same(loaded, model)
    assert torch.equal(generated(loaded), generated(model))
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == (name in TIED)


@every_architecture
@every_dtype
def test_dense_weights_are_the_products_rounded_once(
    name: str, dtype: torch.dtype, folder: Path
) -> None:
    model = make_compressed(name, dtype)
    nx.save(model, folder, format="dense")
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "auto_map"} & config.keys()
    assert not list(folder.glob("*.py"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder)
    kinds = [Counter(type(module) for module in m.modules()) for m in (loaded, make_dense(name))]
    assert kinds[0] == kinds[1]
    for path in describe(model):
        layer, dense = model.get_submodule(path), loaded.get_submodule(path)
        W = (layer.left.weight.double() @ layer.right.weight.double()).to(dtype)
        found = dense.weight if isinstance(dense, nn.Linear) else dense.weight.T
        assert torch.equal(found, W)
        assert (dense.bias is None) == (layer.bias is None)
        assert layer.bias is None or torch.equal(dense.bias, layer.bias)
    a, b = logits(loaded).double(), logits(model).double()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    assert (a - b).norm() <= tolerance * b.norm()
    assert same(nx.load(folder), loaded)


def test_dense_weights_are_saved_of_a_model_that_is_dense_too(folder: Path) -> None:
    model = make_dense()
    nx.save(model, folder, format="dense")
    assert same(nx.load(folder), model)


@every_architecture
def test_transformers_saves_it_again(name: str, folder: Path, tmp_path: Path) -> None:
    model = make_compressed(name)
    nx.save(model, folder)
    nx.register()
    first = AutoModelForCausalLM.from_pretrained(folder)
    assert first.config.auto_map == AUTO_MAP
    first.save_pretrained(tmp_path / "again")
    copy.deepcopy(first).save_pretrained(tmp_path / "copied")
    nx.save(first, tmp_path / "saved again")
    for again in ("again", "copied", "saved again"):
        assert same(nx.load(tmp_path / again), model)
        assert weights_in(tmp_path / again).keys() == weights_in(folder).keys()
        for file in ("config.json", *TRAVELLING):
            assert (tmp_path / again / file).read_text() == (folder / file).read_text()
    nx.save(first, tmp_path / "dense", format="dense")
    nx.save(model, tmp_path / "dense of the first", format="dense")
    assert same(nx.load(tmp_path / "dense"), nx.load(tmp_path / "dense of the first"))


def test_large_weights_take_several_files(folder: Path) -> None:
    model = make_compressed()
    nx.save(model, folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    assert not (folder / "model.safetensors").exists()
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == set().union(*map(names_in, shards))
    loaded: Any = nx.load(folder)
    assert same(loaded, model)
    loaded.save_pretrained(folder.with_name("again"), max_shard_size="20KB")
    assert same(nx.load(folder.with_name("again")), model)


def test_a_folder_holds_all_that_belongs_to_a_model(folder: Path) -> None:
    model, tokenizer = make_compressed(), make_tokenizer()
    model.generation_config.max_new_tokens = 7
    folder.mkdir()  # an empty folder will do
    nx.save(model, folder, tokenizer)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    assert nx.load(folder).generation_config.max_new_tokens == 7  # type: ignore[union-attr]
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "config.json", "generation_config.json", "layers.json"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json", *TRAVELLING),
    }
    assert {oct(path.stat().st_mode)[-3:] for path in folder.iterdir()} == {"644"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_weight_is_named_after_its_layer(folder: Path) -> None:
    nx.save(make_compressed(), folder)
    weights = weights_in(folder)
    name = "model.layers.0.mlp.up_proj"
    assert weights[f"{name}.left.weight"].shape == (48, 13)
    assert weights[f"{name}.right.weight"].shape == (13, 32)
    assert weights[f"{name}.weight"].tolist() == [48, 32]
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config["layers"][name] == {"storage": "factors", "m": 48, "n": 32, "k": 13}


def test_weights_are_cast_where_that_is_asked_for(folder: Path) -> None:
    model = make_compressed()
    nx.save(model, folder)
    loaded = nx.load(folder, dtype=torch.bfloat16)
    wanted = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(wanted[name], found) for name, found in loaded.state_dict().items())


def test_accelerate_places_it(folder: Path, tmp_path: Path) -> None:
    model = make_compressed()
    nx.save(model, folder)
    assert same(nx.load(folder, device_map="auto"), model)
    places = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    spread: Any = nx.load(folder, device_map=places, offload_folder=tmp_path / "offload")
    assert torch.equal(logits(spread), logits(model))
    spread.save_pretrained(tmp_path / "again")
    assert same(nx.load(tmp_path / "again"), model)
    with pytest.raises(nx.NsvdError, match=r"weight model\.layers\.0\S+ is not in memory"):
        nx.save(spread, tmp_path / "third")


@torch.no_grad()
def test_the_part_without_head_is_loaded_alone(folder: Path) -> None:
    model = make_compressed()
    nx.save(model, folder)
    nx.register()
    part: PreTrainedModel = AutoModel.from_pretrained(folder)
    assert describe(part).keys() == {n.removeprefix("model.") for n in describe(model)}
    mine, its = model.model(input_ids=IDS), part(input_ids=IDS)
    assert torch.equal(mine.last_hidden_state, its.last_hidden_state)


def test_a_loaded_model_is_cast_and_trained_as_any_other(folder: Path) -> None:
    nx.save(make_compressed(), folder)
    loaded: Any = nx.load(folder)
    assert loaded.hf_quantizer.is_serializable()
    assert loaded.hf_quantizer.is_trainable
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    loss = loaded(input_ids=IDS, labels=IDS).loss
    loss.backward()
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter -= 0.1 * parameter.grad
    assert loaded(input_ids=IDS, labels=IDS).loss < loss
    assert loaded.double().dtype == torch.float64


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_architecture"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_an_architecture_with_code_of_its_own_keeps_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    base = tmp_path / "base"
    make_dense().save_pretrained(base)
    (base / "own.py").write_text(OWN_CODE)
    config = json.loads((base / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"model_type": "own_architecture", "auto_map": own}
    (base / "config.json").write_text(json.dumps(config))

    model = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=True)
    nx.compress(model, nx.methods.SVD(), 0.3)
    nx.save(model, folder)
    loaded = nx.load(folder, trust_remote_code=True)
    assert type(loaded).__name__ == "OwnForCausalLM"
    assert same(loaded, model)
    with pytest.raises(nx.NsvdError, match="trust_remote_code=True"):
        nx.load(folder)


@every_storage
def test_every_form_of_storage_is_known_to_saved_models(storage: Storage) -> None:
    layer = storage.empty(6, 5, 3, bias=True, dtype=torch.bfloat16)
    assert type(layer) is LAYERS[storage.name]
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {"meta"}
    left, right = torch.randn(6, 3).bfloat16(), torch.randn(3, 5).bfloat16()
    filled = storage.linear(left, right, torch.ones(6).bfloat16())
    held = [{k: (v.shape, v.dtype) for k, v in x.state_dict().items()} for x in (layer, filled)]
    assert held[0] == held[1]


@every_storage
@every_dtype
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_form_of_storage_comes_back_to_the_bit(
    name: str, dtype: torch.dtype, storage: Storage, folder: Path
) -> None:
    model = make_dense(name, dtype)
    nx.compress(model, nx.methods.SVD(), 0.3, storage=storage)
    nx.save(model, folder)
    loaded = nx.load(folder)
    assert {form.storage for form in describe(loaded).values()} == {storage.name}
    assert same(loaded, model)
