"""`python -m nsvd_exp.export` and `export=FOLDER`: a cell's model as a folder of its own."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from nsvd_exp.bundled import MODEL_DIR
from nsvd_exp.cli import terminal
from nsvd_exp.cli.places import CELL_HELP, add_place, place_of, run_command
from nsvd_exp.config.classes import PRESENTATION, TARGET
from nsvd_exp.config.files import conf_dir, expand_path, group_choices
from nsvd_exp.config.schema import EXPORT_FORMATS, Config
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.calibration_plan import calibration_title
from nsvd_exp.experiment.exported import Export, exported
from nsvd_exp.experiment.plan import CellPlan, dense_of, plan_cell
from nsvd_exp.experiment.resolve import public_config, public_name
from nsvd_exp.experiment.stored import stored_cell
from nsvd_exp.progress import ProgressBars
from nsvd_exp.storage.results import Result

if TYPE_CHECKING:
    from nsvd_exp.experiment.session import Session
    from nsvd_exp.models.checkpoint import About, Perplexity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 2 if nothing could be exported."""
    return run_command(_parser(), _export, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m nsvd_exp.export",
        description="Save the model of a stored cell, and check in a fresh process that it is "
        "the one that was measured.",
    )
    parser.add_argument("cell", metavar="CELL", help=CELL_HELP)
    parser.add_argument("folder", metavar="FOLDER", help="is made; has to be empty if it exists")
    parser.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        default="factors",
        help="dense: ordinary weights, for engines that know no factors; default: factors",
    )
    parser.add_argument("--push", metavar="NAME", help="put it on the hub as USER/NAME")
    parser.add_argument("--public", action="store_true", help="where everyone sees it")
    add_place(parser)
    return parser


def _export(options: argparse.Namespace) -> None:
    if options.push is not None:
        _require_token(options.push)
    stored = stored_cell(options.cell, place_of(options))
    check_folder(stored.plan, Path(options.folder), options.format)
    from nsvd_exp.experiment.session import Session

    made = export(stored.plan, stored.result, Session(), Path(options.folder), options.format)
    print(summary(made))
    if options.push is not None:
        print(_pushed(made.folder, options.push, is_private=not options.public))


def _pushed(folder: Path, name: str, is_private: bool = True) -> str:
    from nsvd_exp.models.checkpoint import push

    return f"pushed: {push(folder, name, private=is_private)}"


def _require_token(name: str) -> None:
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise NsvdError(
            f"to push to '{name}' takes a token that may write: make one at "
            "https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN"
        )


def export_folder(config: Config, is_grid: bool) -> Path | None:
    """Where `export=` puts the model of a cell; None where it is not asked for.

    In a grid that is a folder called like the cell's own. The dense model of a grid, with which the
    others are compared, has none.

    Raises:
        NsvdError: the folder holds something else, a plain run is to export the dense model, or
            there is no token to push with.
    """
    if config.export is None or (is_grid and not config.compresses):
        return None
    if config.push_to_hub is not None:
        _require_token(config.push_to_hub)
    plan, folder = plan_cell(config), Path(config.export)
    if is_grid:
        folder /= plan.file.folder.name
    check_folder(plan, folder, config.export_format)
    return folder


def check_folder(plan: CellPlan, folder: Path, format: str) -> None:
    """Make sure, before the work, that a cell can be exported to a folder.

    Raises:
        NsvdError: it holds something else, or the cell is the dense model.
    """
    exported(Path(expand_path(str(folder))), plan, format)
    if not plan.config.compresses:
        raise NsvdError("method=dense makes no compressed model, so there is nothing to export")


def export(plan: CellPlan, result: Result, session: Session, folder: Path, format: str) -> Export:
    """Export a cell that is done, with its model card.

    Raises:
        NsvdError: as `nsvd_exp.experiment.export.export_cell`.
    """
    with ProgressBars.showing(plan.file.folder.name) as bars:
        from nsvd_exp.experiment.export import export_cell

        about = about_of(plan, result)
        return export_cell(plan, result, session, str(folder), about, format, bars)


def export_and_push(plan: CellPlan, result: Result, session: Session, folder: Path) -> str:
    """Export a cell as its settings say, and push it where they do; what to say of it.

    Args:
        folder: from `export_folder`.

    Raises:
        NsvdError: as `export`, or the hub refuses it; what was exported stays then.
    """
    config = plan.config
    made = export(plan, result, session, folder, config.export_format)
    if config.push_to_hub is None:
        return summary(made)
    is_one_of_many = folder != Path(config.export or "")
    name = f"{config.push_to_hub}-{folder.name}" if is_one_of_many else config.push_to_hub
    return f"{summary(made)}\n{_pushed(made.folder, name)}"


