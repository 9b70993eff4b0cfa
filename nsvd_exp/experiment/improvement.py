"""The improvement over ASVD-I, by which the paper compares methods. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nsvd_exp.experiment.calibration_plan import RANDOM

REFERENCE_METHOD = "asvd_i"


def improvement(perplexity: float, reference: float) -> float:
    """1 - ppl / ppl(ASVD-I): the fraction by which a perplexity is lower than ASVD-I's."""
    return 1 - perplexity / reference


def calibration_sets(calibration: Mapping[str, Any] | None) -> list[str]:
    """The names of the datasets that calibration took samples from.

    Args:
        calibration: its stored configuration, whose `dataset` is one dataset or a list of several,
            and whose `mix` names further ones; None for a method without calibration.
    """
    if calibration is None:
        return []
    datasets = calibration["dataset"]
    sources: Sequence[Any] = [datasets] if isinstance(datasets, Mapping) else datasets
    mixed = (name for name in calibration.get("mix") or {} if name != RANDOM)  # no dataset
    return [*(str(source["name"]) for source in sources), *mixed]


def average_sets(datasets: Collection[str], calibrated_on: Collection[str]) -> list[str]:
    """The datasets that an average is taken over: those that calibration took nothing from.

    The test set of the calibration's own text says nothing of how a method carries over to other
    text.
    """
    return [name for name in datasets if name not in calibrated_on]


def average_improvement(
    perplexities: Mapping[str, float],
    reference: Mapping[str, float],
    datasets: Collection[str],
    calibrated_on: Collection[str],
) -> float | None:
    """The mean improvement over `average_sets(...)`: the paper's "Avg. Impro.".

    Recomputed from the paper's own perplexities it gives its printed averages to 0.1 points, but
    for the misprints that `nsvd_exp.report.model.paper` lists.

    Args:
        perplexities, reference: by dataset, of the method and of ASVD-I.
        datasets: those that a table shows.
        calibrated_on: those that calibration took samples from; see `calibration_sets`.

    Returns:
        A fraction; None where one of the numbers is missing, or no dataset is left.
    """
    names = average_sets(datasets, calibrated_on)
    if not names or not all(name in perplexities and name in reference for name in names):
        return None
    return math.fsum(improvement(perplexities[n], reference[n]) for n in names) / len(names)
