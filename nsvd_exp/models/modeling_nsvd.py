"""How transformers reads and writes a model whose Linears are low-rank layers.

This file and `lowrank.py` travel along in the folder of such a model, where they import nothing
but torch and transformers; the package nsvd_exp uses the same two files. They register a
quantization method of transformers, so that every architecture is loaded by its own class.

In the folder, `quantization_config` of config.json says which layers are low-rank, how each is
stored, and with which shape and rank. The weights hold what such a layer `X` consists of, as
`X.left.weight`, and under the name `X.weight` of the dense weight that is gone its shape, two
integers. Nothing reads those: they are there because transformers only warns about a quantization
method that it does not know, and fills the weights that it misses with random numbers. It does not
go on where a weight has another shape than the layer.
"""

from __future__ import annotations

import shutil
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME
from transformers.utils.quantization_config import QuantizationConfigMixin

from .lowrank import LowRankLinear, PivotedLinear

METHOD = "nsvd_exp"
VERSION = 1

# The class of the layers by the name of their form.
LAYERS: dict[str, Any] = {"factors": LowRankLinear, "pivoted": PivotedLinear}

TRAVELLING = ("modeling_nsvd.py", "lowrank.py")
AUTO_MAP = {"AutoConfig": "modeling_nsvd.LowRankModelConfig"}


@dataclass(frozen=True)
class LayerForm:
    """What a low-rank layer is: y = Ŵ x + bias.

    Attributes:
        storage: the form that Ŵ is stored in, one of `LAYERS`.
        m, n: outputs and inputs, the shape of Ŵ.
        k: its rank.
    """

    storage: str
    m: int
    n: int
    k: int

    @classmethod
    def of(cls, name: str, content: Any) -> LayerForm:
        """What config.json says of the layer `name`.

        Raises:
            ValueError: it says something else.
        """
        if isinstance(content, dict) and content.keys() == {"storage", "m", "n", "k"}:
            storage, m, n, k = (content[key] for key in ("storage", "m", "n", "k"))
            if storage not in LAYERS:
                raise ValueError(
                    f"{name} is stored as {storage!r}; known here: {', '.join(LAYERS)}"
                )
            if all(type(number) is int for number in (m, n, k)) and 0 < k <= min(m, n):
                return cls(storage, m, n, k)
        raise ValueError(f"config.json has no storage, m, n and k of {name}, but {content}")

    def empty(self, bias: bool, dtype: torch.dtype) -> Any:
        """The layer with all it holds on the meta device."""
        return LAYERS[self.storage].empty(self.m, self.n, self.k, bias, dtype)


class LowRankConfig(QuantizationConfigMixin):
    """`quantization_config` of a model with low-rank layers.

    Args:
        layers: a `LayerForm`, or its dictionary, by the name of the layer in the saved model.
        version: of the format.

    Raises:
        ValueError: the version is another one, or an entry is no form of a layer.
    """

    def __init__(
        self,
        layers: Mapping[str, Any] | None = None,
        version: int = VERSION,
        quant_method: str = METHOD,
        **unknown: Any,
    ) -> None:
        if version != VERSION:
            raise ValueError(
                f"its format has the version {version}, and this code reads {VERSION}: load it "
                "with the nsvd_exp that wrote it, or with trust_remote_code=True in a process of "
                "its own"
            )
        if unknown or not isinstance(layers, Mapping) or not layers:
            raise ValueError("quantization_config in config.json is no table of low-rank layers")
        self.quant_method, self.version = quant_method, version
        self.layers = {
            name: form if isinstance(form, LayerForm) else LayerForm.of(name, form)
            for name, form in layers.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """What is written to config.json."""
        layers = {name: asdict(form) for name, form in self.layers.items()}
        return {"quant_method": self.quant_method, "version": self.version, "layers": layers}


class LowRankQuantizer(HfQuantizer):
    """Puts low-rank layers into a model before its weights are read, and describes them again when
    it is saved."""

    requires_calibration = True  # from_pretrained cannot make a dense model low-rank
    is_trainable = is_qat_trainable = is_compileable = True

    folder: Path | None = None  # that save_pretrained is just writing to

    def is_serializable(self, **_: Any) -> bool:
        """Whether save_pretrained may be called."""
        return True

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        saved = self.quantization_config.layers
        own = put_layers(model, saved)
        whole = type(model).__name__ in (model.config.architectures or [])
        model._adjust_missing_and_unexpected_keys = _checked(
            model._adjust_missing_and_unexpected_keys,
            {f"{name}.weight" for name in (*saved, *own)},
            None if whole else own,
        )

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> None:
        del model._adjust_missing_and_unexpected_keys
        for name, layer in low_rank_layers(model).items():
            if not all(parameter.is_floating_point() for parameter in layer.parameters()):
                raise ValueError(f"the weights of {name} are no floating-point numbers")
        model.config.auto_map = getattr(model.config, "auto_map", None) or dict(AUTO_MAP)
        model.save_pretrained = types.MethodType(_save_pretrained, model)
        # Its numbers are those of an ordinary model: it may be cast, and trained as a whole.
        model.is_quantized = False
        for module in model.modules():
            if getattr(getattr(module, "config", None), "_is_quantized", False):
                del module.config._is_quantized

    def get_state_dict_and_metadata(self, model: Any, *_: Any) -> tuple[Any, dict[str, str]]:
        """The weights that save_pretrained writes; of a model with adapters, theirs alone."""
        if getattr(model, "_hf_peft_config_loaded", False):
            return None, {}
        forms = describe(model)
        model.config.quantization_config = LowRankConfig(forms)
        if self.folder is not None:
            travel(self.folder)
        gone = {f"{name}.weight": torch.tensor([form.m, form.n]) for name, form in forms.items()}
        return model.state_dict() | gone, {}


def _save_pretrained(self: Any, save_directory: Any, *args: Any, **options: Any) -> Any:
    """`save_pretrained` of the model's class, and the files that travel along."""
    self.hf_quantizer.folder = Path(save_directory)
    return type(self).save_pretrained(self, save_directory, *args, **options)


class LowRankModelConfig:
    """What `auto_map` names, so that `trust_remote_code=True` runs this file: the configuration is
    that of the model's own architecture."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        """The configuration, once transformers knows the format."""
        register()
        return AutoConfig.from_pretrained(name, trust_remote_code=False, **options)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Nothing: no object is of this class."""


def register() -> None:
    """Make transformers know the format.

    The first copy of this file that is loaded stands, and the package's own above all.
    """
    is_copy = __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")
    for known, add, kind in (
        (AUTO_QUANTIZATION_CONFIG_MAPPING, register_quantization_config, LowRankConfig),
        (AUTO_QUANTIZER_MAPPING, register_quantizer, LowRankQuantizer),
    ):
        if not is_copy:
            known.pop(METHOD, None)
        if METHOD not in known:
            add(METHOD)(kind)


def travel(folder: Path) -> None:
    """Copy this file, and those that it needs, into the folder of a model."""
    for name in TRAVELLING:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)


