"""Which ranks an allocation gave the layers of a model, by block and kind of Linear."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nsvd_exp.report.model.equal_size import EqualSizeBlock, EqualSizeLine
from nsvd_exp.report.model.methods import PLAIN
from nsvd_exp.storage.results import Result

IN_A_BLOCK = re.compile(r"(?P<stack>.*?)\.?\b(?P<block>\d+)\.(?P<kind>.+)")


@dataclass(frozen=True)
class RankMap:
    """The ranks of one cell.

    Attributes:
        blocks: the numbers of the model's blocks, in ascending order.
        kinds: of Linears, in the order of the model's modules.
        shares: the rank over the full rank min(m, n), by kind and block; 1 for a dense layer.
            What is not compressed is not in it.
    """

    line: EqualSizeLine
    blocks: list[int]
    kinds: list[str]
    shares: dict[tuple[str, int], float]


def maps_of(block: EqualSizeBlock) -> list[RankMap]:
    """One map for each row whose allocation is not uniform, in the order of the rows.

    Of a row with several calibration seeds it is the first that is stored.
    """
    found = []
    for line in block.lines:
        cells = (c for c in block.group.setting.cells_at(line.line.row) if c["status"] == "done")
        cell = next((cell for cell in cells if cell.get("layers")), None)
        if cell is not None and _is_allocated(cell):
            found.append(_map(line, cell["layers"]))
    return found


def _is_allocated(cell: Result) -> bool:
    allocation = cell["identity"].get("allocation") or {}
    return bool(allocation.get("class", PLAIN["allocation"]) != PLAIN["allocation"])


def _map(line: EqualSizeLine, layers: Sequence[Mapping[str, Any]]) -> RankMap:
    places = _places([str(layer["name"]) for layer in layers])
    shares = {
        place: layer["k"] / min(layer["m"], layer["n"])
        for place, layer in zip(places, layers, strict=True)
    }
    kinds = list(dict.fromkeys(kind for kind, _ in places))
    return RankMap(line, sorted({block for _, block in places}), kinds, shares)


def _places(names: Sequence[str]) -> list[tuple[str, int]]:
    """The kind and the block of each layer: `q_proj` and 3 of `model.layers.3.self_attn.q_proj`.

    What stands in no block is in block 0.
    """
    places = [_whole_kind(name) for name in names]
    kinds = dict.fromkeys(kind for kind, _ in places)
    titles = {kind: _shortest(kind, kinds) for kind in kinds}
    return [(titles[kind], block) for kind, block in places]


def _whole_kind(name: str) -> tuple[str, int]:
    """The name without the number of its block, and the number."""
    found = IN_A_BLOCK.fullmatch(name)
    if found is None:
        return name, 0
    return ".".join(filter(None, (found["stack"], found["kind"]))), int(found["block"])


def _shortest(kind: str, kinds: Collection[str]) -> str:
    """The end of a name that no other kind has, in as few parts as can be."""
    parts = kind.split(".")
    ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    return next(
        (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in kinds) == 1), kind
    )
