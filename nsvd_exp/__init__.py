"""nsvd_exp: low-rank compression of language models, after NSVD (arXiv 2503.17101)."""

import os

__version__ = "0.1.0"

# Before torch loads OpenMP: its threads wait for one another spinning, but not for long. Where
# other processes use the same cores, small eigenproblems otherwise take up to hundreds of times
# longer (benchmarks/README.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# The same for SciPy's OpenBLAS, which waits for 2^26 cycles otherwise: 2^4.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
