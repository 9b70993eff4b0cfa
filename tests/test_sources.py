"""Exactly which model, rows and device: known by content, found offline, or one message."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from helpers.datasets import dataset
from helpers.hub import COMMIT, AddToHub, empty_hub_cache
from huggingface_hub import errors

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.data.sources import locate_dataset
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.devices import cuda_devices, gpus_of, resolve_device
from nsvd_exp.models.hub import hub_commit, on_hub
from nsvd_exp.models.sources import (
    ModelSource,
    locate_model,
    max_length,
    resolve_dtype,
    resolve_length,
)

MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "pytorch_model.bin",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "merges.txt",
    "chat_template.jinja", "modeling_own.py",
)  # fmt: skip


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddToHub:
    return empty_hub_cache(tmp_path / "hub", monkeypatch)


def model_source(name: str = "x", **config: Any) -> ModelSource:
    return ModelSource(name, None, {}, config)


def model_config(**fields: Any) -> ModelConfig:
    return ModelConfig(name="x", title="x", **fields)


def folder_with(place: Path, changes: dict[str, bytes] | None = None) -> Path:
    """A folder with every kind of model file, `changes` among them."""
    place.mkdir(parents=True)
    for name, content in (dict.fromkeys(MODEL_FILES, b"{}") | (changes or {})).items():
        (place / name).write_bytes(content)
    return place


def test_a_model_folder_is_known_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    one = locate_model(str(folder_with(tmp_path / "one")))
    irrelevant = {"README.md": b"text", "model.lock": b"", ".hidden.json": b"{}"}
    other = folder_with(tmp_path / "far" / "away", irrelevant)
    assert locate_model(str(other)).identity == one.identity
    assert one.is_local


@pytest.mark.parametrize("name", MODEL_FILES)
def test_any_byte_that_can_change_a_number_makes_another_model(tmp_path: Path, name: str) -> None:
    changed = folder_with(tmp_path / "changed", {name: b"{ }"})
    lacking = folder_with(tmp_path / "lacking")
    if name != "config.json":
        (lacking / name).unlink()
    folders = (folder_with(tmp_path / "plain"), changed, lacking)
    identities = {json.dumps(locate_model(str(folder)).identity) for folder in folders}
    assert len(identities) == (2 if name == "config.json" else 3)


def test_a_file_that_changes_under_way_is_read_again(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model")
    before = locate_model(str(folder)).identity
    (folder / "tokenizer.json").write_bytes(b"{   }")
    assert locate_model(str(folder)).identity != before


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no config.json"), (b"{", "is not JSON"), (b"[1]", "no JSON object"),
     (b"\xff", "is not JSON")],
)  # fmt: skip
def test_a_folder_without_a_sound_config_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    folder = folder_with(tmp_path / "model")
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(NsvdError, match=message):
        locate_model(str(folder))


@pytest.mark.parametrize("place", ["./no/such", "../no", "/no/such/folder", "~/no/such"])
def test_a_path_that_is_not_there_is_no_hub_name(place: str) -> None:
    with pytest.raises(NsvdError, match="there is no model folder /"):
        locate_model(place)


def test_a_hub_model_is_known_by_its_commit(hub_cache: AddToHub) -> None:
    hub_cache("org/model", {"config.json": b'{"model_type": "llama"}'})
    source = locate_model("org/model")
    assert source == ModelSource(
        "org/model", COMMIT, {"hub": "org/model", "commit": COMMIT}, {"model_type": "llama"}
    )
    assert not source.is_local


@pytest.mark.parametrize("reference", ["main", "v1.0", "refs/pr/1"])
def test_branches_tags_and_pull_requests_become_commits(
    hub_cache: AddToHub, reference: str
) -> None:
    hub_cache("org/model", {}, reference=reference)
    assert hub_commit("org/model", reference, "model") == COMMIT


def test_a_commit_needs_neither_network_nor_cache(hub_cache: AddToHub) -> None:
    assert hub_commit("org/unheard-of", COMMIT, "model") == COMMIT


NO_ANSWER = [errors.OfflineModeIsEnabled("off"), errors.HTTPError("down"), TimeoutError()]


def stub_hub(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def repo_info(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)


@pytest.mark.parametrize("error", NO_ANSWER, ids=lambda error: type(error).__name__)
def test_without_an_answer_the_cache_says_which_commit(
    hub_cache: AddToHub, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    hub_cache("org/data", {}, kind="dataset")
    stub_hub(monkeypatch, error)
    assert hub_commit("org/data", "main", "dataset") == COMMIT
    with pytest.raises(NsvdError, match=r"not in the hub cache \(.*/hub\): .*data_dir=FOLDER"):
        hub_commit("org/data", "v2", "dataset")


def answered(error: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    return error("403 Client Error", response=SimpleNamespace(headers={}, request=None))


HUB_ERRORS: list[tuple[Exception, str]] = [
    (answered(errors.GatedRepoError), r"is gated: .*co/org/model.*settings/tokens.*HF_TOKEN"),
    (answered(errors.RepositoryNotFoundError), r"neither a local folder nor on the hub.*HF_TOKEN"),
    (answered(errors.RevisionNotFoundError), r"no such revision: see .*/org/model/tree/main"),
    (errors.EntryNotFoundError("no such file\nat URL"), ": no such file$"),
    (errors.LocalEntryNotFoundError("x"), r"cannot be reached.*model\.name=FOLDER"),
    (errors.OfflineModeIsEnabled("x"), r"cannot be reached.*model\.name=FOLDER"),
    (errors.HTTPError("x"), r"cannot be reached.*model\.name=FOLDER"),
    (answered(errors.HfHubHTTPError), r"the hub answered 403"),
    (errors.HFValidationError("x"), r"nor a hub id"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message"), HUB_ERRORS, ids=lambda x: type(x).__name__)
def test_every_answer_of_the_hub_is_a_message_with_the_way_out(
    error: Exception, message: str
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(NsvdError, match=f"^model 'org/model'.*{message}"):
        on_hub("org/model", "model", fail)


def test_a_gated_model_is_not_taken_from_the_cache_in_silence(
    hub_cache: AddToHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache("org/model", {"config.json": b"{}"})
    stub_hub(monkeypatch, answered(errors.GatedRepoError))
    with pytest.raises(NsvdError, match="is gated"):
        locate_model("org/model")


@pytest.mark.parametrize("name", ["org/nowhere", "nowhere", "a/b/c", "no spaces"])
def test_a_name_that_is_nowhere_is_one_message(hub_cache: AddToHub, name: str) -> None:
    with pytest.raises(NsvdError, match=f"model '{name}' is n.* local folder"):
        locate_model(name)


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": 512},
        {"n_positions": 512},
        {"max_sequence_length": 512},
        {"max_seq_len": 512},
        {"text_config": {"max_position_embeddings": 512}, "max_position_embeddings": 99},
        {"max_position_embeddings": None, "n_positions": 512},
    ],
)
def test_the_length_a_model_takes_is_read_from_its_config(config: dict[str, Any]) -> None:
    assert max_length(model_source(**config), model_config()) == 512


def test_the_user_knows_the_length_better() -> None:
    source = model_source(max_position_embeddings=512)
    assert max_length(source, model_config(max_length=100)) == 100
    assert max_length(model_source(), model_config(max_length=100)) == 100
    with pytest.raises(NsvdError, match=r"names no maximal length: give model\.max_length="):
        max_length(model_source(), model_config())


@pytest.mark.parametrize(("limit", "expected"), [(512, 512), (2048, 2048), (32768, 2048)])
def test_a_window_is_2048_or_what_the_model_takes(limit: int, expected: int) -> None:
    source = model_source(max_position_embeddings=limit)
    assert resolve_length("evaluation.length", None, source, model_config()) == expected
    assert resolve_length("evaluation.length", limit, source, model_config()) == limit
    with pytest.raises(NsvdError, match=f"length={limit + 1} is more than the {limit} positions"):
        resolve_length("evaluation.length", limit + 1, source, model_config())


def safetensors_header(*dtypes: str) -> bytes:
    tensors = {f"t{i}": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}
               for i, dtype in enumerate(dtypes)}  # fmt: skip
    header = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    ("config", "dtypes", "expected"),
    [
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, ["F32"], "bfloat16"),
        ({"torch_dtype": "float16"}, ["F32"], "float16"),
        ({"dtype": "torch.float16"}, ["F32"], "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, ["F32"], "bfloat16"),
        ({}, ["F16"], "float16"),
        ({"dtype": None}, ["I64", "BF16"], "bfloat16"),
    ],
    ids=["dtype", "torch_dtype", "prefix", "nested", "weights", "first floating weight"],
)
def test_auto_is_the_dtype_of_the_checkpoint_on_cuda(
    tmp_path: Path, config: dict[str, Any], dtypes: list[str], expected: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors_header(*dtypes))
    source = model_source(str(tmp_path), **config)
    assert resolve_dtype("auto", "cuda:1", source) == expected
    assert resolve_dtype("auto", "cpu", source) == "float32"
    assert resolve_dtype("float16", "cpu", source) == "float16"


def test_a_checkpoint_that_does_not_say_its_dtype_is_an_error(tmp_path: Path) -> None:
    source = model_source(str(tmp_path))
    with pytest.raises(NsvdError, match="names no dtype: give dtype=float16"):
        resolve_dtype("auto", "cuda", source)
    (tmp_path / "model.safetensors").write_bytes(b"no header here")
    with pytest.raises(NsvdError, match="is damaged"):
        resolve_dtype("auto", "cuda", source)


def test_the_driver_is_counted_as_torch_counts_it() -> None:
    assert cuda_devices() == torch.cuda.device_count()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:all"])
def test_cuda_where_there_is_none_is_an_error(device: str) -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(NsvdError, match=f"device={device}, but there is no CUDA.*device=cpu"):
        resolve_device(device)


def test_with_two_gpus_there_is_no_third() -> None:
    devices = ("auto", "cpu", "cuda", "cuda:1", "cuda:all")
    found = [resolve_device(device, count=2) for device in devices]
    assert found == ["cuda", "cpu", "cuda", "cuda:1", "cuda:all"]
    assert gpus_of("cuda:all", count=2) == ["cuda:0", "cuda:1"]
    assert [gpus_of(device) for device in ("cpu", "cuda:1")] == [[], ["cuda:1"]]
    assert resolve_device("cuda:all", count=1) == "cuda"
    with pytest.raises(
        NsvdError, match=r"device=cuda:2, but there are 2 CUDA devices, from cuda:0"
    ):
        resolve_device("cuda:2", count=2)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".txt"])
def test_a_local_file_replaces_the_hub(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "mirror" / "ptb" / f"test{suffix}", "x")
    source = locate_dataset(dataset("ptb"), "test", str(tmp_path / "mirror"))
    assert (source.files, source.commit) == ((path,), None)
    assert str(tmp_path) not in json.dumps(source.identity)


def test_two_local_files_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("test.jsonl", "test.txt"):
        write(tmp_path / "ptb" / name, "x")
    with pytest.raises(NsvdError, match=r"both test\.jsonl and test\.txt are in .*/ptb; keep one"):
        locate_dataset(dataset("ptb"), "test", str(tmp_path))


def test_a_mirror_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NsvdError, match=f"data_dir={tmp_path}/no: there is no folder"):
        locate_dataset(dataset("ptb"), "test", f"{tmp_path}/no")


@pytest.mark.parametrize("has_mirror", [True, False])
def test_a_dataset_in_neither_place_names_both(
    tmp_path: Path, hub_cache: AddToHub, has_mirror: bool
) -> None:
    place = str(tmp_path) if has_mirror else None
    sought = f"{tmp_path}/ptb/test.jsonl" if has_mirror else r"data_dir \(not set\)/ptb/test.jsonl"
    with pytest.raises(
        NsvdError, match=rf"{sought}.* is not there, and .*ptb_text_only.*data_dir="
    ):
        locate_dataset(dataset("ptb"), "test", place)


def test_a_split_the_hub_does_not_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NsvdError, match=r"no split 'train' on the hub \(known: test\)"):
        locate_dataset(dataset("alpaca_eval"), "train", str(tmp_path))


def test_a_hub_dataset_is_known_by_its_commit(hub_cache: AddToHub) -> None:
    ptb = dataset("ptb")
    hub_cache(ptb.hub, {}, kind="dataset", reference=ptb.revision)
    source = locate_dataset(ptb, "test", None)
    assert (source.files, source.commit) == ((), COMMIT)
    assert source.identity == {
        "document": "{sentence}",
        "join": "\n\n",
        "rows": None,
        "split_special_tokens": True,
        "hub": "ptb-text-only/ptb_text_only",
        "config": None,
        "commit": COMMIT,
        "files": ["penn_treebank/test/0000.parquet"],
        "split": "test",
    }
