"""The models that claims are checked on, and what was run of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.improvement import REFERENCE_METHOD, calibration_sets
from nsvd_exp.report.model.methods import row_of
from nsvd_exp.report.model.protocol import dataset_titles
from nsvd_exp.report.model.report import SIMILARITY_TABLE, gather
from nsvd_exp.report.model.results import Group
from nsvd_exp.report.model.subjects import Subject, subject_of
from nsvd_exp.storage.results import Result


@dataclass(frozen=True)
class Checked:
    """A model of which results are stored.

    Attributes:
        source: the `results_dir`, as the user wrote it.
        group: what is stored under the model's main setting.
        others: how many other settings are stored; nothing of them is used.
    """

    source: str
    group: Group
    subject: Subject
    others: int

    @property
    def cells(self) -> list[Result]:
        """Those that are done."""
        return [cell for cell in self.group.setting.cells if cell["status"] == "done"]

    @property
    def parameters(self) -> int | None:
        """Of the dense model; None where no cell says what it removed.

        A cell holds the sizes of its compressed weights, and which fraction of these and of the
        whole model it removed.
        """
        for cell in self.cells:
            removed = cell.get("achieved_ratio")
            if removed and removed["model"] and cell["layers"]:
                numbers = sum(layer["m"] * layer["n"] for layer in cell["layers"])
                return round(numbers * removed["layers"] / removed["model"])
        return None

    @property
    def windows(self) -> list[str]:
        """How many windows of how many tokens: `8 to 64 x 512`, for each length."""
        by_length: dict[int, set[int]] = {}
        for measured in self.group.setting.measurements:
            by_length.setdefault(measured.stored["length"], set()).add(measured.stored["windows"])
        return [f"{_range(counts)} x {length}" for length, counts in sorted(by_length.items())]

    @property
    def dtypes(self) -> list[str]:
        """In which the weights are loaded and evaluated."""
        loaded = {cell["dtype"] for cell in self.cells}
        evaluated = {measured.stored["dtype"] for measured in self.group.setting.measurements}
        return sorted(loaded | evaluated)

    @property
    def calibrations(self) -> list[str]:
        """What ASVD-I was calibrated on: `64 x 256 of WikiText-2, seed 3`."""
        cells = [cell for cell in self.cells if row_of(cell).method == REFERENCE_METHOD]
        return list(dict.fromkeys(_calibration(cell["config"]["calibration"]) for cell in cells))


def _range(counts: Iterable[int]) -> str:
    known = sorted(counts)
    return f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _calibration(block: dict[str, object]) -> str:
    names = [dataset_titles().get(name, name) for name in calibration_sets(block)]
    return f"{block['samples']} x {block['length']} of {', '.join(names)}, seed {block['seed']}"


def checked_in(results_dirs: Sequence[str]) -> list[Checked]:
    """The models of all stores, each under its main setting.

    Raises:
        NsvdError: a store has no perplexity.
    """
    found = [one for results_dir in results_dirs for one in _checked(results_dir)]
    count = Counter(one.subject.title for one in found)
    return [one if count[one.subject.title] == 1 else _with_source(one) for one in found]


def _with_source(one: Checked) -> Checked:
    """Named so that it is told apart from a model of the same title in another store."""
    return replace(one, subject=replace(one.subject, title=f"{one.subject.title}, {one.source}"))


def _checked(results_dir: str) -> list[Checked]:
    report = gather(results_dir, [SIMILARITY_TABLE])
    if not report.groups:
        raise NsvdError(f"{results_dir} holds no perplexities, on which claims could be checked")
    alike = {block.model: block for block in report.similarities if block.place == 0}
    settings = Counter(group.model for group in report.groups)
    return [
        Checked(
            results_dir,
            group,
            subject_of(group, group.model, alike.get(group.model)),
            settings[group.model] - 1,
        )
        for group in report.groups
        if group.place == 0
    ]
