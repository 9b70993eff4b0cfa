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
from functools import cached_property

import torch
from torch import Tensor

from nsvd_exp.methods.asvd import GRAM
from nsvd_exp.methods.base import Factors, Losses, Method, SecondStage
from nsvd_exp.methods.linalg import Eigenbasis, eigenbasis, root_of_part, weighed
from nsvd_exp.methods.reference import losses_by_definition
from nsvd_exp.methods.statistics import Statistics

Known = Callable[[], Statistics]
"""Gives the statistics of a layer's inputs in float64, when they are needed."""

Energies = list[float]
"""Of ||W||_F², ||W S||_F² and, with calibration, ||W X||_F²: some part."""

Addition = tuple[Tensor, Tensor, Tensor, Energies]
"""Of stage two: left (m, k2), right (k2, n), the energies of its rows under the metric of stage one
(k2,), and what is left after it."""


class OutputBasis:
    """An output basis of one weight W (m, n), and what follows from it, each made once.

    Args:
        U, energy, seen, is_orthonormal: as in `Eigenbasis`.
        coordinates: (r, n), those of W in U.
        is_gram: whether its metric is the Gram matrix of the inputs, so that the loss under it is
            the activation loss.
    """

    def __init__(
        self,
        U: Tensor,
        coordinates: Tensor,
        energy: Tensor,
        seen: int,
        is_gram: bool,
        is_orthonormal: bool = True,
    ) -> None:
        self.U, self.coordinates, self.energy, self.seen = U, coordinates, energy, seen
        self.is_gram, self.is_orthonormal = is_gram, is_orthonormal
        self._activation_energy: Tensor | None = None
        self._products: Tensor | None = None
        self._additions: dict[tuple[SecondStage, int, int], Addition] = {}  # stage, k1 and k2

    @classmethod
    def of(cls, W: Tensor, method: Method, statistics: Statistics | None) -> OutputBasis:
        """The basis of W (m, n) under the metric of a method's first stage; all in float64."""
        found = directions(W, method, statistics)
        return cls(
            found.U,
            found.coordinates(W),
            found.energy,
            found.seen,
            has_gram_metric(method),
            found.is_orthonormal,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors it holds, with the products of stage two whether or not made yet."""
        tensors = [self.U, self.coordinates, self.energy]
        bases = sum(t.nbytes for t in tensors) + len(self.energy) ** 2 * self.U.itemsize
        return bases + self._addition_bytes()

    def _addition_bytes(self) -> int:
        additions = list(self._additions.values())  # at once: another thread may be adding one
        return sum(left.nbytes + right.nbytes for left, right, *_ in additions)

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
        if not self.is_orthonormal:
            return self._truncate_by_definition(method, k, known, device)
        k1, k2 = method.ranks(k)
        second = method.second_stage()
        left, right = (t.to(device) for t in (self.U[:, :k1], self.coordinates[:k1]))
        rest, energies = self._energies(known, k1), self.energy[:k1]
        if second is not None and k2:
            key = (second, k1, k2)
            if key not in self._additions:
                self._additions[key] = self._addition(method, second, k1, k2, known, device)
            more_left, more_right, more_energies, rest = self._additions[key]
            energies = torch.cat([energies, more_energies])
            left = torch.cat([left, more_left.to(device)], dim=1)
            right = torch.cat([right, more_right.to(device)])
        losses = map(root_of_part, rest, self._energies(known, 0))
        lengths = energies.to(device).clamp(min=0).sqrt()
        return Factors(left, right, k1, k2, lengths, Losses(*losses), seen=self.seen)

    def _truncate_by_definition(
        self, method: Method, k: int, known: Known | None, device: torch.device
    ) -> Factors:
        """The same where the energies of a basis are no lengths of anything in W itself."""
        k1, k2 = method.ranks(k)
        second = method.second_stage()
        U, c = (t.to(device, torch.float64) for t in (self.U, self.coordinates))
        left, right = U[:, :k1], c[:k1]
        if second is not None and k2:
            Q, R = torch.linalg.qr(U[:, k1:])
            L, T = second.approximate(R @ c[k1:], k2)
            left, right = torch.cat([left, Q @ L], dim=1), torch.cat([right, T])
        statistics = None if known is None else known()
        losses = losses_by_definition(method, U @ c, left @ right, statistics)
        M = None if statistics is None else method.first_stage().metric(statistics)
        lengths = (weighed(right, M) * right).sum(1).clamp(min=0).sqrt()
        left, right = (t.to(self.U.dtype) for t in (left, right))
        return Factors(left, right, k1, k2, lengths, losses, seen=self.seen)

    @cached_property
    def _weight_energy(self) -> Tensor:
        return self.coordinates.double().square().sum(1)

    def _energies(self, known: Known | None, first: int) -> Energies:
        """What lies in the directions from `first` on."""
        energies = [self._weight_energy, self.energy]
        if known is not None and self.is_gram:
            energies.append(self.energy)
        elif known is not None:
            if self._activation_energy is None:
                G = known().gram
                c = self.coordinates.to(G.device, torch.float64)
                self._activation_energy = ((c @ G) * c).sum(1).to(self.energy.device)
            energies.append(self._activation_energy)
        return [float(energy[first:].sum()) for energy in energies]

    def _addition(
        self,
        method: Method,
        second: SecondStage,
        k1: int,
        k2: int,
        known: Known | None,
        device: torch.device,
    ) -> Addition:
        c = self.coordinates[k1:].to(device, torch.float64)

        def products() -> Tensor:
            return self._all_products(device)[k1:, k1:].to(device, torch.float64)

        L, T = second.approximate(c, k2, products)

        def under(M: Tensor | None, energy: float) -> float:
            """||(c - L T) S||² where energy = ||c S||², with M = S Sᵀ."""
            weighted = weighed(T, M)
            if second.is_projection:
                return energy - float((weighted * T).sum())
            crossed = float(((weighted @ c.T) * L.T).sum())
            return energy - 2 * crossed + float(((weighted @ T.T) * (L.T @ L)).sum())

        weight, own, *activation = self._energies(known, k1)
        rest = [under(None, weight)]
        if second.is_projection:
            kept = L.square().sum(1).to(self.energy.device)
            rest.append(own - float((kept * self.energy[k1:]).sum()))
            energies = L.square().to(self.energy.device).T @ self.energy[k1:]
        else:
            M = None if known is None else method.first_stage().metric(known())
            rest.append(under(M, own))
            energies = (weighed(T, M) * T).sum(1).to(self.energy.device)
        if known is not None:
            rest.append(rest[1] if self.is_gram else under(known().gram, *activation))
        left = self.U[:, k1:].to(device, torch.float64) @ L
        left, right = (t.to(self.U.device, self.U.dtype) for t in (left, T))
        return left, right, energies, rest

    def _all_products(self, device: torch.device) -> Tensor:
        """c cᵀ (r, r), of which stage two needs a trailing block for each k1."""
        if self._products is None:
            c = self.coordinates.to(device, torch.float64)
            self._products = (c @ c.T).to(self.U.device, self.U.dtype)
        return self._products


def directions(W: Tensor, method: Method, statistics: Statistics | None) -> Eigenbasis:
    """The output directions of W (m, n) under the metric of a method's first stage; in float64."""
    if statistics is None:
        return eigenbasis(W, None)
    return method.first_stage().basis(W, statistics)


def has_gram_metric(method: Method) -> bool:
    """Whether the metric of a method's first stage is the Gram matrix of the inputs."""
    return method.first_stage().metric_name() == GRAM
