"""Hugging Face causal language models and tokenizers, loaded at one exact state."""

from __future__ import annotations

import importlib.util
import logging
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from nsvd_exp.config.sections import ModelConfig
from nsvd_exp.errors import NsvdError, OutOfMemoryError
from nsvd_exp.models.batches import is_out_of_memory
from nsvd_exp.models.devices import ALL_GPUS
from nsvd_exp.models.hub import on_hub
from nsvd_exp.models.layers import not_finite
from nsvd_exp.models.sources import ModelSource

# Buffers that old LLaMA checkpoints carry and newer code computes.
RECOMPUTED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias")


def check_device(device: str) -> None:
    """Refuse a GPU that the driver reports and torch cannot use.

    Raises:
        NsvdError: `device` is such a GPU.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise NsvdError(
            f"device={device}: the driver reports a GPU, but torch {torch.__version__} cannot use "
            "it: use device=cpu, or a torch build for this driver"
        )


def load_model(
    source: ModelSource, config: ModelConfig, dtype: str, device: str
) -> transformers.PreTrainedModel:
    """The model in eval mode on `device`, its weights in `dtype`.

    `cuda:all` spreads it over all GPUs, each block as a whole on one of them.

    Raises:
        NsvdError: there are no (safe) weights, the checkpoint does not match the architecture or is
            quantised, a weight is NaN or Inf, or the device cannot be used.
        OutOfMemoryError: the model does not fit on all GPUs together.
    """
    # Straight to a GPU: the host never holds all of it.
    place = {"cpu": None, ALL_GPUS: "balanced"}.get(device, device)
    model = _checked_model(source, config, dtype, device_map=place).requires_grad_(False)
    if device == ALL_GPUS and {"cpu", "disk"} & {str(d) for d in model.hf_device_map.values()}:
        raise OutOfMemoryError(f"{config.name} does not fit on all GPUs together")
    broken = not_finite(model)
    if broken:
        raise NsvdError(f"{config.name}: the weight {broken} holds NaN or Inf")
    return model


def load_streamed(
    source: ModelSource, config: ModelConfig, dtype: str, folder: Path
) -> tuple[transformers.PreTrainedModel, Mapping[str, torch.Tensor]]:
    """The model without its weights, which are read from the checkpoint when they are needed.

    Args:
        folder: for weights that transformers changes after reading them from the checkpoint.

    Returns:
        The model in eval mode with parameters on the meta device, and its weights by name, each of
        which is read anew whenever it is looked up.

    Raises:
        NsvdError: as `load_model`, except for NaN and Inf, which only reading shows.
    """
    from accelerate.hooks import remove_hook_from_module  # most of a second

    if source.gguf_file is not None:
        raise NsvdError(
            f"{config.name}: the weights of a GGUF file are dequantised all at once, and cannot be "
            "streamed: memory=resident, or a safetensors checkpoint of the model"
        )

    model = _checked_model(
        source, config, dtype, device_map={"": "disk"}, offload_folder=str(folder)
    )
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    maps = (getattr(hook, "weights_map", None) for hook in hooks)
    weights = next(found.dataset for found in maps if found is not None)
    remove_hook_from_module(model, recurse=True)
    return model.requires_grad_(False), weights


def _checked_model(
    source: ModelSource, config: ModelConfig, dtype: str, **placement: Any
) -> transformers.PreTrainedModel:
    """The model in eval mode, its checkpoint checked against the architecture."""
    _check_checkpoint(source, config)
    with quiet():
        model, info = _from_pretrained(
            transformers.AutoModelForCausalLM,
            source,
            config,
            dtype=getattr(torch, dtype),
            use_safetensors=True if config.safetensors_only else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they stand in the info then, and are an error below
            **placement,
        )
    check_loaded(config.name, info)
    if source.gguf_file is not None:
        del model.config.quantization_config  # the weights are dequantised
    # A model made from a config is in training mode; one that is loaded is not. Say so either way.
    return model.eval()


def load_empty(source: ModelSource, config: ModelConfig) -> transformers.PreTrainedModel:
    """The model in eval mode with all its parameters on the meta device: no weight is read.

    Raises:
        NsvdError: there are no (safe) weights in its folder, it is quantised, or its config.json
            describes no causal language model.
    """
    _check_checkpoint(source, config)
    auto = transformers.AutoModelForCausalLM
    with quiet(), torch.device("meta"):
        own = _from_pretrained(transformers.AutoConfig, source, config)
        try:
            model = auto.from_config(
                own, dtype=torch.bfloat16, trust_remote_code=config.trust_remote_code
            )
        except Exception as error:  # a wrong config.json makes it raise anything; it is kept
            raise NsvdError(
                f"{config.name} cannot be loaded: {_advice(error, False, source, config)}"
            ) from error
    return model.eval()


def load_tokenizer(source: ModelSource, config: ModelConfig) -> Any:
    """The tokenizer that comes with the model.

    Raises:
        NsvdError: its files are missing or cannot be read.
    """
    with quiet():
        tokenizer = _from_pretrained(transformers.AutoTokenizer, source, config, **config.tokenizer)
    # Where its files are missing, transformers makes many a tokenizer of its special tokens alone.
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        raise NsvdError(
            f"{config.name}: its tokenizer has no vocabulary: is there a tokenizer.json, or a "
            "tokenizer.model?"
        )
    return tokenizer


def vocabulary_of(model: nn.Module) -> int:
    """How many token ids the model has an embedding for."""
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]


def check_vocabulary(model: nn.Module, ids: torch.Tensor) -> None:
    """Refuse ids that the model has no embedding for.

    Raises:
        NsvdError: the ids come from a tokenizer with more entries than the model has.
    """
    rows = vocabulary_of(model)
    if int(ids.max()) >= rows:
        raise NsvdError(
            f"the tokenizer gives the id {int(ids.max())}, but the model has {rows} embeddings: "
            "they do not belong together"
        )


def to_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters in place.

    Buffers keep theirs, as `from_pretrained` leaves them: rotary frequencies rounded to half
    precision would change every number.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _from_pretrained(auto: Any, source: ModelSource, config: ModelConfig, **options: Any) -> Any:
    try:
        return on_hub(
            source.name,
            "model",
            lambda: auto.from_pretrained(
                source.name,
                revision=source.commit or "main",
                trust_remote_code=config.trust_remote_code,
                **({"gguf_file": source.gguf_file} if source.gguf_file else {}),
                **options,
            ),
        )
    except NsvdError:
        raise
    except Exception as error:  # a damaged file makes it raise anything; the cause is kept
        if is_out_of_memory(error):
            raise
        advice = _advice(error, auto is transformers.AutoTokenizer, source, config)
        raise NsvdError(f"{config.name} cannot be loaded: {advice}") from error


def _advice(error: Exception, is_tokenizer: bool, source: ModelSource, config: ModelConfig) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own; if you trust it: model.trust_remote_code=true"
    text = textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__
    if is_tokenizer:
        return f"its tokenizer cannot be read; it needs a sound tokenizer.json. ({text})"
    if isinstance(error, SafetensorError):
        return f"its weights are damaged, or were not copied to their end: get them again. ({text})"
    if config.safetensors_only and not source.is_local and "safetensors" in text:
        return (
            "it has no safetensors weights; pickled ones can run code when they are read. If you "
            "trust them: model.safetensors_only=false"
        )
    return text


def _check_checkpoint(source: ModelSource, config: ModelConfig) -> None:
    if source.gguf_file is not None:
        _require_gguf(config)
    elif source.is_local:
        _check_weights(Path(source.name), config)
    if source.config.get("quantization_config"):
        raise NsvdError(f"{config.name} is quantised: its weights cannot be factorised as they are")


def _require_gguf(config: ModelConfig) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise NsvdError(f"{config.name}: to read {config.gguf_file}: pip install 'nsvd_exp[gguf]'")


def _check_weights(folder: Path, config: ModelConfig) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if not pickled:
        raise NsvdError(f"model folder {folder} has no weights (no *.safetensors)")
    if config.safetensors_only:
        raise NsvdError(
            f"model folder {folder} has only pickled weights ({pickled[0]}), which can run code "
            "when they are read. If you trust them: model.safetensors_only=false"
        )


def check_loaded(name: str, info: dict[str, Any]) -> None:
    """Refuse a checkpoint that does not match its architecture.

    transformers fills what a checkpoint lacks with random numbers, and only prints about it.

    Args:
        name: of the model, for messages.
        info: that `from_pretrained` gives with `output_loading_info`.

    Raises:
        NsvdError: weights are missing, unexpected or of another shape.
    """
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith(RECOMPUTED)]
    mismatched = [
        f"{key} ({tuple(found)}, where {tuple(expected)} belongs)"
        for key, found, expected in info["mismatched_keys"]
    ]
    for kind, keys in (
        ("lacks", info["missing_keys"]),
        ("has, beyond what the architecture knows,", unexpected),
        ("has in another shape", mismatched),
    ):
        if keys:
            listed = ", ".join(sorted(keys)[:3])
            raise NsvdError(f"{name}: the checkpoint {kind} {listed} ({len(keys)} in all)")


@contextmanager
def quiet() -> Iterator[None]:
    """Without load report and progress bar: what matters of them is checked and raised."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dispatch = logging.getLogger("accelerate.big_modeling")
    level = dispatch.level
    dispatch.setLevel(logging.ERROR)
    try:
        yield
    finally:
        dispatch.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()
