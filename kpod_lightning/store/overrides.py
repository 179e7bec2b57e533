"""Words ``key=value`` of the command line, as the nested mapping that a YAML file would have given."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from kpod_lightning.store.bounds import shortened
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import parsed_yaml

_KEY = re.compile(r"[^\W\d][\w-]*(\.[\w-]+)*")


def nested(words: Sequence[str], block: type, short: Mapping[str, str]) -> dict[str, Any]:
    """The mapping that the words describe together.

    Of a setting that stands twice the last one counts. A value is YAML. Where the setting is a text it is taken as it
    stands, unless it is null or in quotes: the command line needs no further quotes round ``1e5`` or ``[.!?]``.

    Args:
        words: ``key=value``, the key with dots.
        block: the settings' dataclass, which says what is a text.
        short: longer names of keys that have a shorter one on the command line.

    Raises:
        InputError: a word of another form, a value that is no YAML, a value for a setting and for one inside it.
    """
    whole: dict[str, Any] = {}
    for word in words:
        key, value = _split(word)
        key = short.get(key, key)
        *parents, last = key.split(".")
        place: Any = whole
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"{shortened(word)}: {parent} is given a value by another word; drop one of them")
        place[last] = _value(word, value, is_text(block, key))
    return whole


def _split(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise InputError(f"{shortened(word)}: a setting is written key=value, e.g. optim.lr=1e-4")
    if not _KEY.fullmatch(key):
        bare = key.lstrip("+~-")
        way = f": write {bare}={shortened(value)}" if _KEY.fullmatch(bare) else ", e.g. optim.lr=1e-4"
        raise InputError(f"{shortened(word)}: a setting is written key=value{way}")
    if not value.strip() or value.strip() == "???":  # what OmegaConf takes for a value that is yet to come
        raise InputError(f"{shortened(word)}: no value behind the sign; write {key}=null for none")
    return key, value


def is_text(block: type, key: str) -> bool:
    """Whether the setting of this name, with dots, is a text."""
    kind: Any = block
    for part in key.split("."):
        if is_dataclass(kind):
            kind = get_type_hints(kind).get(part)
        else:
            values = get_args(kind)[1:]  # of a mapping: names, values
            kind = values[0] if values else None
    return set(get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind]) - {NoneType} == {str}


def _value(word: str, text: str, as_it_stands: bool) -> Any:
    if as_it_stands:
        stripped = text.strip()
        quoted = len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'"
        if not quoted:
            return None if stripped in ("null", "~") else text
    return parsed_yaml(text, f"{shortened(word)}, the value")
