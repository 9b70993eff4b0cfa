"""From an output basis to the factors of a rank, and what they lose, without a product of W's size.

With U the basis, c = UᵀW and e the energies of its directions under M (`Eigenbasis`), stage one
keeps U₁ and c₁ and loses the sum of the other energies. Stage two approximates the residual U₂ c₂
by its coordinates: c₂ ~ L T gives the factors U₂ L and T. With E = c₂ - L T,

    ||E S||² = sum e₂ - 2 <T M c₂ᵀ, Lᵀ> + <T M Tᵀ, LᵀL>.

Where L is orthonormal and T = Lᵀ c₂, there remains sum_i (1 - sum_j L_ij²) e₂_i under the metric of
stage one. Under a Gram matrix G that is not this metric, the energies are the diagonal of c G cᵀ,
and such an L T keeps <T G, T>.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nsvd_exp.methods.asvd import GRAM
from nsvd_exp.methods.base import Factors, Losses, Method, SecondStage, Statistics
from nsvd_exp.methods.linalg import Eigenbasis, eigenbasis, energy, root_of_part, weighed

Known = Callable[[], Statistics]
"""Gives the statistics of a layer's inputs in float64, when they are needed."""


class Energies(NamedTuple):
    """Of ||W||_F², ||W S||_F² and, with calibration, ||W X||_F²: some part."""

    weight: float
    own: float
    activation: float | None


@dataclass(frozen=True)
class _Addition:
    """What stage two adds: left (m, k2), right (k2, n), and the energies that are left after it."""

    left: Tensor
    right: Tensor
    rest: Energies


