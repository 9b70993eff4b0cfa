"""Models whose weights are in a GGUF file."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
import torch
from helpers.gguf import TOKENS, gguf_llama, write_gguf

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.gguf import gguf_config
from nsvd_exp.models.loading import load_empty, load_model, load_streamed, load_tokenizer
from nsvd_exp.models.sources import locate_model, max_length, resolve_dtype

pytest.importorskip("gguf")

FILE = "small.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(gguf_llama(), folder / FILE)
    return folder


def config_of(name: str | Path) -> ModelConfig:
    return ModelConfig(name=str(name), title="small", gguf_file=FILE)


def test_the_file_says_what_a_plan_needs(folder: Path) -> None:
    source = locate_model(str(folder), gguf_file=FILE)
    assert source.is_local
    assert max_length(source, config_of(folder)) == 64
    assert resolve_dtype("auto", "cpu", source) == "float32"
    assert resolve_dtype("auto", "cuda", source) == "float16"


def test_the_weights_are_those_of_the_model(folder: Path) -> None:
    source = locate_model(str(folder), gguf_file=FILE)
    loaded = load_model(source, config_of(folder), "float32", "cpu")
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, gguf_llama()(ids).logits)
    assert not hasattr(loaded.config, "quantization_config")
    tokenizer = load_tokenizer(source, config_of(folder))
    assert tokenizer("the").input_ids == [TOKENS.index("th"), TOKENS.index("e")]
    empty = load_empty(source, config_of(folder))
    assert {n: p.shape for n, p in empty.named_parameters()} == {
        n: p.shape for n, p in loaded.named_parameters()
    }


def test_identity_is_the_file_and_not_its_place(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes((folder / FILE).read_bytes())
    (tmp_path / "notes.json").write_text("{}")
    here = locate_model(str(folder), gguf_file=FILE).identity
    assert locate_model(str(tmp_path), gguf_file="other.gguf").identity == here
    changed = (tmp_path / "other.gguf").read_bytes()[:-1] + b"\x01"
    (tmp_path / "other.gguf").write_bytes(changed)
    assert locate_model(str(tmp_path), gguf_file="other.gguf").identity != here


def test_an_installed_package_is_a_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_package_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nothing of it is run')")
    (package / FILE).write_bytes((folder / FILE).read_bytes())
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = locate_model("package:a_package_of_weights", gguf_file=FILE)
    assert found.identity == locate_model(str(folder), gguf_file=FILE).identity
    with pytest.raises(NsvdError, match="no Python package 'nowhere_to_be_found' installed"):
        locate_model("package:nowhere_to_be_found", gguf_file=FILE)


def test_what_is_wrong_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NsvdError, match=r"no config.json; .* model.gguf_file=small.gguf"):
        locate_model(str(folder))
    with pytest.raises(NsvdError, match=r"no file nope.gguf; .* model.gguf_file=small.gguf"):
        locate_model(str(folder), gguf_file="nope.gguf")
    with pytest.raises(NsvdError, match=r"model.gguf_file"):
        locate_model(str(folder), gguf_file="../small.gguf")
    source = locate_model(str(folder), gguf_file=FILE)
    with pytest.raises(NsvdError, match="cannot be streamed"):
        load_streamed(source, config_of(folder), "float32", tmp_path)
    write_gguf(gguf_llama(), tmp_path / FILE, architecture="unheard_of")
    source = locate_model(str(tmp_path), gguf_file=FILE)
    with pytest.raises(NsvdError, match="unheard_of"):
        load_model(source, config_of(tmp_path), "float32", "cpu")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no GGUF file"),
        (b"PK\x03\x04", "no GGUF file"),
        (b"GGUF\x03", "damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "does not say"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "damaged"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"a", 99), "damaged"),
    ],
)
def test_a_file_that_is_none(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(NsvdError, match=problem):
        gguf_config(path)


def test_what_precedes_the_length_is_passed_over(tmp_path: Path) -> None:
    """Arrays of numbers and of strings, and numbers of any size."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    numbers = text("a") + struct.pack("<IIQ", 9, 5, 3) + struct.pack("<3i", 1, 2, 3)
    names = text("b") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("é")
    flag = text("c") + struct.pack("<I?", 7, True)
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    length = text("llama.context_length") + struct.pack("<II", 4, 512)
    values = numbers + names + flag + architecture + length
    path = tmp_path / FILE
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 6) + values)
    assert gguf_config(path)["max_position_embeddings"] == 512
