"""The output bases that cells share: made once a weight and metric, for every ratio, k1 and method.

They stay in the memory of the process, within a bound, and with `cache.keep=bases` on disk. Either
way U and its coordinates are float32, and the coordinates are those of the rounded U, so that a
cell has the same numbers whether its bases are new, in memory or on disk. float32 is what a factor
has at most (`evaluation.dtype`). Against float64 up to the factors, the losses of a layer differ by
less than 1e-8 of themselves, and the mean loss of a token by less than 1e-7 (the bundled model;
`benchmarks/README.md`). On disk stand U and the energies alone: the coordinates are one product
away, and would double the file.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nsvd_exp.experiment.order import BasisGroup
from nsvd_exp.methods.linalg import OutputBasis
from nsvd_exp.methods.nested import Basis
from nsvd_exp.models.devices import memory_for_bases
from nsvd_exp.storage.cache import BASES, Cache
from nsvd_exp.storage.files import DamagedError, hold
from nsvd_exp.storage.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

Make = Callable[[], tuple[OutputBasis, bool]]
STORED = torch.float32


@dataclass(frozen=True)
class _Held:
    model: str
    basis: Basis


class Memory:
    """The bases of this process, within a number of bytes.

    Room is made by dropping those of other groups, least recently used first. Those of the group
    itself stay: a cell goes through all layers in the same order, so that to drop the oldest layer
    for the newest would drop each just before it is wanted again. Threads may share it.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, group: BasisGroup, layer: str) -> Basis | None:
        """The basis of a layer, or None."""
        with self._lock:
            held = self._held.get((group.key, layer))
            if held is None:
                return None
            self._held.move_to_end((group.key, layer))
            return held.basis

    def put(self, group: BasisGroup, layer: str, basis: Basis, limit: int) -> None:
        """Hold the basis of a layer, if there is room for it within `limit` bytes."""
        with self._lock:
            room = limit - basis.nbytes - sum(held.basis.nbytes for held in self._held.values())
            for key in [key for key in self._held if key[0] != group.key]:
                if room >= 0:
                    break
                room += self._held.pop(key).basis.nbytes
            if room >= 0:
                self._held[group.key, layer] = _Held(group.model, basis)

    def trim(self, limit: int) -> None:
        """Let go of second stages, those used least recently first, down to `limit` bytes."""
        with self._lock:
            excess = sum(held.basis.nbytes for held in self._held.values()) - limit
            for held in self._held.values():
                if excess <= 0:
                    break
                excess -= held.basis.forget_second_stages()

    def drop_other_models(self, model: str) -> None:
        """Let go of all bases of other models than this one."""
        for key in [key for key, held in self._held.items() if held.model != model]:
            del self._held[key]

    def clear(self) -> None:
        """Let go of all."""
        self._held.clear()


memory = Memory()


class Bases:
    """The bases of one group, for `nsvd_exp.pipeline.compress`.

    Args:
        group: which.
        cache: where they are kept; None, or a cache that keeps no bases: nowhere.
        limit: bytes of memory that the bases of this process may take; None: a quarter of what the
            process may use.

    Raises:
        NsvdError: the cache's folder cannot be written to.
    """

    def __init__(self, group: BasisGroup, cache: Cache | None = None, limit: int | None = None):
        self.group = group
        self._cache = cache if cache is not None and cache.keeps(BASES) else None
        self._limit = memory_for_bases() if limit is None else limit
        self._is_full = False  # the disk, or its share: the rest of the group is not tried
        memory.drop_other_models(group.model)
        memory.trim(self._limit)  # what earlier cells have made of them
        if self._cache is not None:
            self._cache.use(BASES, group.key, group.about)

    def get(self, layer: str, W: Tensor, make: Make) -> Basis:
        """The basis of a layer: from memory, from disk, or made.

        Args:
            W: (m, n), the layer's weight.
            make: `Method.directions` of the layer.
        """
        basis = memory.get(self.group, layer)
        if basis is None:
            basis = _stored(*make(), W) if self._cache is None else self._kept(layer, W, make)
            memory.put(self.group, layer, basis, self._limit)
        return basis

    def _kept(self, layer: str, W: Tensor, make: Make) -> Basis:
        assert self._cache is not None
        path = self._cache.folder / BASES / self.group.key / f"{layer}.safetensors"
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError:  # a full disk, which `write` says
            return self._made(path, W, make)
        lock = path.with_suffix(".lock")
        with hold(lock, f"the basis of {layer} ({self.group.about['metric']})", log.warning):
            if path.exists():
                try:
                    return load(path, W)
                except DamagedError as error:
                    kept = f"bases of {self.group.about['model']} in {path.parent}"
                    self._cache.say(f"{kept} are damaged or of another version: made again")
                    log.debug("%s: %s", path, error)
            return self._made(path, W, make)

    def _made(self, path: Path, W: Tensor, make: Make) -> Basis:
        assert self._cache is not None
        basis = _stored(*make(), W)
        if not self._is_full:
            size = basis.U.nbytes + basis.energy.nbytes
            self._is_full = not self._cache.write(BASES, size, lambda: save(basis, path))
        return basis


def _stored(found: OutputBasis, is_gram: bool, W: Tensor) -> Basis:
    """The basis as it is held: on the CPU, its U rounded, the coordinates those of that U."""
    return _of_rounded(found.U.to("cpu", STORED), found.energy.cpu(), found.seen, is_gram, W)


def _of_rounded(U: Tensor, energy: Tensor, seen: int, is_gram: bool, W: Tensor) -> Basis:
    coordinates = U.to(W.device).double().T @ W.double()
    return Basis(U, coordinates.to("cpu", STORED), energy, seen, is_gram)


def save(basis: Basis, path: Path) -> None:
    """Write U and the energies."""
    about = {"seen": basis.seen, "is_gram": basis.is_gram}
    save_tensors(path, {"U": basis.U, "energy": basis.energy}, about)


def load(path: Path, W: Tensor) -> Basis:
    """Read what `save` wrote, for the weight W (m, n).

    Raises:
        DamagedError: it is missing, damaged, of another version, or of a weight of another shape.
    """
    tensors, about = load_tensors(path)
    # Copies: a map of the file would break when the file is removed on another machine.
    U, energy = tensors["U"].clone(), tensors["energy"].clone()
    if U.shape != (W.shape[0], min(W.shape)):
        raise DamagedError(f"{path}: a basis {tuple(U.shape)} for a weight {tuple(W.shape)}")
    return _of_rounded(U, energy, about["seen"], about["is_gram"], W)
