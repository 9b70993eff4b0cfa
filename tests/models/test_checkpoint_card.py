"""The model card says what is known, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.compressed import make_compressed, make_dense
from helpers.hub import COMMIT, empty_hub_cache
from huggingface_hub.repocard import metadata_load

import nsvd_exp as nx
from nsvd_exp.models.checkpoint import license_of
from nsvd_exp.models.layers import parameter_count

LICENCE = {"license": "other", "license_name": "own", "license_link": "https://example.org/own"}
FULL = nx.About(
    method="NSVD-I (k1 = 0.95)",
    ratio=0.3,
    calibration="256 samples of 2048 tokens of wikitext2",
    command="python -m nsvd_exp method=nsvd_i ratio=0.3 model.name='a|b'",
    base="someone/some-model",
    revision=COMMIT,
    license=LICENCE,
    protocol="Windows of 2048 tokens.",
    perplexities=[
        nx.Perplexity("ptb", 26.62821, (25.5, 27.75), 20.25),
        nx.Perplexity("c4", 31.5),
    ],
    layers=[{"name": "model.layers.0.mlp.up_proj", "k": 13, "activation_loss": 0.25}],
)
CARD = b"---\nlicense: other\nlicense_name: own\nlicense_link: https://example.org/own\n---\n# A\n"


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_all_that_is_known_stands_there(tmp_path: Path) -> None:
    model = make_compressed()
    folder = nx.save(model, tmp_path / "saved", about=FULL)
    text, data = card_of(folder), metadata_load(folder / "README.md")
    assert data is not None
    assert data.items() >= (LICENCE | {"base_model": FULL.base}).items()
    for part in (FULL.method, FULL.calibration, FULL.base, FULL.revision, FULL.protocol):
        assert part
        assert part in text
    assert "| command | `python -m nsvd_exp method=nsvd_i ratio=0.3 model.name='a\\|b'` |" in text
    assert "| ptb | 26.6282 | 25.5000 to 27.7500 | 20.2500 |" in text
    assert "| c4 | 31.5000 |  |  |" in text
    dense = parameter_count(make_dense())
    assert f"| parameters | {parameter_count(model):,} (float32) |" in text
    removed = 1 - parameter_count(model) / dense
    assert f"| of the dense model | {dense:,} ({removed:.2%} removed) |" in text
    assert "trust_remote_code=True" in text
    assert "14 of its linear layers" in text
    assert json.loads((folder / "layers.json").read_text()) == list(FULL.layers)


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    folder = nx.save(make_compressed(), tmp_path / "saved")
    text, data = card_of(folder), metadata_load(folder / "README.md")
    assert data is not None
    assert not {"base_model", "license"} & data.keys()
    for part in ("None", "null", "nan", "Perplexity", "command", "licence", "method", "\n\n\n"):
        assert part not in text.replace("interval", "")
    rows = json.loads((folder / "layers.json").read_text())
    assert len(rows) == 14
    first = {"name": "model.layers.0.self_attn.q_proj", "storage": "factors"}
    assert rows[0] == first | {"m": 32, "n": 32, "k": 11}


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    about = nx.About(perplexities=[nx.Perplexity("ptb", 26.0)])
    text = card_of(nx.save(make_compressed(), tmp_path / "saved", about=about))
    assert "| dataset | perplexity |\n| --- | --- |\n| ptb | 26.0000 |" in text


def test_dense_weights_are_not_called_a_saving(tmp_path: Path) -> None:
    text = card_of(nx.save(make_compressed(), tmp_path / "saved", format="dense"))
    assert "removed" not in text
    assert "trust_remote_code" not in text
    assert "computed in float64 and rounded once to float32" in text


def test_the_licence_is_that_of_the_folder_that_was_compressed(
    tmp_path: Path, model_folder: Callable[..., Path]
) -> None:
    base = model_folder()
    (base / "README.md").write_bytes(CARD)
    model = type(make_dense()).from_pretrained(base)
    nx.compress(model, nx.methods.SVD(), 0.3)
    folder = nx.save(model, tmp_path / "saved")
    data = metadata_load(folder / "README.md")
    assert data is not None
    assert data.items() >= LICENCE.items()
    assert "base_model" not in data
    # A path is of no use to anyone else.
    assert all(str(tmp_path) not in path.read_text("latin-1") for path in folder.iterdir())


def test_a_licence_is_read_from_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = empty_hub_cache(tmp_path, monkeypatch)
    add("someone/a", {"README.md": CARD})
    add("someone/b", {"README.md": b"# B\n", "config.json": b'{"license": "mit"}'})
    add("someone/c", {"README.md": b"---\n[\n---\n", "config.json": b"["})
    assert license_of("someone/a") == license_of("someone/a", COMMIT) == LICENCE
    assert license_of("someone/a", COMMIT[::-1]) == {}
    assert license_of("someone/b") == {"license": "mit"}
    for name in ("someone/c", "someone/d", str(tmp_path), "", "a", "a/b/c"):
        assert license_of(name) == {}
    model = make_compressed()
    model.config.name_or_path = "someone/a"
    data = metadata_load(nx.save(model, tmp_path / "saved") / "README.md")
    assert data is not None
    assert data.items() >= (LICENCE | {"base_model": "someone/a"}).items()
