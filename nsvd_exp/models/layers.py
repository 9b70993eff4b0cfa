"""Which Linears a model's decoder blocks hold, and how other layers take their places."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nsvd_exp.errors import LayersError, NsvdError
from nsvd_exp.models.lowrank import LowRankLinear, PivotedLinear

Layer: TypeAlias = nn.Linear | Conv1D
"""What is compressed: y = x Wᵀ + b, with its weight as it is or, in a Conv1D, transposed."""


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks: the outermost ModuleList with most parameters.

    Raises:
        NsvdError: the model has no ModuleList.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    if not lists:
        raise NsvdError(f"{type(model).__name__} has no list of decoder blocks (no ModuleList)")
    # Of a list and one inside it with as many parameters, max takes the first, the outer one.
    return max(lists.items(), key=lambda item: sum(p.numel() for p in item[1].parameters()))


@dataclass(frozen=True)
class Survey:
    """What the decoder blocks of a model hold, apart from what `model.skip` leaves out.

    Attributes:
        layers: what can be compressed, by name, in the order of the module tree.
        refused: why a layer cannot be, by name: it is quantised, shared or low-rank already.
        dense: what is no Linear, by name, with the names of its matrices: fused experts, routers,
            convolutions. It stays as it is.
    """

    layers: dict[str, Layer]
    refused: dict[str, str]
    dense: dict[str, str]


def find_linears(model: nn.Module, skip: list[str], strict: bool = False) -> dict[str, Layer]:
    """Every Linear inside the decoder blocks, by name, in the order of the module tree.

    What is no Linear stays dense.

    Args:
        skip: patterns of names that stay dense (fnmatch, on the full name or below a match).
        strict: whether matrices outside of any Linear are refused, in place of left dense.

    Raises:
        NsvdError: as `survey`, or no Linear is left.
        LayersError: layers that cannot be replaced by two factors.
    """
    found = survey(model, skip, strict)
    if found.refused:
        raise LayersError(found.refused, found.layers, skip)
    return found.layers


def survey(model: nn.Module, skip: list[str], strict: bool = False) -> Survey:
    """What the decoder blocks hold; the arguments are those of `find_linears`.

    Raises:
        NsvdError: the model has no blocks, a pattern matches nothing, or there is no Linear, not
            even one that would be refused.
    """
    prefix, blocks = decoder_blocks(model)
    modules = {f"{prefix}.{name}": module for name, module in blocks.named_modules() if name}
    skipped = _skipped(modules, skip)
    # With duplicates: one module under two names is shared as much as one weight in two modules.
    places = (module for _, module in model.named_modules(remove_duplicate=False))
    owners = Counter[Tensor](p for module in places for p in module.parameters(recurse=False))
    layers: dict[str, Layer] = {}
    refused: dict[str, str] = {}
    dense: dict[str, str] = {}
    for name, module in modules.items():
        if name in skipped or name.startswith(tuple(f"{outer}." for outer in refused)):
            continue
        refusal = _refusal(module, owners)
        if refusal:
            refused[name] = f"{refusal} ({type(module).__name__})"
        elif is_layer(module):
            layers[name] = module
        elif matrices := _matrices(module):
            dense[name] = f"{type(module).__name__}: {matrices}"
    if strict:
        refused |= {
            name: f"holds matrices outside of any Linear ({held})" for name, held in dense.items()
        }
    if not (layers or refused):
        which = "that model.skip leaves" if skipped else "at all"
        raise NsvdError(f"the decoder blocks '{prefix}' hold no Linear to compress {which}")
    return Survey(layers, refused, dense)


@torch.no_grad()
def not_called(model: nn.Module, layers: Mapping[str, Layer]) -> list[str]:
    """Layers of a model on the meta device that its forward pass does not call: code beside them
    reads their weights, so that no calibration sees their inputs.

    None of them where the forward pass looks at values, which a model on the meta device has not.
    """
    called: set[str] = set()
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, layer in layers.items()
    ]
    ids = torch.zeros(1, 4, dtype=torch.long, device="meta")
    # A mask of four dimensions is taken as it is: making one would look at values.
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool, device="meta")
    try:
        for options in ({}, {"attention_mask": mask}):
            called.clear()
            try:
                model(input_ids=ids, use_cache=False, **options)
            except Exception:  # whatever the model's own code raises without values
                continue
            return [name for name in layers if name not in called]
    finally:
        for handle in handles:
            handle.remove()
    return []


def dense_note(model: nn.Module, found: Survey) -> str | None:
    """One line on what is no Linear and stays dense, and how much of the model that is."""
    if not found.dense:
        return None
    kinds = dict.fromkeys(
        f"{re.sub(r'[.][0-9]+[.]', '.*.', name, count=1)} ({held})"
        for name, held in found.dense.items()
    )
    numbers = sum(
        p.numel()
        for name in found.dense
        for p in model.get_submodule(name).parameters(recurse=False)
    )
    share = numbers / parameter_count(model)
    return f"what is no Linear stays dense, {share:.1%} of the parameters: {', '.join(kinds)}"


def is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """Whether a module computes y = x Wᵀ + b, and nothing else."""
    if isinstance(module, Conv1D):
        return type(module).forward is Conv1D.forward
    return isinstance(module, nn.Linear) and _is_plain(module)


def weight_of(layer: Layer) -> Tensor:
    """W (m, n) of y = x Wᵀ + b; GPT-2's Conv1D keeps its transpose."""
    return layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data


