"""Plain truncated SVD of the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nsvd_exp.methods.base import Method
from nsvd_exp.methods.statistics import Statistics

IDENTITY = "identity"


@dataclass(frozen=True)
class SVD(Method):
    """M = I: the best rank k of W itself (Eckart-Young-Mirsky; the paper's Theorem 1)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def metric(self, statistics: Statistics) -> None:
        return None

    def metric_name(self) -> str:
        return IDENTITY
