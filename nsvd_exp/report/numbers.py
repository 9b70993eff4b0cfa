"""Stored numbers, and which of them may stand in one table.

Two numbers are compared, or averaged over calibration seeds, only where they agree in everything
else: model, precision, solver, calibration, protocol, text and tokens. What agrees is one
`Setting`; numbers under another one stand in a table of their own, which says what differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nsvd_exp.errors import NsvdError
from nsvd_exp.report.paper import Row
from nsvd_exp.storage.results import CELL, SIMILARITY, Result, read_result, result_paths

Agreement = dict[str, str]
"""What two numbers must agree in before they are compared: a value by name."""

SHOWN_DIGITS = 12  # of a hash

CELL_FIELDS = {"model", "ratio", "k1", "config", "environment", "calibration", "error"}
NUMBER_FIELDS = {
    "dataset", "key", "identity", "perplexity", "tokens", "windows", "length", "max_windows",
    "dtype", "token_sha256", "window_nll", "seconds", "measured", "environment",
}  # fmt: skip


@dataclass(frozen=True)
class Number:
    """One stored perplexity.

    Attributes:
        stored: the measurement as in `results/README.md`, and `cell` the result it stands in.
        seed: of the calibration samples; None for methods without calibration.
        agreement: see `Agreement`.
    """

    row: Row
    dataset: str
    seed: int | None
    agreement: Agreement
    stored: Mapping[str, Any]
    cell: Result

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return float(self.stored["perplexity"])

    @property
    def id(self) -> tuple[str, str]:
        """Keys of the cell and, within it, of the number; datasets may share the latter."""
        return str(self.cell["key"]), f"{self.dataset}/{self.stored['key']}"


@dataclass
class Setting:
    """A model under one protocol, and all that is stored of it.

    Attributes:
        agreement: what its numbers agree in.
        cells: of its methods, whatever became of them.
    """

    agreement: Agreement
    numbers: list[Number]
    cells: list[Result]

    def at(self, row: Row, dataset: str) -> list[Number]:
        """The numbers of one place in a table: one a calibration seed, newest first."""
        return self._by_place.get((row, dataset), [])

    def cells_at(self, row: Row) -> list[Result]:
        """The cells of one row, one a calibration seed."""
        return [cell for cell in self.cells if row_of(cell) == row]

    @cached_property
    def rows(self) -> set[Row]:
        """All that anything is stored of."""
        return {row_of(cell) for cell in self.cells}

    @cached_property
    def dataset_titles(self) -> dict[str, str]:
        """Of every dataset that a number is stored of, by name."""
        titles = {}
        for number in self.numbers:
            config = number.cell["config"]["dataset"].get(number.dataset, {})
            titles[number.dataset] = config.get("title", number.dataset)
        return titles

    @cached_property
    def _by_place(self) -> dict[tuple[Row, str], list[Number]]:
        places: dict[tuple[Row, str], list[Number]] = {}
        for number in sorted(self.numbers, key=lambda n: n.stored["measured"], reverse=True):
            places.setdefault((number.row, number.dataset), []).append(number)
        return places

    @property
    def newest(self) -> str:
        """When its last number was measured, UTC."""
        return max((number.stored["measured"] for number in self.numbers), default="")

    def differences(self, other: Setting) -> list[str]:
        """What this one has otherwise than `other`, for people."""
        return differences(self.agreement, other.agreement)


def differences(one: Agreement, other: Agreement) -> list[str]:
    """What `one` has otherwise than `other`, for people."""
    differ = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
    # Other settings give other tokens: they are named only where nothing else explains them.
    causes = [name for name in differ if not _is_of_tokens(name)]
    return [f"{name} {_short(one[name])} (not {_short(other[name])})" for name in causes or differ]


def _is_of_tokens(name: str) -> bool:
    return name.startswith(("tokens of ", "calibration tokens"))


def _short(value: str) -> str:
    is_hash = len(value) in (40, 64) and not set(value) - set("0123456789abcdef")
    return value[:SHOWN_DIGITS] if is_hash else value


@dataclass
class Contents:
    """What a `results_dir` holds.

    Attributes:
        similarities: records that are done.
        problems: one message a file that cannot be used.
    """

    cells: list[Result] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    similarities: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """Titles, in alphabetical order."""
        return sorted({result["model"] for result in (*self.cells, *self.similarities)})


def read_contents(results_dir: Path) -> Contents:
    """Everything under `results_dir` that can be read, with a message for what cannot."""
    contents = Contents()
    for kind in (CELL, SIMILARITY):
        for path in result_paths(results_dir, kind):
            try:
                result = read_result(path, kind)
                if kind is CELL:
                    contents.numbers += numbers_of(result)
                    contents.cells.append(result)
                elif result["layers"]:
                    similarity_agreement(result)
                    contents.similarities.append(result)
            except NsvdError as error:
                contents.problems.append(str(error))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                contents.problems.append(
                    f"{path} is damaged ({type(error).__name__}: {error}): move it away and run "
                    "it again"
                )
    return contents


def row_of(result: Result) -> Row:
    """Method, ratio, k1 of a cell."""
    return Row(result["method"], result["ratio"], result["k1"])


def numbers_of(result: Result) -> list[Number]:
    """The measurements of a cell, under every protocol that it was measured under.

    Raises:
        KeyError, TypeError, ValueError: the result lacks a field, or has it in another form.
    """
    stored = [*result["datasets"].values(), *result["earlier"]]
    for fields, found in ((CELL_FIELDS, result), *((NUMBER_FIELDS, n) for n in stored)):
        if not found.keys() >= fields:
            raise KeyError(", ".join(sorted(fields - found.keys())))
    common, row = cell_agreement(result), row_of(result)
    calibration = result["identity"].get("calibration")
    seed = None if calibration is None else int(calibration["seed"])
    return [
        Number(row, n["dataset"], seed, common | _number_agreement(n), n, result) for n in stored
    ]


def cell_agreement(result: Result) -> Agreement:
    """What the numbers of two cells must agree in; what a method does not have, it agrees with."""
    identity = result["identity"]
    agreement = flat("model", identity["model"])
    agreement["dtype"] = identity["dtype"]
    agreement[f"method {result['method']}"] = str(sorted(identity["method"].items()))
    for name, title in (("solver", "solver"), ("skip", "model.skip"), ("version", "decomposition")):
        if name in identity:
            agreement[title] = str(identity[name])
    calibration = identity.get("calibration")
    if calibration is not None:
        settings = {name: value for name, value in calibration.items() if name != "seed"}
        agreement |= flat("calibration", settings)
        if result["calibration"] is not None:
            tokens = f"calibration tokens of seed {calibration['seed']}"
            agreement[tokens] = result["calibration"]["token_sha256"]
    return agreement


def similarity_agreement(record: Result) -> Agreement:
    """What two similarity records must agree in to stand in one table."""
    identity, dataset = record["identity"], record["dataset"]
    protocol = identity["dataset"]
    agreement = {
        "dtype": identity["dtype"],
        "model.skip": str(identity["skip"]),
        "similarity": str(identity["version"]),
        "evaluation.length": str(protocol["length"]),
        "evaluation.max_windows": str(protocol["max_windows"]),
        "calibration tokens": record["calibration"]["token_sha256"],
        f"tokens of {dataset['name']}": dataset["token_sha256"],
    }
    agreement |= flat("model", identity["model"]) | flat("calibration", identity["calibration"])
    return agreement | flat(dataset["name"], protocol["source"])


def _number_agreement(number: Mapping[str, Any]) -> Agreement:
    identity, name = number["identity"], number["dataset"]
    agreement = {
        "evaluation.length": str(number["length"]),
        "evaluation.max_windows": str(number["max_windows"]),
        "evaluation.dtype": number["dtype"],
        "evaluation": str(identity["version"]),
        f"tokens of {name}": number["token_sha256"],
    }
    return agreement | flat(name, identity["source"])


def flat(prefix: str, tree: Mapping[str, Any]) -> Agreement:
    """`{"a": {"b": 1}}` as `{"prefix.a.b": "1"}`."""
    leaves: Agreement = {}
    for name, value in tree.items():
        key = f"{prefix}.{name}"
        leaves |= flat(key, value) if isinstance(value, Mapping) else {key: str(value)}
    return leaves


def agrees(one: Agreement, other: Agreement) -> bool:
    """Whether nothing that both have differs."""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def settings_of(cells: Iterable[Result], numbers: Iterable[Number]) -> list[Setting]:
    """The settings of one model; the one with most numbers first, then the newest.

    A number that leaves something open (`dense` has no calibration) stands in every setting that
    it agrees with.
    """
    numbers = list(numbers)
    by_cell = [(cell_agreement(cell), cell) for cell in cells]
    seen = [number.agreement for number in numbers] + [agreement for agreement, _ in by_cell]
    settings = [
        Setting(
            agreement,
            [number for number in numbers if agrees(number.agreement, agreement)],
            [cell for own, cell in by_cell if agrees(own, agreement)],
        )
        for agreement in agreements(seen)
    ]
    return sorted(settings, key=lambda s: (len(s.numbers), s.newest), reverse=True)


def agreements(seen: Iterable[Agreement]) -> list[Agreement]:
    """The largest agreements that hold together: each of `seen` agrees with one of them or more."""
    seen = list(seen)
    count = Counter(frozenset(agreement.items()) for agreement in seen)
    # The most specific first: what leaves something open joins what others have fixed.
    seen.sort(key=lambda a: (len(a), count[frozenset(a.items())]), reverse=True)
    merged: list[Agreement] = []
    for agreement in seen:
        fitting = [known for known in merged if agrees(agreement, known)]
        for known in fitting:
            known |= agreement
        if not fitting:
            merged.append(dict(agreement))
    return merged
