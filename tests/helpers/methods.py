"""Every method as the numerics know it."""

from __future__ import annotations

METHODS: dict[str, tuple[str, str | None]] = {
    "svd": ("identity", None),
    "asvd_0": ("abs_mean", None),
    "asvd_i": ("cholesky", None),
    "asvd_ii": ("eigen", None),
    "asvd_iii scalar": ("scalar", None),
    "asvd_iii spectral": ("spectral", None),
    "nsvd_i": ("cholesky", "svd"),
    "nsvd_ii": ("eigen", "svd"),
    "nid_i": ("cholesky", "id"),
    "nid_ii": ("eigen", "id"),
}
"""Whitening and second stage by name, as in conf/method."""
