"""From a stored cell back to what it was planned as, so that its model can be made again.

A stored configuration holds no path: where the model's folder and the texts are now, and what the
work is done on, is given anew as a `Place`. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nsvd_exp.bundled import MODEL_DIR, TEXT_DIR
from nsvd_exp.config.files import expand_path
from nsvd_exp.config.schema import Config, typed_config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import CellPlan, plan_cell
from nsvd_exp.models.sources import PACKAGE
from nsvd_exp.storage.results import CELL, Result, read_result, result_paths

KEY_DIGITS = 16  # of a key, at the end of a cell's folder
MOST_NAMES = 5


@dataclass(frozen=True)
class Place:
    """Where the things of a stored cell are now, and what it is worked on with.

    Attributes:
        results_dir: the store.
        cache_dir: None: `cache` in the store.
        model: the folder of a model that is on no hub; None: the bundled one, where it is that.
        calibration_tokenizer: the folder of the tokenizer that drew the calibration's ids, where it
            is another model's and on no hub.
        data_dir: folders of local text; none: the hub, or the text that is bundled with the model.
        device, memory: as in the settings.
        evaluation_dtype: None: that of the stored evaluation.
    """

    results_dir: str = "results"
    cache_dir: str | None = None
    model: str | None = None
    calibration_tokenizer: str | None = None
    data_dir: Sequence[str] = ()
    device: str = "auto"
    memory: str = "resident"
    evaluation_dtype: str | None = None


@dataclass(frozen=True)
class StoredCell:
    """A cell that is done, and the plan by which its model can be made again."""

    plan: CellPlan
    result: Result


def stored_cell(cell: str, place: Place, is_measured: bool = True) -> StoredCell:
    """A stored cell, planned again with what is there now.

    Args:
        cell: the beginning of its key, the name of its folder, or a path of that folder, which then
            says which store it is in.
        is_measured: whether its datasets are to be there; else the plan has no measurements.

    Raises:
        NsvdError: there is no such cell or there are several, it is not done, something it was made
            of is not there, or is no longer the same.
    """
    path = _path_of(cell, Path(expand_path(place.results_dir)))
    result = read_result(path)
    name = path.parent.name
    if result["status"] != "done":
        message = (result.get("error") or {}).get("message")
        how = f"failed ({message})" if message else "is not finished"
        raise NsvdError(f"cell {name} {how}: run it again, with the settings that it was run with")
    try:
        config = config_of(result, place, path.parents[2])
        plan = plan_cell(config, is_measured)
    except NsvdError as error:
        raise NsvdError(f"cell {name}: {error}") from None
    if plan.file.key != result["key"]:
        changed = ", ".join(_changes(result["identity"], plan.file.identity))
        raise NsvdError(
            f"cell {name} cannot be made again, since this is no longer what it was: {changed}. "
            "Give the model and the text that it was made with, or run the cell anew"
        )
    return StoredCell(plan, result)


def _path_of(cell: str, results_dir: Path) -> Path:
    """The `result.json` of a cell, however it is named."""
    given = Path(expand_path(cell))
    for path in (given / "result.json", given):
        if path.name == "result.json" and path.is_file():
            return path
    paths = result_paths(results_dir, CELL)
    found = [path for path in paths if path.parent.name == cell]
    if not found and re.fullmatch(r"[0-9a-f]+", cell):
        digits = cell[:KEY_DIGITS]
        found = [path for path in paths if path.parent.name[-KEY_DIGITS:].startswith(digits)]
        if len(cell) > KEY_DIGITS:
            found = [path for path in found if read_result(path)["key"].startswith(cell)]
    names = [path.parent.name for path in found[:MOST_NAMES]]
    place = results_dir / CELL.folder
    if not found:
        raise NsvdError(
            f"there is no cell '{cell}' among the {len(paths)} in {place}: a cell is named by the "
            "beginning of its key, by its folder's name there, or by that folder's path"
        )
    if len(found) > 1:
        more = ", ..." if len(found) > MOST_NAMES else ""
        raise NsvdError(
            f"'{cell}' may be any of {len(found)} cells in {place}: {', '.join(names)}{more}"
        )
    return found[0]


def config_of(result: Result, place: Place, results_dir: Path) -> Config:
    """The configuration of a stored cell, with the places of now.

    Args:
        results_dir: the store that the cell is in.

    Raises:
        NsvdError: a folder has to be given, or the configuration is not one of this program.
    """
    identity, stored = result["identity"], result["config"]
    datasets = {
        name: _pinned(dataset, result["datasets"].get(name, {}).get("identity", {}))
        for name, dataset in stored["dataset"].items()
    }
    model = _model_of(result, place)
    is_bundled = Path(expand_path(model["name"])) == MODEL_DIR
    values = {
        **stored,
        "model": model,
        "dataset": datasets,
        "calibration": _calibration_of(result, place)
        or {"dataset": next(iter(datasets.values()))},  # the schema wants a name, nothing reads it
        "evaluation": {
            **stored["evaluation"],
            "dtype": place.evaluation_dtype or stored["evaluation"]["dtype"],
        },
        "dtype": identity["dtype"],
        "data_dir": list(place.data_dir) or (str(TEXT_DIR) if is_bundled else None),
        "results_dir": str(results_dir),
        "cache_dir": place.cache_dir or str(results_dir / "cache"),
        "device": place.device,
        "memory": place.memory,
    }
    try:
        composed = OmegaConf.merge(OmegaConf.structured(Config), values)
        return typed_config(composed)  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise NsvdError(
            f"its configuration is not one of this program: {str(error).splitlines()[0]}"
        ) from None


def _model_of(result: Result, place: Place) -> dict[str, Any]:
    model, identity = result["config"]["model"], result["identity"]["model"]
    if "hub" in identity:
        return {**model, "name": identity["hub"], "revision": identity["commit"]}
    known = str(MODEL_DIR) if model["name"] == MODEL_DIR.name else None
    if model["name"].startswith(PACKAGE):
        known = model["name"]
    name = place.model or known
    if name is None:
        raise NsvdError(
            f"its model is a folder, '{model['name']}', and a stored cell does not say where: give "
            "it with --model FOLDER"
        )
    return {**model, "name": name, "revision": "main"}


def _calibration_of(result: Result, place: Place) -> dict[str, Any]:
    """The calibration block; nothing for a method that has none."""
    identity = result["identity"].get("calibration")
    if identity is None:
        return {}
    calibration = result["config"]["calibration"]
    block = {**calibration, "dataset": _pinned(calibration["dataset"], identity)}
    tokenizer = identity["tokenizer"]
    if tokenizer is None:
        return block
    if "hub" in tokenizer:
        name, revision = tokenizer["hub"], tokenizer["commit"]
    elif place.calibration_tokenizer is not None:
        name, revision = place.calibration_tokenizer, "main"
    else:
        raise NsvdError(
            f"its calibration's tokenizer is a folder, '{calibration['tokenizer']}', and a stored "
            "cell does not say where: give it with --calibration-tokenizer FOLDER"
        )
    return {**block, "tokenizer": name, "tokenizer_revision": revision}


def _pinned(dataset: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset at the commit of the hub that was read, where it was read there."""
    commit = identity.get("source", {}).get("commit")
    return {**dataset, "revision": commit} if commit else dict(dataset)


def _changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, by name."""
    parts = {"model": "the model", "calibration": "the calibration (text or tokenizer)"}
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return [parts.get(name, name) for name in names]
