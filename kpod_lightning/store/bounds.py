"""Bounds of settings: a field's metadata says which values are allowed, and one loop checks a block of settings.

A method declares its own block in the same way::

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        num_pairs: int = field(default=2, metadata=at_least(1))
        distance: str = field(default="kl", metadata=one_of("kl", "js"))

        def __post_init__(self) -> None:
            check(self, "mcc_kd")
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from kpod_lightning.store.errors import InputError

_BOUND = "bound"

LARGEST = 10**9
"""Most that a number may be where its field names no other end: it fits in 32 bits, and more is a slip of the pen."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Which values of a field are allowed.

    Args:
        allows: whether a value is allowed.
        refusal: the message for a value that is not, with places for {key}, {value} and {or_null}.
        choices: the allowed values, where they can be listed.
        most: the largest allowed number; NaN and the infinite ones never are.
    """

    allows: Callable[[Any], bool]
    refusal: str
    choices: tuple[Any, ...] = ()
    most: float = LARGEST


def at_least(least: float, *, most: float = LARGEST) -> Mapping[str, Bound]:
    """Metadata of a field whose values lie between ``least`` and ``most``, both allowed."""
    refusal = f"{{key}} is at least {least}{{or_null}}, got {{value}}"
    return {_BOUND: Bound(allows=lambda value: value >= least, refusal=refusal, most=most)}


def at_least_or(word: str, least: float) -> Mapping[str, Bound]:
    """Metadata of a field that is a number of at least ``least``, or one word."""
    refusal = f"{{key}} is {word} or at least {least}{{or_null}}, got {{value}}"

    def allows(value: Any) -> bool:
        return value == word if isinstance(value, str) else bool(value >= least)

    return {_BOUND: Bound(allows=allows, refusal=refusal)}


def positive(*, most: float = LARGEST) -> Mapping[str, Bound]:
    """Metadata of a field whose values are above 0, and at most ``most``."""
    refusal = "{key} is positive{or_null}, got {value}"
    return {_BOUND: Bound(allows=lambda value: value > 0, refusal=refusal, most=most)}


def within(interval: str) -> Mapping[str, Bound]:
    """Metadata of a field whose values lie between 0 and 1.

    Args:
        interval: "[0, 1]", "(0, 1)", "[0, 1)" or "(0, 1]"; a round bracket leaves its end out.
    """
    with_zero, with_one = interval.startswith("["), interval.endswith("]")

    def allows(value: float) -> bool:
        return 0 < value < 1 or (with_zero and value == 0) or (with_one and value == 1)

    return {_BOUND: Bound(allows=allows, refusal=f"{{key}} lies in {interval}{{or_null}}, got {{value}}")}


def one_of(*choices: Any) -> Mapping[str, Bound]:
    """Metadata of a field that has one of a few values."""
    refusal = f"{{key}}={{value}} is none of {', '.join(map(str, choices))}{{or_null}}"
    return {_BOUND: Bound(allows=lambda value: value in choices, refusal=refusal, choices=choices)}


def choices_of(block: type, name: str) -> tuple[Any, ...]:
    """The values that ``one_of`` allows for a field of a dataclass."""
    (field,) = (field for field in fields(block) if field.name == name)
    return field.metadata[_BOUND].choices


def bound_of(block: type, name: str) -> Bound | None:
    """The bound of a field of a dataclass; None where it has none."""
    (field,) = (field for field in fields(block) if field.name == name)
    found: Bound | None = field.metadata.get(_BOUND)
    return found


def check(block: Any, name: str = "") -> None:
    """Check every field of a block of settings. None is allowed where the field's type allows it.

    Numbers lie within the field's bound, and are finite; texts are not empty, and can be written in UTF-8.

    Args:
        block: a dataclass instance; its ``__post_init__`` calls this first.
        name: of the block, as in the YAML; "" for settings that stand in no block.

    Raises:
        InputError: a value that is not allowed. Names the key, the value and what is allowed.
    """
    types = get_type_hints(type(block))
    for field in fields(block):
        bound, value = field.metadata.get(_BOUND), getattr(block, field.name)
        key = f"{name}.{field.name}" if name else field.name
        check_texts(value, key)
        may_be_none = NoneType in get_args(types[field.name])
        if bound is None or (value is None and may_be_none):
            continue
        or_null = " or null" if may_be_none else ""
        if not _is_of(types[field.name], value) or not bound.allows(value):
            raise InputError(bound.refusal.format(key=key, value=value, or_null=or_null))
        if not isinstance(value, str) and not abs(value) <= bound.most:
            raise InputError(f"{key} is at most {bound.most}{or_null}, got {shortened(value)}")


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of a field's type: a number of Python's numeric tower, but no truth value for a number."""
    kinds = {kind, *get_args(kind)}
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(
        value, tuple(each for each in (str, int) if each in kinds) + ((int, float) if float in kinds else ())
    )


def shortened(value: Any) -> str:
    """A value as it stands in a message: a number of thousands of digits does not fill the screen."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_texts(value: Any, key: str) -> None:
    """Check the texts of a setting, also those in a list or a mapping.

    Raises:
        InputError: one is empty, has a NUL, or has bytes or halves of surrogate pairs that are no UTF-8.
    """
    for text in value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]:
        if not isinstance(text, str):
            continue
        if not text:
            raise InputError(f"{key} is an empty text; leave it out, or give it one")
        if "\0" in text:
            raise InputError(f"{key} has a NUL character, got {shortened(repr(text))}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{key} is no UTF-8, got {shortened(ascii(text))}") from error
