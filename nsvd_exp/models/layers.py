"""Which Linears a model's decoder blocks hold, and the two-factor layer that replaces one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError


class LowRankLinear(nn.Module):
    """y = left (right x) + bias: a Linear whose weight is left @ right.

    Args:
        left: (m, k); right: (k, n); bias: (m,) or None. Kept in the dtype they come in.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        m, k = left.shape
        n = right.shape[1]
        self.in_features, self.out_features, self.rank = n, m, k
        # Shape only, then the given tensors: no initialisation, no second copy.
        self.right = nn.Linear(n, k, bias=False, device="meta")
        self.left = nn.Linear(k, m, bias=bias is not None, device="meta")
        self.right.weight = nn.Parameter(right, requires_grad=False)
        self.left.weight = nn.Parameter(left, requires_grad=False)
        if bias is not None:
            self.left.bias = nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """left @ right, (m, n): for model code that looks at a Linear's weight."""
        return self.left.weight @ self.right.weight

    def forward(self, x: Tensor) -> Tensor:
        """(*, n) to (*, m)."""
        return self.left(self.right(x))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}"


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


def find_linears(model: nn.Module, skip: list[str]) -> dict[str, nn.Linear]:
    """Every Linear inside the decoder blocks, by name, in the order of the module tree.

    Args:
        skip: patterns of names that stay dense (fnmatch, on the full name or below a match).

    Raises:
        NsvdError: a pattern matches nothing; the blocks hold a weight that cannot be replaced by
            two factors (quantised, convolution-style, fused experts, shared with another module,
            low-rank already); or no Linear is left.
    """
    prefix, blocks = decoder_blocks(model)
    modules = {f"{prefix}.{name}": module for name, module in blocks.named_modules() if name}
    skipped = _skipped(modules, skip)
    # With duplicates: one module under two names is shared as much as one weight in two modules.
    places = (module for _, module in model.named_modules(remove_duplicate=False))
    owners = Counter[Tensor](p for module in places for p in module.parameters(recurse=False))
    found = {}
    for name, module in modules.items():
        if name in skipped:
            continue
        refusal = _refusal(module, owners)
        if refusal:
            raise NsvdError(
                f"{name} ({type(module).__name__}) {refusal}; to leave it dense: "
                f"model.skip=[{name}]"
            )
        if isinstance(module, nn.Linear):
            found[name] = module
    if not found:
        which = "that model.skip leaves" if skipped else "at all"
        raise NsvdError(f"the decoder blocks '{prefix}' hold no Linear to compress {which}")
    return found


def _skipped(modules: Mapping[str, nn.Module], patterns: list[str]) -> set[str]:
    skipped: set[str] = set()
    for pattern in patterns:
        matches = {
            name
            for name in modules
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        }
        if not matches:
            linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
            example = (linears or list(modules))[0]
            raise NsvdError(f"model.skip: '{pattern}' matches no layer; one is called {example}")
        skipped |= matches
    return skipped


def _refusal(module: nn.Module, owners: Counter[Tensor]) -> str | None:
    """Why a module inside a block cannot be compressed; None where it can, or holds no matrix."""
    if isinstance(module, LowRankLinear):
        return "is low-rank already: put the dense layer back first"
    if isinstance(module, nn.Linear):
        if type(module).forward is not nn.Linear.forward or not module.weight.is_floating_point():
            return "is quantised or computes something else than x Wᵀ + b"
        return "shares its weight with another module" if owners[module.weight] > 1 else None
    if type(module).__name__ == "Conv1D" or isinstance(module, nn.Conv1d):
        return "is a convolution-style Linear, which has no row-major weight to factorise"
    parameters = module.named_parameters(recurse=False)
    matrices = [name for name, p in parameters if p.ndim >= 2]
    buffers = [
        b for b in module.buffers(recurse=False) if b.ndim >= 2 and not b.is_floating_point()
    ]
    if matrices and not isinstance(module, nn.Embedding):
        return f"holds the matrices {', '.join(matrices)} outside of any Linear (fused experts?)"
    return "holds integer matrices (quantised)" if buffers else None


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
