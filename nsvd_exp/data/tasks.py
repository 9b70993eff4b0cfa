"""Which file defines a task of EleutherAI's lm-evaluation-harness, and exactly what it says.

A task is a YAML file, which may include others and name functions of Python files beside it. It is
looked for in the user's folders, among the bundled tasks, and in the harness that is installed.
Reading it here takes milliseconds, where the harness needs seconds for the names of all its tasks.

Imports neither torch nor lm_eval.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nsvd_exp.bundled import TASKS_DIR
from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.storage.keys import digest, file_digest

HARNESS = "lm_eval"
INSTALL = "pip install -e '.[zeroshot]'"
# Formats of local data files, as the `datasets` library calls them.
LOCAL_FORMATS = ("json", "csv", "parquet", "text", "arrow")
# The line of a file that says what it defines; quotes around the name are not part of it.
DEFINES = re.compile(r"""^["']?(task|group)["']?:[ \t]*["']?([^\s"'#]+)""", re.MULTILINE)


@dataclass(frozen=True)
class TaskSource:
    """One task at one exact state.

    Attributes:
        path: its YAML file.
        config: what that file and those it includes say; a function is the text of its name.
        dataset_kwargs: of `config`, with the paths of local data files filled in.
        identity: what keys are made of; holds no path.
    """

    name: str
    path: Path
    config: dict[str, Any]
    dataset_kwargs: dict[str, Any]
    identity: dict[str, Any]

    @property
    def version(self) -> str:
        """As the task's own file says; harness tasks raise it when their numbers change."""
        return str(self.identity["version"])

    @property
    def has_own_files(self) -> bool:
        """Whether its data files are given relative to its YAML file."""
        return self.dataset_kwargs != (self.config.get("dataset_kwargs") or {})


def locate_task(name: str, folders: Sequence[str], harness: str = HARNESS) -> TaskSource:
    """The task of this name.

    Args:
        folders: the user's, as they were given.
        harness: the module whose tasks are known too, if it is installed.

    Raises:
        NsvdError: there is no such task, its file is broken, or it cannot be done here.
    """
    path = _path_of(name, folders, harness)
    read = _read(path)
    config = read.config
    if config.get("task") != name:
        raise NsvdError(f"{path} defines task '{name}' on one line, and another one on the whole")
    _refuse_unsuitable(name, config)
    kwargs, files = _local_files(config, path)
    content = {
        "config": _plain(config),
        "code": [file_digest(file) for file in read.code],
        "data": [file_digest(file) for file in files],
    }
    version = (config.get("metadata") or {}).get("version")
    identity = {"task": name, "version": str(version), "config": digest(content)}
    return TaskSource(name, path, config, kwargs, identity)


def require_harness(module: str = HARNESS) -> None:
    """Make sure that the harness is installed.

    Raises:
        NsvdError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise NsvdError(f"measure=zeroshot needs lm-eval, which is not installed: {INSTALL}")


def _path_of(name: str, folders: Sequence[str], harness: str) -> Path:
    """The file that defines a task: the first of the user's folders that has it counts."""
    own: list[str] = []
    for folder in folders:
        if not Path(expand_path(folder)).is_dir():
            raise NsvdError(f"tasks_dir={folder}: there is no folder {expand_path(folder)}")
    for root in (*(Path(expand_path(folder)) for folder in folders), TASKS_DIR):
        tasks = _defined(root)["task"]
        if name in tasks:
            return tasks[name]
        own += tasks
    known = harness_files(harness)
    if name in known["task"]:
        return known["task"][name]
    if name in known["group"]:
        raise NsvdError(
            f"'{name}' is a group of tasks ({known['group'][name]}): name its tasks themselves"
        )
    close = difflib.get_close_matches(name, [*own, *known["task"]], n=3, cutoff=0.7)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    beyond = "those of the harness: lm-eval ls tasks"
    if not known["task"]:
        beyond = f"with lm-eval, which is not installed, its own too: {INSTALL}"
    raise NsvdError(f"unknown task '{name}'.{hint} Known: {', '.join(sorted(own))}; {beyond}")


@functools.cache
def harness_files(module: str = HARNESS) -> dict[str, dict[str, Path]]:
    """The files of the installed harness: `task` and `group`, each by name."""
    found = importlib.util.find_spec(module)
    places = [] if found is None else found.submodule_search_locations or []
    return _defined(*(Path(place) / "tasks" for place in places))


def _defined(*roots: Path) -> dict[str, dict[str, Path]]:
    """What the YAML files under these folders define, by the line that says so."""
    found: dict[str, dict[str, Path]] = {"task": {}, "group": {}}
    for path in sorted(path for root in roots for path in root.rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise NsvdError(f"{path} cannot be read: {error.strerror}") from None
        said = dict(DEFINES.findall(text))
        kind = "group" if "group" in said else "task"  # a group has a list of its tasks
        if kind in said:
            found[kind].setdefault(said[kind], path)
    return found


@dataclass
class _Read:
    """What a YAML file says, with what it includes; the Python files that it names."""

    config: dict[str, Any]
    code: list[Path] = field(default_factory=list)


def _read(path: Path, including: tuple[Path, ...] = ()) -> _Read:
    """A task's file with those that it includes, whose values its own replace.

    Raises:
        NsvdError: one of them cannot be read or is broken.
    """
    if path in including:
        raise NsvdError(f"{path} includes itself")
    functions: list[str] = []
    said = _mapping(path, functions)
    code = [path.parent / f"{name.rpartition('.')[0].replace('.', '/')}.py" for name in functions]
    read = _Read({}, [file for file in dict.fromkeys(code) if file.is_file()])
    included = said.pop("include", [])
    for other in included if isinstance(included, list) else [included]:
        base = _read(path.parent / str(other), (*including, path))
        read.config |= base.config
        read.code += base.code
    read.config |= said
    return read


def _mapping(path: Path, functions: list[str]) -> dict[str, Any]:
    """The mapping in a YAML file; the names of its functions are added to `functions`."""

    class Loader(yaml.SafeLoader):
        """Takes `!function utils.name` for a text."""

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        functions.append(str(loader.construct_scalar(node)))
        return f"!function {functions[-1]}"

    Loader.add_constructor("!function", function)
    try:
        said = yaml.load(path.read_bytes(), Loader)
    except OSError as error:
        raise NsvdError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}," if mark else f"{path}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise NsvdError(f"{place} is not YAML: {problem}") from None
    if not isinstance(said, dict):
        raise NsvdError(f"{path} defines no task: expected NAME: VALUE on each line")
    return said


def _refuse_unsuitable(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a task that is not for a language model alone, or that runs what a model wrote."""
    if config.get("unsafe_code"):
        raise NsvdError(f"task {name} runs code that the model writes, which is not done here")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise NsvdError(f"task {name} is for models that take images or sound")


def _local_files(config: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], list[Path]]:
    """The arguments of the dataset, its local files relative to the YAML file; and these files."""
    kwargs = dict(config.get("dataset_kwargs") or {})
    if config.get("dataset_path") not in LOCAL_FORMATS or "data_files" not in kwargs:
        return kwargs, []
    files: list[Path] = []

    def resolved(given: Any) -> Any:
        if isinstance(given, dict):
            return {split: resolved(own) for split, own in given.items()}
        if isinstance(given, list):
            return [resolved(own) for own in given]
        if "://" in str(given):
            return given
        file = path.parent / str(given)
        if not file.is_file():
            raise NsvdError(f"{path} names the data file {given}, and there is no {file}")
        files.append(file)
        return str(file)

    kwargs["data_files"] = resolved(kwargs["data_files"])
    return kwargs, files


def _plain(value: Any) -> Any:
    """A value of YAML in the form of a key: numbers and dates as texts, every name as a text."""
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list):
        return [_plain(own) for own in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return json.dumps(value, default=str)
