"""Typed fields of a record that others wrote: one of the wrong type is a line with its place.

A place is where the record stands, e.g. "train.jsonl:7".
"""

from collections.abc import Mapping
from typing import Any

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import kind_of

LARGEST = 2**53
"""Whole numbers beyond it have no exact float: JSON readers of other languages have rounded them."""


def _refusal(place: str, name: str, expected: str, value: Any) -> InputError:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    what = "null" if value is None else f"the {kind_of(value)} {shown}"
    return InputError(f"{place}: {name} is {expected}, not {what}")


def text_of(row: Mapping[str, Any], name: str, place: str) -> str:
    """A text with more than blanks in it.

    Raises:
        InputError: the field is missing, of another type, or blank.
    """
    if name not in row:
        raise InputError(f"{place}: no field {name}; there are {', '.join(map(str, row)) or 'none'}")
    value = row[name]
    if not isinstance(value, str):
        raise _refusal(place, name, "a text", value)
    if not value.strip():
        raise InputError(f"{place}: {name} is empty; complete it or take the line out")
    return value


def optional_text(row: Mapping[str, Any], name: str, place: str) -> str | None:
    """A text, or None where the field is missing, null or empty.

    Raises:
        InputError: the field is of another type.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise _refusal(place, name, "a text", value)
    return value or None


def whole_number(row: Mapping[str, Any], name: str, place: str, *, least: int = 0, default: int | None = None) -> int:
    """A whole number of at least ``least``, also one that is written 3.0 or "3".

    Args:
        default: for a field that is missing; None where it must be there.

    Raises:
        InputError: the field is missing without a default, or is no such number.
    """
    if name not in row and default is not None:
        return default
    value = row.get(name)
    number = value
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        number = int(value)
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= LARGEST:
        raise _refusal(place, name, f"a whole number from {least}", value)
    return number


def number(row: Mapping[str, Any], name: str, place: str, *, least: float = 0, most: float = LARGEST) -> float:
    """A finite number from ``least`` to ``most``.

    Raises:
        InputError: the field is missing, or is no such number.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _refusal(place, name, f"a number from {least:g} to {most:g}", value)
    return float(value)


def id_of(row: Mapping[str, Any], name: str, place: str) -> str:
    """An id: a text, or a whole number as its text.

    Raises:
        InputError: the field is missing, blank or of another type.
    """
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, name, place)
