"""nsvd_exp: low-rank compression of language models, after NSVD (arXiv 2503.17101).

    import nsvd_exp as nx

    calibration = nx.calibrate(model, nx.samples("wikitext2", tokenizer, count=64, length=512))
    report = nx.compress(model, nx.methods.NSVD(k1=0.95), ratio=0.3, calibration=calibration)
    nx.perplexity(model, nx.windows("ptb", tokenizer))

Names are loaded when they are used (PEP 562): importing the package takes milliseconds, and no
torch. `docs/library.md` describes them.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsvd_exp import methods as methods
    from nsvd_exp.errors import NsvdError as NsvdError
    from nsvd_exp.library import Compression as Compression
    from nsvd_exp.library import calibrate as calibrate
    from nsvd_exp.library import compress as compress
    from nsvd_exp.library import perplexity as perplexity
    from nsvd_exp.library import samples as samples
    from nsvd_exp.library import windows as windows
    from nsvd_exp.models.checkpoint import About as About
    from nsvd_exp.models.checkpoint import Perplexity as Perplexity
    from nsvd_exp.models.checkpoint import load as load
    from nsvd_exp.models.checkpoint import push as push
    from nsvd_exp.models.checkpoint import save as save
    from nsvd_exp.models.modeling_nsvd import register as register

__version__ = "0.1.0"

__all__ = [
    "About",
    "Compression",
    "NsvdError",
    "Perplexity",
    "calibrate",
    "compress",
    "load",
    "methods",
    "perplexity",
    "push",
    "register",
    "samples",
    "save",
    "windows",
]

_FROM = {
    "NsvdError": "nsvd_exp.errors",
    "register": "nsvd_exp.models.modeling_nsvd",
    **dict.fromkeys(("About", "Perplexity", "load", "push", "save"), "nsvd_exp.models.checkpoint"),
}

# Before torch loads OpenMP: its threads wait for one another spinning, but not for long. Where
# other processes use the same cores, small eigenproblems otherwise take up to hundreds of times
# longer (benchmarks/README.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# The same for SciPy's OpenBLAS, which waits for 2^26 cycles otherwise: 2^4.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def __getattr__(name: str) -> Any:
    if name == "methods":
        return importlib.import_module("nsvd_exp.methods")
    if name not in __all__:
        raise AttributeError(f"module 'nsvd_exp' has no attribute '{name}'")
    return getattr(importlib.import_module(_FROM.get(name, "nsvd_exp.library")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
