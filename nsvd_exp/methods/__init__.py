"""The methods, as numerics: tensors in, tensors out.

A method is one small frozen dataclass (`nsvd_exp.methods.base.Method`). Importing this package
imports no torch, so that a grid can be planned without it.
"""

from nsvd_exp.methods.allocation import Allocation, Uniform
from nsvd_exp.methods.asvd import ASVD, CholeskyASVD, EigenASVD, ScaledEigenASVD
from nsvd_exp.methods.base import Method, SecondStage
from nsvd_exp.methods.nested import NID, NSVD, ColumnID, TruncatedSVD
from nsvd_exp.methods.svd import SVD

__all__ = [
    "ASVD",
    "NID",
    "NSVD",
    "SVD",
    "Allocation",
    "CholeskyASVD",
    "ColumnID",
    "EigenASVD",
    "Method",
    "ScaledEigenASVD",
    "SecondStage",
    "TruncatedSVD",
    "Uniform",
]
