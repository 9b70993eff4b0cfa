"""Makes low-rank layers of Linears and the statistics of their inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods import Allocation, Method
from nsvd_exp.methods.allocation import Spectrum
from nsvd_exp.methods.base import Factors, Losses
from nsvd_exp.methods.factorise import factorise
from nsvd_exp.methods.linalg import Eigenbasis
from nsvd_exp.methods.statistics import Calibration, Statistics
from nsvd_exp.methods.truncation import Known, OutputBasis, directions
from nsvd_exp.models.batches import each_layer
from nsvd_exp.models.layers import Layer, is_finite, not_finite, shape_of, weight_of
from nsvd_exp.models.storage import Storage
from nsvd_exp.models.streamed import StreamedModel
from nsvd_exp.progress import Progress


class BasisProvider(Protocol):
    """Where output bases come from when they are shared with other cells."""

    def get(self, layer: str, W: Tensor, make: Callable[[], Eigenbasis]) -> OutputBasis:
        """The basis of a layer with weight W (m, n); `make` gives its directions where need be."""


def ranks_of(
    layers: Mapping[str, Layer],
    ratio: float,
    allocation: Allocation,
    storage: Storage,
    spectra: Mapping[str, Spectrum] | None = None,
) -> dict[str, int]:
    """The rank of each layer when a fraction `ratio` of all their numbers is to be removed.

    Args:
        spectra: of all layers (`Compressor.spectra`), for an allocation that reads them.

    Raises:
        LayersError: layers are left without a rank; the message names all of them.
        NsvdError: the ratio cannot be met.
    """
    return allocation.ranks(_shapes(layers), _budget(ratio), storage, spectra)


def check_ranks(
    layers: Mapping[str, Layer], ratio: float, allocation: Allocation, storage: Storage
) -> None:
    """Raise what `ranks_of` would raise whatever the spectra are."""
    allocation.check(_shapes(layers), _budget(ratio), storage)


def _shapes(layers: Mapping[str, Layer]) -> dict[str, tuple[int, int]]:
    return {name: shape_of(layer) for name, layer in layers.items()}


def _budget(ratio: float) -> Fraction:
    """The decimal number that was typed: 0.55 is 55/100, which no binary float is."""
    return 1 - Fraction(repr(float(ratio)))


@dataclass(frozen=True)
class Compressor:
    """Makes low-rank layers, of all layers of a model or of some at a time.

    Attributes:
        ranks: by layer; min(m, n): it stays dense. `spectra` needs none.
        calibration: None for a method that reads no activations.
        dtype: of the factors and biases. They are rounded to it once, from float64 or from what
            `bases` holds.
        solver: `basis` or `paper`.
        bases: shared with other cells; None, or with `solver=paper`: every layer has its own.
        at_once: how many layers are worked on at a time; None for as many as fit.
    """

    method: Method
    ranks: Mapping[str, int]
    calibration: Calibration | None
    storage: Storage
    dtype: torch.dtype
    solver: str = "basis"
    bases: BasisProvider | None = None
    at_once: int | None = None

    def compress(
        self, layers: Mapping[str, Layer], progress: Progress | None = None
    ) -> tuple[dict[str, nn.Module], list[dict[str, Any]]]:
        """Factorise every layer; the model itself stays as it is.

        Returns:
            The low-rank layers by name, without those that stay dense; and a table with one row
            for each layer (`docs/stored-files.md`).

        Raises:
            NsvdError: a layer's factors cannot be made or are not finite; the message names it.
        """
        self.method.require(self.calibration)
        compressed: dict[str, nn.Module] = {}
        table = []
        replacements = each_layer(self._replacement, layers, self.at_once)
        for name, (low_rank, row) in zip(layers, replacements, strict=True):
            if low_rank is not None:
                compressed[name] = low_rank
            table.append(row)
            if progress:
                progress(len(table), len(layers))
        return compressed, table

    def spectra(
        self, layers: Mapping[str, Layer], progress: Progress | None = None
    ) -> dict[str, Spectrum]:
        """What the outputs of each layer consist of, from which an allocation makes ranks.

        The bases that it makes are there for `compress` as far as `bases` holds them, and are made
        again otherwise.

        Raises:
            NsvdError: as `compress`.
        """
        self.method.require(self.calibration)
        found: dict[str, Spectrum] = {}
        for name, spectrum in zip(
            layers, each_layer(self._spectrum, layers, self.at_once), strict=True
        ):
            found[name] = spectrum
            if progress:
                progress(len(found), len(layers))
        return found

    def _spectrum(self, name: str, linear: Layer) -> Spectrum:
        W = weight_of(linear)
        with _of_layer(name):
            known = self._known(name, W.device)
            energy = self._basis(name, W, known).energy
            if known is None or self.calibration is None or not self.calibration.gradients:
                return Spectrum(energy)
            return Spectrum(energy, nats_of(self.method, known()))

    def _replacement(self, name: str, linear: Layer) -> tuple[nn.Module | None, dict[str, Any]]:
        W = weight_of(linear)
        if self.ranks[name] == min(W.shape):
            return None, _row_of_dense(name, W, self.calibration is not None)
        with _of_layer(name):
            factors = self._factorise(name, W)
        bias = None if linear.bias is None else linear.bias.data
        problem = f"{name}: its factors are not finite in {self.dtype}: try another dtype"
        left, right = factors.left, factors.right
        if not (is_finite(left) and is_finite(right)):
            raise NsvdError(problem)
        made, form = self.storage.stored(left, right, factors.lengths, bias, self.dtype)
        if not_finite(made) is not None:
            raise NsvdError(problem)
        return made, _row(name, W, factors) | form

    def _factorise(self, name: str, W: Tensor) -> Factors:
        """The factors of W (m, n), in the basis that `bases` has or that is made for them."""
        k, known = self.ranks[name], self._known(name, W.device)
        if self.solver == "paper":
            return factorise(self.method, W, k, known and known(), self.solver)
        return self._basis(name, W, known).truncate(self.method, k, known, W.device)

    def _known(self, name: str, device: torch.device) -> Known | None:
        """The statistics of a layer's inputs, in float64; None without calibration."""
        calibration = self.calibration
        if calibration is None:
            return None
        # Read when they are first needed: a cell whose bases are at hand may not need them.
        return functools.cache(lambda: calibration.of(name).to(device, torch.float64))

    def _basis(self, name: str, W: Tensor, known: Known | None) -> OutputBasis:
        """The output basis of W (m, n); without `bases` all in float64."""

        def make() -> Eigenbasis:
            return directions(W.double(), self.method, known and known())

        if self.bases is None:
            return OutputBasis.of(W.double(), self.method, known and known())
        return self.bases.get(name, W, make)


