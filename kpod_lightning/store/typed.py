"""Typed settings: what a YAML file or a word of the command line says, against the fields of a dataclass."""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from kpod_lightning.store.bounds import shortened
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import kind_of

MISSING = "???"
"""What OmegaConf takes for a value that is still to be given."""


def known_keys(block: type, prefix: str = "") -> list[str]:
    """Every setting of a dataclass and of the blocks in it, written with dots."""
    keys = []
    for name, kind in get_type_hints(block).items():
        is_block = isinstance(kind, type) and is_dataclass(kind)
        keys += known_keys(kind, f"{prefix}{name}.") if is_block else [f"{prefix}{name}"]
    return keys


def did_you_mean(word: str, known: list[str]) -> str:
    """``; did you mean optim.lr?`` where a known word is near, else nothing."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.8)
    if not near:  # a setting without its block, e.g. lr
        near = [key for key in known if key.rpartition(".")[2] == word.rpartition(".")[2]][:1]
    return f"; did you mean {near[0]}?" if near else ""


def fitted(block: type, written: Any, *, name: str = "", root: type | None = None) -> dict[str, Any]:
    """The values of a block of settings, each of the type of its field. What is not there keeps its default.

    A text with ``${...}`` stays as it is, since what it stands for is not known yet.

    Args:
        block: a dataclass, whose fields may be dataclasses.
        written: what the file or the command line says.
        name: of the block, with dots; "" for the outermost one.
        root: the outermost dataclass, for the names of settings that are near a wrong one.

    Raises:
        InputError: an unknown setting, or a value of another type. Names the setting and what it takes.
    """
    if not isinstance(written, Mapping):
        inside = [field.name for field in fields(block)]
        example = f"{name}.{'name' if 'name' in inside else inside[0]}"
        raise InputError(
            f"{name} is a block of settings, not a {kind_of(written)}: write "
            f"{example}={shortened(written) if isinstance(written, str) else '...'}, for example"
        )
    types = get_type_hints(block)
    values = {}
    for key, value in written.items():
        full = f"{name}.{key}" if name else str(key)
        if key not in types:
            inner = full  # of a block, its first setting: that says more
            while isinstance(value, Mapping) and value:
                inner, value = f"{inner}.{next(iter(value))}", next(iter(value.values()))
            near = did_you_mean(inner, known_keys(root or block))
            raise InputError(f"{shortened(inner)}: there is no such setting{near}")
        kind = types[key]
        if is_dataclass(kind):
            values[key] = fitted(kind, value, name=full, root=root or block)  # type: ignore[arg-type]
        else:
            values[key] = converted(value, kind, full)
    return values


def converted(value: Any, kind: Any, key: str) -> Any:
    """A value as its field's type has it: 3 for the 3.0 of a whole number, 1e-4 for the text "1e-4".

    Raises:
        InputError: it cannot be taken for one without loss.
    """
    if kind is Any or (isinstance(value, str) and ("${" in value or value == MISSING)):
        return value
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind, *others = (each for each in get_args(kind) if each is not NoneType)
        if others and isinstance(value, str) and _number(value, kind) is None:  # a number or a word
            (kind,) = others
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise InputError(f"{key} is a list such as [a, b], got {_got(value)}")
        return [converted(item, get_args(kind)[0], f"{key}[{i}]") for i, item in enumerate(value)]
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key} is a mapping such as {key}.name=value, got {_got(value)}")
        item_kind = get_args(kind)[1]
        return {_name(name, key): converted(item, item_kind, f"{key}.{name}") for name, item in value.items()}
    return {bool: _truth, int: _whole, float: _real, str: _text}[kind](value, key)


def _got(value: Any) -> str:
    return "null" if value is None else f"{shortened(value)}" if isinstance(value, str) else f"a {kind_of(value)}"


def _name(name: Any, key: str) -> str:
    if not isinstance(name, str):
        raise InputError(f"{key}: the name {shortened(name)} is a {kind_of(name)}; write it in quotes")
    return name


def _truth(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{key} is true or false, got {shortened(value) if value is not None else 'null'}")
    return value


def _whole(value: Any, key: str) -> int:
    number = _number(value, int)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int):
        raise InputError(f"{key} is a whole number, got {_shown(value)}")
    return number


def _real(value: Any, key: str) -> float:
    number = _number(value, float)
    if number is None:
        raise InputError(f"{key} is a number, got {_shown(value)}")
    try:
        return float(number)
    except OverflowError:
        raise InputError(f"{key} is a number, got {shortened(number)}") from None


def _number(value: Any, read: type) -> int | float | None:
    """The number that a scalar is, or that a text spells in ASCII; None where it is none."""
    if isinstance(value, str) and value.isascii() and "_" not in value:
        try:
            return read(value)
        except ValueError:
            return None
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _got(value) if isinstance(value, (list, Mapping)) else shortened(value)


def _text(value: Any, key: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        way = " and needs quotes here" if isinstance(value, (bool, float)) else ""
        raise InputError(f"{key} is a text{way}, got {_shown(value)}")
    # The shell leaves the ~ of data.dir=~/data as it is.
    return os.path.expanduser(value) if value.startswith("~/") else value
