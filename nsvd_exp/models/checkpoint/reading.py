"""Loads the folder of a saved model, whole or not at all."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import torch
import transformers

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.layers import not_finite
from nsvd_exp.models.loading import check_loaded, quiet
from nsvd_exp.models.modeling_nsvd import METHOD, LowRankConfig, register
from nsvd_exp.storage.files import read_regular

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def load(
    folder: str | Path, dtype: str | torch.dtype = "auto", **options: Any
) -> transformers.PreTrainedModel:
    """The model in a folder of `save` or of `save_pretrained`, in eval mode.

    `transformers.AutoTokenizer.from_pretrained(folder)` is its tokenizer.

    Args:
        dtype: that its weights are cast to; `auto`: as they are.
        options: of `transformers.AutoModelForCausalLM.from_pretrained`, such as `device_map`.

    Raises:
        NsvdError: the folder holds no model, or one of another format or version; its weights are
            not those that config.json describes, or damaged; one of them is NaN or Inf.
    """
    source = Path(expand_path(str(folder)))
    weight_files(source)
    _check_format(source)
    register()
    try:
        with quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they stand in the info then, and are an error
                **options,
            )
    except Exception as error:  # a damaged file makes it raise anything; the cause is kept
        if is_out_of_memory(error):
            raise
        text = textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__
        raise NsvdError(f"{source} cannot be loaded: {text}") from error
    check_loaded(str(source), info)
    broken = not_finite(model)
    if broken:
        raise NsvdError(f"{source}: the weight {broken} holds NaN or Inf")
    return model.eval()


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of the model in a folder.

    Raises:
        NsvdError: there is no such folder, or it has no config.json, or not all of these files.
    """
    if not folder.is_dir():
        raise NsvdError(f"there is no folder {folder}")
    if not (folder / "config.json").is_file():
        raise NsvdError(f"{folder} is no folder of a model: it has no config.json")
    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        shards = _object(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise NsvdError(f"{folder / INDEX} has no weight_map")
        names = sorted({str(name) for name in shards.values()})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise NsvdError(
            f"{folder} lacks {', '.join(missing)}: it is no model, or was not copied whole"
        )
    return [folder / name for name in names]


def _check_format(folder: Path) -> None:
    """Refuse a folder of another format, or of another version of it."""
    content = _object(folder / "config.json").get("quantization_config")
    if content is None:
        return  # dense weights
    method = content.get("quant_method") if isinstance(content, dict) else content
    if method != METHOD:
        raise NsvdError(
            f"{folder} is in the format {method!r}, where {METHOD!r} or dense weights belong: load "
            "it with transformers"
        )
    try:
        LowRankConfig(**content)
    except (TypeError, ValueError) as error:
        raise NsvdError(f"{folder}: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise NsvdError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise NsvdError(f"{path} holds no JSON object")
    return content
