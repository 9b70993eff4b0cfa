"""Pushing to a hub on loopback, and what is refused before or by it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import REPOSITORY
from helpers.compressed import make_compressed
from helpers.fake_hub import OID, FakeHub, fake_hub
from huggingface_hub import constants

import nsvd_exp as nx

NAME = "someone/small-model"
PUSH = """
import sys
import nsvd_exp as nx
folder, name, private = sys.argv[1:]
try:
    print(nx.push(folder, name, private=private == "private"))
except nx.NsvdError as error:
    print(error, file=sys.stderr)
"""


def push(hub: FakeHub, folder: Path, name: str = NAME, private: str = "private") -> tuple[str, str]:
    """What a process of its own prints and refuses that pushes to this hub.

    huggingface_hub reads where the hub is when it is imported.
    """
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), name, private],
        env=os.environ | hub.environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return nx.save(make_compressed(), tmp_path / "saved")


@pytest.mark.slow
def test_a_folder_is_pushed_as_it_is(folder: Path, tmp_path: Path) -> None:
    with fake_hub() as hub:
        out, err = push(hub, folder)
        assert (out, err) == (f"{hub.address}/{NAME}/commit/{OID}", "")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert hub.repositories == {NAME: files}
        assert hub.private == {NAME}
        assert hub.tokens == {"Bearer hf_secret"}
        # Another model takes its place: of the first no weight is left for transformers to find.
        other = nx.save(make_compressed(seed=1), tmp_path / "other", max_shard_size="20KB")
        push(hub, other)
        assert hub.repositories[NAME] == {p.name: p.read_bytes() for p in other.iterdir()}
        assert len(hub.messages) == 2
        push(hub, folder, "someone/open", "public")
        assert hub.private == {NAME}


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_message(folder: Path) -> None:
    with fake_hub() as hub:
        hub.repositories["someone/open"] = {}
        out, err = push(hub, folder, "someone/open")
        assert out == ""
        assert "'someone/open' is on the hub already, and everyone sees it" in err
        assert hub.repositories == {"someone/open": {}}
        hub.refuse = 403
        out, err = push(hub, folder)
        assert out == ""
        assert len(err.splitlines()) == 1
        assert err.startswith(f"pushing to '{NAME}': the hub answered")
        assert "may not write" in err
        out, err = push(hub, folder, "a/b/c")
        assert out == ""
        assert "'a/b/c' is no name of a repository on the hub" in err


def test_without_a_token_nothing_is_sent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(nx.NsvdError, match=f"to push to '{NAME}' takes a token that may write"):
        nx.push(folder, NAME)


def test_without_the_hub_it_is_said(folder: Path) -> None:
    with pytest.raises(nx.NsvdError, match=f"pushing to '{NAME}': the hub .* cannot be reached"):
        nx.push(folder, NAME, token="hf_secret")


def test_only_a_model_is_pushed(tmp_path: Path) -> None:
    with pytest.raises(nx.NsvdError, match=r"no folder of a model: it has no config.json"):
        nx.push(tmp_path, NAME, token="hf_secret")
