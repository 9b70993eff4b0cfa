"""The improvement over ASVD-I, by which the paper compares methods. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

REFERENCE_METHOD = "asvd_i"

# The calibration text's own test set says nothing of how a method carries over to other text.
IN_DOMAIN = "wikitext2"


def improvement(perplexity: float, reference: float) -> float:
    """1 - ppl / ppl(ASVD-I): the fraction by which a perplexity is lower than ASVD-I's."""
    return 1 - perplexity / reference


def average_improvement(
    perplexities: Mapping[str, float], reference: Mapping[str, float], datasets: Collection[str]
) -> float | None:
    """The mean improvement over `datasets` other than WikiText-2: the paper's "Avg. Impro.".

    Recomputed from the paper's own perplexities it gives its printed averages to 0.1 points, but
    for the misprints that `nsvd_exp.report.paper` lists.

    Args:
        perplexities, reference: by dataset, of the method and of ASVD-I.
        datasets: those that a table shows.

    Returns:
        A fraction; None where one of the numbers is missing, or no set other than WikiText-2 is
        asked for.
    """
    others = [name for name in datasets if name != IN_DOMAIN]
    if not others or not all(name in perplexities and name in reference for name in others):
        return None
    return math.fsum(improvement(perplexities[n], reference[n]) for n in others) / len(others)
