"""Table 1's methods and ratios, their ranks, and the output bases that they share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from nsvd_exp.experiment.bases import BasesOf, BasisMemory, SharedBases
from nsvd_exp.experiment.order import metric_of
from nsvd_exp.methods import ASVD, NSVD, SVD, CholeskyASVD, EigenASVD, Method, Uniform
from nsvd_exp.methods.truncation import has_gram_metric
from nsvd_exp.models.storage import Factors
from nsvd_exp.pipeline.compress import ranks_of

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
METHODS: dict[str, Method] = {
    "svd": SVD(),
    "asvd_0": ASVD(),
    "asvd_i": CholeskyASVD(),
    "asvd_ii": EigenASVD(),
    "nsvd_i": NSVD(),
    "nsvd_ii": NSVD(first=EigenASVD()),
}
# They have the bases, and NSVD the second stages, of asvd_i and nsvd_i.
TWINS = ("asvd_ii", "nsvd_ii")
FACTORS = Factors()


def ranks_for(layers: Mapping[str, nn.Linear], ratio: float) -> dict[str, int]:
    """The rank of each layer as a cell has it: the same ratio everywhere, two factors."""
    return ranks_of(layers, ratio, Uniform(), FACTORS)


def rank(m: int, n: int, ratio: float) -> int:
    """The rank of one weight (m, n)."""
    return ranks_for({"": nn.Linear(n, m, device="meta")}, ratio)[""]


def shared_bases(method: Method, memory: BasisMemory) -> SharedBases:
    """The bases of a method's metric in the memory of a process, of one model and calibration."""
    of = BasesOf("model", "calibration", str(metric_of(method)), has_gram_metric(method), {})
    return SharedBases(of, memory)