def summary(made: Export) -> str:
    """One line on an export: where, how large, and what the fresh process found."""
    checked = made.record["checked"]
    size = sum(path.stat().st_size for path in made.folder.glob("*.safetensors"))
    text = (
        f"exported to {made.folder} ({size / 1e6:.1f} MB of weights): a fresh process has the "
        f"perplexity {checked['perplexity']!r} on {checked['dataset']}"
    )
    if checked["in_memory"] is None:
        return f"{text}, as stored"
    text += ", as the model in memory"
    stored = checked["stored"]
    return text if stored is None else f"{text}; stored is {stored!r}"


def about_of(plan: CellPlan, result: Result) -> About:
    """What the model card says of a cell."""
    from nsvd_exp.models.checkpoint import About, license_of

    config, model = plan.config, plan.model
    perplexities = _perplexities(plan, result)
    return About(
        method=str(config.method["title"]),
        ratio=config.ratio,
        calibration=None if plan.calibration is None else calibration_title(config.calibration),
        command=command_of(plan),
        base=model.name if not model.is_local else config.model.title,
        revision=model.commit,
        license=license_of(model.name, model.commit),
        protocol=_protocol(plan) if perplexities else None,
        perplexities=perplexities,
        layers=result["layers"],
    )


def _protocol(plan: CellPlan) -> str:
    evaluation = plan.config.evaluation
    cap = f", at most {evaluation.max_windows} of them" if evaluation.max_windows else ""
    return (
        f"Perplexity of a token, over windows of {plan.length} tokens that are scored one by "
        f"one{cap}, in {plan.evaluation_dtype}. Intervals say how sure a mean over these windows "
        "is, as a sample of such text."
    )


def _perplexities(plan: CellPlan, result: Result) -> list[Perplexity]:
    from nsvd_exp.models.checkpoint import Perplexity

    dense: Mapping[str, Result] = {}
    dense_plan = plan_cell(dense_of(plan.config))
    try:
        dense = dense_plan.found(dense_plan.file.read())
    except NsvdError:  # of another version, or damaged: the card then lacks a column
        terminal.say(f"{dense_plan.file.path} cannot be read, so the card has no dense numbers")
    titles = {m.dataset.name: m.dataset.title for m in plan.measurements}
    return [
        Perplexity(
            dataset=titles[name],
            value=measured["perplexity"],
            interval=_interval(measured),
            dense=dense[name]["perplexity"] if name in dense else None,
        )
        for name, measured in plan.found(result).items()
    ]


def _interval(measured: Result) -> tuple[float, float] | None:
    import numpy as np

    from nsvd_exp.report.model.intervals import interval, spread_of_mean

    per_window = measured["tokens"] / measured["windows"]
    spread = spread_of_mean(np.array(measured["window_nll"]) / per_window)
    if spread is None:
        return None
    low, high = interval(math.log(measured["perplexity"]), spread)
    return math.exp(low), math.exp(min(high, 700.0))


def command_of(plan: CellPlan) -> str:
    """The command that makes a cell; a folder of a model is called by its own name."""
    config, model = public_config(plan), plan.model
    words = ["model=tiny"]
    if Path(expand_path(plan.config.model.name)) != MODEL_DIR:
        words = ["model=hf", f"model.name={public_name(model)}"]
    if model.commit is not None:
        words.append(f"model.revision={model.commit}")
    for group in ("method", "allocation", "storage"):
        words += _choice(group, config[group])
    words += [f"ratio={config['ratio']:g}", f"solver={config['solver']}", f"dtype={plan.dtype}"]
    if config["model"]["skip"]:
        words.append(f"model.skip=[{','.join(config['model']['skip'])}]")
    calibration = config.get("calibration")
    if calibration is not None:
        words.append(f"calibration.dataset={calibration['dataset']['name']}")
        for name in ("split", "samples", "length", "seed", "sampler"):
            words.append(f"calibration.{name}={calibration[name]}")
    words += [f"dataset=[{','.join(config['dataset'])}]", f"evaluation.length={plan.length}"]
    return " ".join(["python -m nsvd_exp", *map(shlex.quote, words)])


def _choice(group: str, block: Mapping[str, Any]) -> list[str]:
    """What one types for a block: the file of `conf/` that it is of, and what differs from that."""
    files: dict[str, Any] = {
        name: OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
        for name in group_choices(group)
    }
    named = {
        name: file
        for name, file in files.items()
        if file.get(TARGET) == block[TARGET] and block.get("name", name) == name
    }
    own: tuple[str, dict[str, Any]] = (block.get("name", block[TARGET]), {})
    name, file = next(iter(named.items()), own)
    fields = [field for field in block if field not in (*PRESENTATION, TARGET)]
    return [f"{group}={name}"] + [
        f"k1={block[field]:g}" if field == "k1" else f"{group}.{field}={block[field]}"
        for field in fields
        if block[field] != file.get(field)
    ]
