"""How two stores differ, measurement by measurement: what a change of the code has done."""

from __future__ import annotations

from dataclasses import dataclass

from nsvd_exp.report.model.measurements import Contents, Measurement
from nsvd_exp.report.model.paper import Row

# A stage's version is raised when its code changes: the change is what is to be compared.
VERSIONS = ("decomposition", "evaluation", "calibration.version")


@dataclass(frozen=True)
class Pair:
    """A measurement that both stores have."""

    here: Measurement
    there: Measurement

    @property
    def difference(self) -> float:
        """(here - there) / there."""
        return self.here.perplexity / self.there.perplexity - 1


@dataclass(frozen=True)
class Comparison:
    """The measurements of two stores, matched.

    Attributes:
        pairs: those with the largest difference first.
        only_here, only_there: measurements that the other store does not have.
    """

    pairs: list[Pair]
    only_here: list[Measurement]
    only_there: list[Measurement]

    @property
    def summary(self) -> str:
        """What was found, in one sentence."""
        equal = sum(pair.here.perplexity == pair.there.perplexity for pair in self.pairs)
        text = (
            f"{len(self.pairs)} numbers in both, {equal} of them equal to the last digit; "
            f"{len(self.only_here)} only here, {len(self.only_there)} only there"
        )
        if equal == len(self.pairs):
            return text
        return f"{text}; largest difference {self.pairs[0].difference:+.3%}"


def compare(here: Contents, there: Contents, model: str | None = None) -> Comparison:
    """Match the measurements of two stores by model, row, dataset, seed and protocol.

    Versions of the stages may differ; everything else that a perplexity depends on must agree.

    Args:
        model: the title of the model to compare; None for all.
    """
    ours, theirs = _by_meaning(here, model), _by_meaning(there, model)
    pairs = [Pair(found, theirs[key]) for key, found in ours.items() if key in theirs]
    pairs.sort(key=lambda pair: abs(pair.difference), reverse=True)
    return Comparison(
        pairs,
        [found for key, found in ours.items() if key not in theirs],
        [found for key, found in theirs.items() if key not in ours],
    )


Meaning = tuple[str, Row, str, int | None, frozenset[tuple[str, str]]]


def _by_meaning(contents: Contents, model: str | None) -> dict[Meaning, Measurement]:
    """The newest measurement of each meaning."""
    found: dict[Meaning, Measurement] = {}
    for m in sorted(contents.measurements, key=lambda m: m.stored["measured"]):
        title = m.cell["model"]
        agreement = frozenset((k, v) for k, v in m.agreement.items() if k not in VERSIONS)
        if model in (None, title):
            found[title, m.row, m.dataset, m.seed, agreement] = m
    return found
