"""nsvd_exp: low-rank compression of language models, after NSVD (arXiv 2503.17101)."""

import os

__version__ = "0.1.0"

# Before torch loads OpenMP: threads that wait sleep in place of spinning. Where another process
# uses the same cores, spinning made small eigenproblems 200 times slower (benchmarks/README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
