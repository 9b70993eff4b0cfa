"""Fixtures: a small run on a random model and local text. Helpers are in `helpers/`."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any library reads them: a missing name fails at once, in place of after retries.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import pytest
from helpers.models import make_model
from helpers.texts import make_tokenizer, words

from nsvd_exp.models.hub import hub_commit


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    """A full collection, as each released model is followed by, looks at no imported module."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def hub_is_forgotten() -> Iterator[None]:
    """What one test's hub said of a revision is not what another's says."""
    yield
    hub_commit.cache_clear()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A local mirror of three sets of random words: wikitext2 (train and test), ptb, c4."""
    folder = tmp_path / "data"
    for seed, name in enumerate(("wikitext2/train", "wikitext2/test", "ptb/test", "c4/test")):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": words(40, seed=1000 * seed + row)} for row in range(60)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def settings(
    tmp_path: Path, data_dir: Path, model_folder: Callable[..., Path]
) -> Callable[..., list[str]]:
    """Arguments of a small run on a random model: `settings('opt')`."""

    def arguments(name: str = "llama") -> list[str]:
        return [
            "model=hf",
            f"model.name={model_folder(name)}",
            f"data_dir={data_dir}",
            f"results_dir={tmp_path / 'results'}",
            "dataset=[wikitext2,ptb,c4]",
            "calibration.samples=12",
            "calibration.length=24",
            "evaluation.length=32",
            "evaluation.max_windows=6",
        ]

    return arguments


@pytest.fixture
def model_folder(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random model and its tokenizer: `model_folder('opt')`."""

    def save(name: str = "llama", seed: int = 0) -> Path:
        folder = tmp_path / f"{name}-{seed}"
        make_model(name, seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return folder

    return save
