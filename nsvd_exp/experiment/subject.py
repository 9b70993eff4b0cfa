"""What a command compares: a compressed model, of a cell or in a folder, and its dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.config.files import expand_path, model_title
from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.compressed import compressed
from nsvd_exp.experiment.exported import RECORD
from nsvd_exp.experiment.plan import dense_of, plan_cell
from nsvd_exp.experiment.session import Session
from nsvd_exp.experiment.stored import Place, StoredCell, stored_cell
from nsvd_exp.models.checkpoint import load
from nsvd_exp.models.devices import ALL_GPUS, resolve_device
from nsvd_exp.models.loading import load_model
from nsvd_exp.models.sources import locate_model
from nsvd_exp.storage.files import read_object
from nsvd_exp.storage.keys import model_folder_digest
from nsvd_exp.storage.results import Result


@dataclass(frozen=True)
class Loaded:
    """A model in memory, in eval mode, and its tokenizer."""

    model: nn.Module
    tokenizer: Any


Hold = Callable[[], AbstractContextManager[Loaded]]
"""Makes a context in which a model is in memory."""


@dataclass(frozen=True)
class Subject:
    """A compressed model and the dense one that it was made of.

    Attributes:
        name: of the cell's folder, or of the model's.
        title: of the dense model.
        device: a resolved one.
        identity: what the compressed model is known by: the key of its cell, or the SHA-256 of the
            files in its folder.
        results_dir: the store that the cell is in, or that is given.
        result: of the cell; None for a folder.
        folder: None for a cell.
        compressed: holds the model.
        dense: holds the dense model, in the same dtype; None where it is not known.
    """

    name: str
    title: str
    device: str
    identity: dict[str, Any]
    results_dir: Path
    result: Result | None
    folder: Path | None
    compressed: Hold
    dense: Hold | None


def subject(name: str, place: Place, session: Session) -> Subject:
    """The cell or the folder that a user names.

    Args:
        name: the folder of a saved model, or a cell as `stored_cell` takes it.

    Raises:
        NsvdError: there is no such cell or folder, or it cannot be made again.
    """
    folder = Path(expand_path(name))
    if (folder / "config.json").is_file():
        return _of_folder(folder, place)
    return _of_cell(stored_cell(name, place, is_measured=False), session)


def _of_cell(cell: StoredCell, session: Session) -> Subject:
    plan = cell.plan
    dense = plan_cell(dense_of(plan.config), is_measured=False)

    @contextmanager
    def held(of: Any) -> Iterator[Loaded]:
        with compressed(of, session) as made:
            yield Loaded(made.model, made.tokenizer)

    return Subject(
        name=plan.file.folder.name,
        title=plan.config.model.title,
        device=plan.device,
        identity={"cell": plan.file.key, "dtype": plan.evaluation_dtype},
        results_dir=plan.results_dir,
        result=cell.result,
        folder=None,
        compressed=lambda: held(plan),
        dense=(lambda: held(dense)) if plan.config.compresses else None,
    )


def _of_folder(folder: Path, place: Place) -> Subject:
    device = resolve_device(place.device)
    record = read_object(folder / RECORD)
    base = _base(record.get("model_source") or {}, place)

    @contextmanager
    def saved() -> Iterator[Loaded]:
        on: Any = {"cpu": None, ALL_GPUS: "balanced"}.get(device, device)
        model = load(folder, place.evaluation_dtype or "auto", device_map=on)
        yield Loaded(model, _tokenizer(folder))

    @contextmanager
    def dense() -> Iterator[Loaded]:
        assert base is not None
        located = locate_model(base.name, base.revision)
        dtype = place.evaluation_dtype or _dtype_of(folder)
        yield Loaded(load_model(located, base, dtype, device), _tokenizer(folder))

    return Subject(
        name=folder.name,
        title=str(record.get("model") or (base.title if base else "the dense model")),
        device=device,
        identity={"folder": model_folder_digest(folder), "dtype": place.evaluation_dtype},
        results_dir=Path(expand_path(place.results_dir)),
        result=None,
        folder=folder,
        compressed=saved,
        dense=None if base is None else dense,
    )


def _base(source: dict[str, Any], place: Place) -> ModelConfig | None:
    """The dense model that a saved one was made of; None where nothing says which it was.

    Raises:
        NsvdError: the folder that is given holds another one.
    """
    if place.model is None and "hub" in source:
        name = str(source["hub"])
        return ModelConfig(name=name, title=model_title(name), revision=str(source["commit"]))
    name = place.model or str(MODEL_DIR)
    located = locate_model(name)
    is_it = all(source.get(part) == value for part, value in located.identity.items())
    if place.model is not None and "sha256" in source and not is_it:
        raise NsvdError(f"--model {name}: that is not the model that this one was made of")
    if place.model is None and not is_it:
        return None
    return ModelConfig(name=name, title=model_title(name))


def _dtype_of(folder: Path) -> str:
    config = read_object(folder / "config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NsvdError(f"{folder} has no tokenizer that can be read: {error}") from None
