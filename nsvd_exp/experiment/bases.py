"""The output bases that cells share: one for each weight and metric, for every ratio, k1, method.

They stay in the memory of the process, within a limit, and with `cache.keep=bases` on disk. Either
way U and its coordinates are float32, and the coordinates are those of the rounded U, so that a
cell has the same numbers whether its bases are new, in memory or on disk. float32 is what a factor
has at most (`evaluation.dtype`). Against float64 up to the factors, the losses of a layer differ by
less than 1e-8 of themselves, and the mean loss of a token by less than 1e-7 (the bundled model;
`benchmarks/README.md`). On disk stand U and the energies alone: the coordinates are one product
away, and would double the file.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nsvd_exp.experiment.bases_plan import BasesOf
from nsvd_exp.methods.linalg import Eigenbasis, coordinates_in
from nsvd_exp.methods.truncation import OutputBasis
from nsvd_exp.models.devices import memory_for_bases
from nsvd_exp.storage.cache import BASES, Cache
from nsvd_exp.storage.files import DamagedError, hold, path_component
from nsvd_exp.storage.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

Make = Callable[[], Eigenbasis]
STORED = torch.float32


class BasisMemory:
    """The bases that a process holds, within a number of bytes. Threads may share it.

    Room is made by dropping those of other models and metrics, least recently used first. Those of
    the metric at hand stay: a cell goes through all layers in the same order, so that to drop the
    oldest layer for the newest would drop each just before it is wanted again.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[BasesOf, str], OutputBasis] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, of: BasesOf, layer: str) -> OutputBasis | None:
        """The basis of a layer, or None."""
        with self._lock:
            basis = self._held.get((of, layer))
            if basis is not None:
                self._held.move_to_end((of, layer))
            return basis

    def put(self, of: BasesOf, layer: str, basis: OutputBasis, limit: int) -> None:
        """Hold the basis of a layer, if there is room for it within `limit` bytes."""
        with self._lock:
            room = limit - basis.nbytes - sum(held.nbytes for held in self._held.values())
            for key in [key for key in self._held if key[0] != of]:
                if room >= 0:
                    break
                room += self._held.pop(key).nbytes
            if room >= 0:
                self._held[of, layer] = basis

    def trim(self, limit: int) -> None:
        """Let go of second stages, those used least recently first, down to `limit` bytes."""
        with self._lock:
            excess = sum(held.nbytes for held in self._held.values()) - limit
            for held in self._held.values():
                if excess <= 0:
                    break
                excess -= held.forget_second_stages()

    def drop_other_models(self, model: str) -> None:
        """Let go of all bases of other models than this one."""
        for key in [key for key in self._held if key[0].model != model]:
            del self._held[key]


class SharedBases:
    """The bases of one model and metric, as `nsvd_exp.pipeline.compress` asks for them.

    Args:
        cache: where they are kept; one that keeps no bases, or None: nowhere.
        limit: bytes of memory that the bases of this process may take; None: a quarter of what the
            process may use.

    Raises:
        NsvdError: the cache's folder cannot be written to.
    """

    def __init__(
        self, of: BasesOf, memory: BasisMemory, cache: Cache | None = None, limit: int | None = None
    ) -> None:
        self._of, self._memory = of, memory
        self._cache = cache if cache is not None and cache.keeps(BASES) else None
        self._limit = memory_for_bases() if limit is None else limit
        self._is_full = False  # the disk, or its share: the other layers are not tried
        memory.drop_other_models(of.model)
        memory.trim(self._limit)  # what earlier cells have made of them
        if self._cache is not None:
            self._cache.use(BASES, of.key, of.about)

    def get(self, layer: str, W: Tensor, make: Make) -> OutputBasis:
        """The basis of a layer with weight W (m, n): from memory, from disk, or of `make`."""
        basis = self._memory.get(self._of, layer)
        if basis is None:
            basis = self._new(W, make) if self._cache is None else self._kept(layer, W, make)
            self._memory.put(self._of, layer, basis, self._limit)
        return basis

    def _kept(self, layer: str, W: Tensor, make: Make) -> OutputBasis:
        assert self._cache is not None
        file = f"{path_component('layer', layer)}.safetensors"
        path = self._cache.folder / BASES / self._of.key / file
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError:  # a full disk, which `write` says
            return self._written(path, layer, W, make)
        title = f"the basis of {layer} ({self._of.about['metric']})"
        with hold(path.with_suffix(".lock"), title, log.warning):
            if os.path.exists(path):
                try:
                    return self._read(path, layer, W)
                except DamagedError as error:
                    kept = f"bases of {self._of.about['model']} in {path.parent}"
                    self._cache.say(
                        f"{kept} are damaged, of another version or of something else: made again"
                    )
                    log.debug("%s: %s", path, error)
            return self._written(path, layer, W, make)

    def _about(self, layer: str) -> dict[str, str]:
        return {"key": self._of.key, "layer": layer}

    def _read(self, path: Path, layer: str, W: Tensor) -> OutputBasis:
        tensors, about = load_tensors(path, self._about(layer))
        rank = min(W.shape)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != {"U": (W.shape[0], rank), "energy": (rank,)}:
            raise DamagedError(f"tensors {found} for a weight {tuple(W.shape)}")
        seen = about.get("seen")
        if not (isinstance(seen, int) and all(t.is_floating_point() for t in tensors.values())):
            raise DamagedError(f"it says {about}")
        # Copies: a map of the file would break when the file is removed on another machine.
        U = tensors["U"].to(STORED, copy=True)
        is_orthonormal = about.get("orthonormal", True)
        return self._rounded(Eigenbasis(U, tensors["energy"].clone(), seen, is_orthonormal), W)

    def _written(self, path: Path, layer: str, W: Tensor, make: Make) -> OutputBasis:
        assert self._cache is not None
        basis = self._new(W, make)
        if not self._is_full:
            tensors = {"U": basis.U, "energy": basis.energy}
            size = sum(t.nbytes for t in tensors.values())
            about = {**self._about(layer), "seen": basis.seen}
            if not basis.is_orthonormal:
                about["orthonormal"] = False
            kept = self._cache.write(BASES, size, lambda: save_tensors(path, tensors, about))
            self._is_full = not kept
        return basis

    def _new(self, W: Tensor, make: Make) -> OutputBasis:
        """A new basis as it is held: on the CPU, U rounded, the coordinates those of that U."""
        found = make()
        return self._rounded(
            found._replace(U=found.U.to("cpu", STORED), energy=found.energy.cpu()), W
        )

    def _rounded(self, found: Eigenbasis, W: Tensor) -> OutputBasis:
        U = found.U.to(W.device).double()
        coordinates = coordinates_in(U, W.double(), found.is_orthonormal).to("cpu", STORED)
        return OutputBasis(
            found.U,
            coordinates,
            found.energy,
            found.seen,
            self._of.is_gram,
            found.is_orthonormal,
        )
