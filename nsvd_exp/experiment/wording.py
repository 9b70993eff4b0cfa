"""How a job is named and how its perplexities are written, wherever people read them."""

from __future__ import annotations

import math

from nsvd_exp.config.schema import Config


def format_perplexity(value: float) -> str:
    """Four significant digits: `9.750`, `883.8`; three from 10,000 on, in one form: `1.23e4`."""
    if not math.isfinite(value):
        return f"{value}"
    exponent = int(f"{value:.3e}".partition("e")[2])  # of the rounded value: 9999.9 is 1.00e4
    if exponent <= 3:
        return f"{value:.{3 - exponent}f}"
    return f"{value:.2e}".partition("e")[0] + f"e{exponent}"


def label_of(config: Config) -> tuple[str, ...]:
    """The label of a job: the columns that its measure has in a grid's table.

    Returns:
        Model title, method, ratio and k1 of a perplexity job, with an empty text for a setting
        that the method does not have; model title and statistic of a similarity job.
    """
    if config.measure == "similarity":
        return config.model.title, f"similarity ({config.similarity.statistic})"
    k1 = config.method.get("k1")
    return (
        config.model.title,
        str(config.method["name"]),
        f"{config.ratio:g}" if config.compresses else "",
        "" if k1 is None else f"{k1:g}",
    )
