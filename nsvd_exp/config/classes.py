"""A class that a setting names, with its fields: `_target_` and what stands beside it.

    method:
      _target_: mine.Ridge      # a frozen dataclass
      ridge: 0.1                # one of its fields

Fields are checked against those of the class; a field whose type is such a class itself is given by
its dotted path, or by a block like the one above. Imports no torch by itself.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf, ValidationError

from nsvd_exp.errors import NsvdError, unknown_name

T = TypeVar("T")

TARGET = "_target_"
# What a block says of itself beside the class and its fields, for tables and figures; and what is
# said there of its line in a figure.
PRESENTATION = ("name", "title", "order", "plot")
PLOT = ("color", "marker", "hollow")


def build(base: type[T], block: Mapping[str, Any], setting: str) -> T:
    """The object that a block of the configuration describes.

    Args:
        base: what its class must be a subclass of.
        block: `_target_`, fields of the class, and what stands in `PRESENTATION`.
        setting: where the block stands, for messages: `method`.

    Raises:
        NsvdError: there is no such class, it is no frozen dataclass of this kind, it has no such
            field, or a value is not what the field takes.
    """
    target = block.get(TARGET)
    if not target:
        raise NsvdError(f"{setting} names no class: give {setting}.{TARGET}=package.module.Class")
    cls = _class(base, str(target), setting)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
    for name in set(known).intersection(PRESENTATION):
        raise NsvdError(
            f"{setting}: {target} has a field '{name}', but {setting}.{name} says how it is shown: "
            "give the field another name"
        )
    refuse_unknown(block, known, setting, cls.__name__)
    values = {
        name: _value(hints[name], block[name], f"{setting}.{name}")
        for name in known
        if name in block
    }
    try:
        return cls(**values)
    except (NsvdError, TypeError, ValueError) as error:
        raise NsvdError(f"{setting}: {error}") from None


def refuse_unknown(
    block: Mapping[str, Any], fields: Iterable[str], setting: str, title: str
) -> None:
    """Refuse what is neither one of the `fields` of a block nor presentation.

    Args:
        title: of what the block describes, for the message.

    Raises:
        NsvdError: a name in the block is unknown.
    """
    kind = f"setting of {setting} ({title})"
    known = [f"{setting}.{name}" for name in (*fields, *PRESENTATION)]
    for name in block:
        if name != TARGET and f"{setting}.{name}" not in known:
            raise unknown_name(kind, f"{setting}.{name}", known)
    for name in block.get("plot") or {}:
        if name not in PLOT:
            known = [f"{setting}.plot.{name}" for name in PLOT]
            raise unknown_name(kind, f"{setting}.plot.{name}", known)


def _class(base: type[T], path: str, setting: str) -> type[T]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise NsvdError(f"{setting}: {path} cannot be imported: {error}") from None
    if found is None:
        raise NsvdError(f"{setting}={path}: expected a class by its dotted path, package.Class")
    is_one = isinstance(found, type) and issubclass(found, base) and found is not base
    # Of the class itself: a subclass that is no dataclass would keep its fields out of every key.
    options = vars(found).get("__dataclass_params__") if is_one else None
    if options is None or not options.frozen:
        expected = f"a frozen dataclass that is a subclass of {base.__module__}.{base.__name__}"
        raise NsvdError(f"{setting}: {path} is not {expected}")
    return typing.cast(type[T], found)


def _value(hint: Any, value: Any, setting: str) -> Any:
    """A value of a field, of the type that the field is declared to have."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        block = value if isinstance(value, Mapping) else {TARGET: value}
        return build(hint, block, setting)
    holder = dataclasses.make_dataclass("Field", [("value", hint)])
    try:
        checked = OmegaConf.merge(OmegaConf.structured(holder), {"value": value})
        result = OmegaConf.to_container(checked)
    except ValidationError as error:
        raise NsvdError(f"{setting}: {str(error).splitlines()[0]}") from None
    return as_typed(typing.cast(dict[str, Any], result)["value"])


def as_typed(value: Any) -> Any:
    """A number as it was meant: the rounding of range(0.1,0.4,0.1) makes no cell of its own."""
    return float(f"{value:.12g}") if isinstance(value, float) else value
