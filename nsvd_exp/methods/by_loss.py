"""Allocations that spend the budget where it saves most: minimise the sum of the layers' losses.

    minimise  sum_l w_l tail_l(k_l)    such that    sum_l numbers_l(k_l) <= budget,

tail_l(k) being the energies that a rank of k discards and w_l what a class says that a unit of them
costs. With a multiplier for the budget every layer goes its own way, along the lower convex hull of
its points (numbers, loss); going along all hulls at once, steepest part first, passes through the
solutions for every budget. What is left at the end is less than one such part, and is spent on the
ranks that still fit.

Reference: D. P. Bertsekas, Nonlinear Programming, chapter on duality (separable problems); H.
Everett, "Generalized Lagrange multiplier method", 1963.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, NamedTuple

from nsvd_exp.errors import NsvdError
from nsvd_exp.methods.allocation import Allocation, Shapes, Spectrum, Storage, numbers_of_uniform


class Choice(NamedTuple):
    """A rank that a layer may have: the numbers that it stores, and what it loses."""

    rank: int
    numbers: int
    loss: float = 0.0


@dataclass(frozen=True)
class ByLoss(Allocation):
    """Minimises the sum of weighted discarded energies. Subclass it and define `weight`.

    Attributes:
        floor: each layer keeps this fraction of its numbers at least, but for the rounding of its
            rank, 0 <= floor <= 1 - ratio.
        ceiling: and this fraction at most, 1 - ratio <= ceiling <= 1; 1: it may stay dense.
        multiple: ranks are multiples of this.
    """

    floor: float = 0.0
    ceiling: float = 1.0
    multiple: int = 8
    reads_spectra: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("floor", self.floor), ("ceiling", self.ceiling)):
            if not 0 <= value <= 1:
                raise NsvdError(f"{name}={value}: expected a fraction of a layer's numbers, 0 to 1")
        if self.multiple < 1:
            raise NsvdError(f"multiple={self.multiple}: expected a number >= 1")

    def weight(self, spectrum: Spectrum) -> float:
        """What one unit of discarded energy costs, >= 0."""
        raise NotImplementedError

    def check(self, shapes: Shapes, budget: Fraction, storage: Storage) -> None:
        ratio = f"ratio={float(1 - budget):g}"
        for name, value, is_within in (
            ("floor", self.floor, self.floor <= budget),
            ("ceiling", self.ceiling, self.ceiling >= budget),
        ):
            if not is_within:
                raise NsvdError(
                    f"allocation.{name}={value:g} cannot be met with {ratio}, which keeps "
                    f"{float(budget):g} of all numbers: a floor is that at most, a ceiling at least"
                )
        least = [self._choices(*shape, storage)[0].numbers for shape in shapes.values()]
        available = numbers_of_uniform(shapes, budget, storage)
        if sum(least) > available:
            raise NsvdError(
                f"{ratio} leaves {available} numbers for {len(shapes)} layers, the smallest ranks "
                f"of which take {sum(least)}: use a smaller ratio or allocation.multiple"
            )

    def ranks(
        self,
        shapes: Shapes,
        budget: Fraction,
        storage: Storage,
        spectra: Mapping[str, Spectrum] | None = None,
    ) -> dict[str, int]:
        self.check(shapes, budget, storage)
        assert spectra is not None
        choices = {}
        for name, shape in shapes.items():
            spectrum = spectra[name]
            tails = _tails(spectrum.energy.tolist(), self.weight(spectrum))
            choices[name] = [
                choice._replace(loss=tails[choice.rank])
                for choice in self._choices(*shape, storage)
            ]
        taken = spend(choices, numbers_of_uniform(shapes, budget, storage))
        return {name: choice.rank for name, choice in taken.items()}

    def _choices(self, m: int, n: int, storage: Storage) -> list[Choice]:
        """The ranks that a layer may have, smallest first."""
        whole, full = m * n, min(m, n)
        found = [
            Choice(k, storage.numbers(m, n, k)) for k in range(self.multiple, full, self.multiple)
        ]
        found = [choice for choice in found if choice.numbers < whole]
        if self.ceiling == 1 or not found:
            found.append(Choice(full, whole))
        below = [choice for choice in found if choice.numbers <= self.floor * whole]
        first = max(len(below) - 1, 0)
        return [
            choice
            for place, choice in enumerate(found)
            if place == first or (place > first and choice.numbers <= self.ceiling * whole)
        ]


@dataclass(frozen=True)
class Energy(ByLoss):
    """w = 1 / total: the sum of the relative squared losses of the layers."""

    def weight(self, spectrum: Spectrum) -> float:
        total = float(spectrum.energy.sum())
        return 1 / total if total > 0 else 0.0


@dataclass(frozen=True)
class Fisher(ByLoss):
    """w = nats per unit of energy: the loss of a token itself, to second order, the errors of
    layers taken for independent.

    With c the mean square of the gradients at a layer's output, one unit of squared error costs
    c / 2, since their covariance is the curvature of the loss (the Fisher information) where
    labels are drawn from the model.
    """

    reads_gradients: ClassVar[bool] = True

    def weight(self, spectrum: Spectrum) -> float:
        if spectrum.nats is None:
            raise NsvdError("allocation=fisher needs a calibration with gradients")
        return spectrum.nats


def _tails(energy: list[float], weight: float) -> list[float]:
    """weight times the energy beyond each rank, of ranks 0 to r."""
    tails = [0.0]
    for value in reversed(energy):
        tails.append(tails[-1] + weight * value)
    return tails[::-1]


def spend(choices: Mapping[str, list[Choice]], budget: int) -> dict[str, Choice]:
    """One choice for each layer, of the least sum of losses within a budget of numbers.

    Args:
        choices: of each layer, by their numbers; the first ones fit the budget together.
    """
    taken = dict.fromkeys(choices, 0)
    left = budget - sum(of_layer[0].numbers for of_layer in choices.values())
    parts = []
    for name, of_layer in choices.items():
        hull = _lower_hull(of_layer)
        for one, other in itertools.pairwise(hull):
            saved = of_layer[one].loss - of_layer[other].loss
            cost = of_layer[other].numbers - of_layer[one].numbers
            if saved > 0:
                parts.append((-saved / cost, name, other, cost))
    ended = set()
    for _, name, place, cost in sorted(parts, key=lambda part: part[0]):  # stable: in hull order
        if name in ended:
            continue
        if cost > left:
            ended.add(name)
            continue
        taken[name], left = place, left - cost
    _spend_rest(choices, taken, left)
    return {name: choices[name][place] for name, place in taken.items()}


def _lower_hull(points: list[Choice]) -> list[int]:
    """The places of the corners of the lower convex hull, from the first point on."""
    hull: list[int] = []
    for place, point in enumerate(points):
        while len(hull) > 1 and _is_above(points[hull[-2]], points[hull[-1]], point):
            hull.pop()
        hull.append(place)
    return hull


def _is_above(one: Choice, middle: Choice, other: Choice) -> bool:
    """Whether the middle point is on or above the line between the others."""
    through = (other.loss - one.loss) * (middle.numbers - one.numbers)
    return (middle.loss - one.loss) * (other.numbers - one.numbers) >= through


def _spend_rest(choices: Mapping[str, list[Choice]], taken: dict[str, int], left: int) -> None:
    """Spend what is left on single steps, those that save most first, in place."""
    while True:
        best: tuple[float, str, int] = (0.0, "", 0)
        for name, of_layer in choices.items():
            now = of_layer[taken[name]]
            for place in range(taken[name] + 1, len(of_layer)):
                if of_layer[place].numbers - now.numbers > left:
                    break
                saved = now.loss - of_layer[place].loss
                best = max(best, (saved, name, place))
        saved, name, place = best
        if not saved > 0 or not math.isfinite(saved):
            return
        left -= choices[name][place].numbers - choices[name][taken[name]].numbers
        taken[name] = place
