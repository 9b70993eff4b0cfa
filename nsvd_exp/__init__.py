"""nsvd_exp: low-rank compression of language models, after NSVD (arXiv 2503.17101)."""

__version__ = "0.1.0"