def shape_of(layer: Layer) -> tuple[int, int]:
    """(m, n) of the weight: outputs and inputs."""
    m, n = weight_of(layer).shape
    return m, n


def _is_plain(linear: nn.Linear) -> bool:
    """Whether the forward of a Linear's class computes x Wᵀ + b, tried with a small weight."""
    if type(linear).forward is nn.Linear.forward:
        return True
    probe = copy.copy(linear)
    probe.in_features, probe.out_features = 3, 2
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]]), requires_grad=False)
    bias = nn.Parameter(torch.tensor([7.0, -5.0]), requires_grad=False)
    small = {"weight": weight, "bias": None if linear.bias is None else bias}
    probe._parameters = {**linear._parameters, **small}
    x = torch.tensor([[1.0, 0.0, 0.0], [3.0, -2.0, 5.0]])
    try:
        found = type(linear).forward(probe, x)
    except Exception:  # it computes with more than a weight and a bias: any error of its own
        return False
    expected = nn.functional.linear(x, weight, small["bias"])
    return isinstance(found, Tensor) and torch.equal(found, expected)


def _skipped(modules: Mapping[str, nn.Module], patterns: list[str]) -> set[str]:
    skipped: set[str] = set()
    for pattern in patterns:
        matches = {
            name
            for name in modules
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        }
        if not matches:
            layers = [name for name, module in modules.items() if is_layer(module)]
            example = (layers or list(modules))[0]
            raise NsvdError(f"model.skip: '{pattern}' matches no layer; one is called {example}")
        skipped |= matches
    return skipped


def _refusal(module: nn.Module, owners: Counter[Tensor]) -> str | None:
    """Why a module inside a block cannot be left out in silence, nor compressed; None else."""
    if isinstance(module, LowRankLinear | PivotedLinear):
        return "low-rank already: put the dense layer back first"
    if isinstance(module, nn.Linear | Conv1D):
        # Of one byte: float8, which counts as floating point.
        if not module.weight.is_floating_point() or module.weight.element_size() == 1:
            return "quantised"
        shared = owners[module.weight] > 1 and is_layer(module)
        return "its weight is shared with another module" if shared else None
    buffers = [
        b for b in module.buffers(recurse=False) if b.ndim >= 2 and not b.is_floating_point()
    ]
    return "holds integer matrices (quantised)" if buffers and not _matrices(module) else None


def _matrices(module: nn.Module) -> str:
    """The names of the matrices that a module holds itself; those of an embedding do not count."""
    if isinstance(module, nn.Embedding):
        return ""
    return ", ".join(n for n, p in module.named_parameters(recurse=False) if p.ndim >= 2)


def replace(model: nn.Module, replacements: Mapping[str, nn.Module]) -> None:
    """Put these modules in the place of the model's own of the same names."""
    for name, module in replacements.items():
        model.set_submodule(name, module)


@contextmanager
def replaced(model: nn.Module, replacements: Mapping[str, nn.Module]) -> Iterator[None]:
    """The model with the named modules replaced; the old ones come back at the end."""
    originals = {name: model.get_submodule(name) for name in replacements}
    try:
        replace(model, replacements)
        yield
    finally:
        replace(model, originals)


def parameter_count(model: nn.Module) -> int:
    """Numbers the model stores; a tied weight counts once."""
    return sum(p.numel() for p in model.parameters())


def not_finite(model: nn.Module) -> str | None:
    """The name of the first parameter with a NaN or Inf, or None."""
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return name
    return None


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf; takes no memory, as `isfinite` does."""
    return bool(torch.isfinite(torch.stack(tensor.aminmax())).all())