class OutputBasis:
    """An output basis of one weight W (m, n), and what follows from it, each made once.

    Args:
        U: (m, r), r = min(m, n), orthonormal columns, leading first.
        coordinates: (r, n) = UᵀW.
        energy, seen: as in `Eigenbasis`.
        is_gram: whether its metric is the Gram matrix of the inputs, so that the loss under it is
            the activation loss.
    """

    def __init__(
        self, U: Tensor, coordinates: Tensor, energy: Tensor, seen: int, is_gram: bool
    ) -> None:
        self.U, self.coordinates, self.energy, self.seen = U, coordinates, energy, seen
        self.is_gram = is_gram
        self._weight_energy: Tensor | None = None
        self._activation_energy: Tensor | None = None
        self._products: Tensor | None = None
        self._additions: dict[tuple[SecondStage, int, int], _Addition] = {}

    @classmethod
    def of(cls, W: Tensor, method: Method, statistics: Statistics | None) -> OutputBasis:
        """The basis of W (m, n) under the metric of a method's first stage; all in float64."""
        found = directions(W, method, statistics)
        return cls(found.U, found.U.T @ W, found.energy, found.seen, has_gram_metric(method))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors it holds, with the products of stage two whether or not made yet."""
        tensors = [self.U, self.coordinates, self.energy]
        bases = sum(t.nbytes for t in tensors) + len(self.energy) ** 2 * self.U.itemsize
        return bases + self._addition_bytes()

    def _addition_bytes(self) -> int:
        additions = list(self._additions.values())  # at once: another thread may be adding one
        return sum(addition.left.nbytes + addition.right.nbytes for addition in additions)

    def forget_second_stages(self) -> int:
        """Let go of what was made for single ranks; the bytes that are free then."""
        size = self._addition_bytes()
        self._additions.clear()
        return size

    def truncate(
        self, method: Method, k: int, known: Known | None, device: torch.device
    ) -> Factors:
        """The rank-k factors of a method with this basis, in its precision.

        Args:
            method: its first stage has the metric of this basis.
            k: rank, 1 <= k <= min(m, n).
            known: of the same layer, the same at each call; None without calibration.
            device: of the factors, and of the work.
        """
        k1, k2 = method.ranks(k)
        second = method.second_stage()
        left, right = (t.to(device) for t in (self.U[:, :k1], self.coordinates[:k1]))
        rest = self._energies(known, k1)
        if second is not None and k2:
            addition = self._addition(method, second, k1, k2, known, device)
            left = torch.cat([left, addition.left.to(device)], dim=1)
            right = torch.cat([right, addition.right.to(device)])
            rest = addition.rest
        total = self._energies(known, 0)
        lost = None
        if rest.activation is not None and total.activation is not None:
            lost = root_of_part(rest.activation, total.activation)
        weight, own = (
            root_of_part(rest.weight, total.weight),
            root_of_part(rest.own, total.own),
        )
        return Factors(left, right, k1, k2, Losses(weight, own, lost), seen=self.seen)

    def _energies(self, known: Known | None, first: int) -> Energies:
        """What lies in the directions from `first` on."""
        if self._weight_energy is None:
            self._weight_energy = self.coordinates.double().square().sum(1)
        weight, own = (float(e[first:].sum()) for e in (self._weight_energy, self.energy))
        if known is None:
            return Energies(weight, own, None)
        if self.is_gram:
            return Energies(weight, own, own)
        if self._activation_energy is None:
            G = known().gram
            c = self.coordinates.to(G.device, torch.float64)
            self._activation_energy = ((c @ G) * c).sum(1).to(self.energy.device)
        return Energies(weight, own, float(self._activation_energy[first:].sum()))

    def _addition(
        self,
        method: Method,
        second: SecondStage,
        k1: int,
        k2: int,
        known: Known | None,
        device: torch.device,
    ) -> _Addition:
        """Stage two of a method, held for the next time."""
        key = (second, k1, k2)
        if key not in self._additions:
            c = self.coordinates[k1:].to(device, torch.float64)

            def products() -> Tensor:
                return self._all_products(device)[k1:, k1:].to(device, torch.float64)

            L, T = second.approximate(c, k2, products)
            rest = (self._rest_of_projection if second.is_projection else self._rest)(
                method, k1, known, c, L, T
            )
            left = self.U[:, k1:].to(device, torch.float64) @ L
            left, right = (t.to(self.U.device, self.U.dtype) for t in (left, T))
            self._additions[key] = _Addition(left, right, rest)
        return self._additions[key]

    def _all_products(self, device: torch.device) -> Tensor:
        """c cᵀ (r, r), of which stage two needs a trailing block for each k1."""
        if self._products is None:
            c = self.coordinates.to(device, torch.float64)
            self._products = (c @ c.T).to(self.U.device, self.U.dtype)
        return self._products

    def _rest_of_projection(
        self, method: Method, k1: int, known: Known | None, c: Tensor, L: Tensor, T: Tensor
    ) -> Energies:
        """What is left of the directions from k1 on after L T, where T = Lᵀ c."""
        weight, own, activation = self._energies(known, k1)
        kept = L.square().sum(1).to(self.energy.device)
        own -= float((kept * self.energy[k1:]).sum())
        if activation is not None and known is not None:
            activation = own if self.is_gram else activation - energy(T, known().gram)
        return Energies(weight - float(T.square().sum()), own, activation)

    def _rest(
        self, method: Method, k1: int, known: Known | None, c: Tensor, L: Tensor, T: Tensor
    ) -> Energies:
        """What is left of the directions from k1 on after any L T."""
        LL = L.T @ L

        def rest(of: float, M: Tensor | None) -> float:
            weighted = weighed(T, M)
            crossed = float(((weighted @ c.T) * L.T).sum())
            return of - 2 * crossed + float(((weighted @ T.T) * LL).sum())

        weight, own, activation = self._energies(known, k1)
        M = None if known is None else method.first_stage().metric(known())
        weight, own = rest(weight, None), rest(own, M)
        if activation is not None and known is not None:
            activation = own if self.is_gram else rest(activation, known().gram)
        return Energies(weight, own, activation)


def directions(W: Tensor, method: Method, statistics: Statistics | None) -> Eigenbasis:
    """The output directions of W (m, n) under the metric of a method's first stage; in float64."""
    if statistics is None:
        return eigenbasis(W, None)
    return method.first_stage().basis(W, statistics)


def has_gram_metric(method: Method) -> bool:
    """Whether the metric of a method's first stage is the Gram matrix of the inputs."""
    return method.first_stage().metric_name() == GRAM
