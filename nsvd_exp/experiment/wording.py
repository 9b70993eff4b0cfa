"""How a job and a perplexity are put into words, wherever they are shown. Imports no torch."""

from __future__ import annotations

from nsvd_exp.config.schema import Config


def label_of(config: Config) -> tuple[str, ...]:
    """What a job is called: the columns of its measure, empty where its method has none."""
    method = config.method
    if config.measure == "similarity":
        return config.model.title, f"similarity ({config.similarity.statistic})"
    return (
        config.model.title,
        method.name,
        f"{config.ratio:g}" if method.compresses else "",
        f"{config.k1:g}" if method.nested else "",
    )


def format_perplexity(value: float) -> str:
    """Two decimals as in the paper; from 100 000 on in powers of ten."""
    return f"{value:.2f}" if value < 1e5 else f"{value:.2e}"