def spectra_of(
    compressor: Compressor,
    layers: Mapping[str, Layer],
    streamed: StreamedModel | None = None,
    progress: Progress | None = None,
) -> dict[str, Spectrum]:
    """The spectra of all layers (`Compressor.spectra`), of a streamed model block by block."""
    if streamed is None:
        return compressor.spectra(layers, progress)
    found: dict[str, Spectrum] = {}
    for index in range(len(streamed.chain.blocks)):
        with streamed.block(index):
            found |= compressor.spectra(streamed.block_of(index, layers))
        if progress:
            progress(len(found), len(layers))
    return found


def nats_of(method: Method, statistics: Statistics) -> float:
    """What one unit of a method's discarded energy costs the loss of a token, to second order.

    A metric M is at the scale of the inputs where its trace is that of their Gram matrix, as the
    method weighs it, and the Gram matrix is a sum over tokens. N, where there is one, has a mean
    diagonal of 1, but for the damping.
    """
    assert statistics.gradients is not None
    first = method.first_stage()
    M, gram = first.metric(statistics), first.gram(statistics)
    trace, own = float(gram.trace()), float(len(gram))
    if M is not None:
        own = float(M.sum() if M.ndim == 1 else M.trace())
    scale = trace / own / statistics.tokens if own > 0 else 0.0
    return statistics.gradients.size / 2 * scale


@contextmanager
def _of_layer(name: str) -> Iterator[None]:
    """An error inside names the layer."""
    try:
        yield
    except NsvdError as error:
        raise NsvdError(f"{name}: {error}") from None


def _row(name: str, W: Tensor, factors: Factors) -> dict[str, Any]:
    """The row of the table for one layer with weight W (m, n)."""
    losses = factors.losses
    return {
        "name": name,
        "m": W.shape[0],
        "n": W.shape[1],
        "k": factors.k1 + factors.k2,
        "k1": factors.k1,
        "activation_loss": losses.activation,
        "weight_loss": losses.weight,
        "discarded_energy": losses.own**2,
        "seen": factors.seen,
        "shift": factors.shift,
    }


def _row_of_dense(name: str, W: Tensor, is_calibrated: bool) -> dict[str, Any]:
    """The row of a layer that stays as it is: of full rank, and without any loss."""
    losses = Losses(weight=0.0, own=0.0, activation=0.0 if is_calibrated else None)
    return _row(name, W, Factors(W, W, k1=min(W.shape), k2=0, lengths=W, losses=losses))


def achieved_ratio(
    table: Sequence[Mapping[str, Any]], storage: Storage, dense_parameters: int
) -> dict[str, float]:
    """Fraction of parameters removed: of the compressed weights, and of the whole model.

    Args:
        table: as `Compressor.compress` returns it.
        dense_parameters: parameters of the dense model.
    """
    kept = sum(storage.size(row["m"], row["n"], row["k"]) for row in table)
    weights = sum(row["m"] * row["n"] for row in table)
    return {
        "layers": 1 - kept / weights,
        "model": (weights - kept) / dense_parameters,
    }
