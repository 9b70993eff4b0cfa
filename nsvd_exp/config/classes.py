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
from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf, ValidationError

from nsvd_exp.errors import NsvdError, unknown_name

T = TypeVar("T")

TARGET = "_target_"
# What a block says of itself beside the class and its fields: for tables and figures.
PRESENTATION = ("name", "title", "order", "plot")


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
    values = {}
    for name, value in block.items():
        if name == TARGET or name in PRESENTATION:
            continue
        if name not in known:
            raise unknown_name(f"setting of {setting} ({cls.__name__})", f"{setting}.{name}", [
                f"{setting}.{field}" for field in known
            ])  # fmt: skip
        values[name] = _value(hints[name], value, f"{setting}.{name}")
    try:
        return cls(**values)
    except (NsvdError, TypeError, ValueError) as error:
        raise NsvdError(f"{setting}: {error}") from None


def _class(base: type[T], path: str, setting: str) -> type[T]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise NsvdError(f"{setting}: {path} cannot be imported: {error}") from None
    if found is None:
        raise NsvdError(f"{setting}={path}: expected a class by its dotted path, package.Class")
    is_one = isinstance(found, type) and issubclass(found, base) and found is not base
    # Its own decorator: a class without one has the fields of its parent, and not those it lists.
    if not (is_one and "__dataclass_params__" in vars(found)):
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
    value = typing.cast(dict[str, Any], result)["value"]
    # The rounding of a computed value, as in range(0.1,0.4,0.1), makes no value of its own.
    return float(f"{value:.12g}") if isinstance(value, float) else value
