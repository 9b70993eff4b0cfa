"""A hub cache of the test's own, in which nothing is but what the test puts there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"

AddToHub = Callable[..., Path]


def empty_hub_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> AddToHub:
    """Puts a repository into the hub cache at `cache`: `add(name, {file: content})`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def add(
        name: str, files: dict[str, bytes], kind: str = "model", reference: str = "main"
    ) -> Path:
        repository = cache / f"{kind}s--{name.replace('/', '--')}"
        contents = {f"snapshots/{COMMIT}/{file}": content for file, content in files.items()}
        contents[f"refs/{reference}"] = COMMIT.encode()
        for path, content in contents.items():
            (repository / path).parent.mkdir(parents=True, exist_ok=True)
            (repository / path).write_bytes(content)
        return repository

    return add
