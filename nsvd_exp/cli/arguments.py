"""What a user types, put as Hydra takes it, and what Hydra answers, put as a user can use it."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import typing
from collections.abc import Sequence
from dataclasses import is_dataclass

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from nsvd_exp.config.files import group_choices, method_files
from nsvd_exp.config.schema import Config
from nsvd_exp.errors import NsvdError, unknown_name
from nsvd_exp.storage.files import path_component

# What a user types, and the group of conf/ that it names.
ALIASES = {"datasets": "dataset", "calibration.dataset": "dataset@calibration.dataset"}
PATH_SETTINGS = (
    *("data_dir", "tasks_dir", "results_dir", "cache_dir", "tracking.dir", "export"),
    *("model.name", "calibration.tokenizer"),
)
LISTS_OF_FOLDERS = ("data_dir", "tasks_dir")
SINGLE_CHOICES = (
    *("model", "method", "allocation", "storage", "calibration", "experiment"),
    "dataset@calibration.dataset",
)
GROUPS_WITH_FIELDS = ("method", "allocation", "storage")


LIST_SYNTAX = (
    "A list is written [a,b], in quotes for the shell: 'dataset=[ptb,c4]'; a grid is written with "
    "-m and without brackets: -m dataset=ptb,c4"
)


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """The folders that `--config-dir` adds, in either way of writing it."""
    found = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            found.append(value if equals else following)
    return found


def refuse_undecodable(arguments: Sequence[str]) -> None:
    """Refuse what is no text: Hydra keeps what was typed, in UTF-8.

    Raises:
        NsvdError: an argument is not UTF-8.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise NsvdError(f"{ascii(argument)[1:-1]} is not UTF-8") from None


def normalise(argument: str, more: Sequence[str] = ()) -> str:
    """One argument as Hydra takes it: the aliases, and paths with `~`, variables or spaces.

    Args:
        more: folders like `conf/`.

    Raises:
        NsvdError: a list where one name belongs, nothing where a name belongs, a path, or no
            weights.
    """
    match = re.match(r"^(\+*)([\w.@]+)=(.*)$", argument, re.DOTALL)
    if not match:
        return argument
    prefix, name, value = match.groups()
    if name == "calibration.mix":
        if not value.startswith("{"):
            raise NsvdError(f"{name}={value}: expected weights by name, '{name}={{random: 0.1}}'")
        prefix = "+"  # without it Hydra takes no name there that the schema does not know
    group = ALIASES.get(name, name)
    if group in SINGLE_CHOICES and value.startswith("["):
        raise NsvdError(f"{name}={value}: expected one name (a grid is written -m {name}=a,b)")
    if group in (*SINGLE_CHOICES, "dataset") and value in ("", "null", "[]"):
        choices = ", ".join(group_choices(group.partition("@")[0], more))
        raise NsvdError(f"{name}={value}: expected a name. Known: {choices}")
    if group in (*SINGLE_CHOICES, "dataset"):
        for choice in value.strip("[]").split(","):
            path_component(name, choice.strip())
    if name in PATH_SETTINGS and not value.startswith(("'", '"', "[")) and "," not in value:
        value = _quoted_path(value)
    return f"{prefix}{group}={value}"


def with_lists_of_folders(arguments: Sequence[str]) -> list[str]:
    """The arguments; a setting of LISTS_OF_FOLDERS that is given several times is one list."""
    arguments = list(arguments)
    for name in LISTS_OF_FOLDERS:
        given = [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")]
        if len(given) > 1:
            folders = [v.strip("[]") if v.startswith("[") else _quoted_path(v) for v in given]
            others = [a for a in arguments if not a.startswith(f"{name}=")]
            arguments = [*others, f"{name}=[{','.join(folders)}]"]
    return arguments


def with_fields_of_grids(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra takes them; a field with one value becomes a choice of one, where its
    group has several: `method=kfac,asvd_ridge method.ridge=0.3`.

    Hydra composes what has one value before it splits the grid, with the group's own default.
    """
    groups = [a for a in arguments if a.partition("=")[0] in GROUPS_WITH_FIELDS]
    swept = {a.partition("=")[0] for a in groups if _sweeps(a)}

    def of_grid(argument: str) -> str:
        name, equals, value = argument.partition("=")
        group, dot, _ = name.partition(".")
        is_field = bool(equals and dot) and group in swept
        return f"{name}=choice({value})" if is_field and not _sweeps(argument) else argument

    return [of_grid(argument) for argument in arguments]


def _sweeps(argument: str) -> bool:
    """Whether an argument gives several values."""
    try:
        return bool(OverridesParser.create().parse_override(argument).is_sweep_override())
    except HydraException:  # Hydra will refuse it
        return False


def _quoted_path(value: str) -> str:
    """A path that Hydra's grammar takes: `~` and other characters it refuses, in quotes."""
    expanded = os.path.expandvars(os.path.expanduser(value))
    if re.fullmatch(r"[\w./\\:%+@?*|${}-]*", expanded, re.ASCII):
        return expanded
    escaped = expanded.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def explain(error: Exception, more: Sequence[str] = ()) -> str:
    """What went wrong and the way out; Hydra's own wording where that says both.

    Args:
        more: folders like `conf/`, whose files are known too.
    """
    text = str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{mark.name}, line {mark.line + 1}" if mark else "a configuration file"
        return f"{place} is not YAML: {error.problem or error.context}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return str(unknown_name(group, name, group_choices(group, more)))
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        fields = {f"method.{field}" for file in method_files().values() for field in file}
        known = sorted({*setting_names(Config), *ALIASES, *fields} - {unknown[1]})
        close = difflib.get_close_matches(unknown[1], known, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        return f"unknown setting '{unknown[1]}'.{hint} All of them: python -m nsvd_exp --cfg job"
    if isinstance(error, OverrideParseException):
        return f"{text.splitlines()[0]}\nA setting is written NAME=VALUE. {LIST_SYNTAX}"
    ambiguous = re.match(r"Ambiguous value for argument '([^']+)'", text)
    if ambiguous:
        return f"{ambiguous[1]} may be a list or a grid. {LIST_SYNTAX}"
    if isinstance(error.__cause__, Exception):
        text = f"{text.splitlines()[0]}: {str(error.__cause__).splitlines()[0]}"
    text = text.replace("Error merging override ", "")
    return f"{text}. {LIST_SYNTAX}" if "ListConfig" in text else text


def setting_names(schema: type, prefix: str = "") -> list[str]:
    """Every name the schema knows, with dots."""
    names: list[str] = []
    for name, default in typing.get_type_hints(schema).items():
        names.append(f"{prefix}{name}")
        if is_dataclass(default):
            names += setting_names(typing.cast(type, default), f"{prefix}{name}.")
    return names
