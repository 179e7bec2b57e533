"""Settings as a user reads them: name, default and meaning of every field of a dataclass and of the blocks in it."""

import ast
import inspect
import json
import textwrap
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, get_type_hints

from kpod_lightning.store.typed import MISSING as TO_BE_GIVEN


@dataclass(frozen=True, kw_only=True)
class Described:
    """A setting."""

    key: str
    """Its name with dots, as on the command line."""
    default: Any
    """``typed.MISSING`` where a value has to be given."""
    meaning: str
    """The docstring under its field, in one line; empty where there is none."""


def described(block: type, prefix: str = "") -> list[Described]:
    """Every setting of a dataclass and of the blocks in it, in their order.

    Args:
        prefix: of the names, e.g. ``optim.``.
    """
    found, texts, types = [], meanings(block), get_type_hints(block)
    for field in fields(block):
        kind, key = types[field.name], f"{prefix}{field.name}"
        if isinstance(kind, type) and is_dataclass(kind):
            found += described(kind, f"{key}.")
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        default = TO_BE_GIVEN if default is MISSING else default
        found.append(Described(key=key, default=default, meaning=texts.get(field.name, "")))
    return found


def meanings(block: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass and of those that it extends; each in one line."""
    found: dict[str, str] = {}
    for kind in reversed(block.__mro__):
        if is_dataclass(kind):
            found |= _meanings(kind)
    return found


def _meanings(block: type) -> dict[str, str]:
    try:
        source = inspect.getsource(block)
    except (OSError, TypeError):  # a class without a file: of a notebook, or of make_dataclass
        return {}
    (body,) = (node.body for node in ast.parse(textwrap.dedent(source)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).replace("``", "").split())
    return found


def as_written(value: Any) -> str:
    """A value as it is written behind ``key=``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
