"""The methods, as numerics: tensors in, tensors out.

A method is one small frozen dataclass (`nsvd_exp.methods.base.Method`). Importing this package
imports no torch, so that a grid can be planned without it.
"""

from nsvd_exp.methods.allocation import Allocation, Uniform
from nsvd_exp.methods.asvd import ASVD, CholeskyASVD, EigenASVD, RidgeASVD, ScaledEigenASVD
from nsvd_exp.methods.base import Method, SecondStage
from nsvd_exp.methods.by_loss import Energy, Fisher
from nsvd_exp.methods.in_proportion import EffectiveRank, SVDLLMv2
from nsvd_exp.methods.nested import NID, NSVD, ColumnID, TruncatedSVD
from nsvd_exp.methods.statistics import Statistics
from nsvd_exp.methods.svd import SVD
from nsvd_exp.methods.two_sided import FWSVD, KFAC, WeightedKFAC

__all__ = [
    "ASVD",
    "FWSVD",
    "KFAC",
    "NID",
    "NSVD",
    "SVD",
    "Allocation",
    "CholeskyASVD",
    "ColumnID",
    "EffectiveRank",
    "EigenASVD",
    "Energy",
    "Fisher",
    "Method",
    "RidgeASVD",
    "SVDLLMv2",
    "ScaledEigenASVD",
    "SecondStage",
    "Statistics",
    "TruncatedSVD",
    "Uniform",
    "WeightedKFAC",
]
