"""From an output basis to the factors of a rank, and what they lose, without a product of W's size.

With U the basis, c = UᵀW and e the energies of its directions under M (`OutputBasis`), stage one
keeps U₁ and c₁ and loses the sum of the other energies. Stage two works on the residual U₂ c₂:

- `svd`: R, the k2 leading eigenvectors of c₂ c₂ᵀ, the trailing block of B = c cᵀ. It keeps U₂ R and
  Rᵀ c₂; of e₂ there remains sum (1 - sum_j R_ij²) e_i.
- `id`: columns J of c₂ and their coefficients T (`interpolative`). With E = c₂ - c₂[:, J] T,
  ||E S||² = sum e₂ - 2 <T M c₂ᵀ, c₂[:, J]ᵀ> + <T M Tᵀ, c₂[:, J]ᵀ c₂[:, J]>.

Under a Gram matrix G that is not the metric itself, the energies are the diagonal of c G cᵀ, and
what U₂ R keeps is <Rᵀ c₂ G, Rᵀ c₂>.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nsvd_exp.methods.linalg import OutputBasis, interpolative, leading_eigenvectors, weighed


@dataclass(frozen=True)
class Losses:
    """||(W - Ŵ) S||_F / ||W S||_F, 0 where W S itself is 0.

    Attributes:
        weight: with S = I.
        own: with the S of stage one.
        activation: with S = X, the calibration inputs, equation (3); None without any.
    """

    weight: float
    own: float
    activation: float | None


@dataclass(frozen=True)
class Metrics:
    """What the losses are measured by, made when it is needed.

    Attributes:
        own: M of stage one, as `Whitening.metric` gives it.
        gram: G = X Xᵀ; None without calibration.
        calibration: a name for what G was made from.
    """

    own: Callable[[], Tensor | None]
    gram: Callable[[], Tensor] | None = None
    calibration: str | None = None


@dataclass(frozen=True)
class SecondStage:
    """What stage two adds, and what is left after it.

    Attributes:
        left: (m, k2); right: (k2, n).
        rest: of ||W||², ||W S||² and, with calibration, ||W X||².
        calibration: a name for what X was.
    """

    left: Tensor
    right: Tensor
    rest: tuple[float, float, float | None]
    calibration: str | None


class Basis:
    """An output basis of one weight, and what follows from it, each made once.

    Args:
        U, coordinates, energy, seen: as in `OutputBasis`; coordinates (r, n) = UᵀW.
        is_gram: whether its metric is the Gram matrix of the inputs, so that the loss under it is
            the activation loss.
    """

    def __init__(
        self, U: Tensor, coordinates: Tensor, energy: Tensor, seen: int, is_gram: bool
    ) -> None:
        self.U, self.coordinates, self.energy, self.seen = U, coordinates, energy, seen
        self.is_gram = is_gram
        self._weight: Tensor | None = None
        self._products: Tensor | None = None
        self._activation: dict[str | None, Tensor] = {}
        self._second: dict[tuple[str, int, int], SecondStage] = {}

    @classmethod
    def of(cls, W: Tensor, found: OutputBasis, is_gram: bool) -> Basis:
        """The basis `found` for W (m, n), in its precision and on its device."""
        return cls(found.U, found.U.T @ W, found.energy, found.seen, is_gram)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors it holds, with the products of stage two whether or not made yet."""
        tensors = [self.U, self.coordinates, self.energy, *list(self._activation.values())]
        bases = sum(t.nbytes for t in tensors) + len(self.energy) ** 2 * self.U.itemsize
        return bases + self._second_bytes()

    def _second_bytes(self) -> int:
        stages = list(self._second.values())  # at once: another thread may be adding one
        return sum(stage.left.nbytes + stage.right.nbytes for stage in stages)

    def forget_second_stages(self) -> int:
        """Let go of what was made for single ranks; the bytes that are free then."""
        size = self._second_bytes()
        self._second.clear()
        return size

    def weight_energy(self) -> Tensor:
        """(r,): what of ||W||_F² lies in each direction."""
        if self._weight is None:
            self._weight = self.coordinates.double().square().sum(1)
        return self._weight

    def activation_energy(self, metrics: Metrics) -> Tensor | None:
        """(r,): what of ||W X||_F² lies in each direction; None without calibration."""
        if metrics.gram is None:
            return None
        if self.is_gram:
            return self.energy
        known = self._activation.get(metrics.calibration)
        if known is None:
            G = metrics.gram()
            c = self.coordinates.to(G.device, torch.float64)
            known = ((c @ G) * c).sum(1).to(self.energy.device)
            self._activation[metrics.calibration] = known
        return known

    def truncate(
        self, k1: int, k2: int, second: str | None, metrics: Metrics, device: torch.device
    ) -> tuple[Tensor, Tensor, Losses]:
        """The factors (m, k1 + k2) and (k1 + k2, n) on `device`, and what they lose.

        Args:
            second: `svd` or `id`, what the k2 come from.
        """
        left, right = (t.to(device) for t in (self.U[:, :k1], self.coordinates[:k1]))
        rest = self._energies(metrics, k1)
        if second is not None and k2:
            stage = self._second_stage(second, k1, k2, metrics, device)
            left = torch.cat([left, stage.left.to(device)], dim=1)
            right = torch.cat([right, stage.right.to(device)])
            rest = stage.rest
        (weight, own, activation), of = rest, self._energies(metrics, 0)
        lost = None if activation is None or of[2] is None else _root(activation, of[2])
        return left, right, Losses(_root(weight, of[0]), _root(own, of[1]), lost)

    def _energies(self, metrics: Metrics, first: int) -> tuple[float, float, float | None]:
        """What of ||W||², ||W S||² and ||W X||² lies in the directions from `first` on."""
        activation = self.activation_energy(metrics)
        weight, own = (float(e[first:].sum()) for e in (self.weight_energy(), self.energy))
        return weight, own, None if activation is None else float(activation[first:].sum())

    def _second_stage(
        self, second: str, k1: int, k2: int, metrics: Metrics, device: torch.device
    ) -> SecondStage:
        key = (second, k1, k2)
        stage = self._second.get(key)
        if stage is None or stage.calibration != metrics.calibration:
            make = self._by_columns if second == "id" else self._by_eigenvectors
            left, right, rest = make(k1, k2, metrics, device)
            left, right = (t.to(self.U.device, self.U.dtype) for t in (left, right))
            stage = self._second[key] = SecondStage(left, right, rest, metrics.calibration)
        return stage

    def _by_eigenvectors(
        self, k1: int, k2: int, metrics: Metrics, device: torch.device
    ) -> tuple[Tensor, Tensor, tuple[float, float, float | None]]:
        """Equation (5b) by the leading eigenvectors of the trailing block."""
        if self._products is None:
            c = self.coordinates.to(device, torch.float64)
            self._products = (c @ c.T).to(self.U.device, self.U.dtype)
        R = leading_eigenvectors(self._products[k1:, k1:].to(device, torch.float64), k2)
        left = self.U[:, k1:].to(device, torch.float64) @ R
        right = R.T @ self.coordinates[k1:].to(device, torch.float64)
        kept = R.square().sum(1).to(self.energy.device)
        weight, own, activation = self._energies(metrics, k1)
        weight -= float(right.square().sum())
        own -= float((kept * self.energy[k1:]).sum())
        if activation is not None and metrics.gram is not None:
            activation = own if self.is_gram else activation - _energy(right, metrics.gram())
        return left, right, (weight, own, activation)

    def _by_columns(
        self, k1: int, k2: int, metrics: Metrics, device: torch.device
    ) -> tuple[Tensor, Tensor, tuple[float, float, float | None]]:
        """Columns of the residual: in the coordinates of the complement they have the same lengths
        and angles, at r - k1 rows."""
        c = self.coordinates[k1:].to(device, torch.float64)
        J, T = interpolative(c, k2)
        columns = c[:, J]

        def rest(energy: float, M: Tensor | None) -> float:
            weighted = weighed(T, M)
            crossed = float(((weighted @ c.T) * columns.T).sum())
            return energy - 2 * crossed + float(((weighted @ T.T) * (columns.T @ columns)).sum())

        weight, own, activation = self._energies(metrics, k1)
        weight, own = rest(weight, None), rest(own, metrics.own())
        if activation is not None and metrics.gram is not None:
            activation = own if self.is_gram else rest(activation, metrics.gram())
        return self.U[:, k1:].to(device, torch.float64) @ columns, T, (weight, own, activation)


def _energy(A: Tensor, M: Tensor) -> float:
    """||A S||_F² with M = S Sᵀ."""
    return float((weighed(A, M) * A).sum())


def _root(rest: float, total: float) -> float:
    # Rounding can leave the rest of an all but perfect approximation a hair below zero.
    return math.sqrt(max(rest, 0.0) / total) if total > 0 else 0.0
