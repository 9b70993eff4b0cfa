"""Saves a compressed model as a folder, whole or not at all."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

import nsvd_exp
from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.models.checkpoint.card import About, Size, card, is_hub_name, license_of
from nsvd_exp.models.layers import parameter_count
from nsvd_exp.models.loading import quiet
from nsvd_exp.models.modeling_nsvd import (
    AUTO_MAP,
    LayerForm,
    LowRankConfig,
    LowRankQuantizer,
    describe,
    put_layers,
    shapes,
)
from nsvd_exp.storage.files import ScratchFolder

FORMATS = ("factors", "dense")


def save(
    model: nn.Module,
    folder: str | Path,
    tokenizer: Any = None,
    about: About | None = None,
    format: str = "factors",
    max_shard_size: int | str = "5GB",
) -> Path:
    """Save a compressed model, in its own dtype, with its configuration and a model card.

    Args:
        model: of transformers, compressed by `compress`; it stays as it is.
        folder: is made; one that is there already has to be empty.
        tokenizer: saved along.
        about: what the model card says beyond sizes.
        format: `factors`, or `dense` for the same architecture with ordinary weights: each is the
            product of its factors, computed in float64 and rounded once to the model's dtype.
        max_shard_size: of one file of weights; larger models take several.

    Returns:
        The folder.

    Raises:
        NsvdError: the folder is not empty or cannot be written; nothing of the model is low-rank;
            it is not the model that its configuration describes, is not in memory as a whole, or
            has weights of several dtypes; a product is not finite in its dtype. Nothing is left of
            the folder then.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    target = Path(expand_path(str(folder)))
    forms = _forms(model, format)
    assert isinstance(model, PreTrainedModel)
    about = _completed(about or About(), model)
    with _new_folder(target) as made, quiet():
        if format == "factors":
            _write_factors(model, forms, made, max_shard_size)
        else:
            _write_dense(model, forms, made, max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(made)
        text = card(about, _size(model, forms), format, nsvd_exp.__version__)
        (made / "README.md").write_text(text, encoding="utf-8")
        rows = [dict(row) for row in about.layers] or _rows(forms)
        lines = json.dumps(rows, indent=1, allow_nan=False)
        (made / "layers.json").write_text(lines + "\n", encoding="utf-8")
    return target


def _forms(model: nn.Module, format: str) -> dict[str, LayerForm]:
    """The form of each low-rank layer; refuses a model that would not be the same when loaded."""
    if not isinstance(model, PreTrainedModel):
        raise NsvdError(
            f"a {type(model).__name__} is no model of transformers itself: of a PEFT model save "
            "what merge_and_unload() returns"
        )
    try:
        forms = describe(model)
    except ValueError as error:
        raise NsvdError(str(error)) from None
    if not forms and format == "factors":
        raise NsvdError("the model has no low-rank layer: compress it first, or format='dense'")
    _check_tensors(model)
    empty = _empty(model)
    dense_shapes = shapes(empty)
    try:
        put_layers(empty, forms)
    except ValueError as error:
        raise NsvdError(str(error)) from None
    expected, found = shapes(empty), shapes(model)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
            was = expected.get(name) or dense_shapes.get(name)
            raise NsvdError(
                f"{name} ({kind}) has the shape {_listed(found.get(name))}, where the configuration "
                f"of {type(model).__name__} has {_listed(was)}: such a model cannot be loaded again"
            )
    return forms


def _listed(shape: torch.Size | None) -> str:
    return "none" if shape is None else str(tuple(shape))


def _check_tensors(model: PreTrainedModel) -> None:
    """Refuse weights that are elsewhere, or that loading in one dtype would round."""
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta":
            raise NsvdError(f"the weight {name} is not in memory: load the model as a whole")
        is_kept = parameter.dtype == torch.float32 and any(part in name for part in kept)
        if parameter.is_floating_point() and parameter.dtype != model.dtype and not is_kept:
            raise NsvdError(
                f"the weight {name} has the dtype {parameter.dtype}, and the model {model.dtype}: "
                "a saved model has one; cast it with model.to(dtype)"
            )


def _empty(model: PreTrainedModel) -> Any:
    """The dense model that the configuration describes, on the meta device."""
    with torch.device("meta"):
        return type(model)(_plain_config(model))


def _plain_config(model: PreTrainedModel) -> Any:
    """A copy of the model's configuration that says nothing of low-rank layers."""
    config = copy.deepcopy(model.config)
    if isinstance(getattr(config, "quantization_config", None), LowRankConfig):
        del config.quantization_config
    if getattr(config, "auto_map", None) == AUTO_MAP:
        del config.auto_map
    return config


def _write_factors(
    model: PreTrainedModel, forms: Mapping[str, LayerForm], folder: Path, max_shard_size: int | str
) -> None:
    config = _plain_config(model)
    config.quantization_config = LowRankConfig(forms)
    if not getattr(config, "auto_map", None):  # one of its own stays
        config.auto_map = dict(AUTO_MAP)
    quantizer = LowRankQuantizer(config.quantization_config)
    quantizer.folder = folder
    with _described_by(model, config, quantizer):
        type(model).save_pretrained(model, folder, max_shard_size=max_shard_size)


def _write_dense(
    model: PreTrainedModel, forms: Mapping[str, LayerForm], folder: Path, max_shard_size: int | str
) -> None:
    weights = _dense_weights(model, forms)
    with _described_by(model, _plain_config(model), None):
        type(model).save_pretrained(
            model, folder, state_dict=weights, max_shard_size=max_shard_size
        )


@torch.no_grad()
def _dense_weights(model: PreTrainedModel, forms: Mapping[str, LayerForm]) -> dict[str, Tensor]:
    """All weights by name, with the product of each low-rank layer in the host's memory."""
    inside = tuple(f"{name}." for name in forms)
    weights = {n: tensor for n, tensor in model.state_dict().items() if not n.startswith(inside)}
    empty = _empty(model)
    for name in forms:
        layer = model.get_submodule(name)
        W = copy.deepcopy(layer).double().weight.to(model.dtype)
        assert isinstance(W, Tensor)
        if not W.isfinite().all():
            raise NsvdError(f"the product of the factors of {name} is not finite in {W.dtype}")
        is_transposed = isinstance(empty.get_submodule(name), Conv1D)
        weights[f"{name}.weight"] = (W.T if is_transposed else W).contiguous().cpu()
        if layer.bias is not None:
            weights[f"{name}.bias"] = layer.bias.detach()
    return weights


@contextmanager
def _described_by(model: PreTrainedModel, config: Any, quantizer: Any) -> Iterator[None]:
    """The model with another configuration and quantizer, which `save_pretrained` asks; undone."""
    own = {key: vars(model)[key] for key in ("config", "hf_quantizer") if key in vars(model)}
    model.config, model.hf_quantizer = config, quantizer
    try:
        yield
    finally:
        del model.hf_quantizer
        vars(model).update(own)


def _completed(about: About, model: PreTrainedModel) -> About:
    """With the name of the base and its licence, where the configuration leads to them."""
    name = str(model.config.name_or_path or "")
    if about.base is None and is_hub_name(name):
        about = replace(about, base=name)
    if not about.license and (name or about.base):
        about = replace(about, license=license_of(name or str(about.base), about.revision))
    return about


def _size(model: PreTrainedModel, forms: Mapping[str, LayerForm]) -> Size:
    parameters = [
        parameter
        for name in forms
        for own, parameter in model.get_submodule(name).named_parameters()
        if own.rpartition(".")[2] != "bias"
    ]
    return Size(
        layers=len(forms),
        kept=sum(parameter.numel() for parameter in parameters),
        weights=sum(form.shape[0] * form.shape[1] for form in forms.values()),
        parameters=parameter_count(model),
        dtype=str(model.dtype).removeprefix("torch."),
    )


def _rows(forms: Mapping[str, LayerForm]) -> list[dict[str, Any]]:
    return [
        {"name": name, "storage": form.storage, "m": form.shape[0], "n": form.shape[1]}
        | {"k": form.rank}
        for name, form in forms.items()
    ]


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder to be filled, which becomes `target` in one step, or of which nothing is left."""
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise NsvdError(f"{target} is there already, and not an empty folder: give another one")
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = ScratchFolder(target.parent, ".nsvd_exp-save-")
        made = scratch.path / target.name
        made.mkdir()
        yield made
        for path in made.rglob("*"):
            _to_disk(path)
        made.rename(target)
        _to_disk(target.parent)
    except (OSError, SafetensorError) as error:
        raise NsvdError(f"{target} cannot be written: {error}") from error
    except ValueError as error:  # such as a generation config that transformers does not save
        raise NsvdError(f"the model cannot be saved: {error}") from error
    finally:
        if scratch is not None:
            scratch.remove()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