def put_layers(model: Any, forms: Mapping[str, LayerForm]) -> list[str]:
    """Replace dense layers by empty low-rank ones.

    Args:
        forms: by the name in the model that was saved, of which this may be the part without head.

    Returns:
        The names in this model.

    Raises:
        ValueError: the model has no such dense layer.
    """
    names = []
    for saved, form in forms.items():
        name = saved.removeprefix(f"{model.base_model_prefix}.")
        name = saved if _has(model, saved) or not _has(model, name) else name
        dense = model.get_submodule(name) if _has(model, name) else None
        if not isinstance(dense, nn.Linear | Conv1D):
            raise ValueError(f"{type(model).__name__} has no dense layer {saved}")
        m, n = dense.weight.shape if isinstance(dense, nn.Linear) else dense.weight.shape[::-1]
        if (m, n) != (form.m, form.n):
            raise ValueError(
                f"{saved} has the shape {(form.m, form.n)} by quantization_config, and {(m, n)} by "
                "the rest of config.json"
            )
        model.set_submodule(name, form.empty(dense.bias is not None, dense.weight.dtype))
        names.append(name)
    return names


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _checked(
    adjust: Callable[..., Any], shapes_of_dense: set[str], layers: list[str] | None
) -> Callable[..., Any]:
    """`_adjust_missing_and_unexpected_keys` of a model, which refuses what it leaves.

    It is the one function of a model that is told which weights were missing.

    Args:
        shapes_of_dense: what is in the files, and nothing is made of.
        layers: those whose weights are concerned; None: all.
    """
    inside = None if layers is None else tuple(f"{name}." for name in layers)

    def adjust_and_check(*found: Any) -> Any:
        adjusted = adjust(*found)
        if adjusted is None:  # they have been changed in place
            info = found[0]
            info.unexpected_keys -= shapes_of_dense
            mismatched = {key for key, *_ in info.mismatched_keys}
            missing, unexpected = info.missing_keys, info.unexpected_keys
        else:  # in transformers 5.0, which itself refuses mismatched ones
            missing, unexpected = adjusted[0], set(adjusted[1]) - shapes_of_dense
            mismatched = set()
            adjusted = missing, unexpected
        for kind, keys in (
            ("lacks", missing),
            ("holds, beyond what the model knows,", unexpected),
            ("holds in another shape", mismatched),
        ):
            wrong = sorted(key for key in keys if inside is None or key.startswith(inside))
            if wrong:
                listed = ", ".join(wrong[:3])
                raise ValueError(f"the checkpoint {kind} {listed} ({len(wrong)} in all)")
        return adjusted

    return adjust_and_check


def low_rank_layers(model: nn.Module) -> dict[str, Any]:
    """The low-rank layers of a model, by name."""
    kinds = tuple(LAYERS.values())
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def describe(model: nn.Module) -> dict[str, LayerForm]:
    """The form of each low-rank layer of a model, by name.

    Raises:
        ValueError: one of them holds something else than its form says, such as an adapter.
    """
    forms = {}
    for name, layer in low_rank_layers(model).items():
        storage = next(key for key, kind in LAYERS.items() if isinstance(layer, kind))
        form = LayerForm(storage, layer.out_features, layer.in_features, layer.rank)
        bias = layer.bias is not None
        if shapes(layer) != shapes(form.empty(bias, torch.float32)):
            raise ValueError(
                f"{name} holds something else than its factors: merge an adapter first "
                "(merge_and_unload)"
            )
        forms[name] = form
    return forms


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shape of all that a module saves, by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
