"""Reads files that others wrote: whatever is wrong with one is a line with its path, never a traceback.

Text is UTF-8. A byte order mark is dropped, and half of a surrogate pair, which JSON can spell and no tokenizer can
read, becomes U+FFFD.
"""

import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from kpod_lightning.store.errors import InputError

DEEPEST = 200
"""Most levels of lists and objects inside each other: Python's own parsers and dumpers fail somewhat above."""

MOST_VALUES = 1_000_000
"""Most values of a YAML file: a few lines of aliases to aliases can stand for billions."""

LARGEST = 1 << 30
"""Most bytes of a file that is read whole."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, open for reading.

    Raises:
        InputError: there is none, or it cannot be read, also later within the block.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{shown(path)}: a folder, where a file is expected")
        if not stat.S_ISREG(kind):
            raise InputError(f"{shown(path)}: a device or a pipe, where a file is expected")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL or with half of a surrogate pair
        raise InputError(f"{shown(path)}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise InputError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error


def shown(path: Path) -> str:
    """A path as it stands in a message: printable, on one line, its middle left out where it is very long."""
    text = str(path)
    if text.isascii() and text.isprintable() and len(text) <= 200:  # most are, and places of rows are made often
        return text
    text = text.encode("utf-8", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-80:]}"


def _bytes(path: Path) -> bytes:
    with opened(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InputError(f"{shown(path)}: larger than {LARGEST >> 30} GiB; is it the right file?")
    return content


def decoded(content: bytes, place: str) -> str:
    """UTF-8 text without a byte order mark.

    Raises:
        InputError: it is of another encoding.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{place}: the text is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place}: no UTF-8 in line {line} ({error.reason}); save it as UTF-8") from error


def read_text(path: Path) -> str:
    """A text file, whole; a byte order mark is dropped.

    Raises:
        InputError: it cannot be read, is larger than ``LARGEST`` or is not UTF-8.
    """
    return decoded(_bytes(path), shown(path))


def without_surrogates(value: Any) -> Any:
    """The same value, with U+FFFD for each half of a surrogate pair in its texts and keys."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    return value


def _finite(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond the range of numbers")
    return value


def parsed(content: bytes | str, place: str) -> Any:
    """The value of one JSON text.

    Args:
        place: file and line, for messages.

    Raises:
        InputError: it is not UTF-8, broken, nested deeper than ``DEEPEST``, or has NaN or an infinite number.
    """
    text = decoded(content, place) if isinstance(content, bytes) else content
    if not text.strip():
        raise InputError(f"{place}: empty, where JSON is expected")
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_number)
    except json.JSONDecodeError as error:
        where = place if error.lineno == 1 else f"{place}, line {error.lineno}"
        raise InputError(f"{where}: broken JSON ({error.msg}); mend it or fetch the file anew") from error
    except ValueError as error:  # NaN, an infinite number, or a whole number of thousands of digits
        raise InputError(f"{place}: {str(error).partition(';')[0]}; mend it or fetch the file anew") from error
    except RecursionError as error:
        raise InputError(f"{place}: nested deeper than {DEEPEST} levels") from error
    if (text.count("[") + text.count("{")) > DEEPEST and _depth(value) > DEEPEST:
        raise InputError(f"{place}: nested deeper than {DEEPEST} levels")
    # JSON can spell half of a pair as an escape; UTF-8 itself cannot hold it.
    return without_surrogates(value) if "\\u" in text or isinstance(content, str) else value


def _depth(value: Any) -> int:
    """Levels of lists and objects inside each other, counted without recursion."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises: as ``parsed`` and ``opened``."""
    return parsed(_bytes(path), shown(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        InputError: as ``read_json``; or it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{shown(path)}: holds a {kind_of(value)}, where a JSON object is expected")
    return value


def kind_of(value: Any) -> str:
    """What a value of JSON or YAML is, in words of a message."""
    names = {bool: "truth value", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


class _OnceLoader(yaml.SafeLoader):
    """YAML without tags of Python objects, in which a key stands once and aliases cannot blow up a small file."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _num_nodes(node, {}) > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values, aliases written out")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        # `<<` takes another mapping's keys in, which may then be given anew.
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: list[Any] = []
        for key in keys:
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} stands twice", problem_mark=node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)


def _num_nodes(node: Any, counted: dict[int, int]) -> int:
    """Values in a node of YAML, those of its aliases written out.

    Raises:
        RecursionError: an alias stands inside itself.
    """
    if id(node) in counted:
        if counted[id(node)] == 0:
            raise RecursionError
        return counted[id(node)]
    counted[id(node)] = 0
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
    counted[id(node)] = 1 + sum(_num_nodes(part, counted) for part in inner)
    return counted[id(node)]


# As in YAML 1.2 and in OmegaConf: 1e-4 is a number; 010 is none of eights, 1:30 none of sixties, a day none at all.
_OnceLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_OnceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$|0x[0-9a-fA-F_]+$|0b[01_]+$"), list("-+0123456789")
)
_OnceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*)?\.[0-9_]+(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9][0-9_]*\.(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parsed_yaml(text: str, place: str) -> Any:
    """The value of one YAML document; None for an empty one.

    Raises:
        InputError: it is broken, has several documents, a key twice, tags of Python objects, or is nested too deep.
    """
    try:
        value = without_surrogates(yaml.load(text, Loader=_OnceLoader))
        if _depth(value) > DEEPEST:
            raise RecursionError
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place if mark is None else f"{place}:{mark.line + 1}"
        raise InputError(f"{where}: broken YAML ({' '.join(str(error.problem).split())})") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        # Tags such as !!int, !!bool and !!timestamp on a text of another form; TypeError also for a list as a key.
        raise InputError(f"{place}: broken YAML ({' '.join(str(error).split())[:150]})") from error
    except RecursionError as error:
        raise InputError(f"{place}: nested deeper than {DEEPEST} levels, or aliases inside themselves") from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file with one document; None where it is empty. Raises: as ``parsed_yaml`` and ``opened``."""
    return parsed_yaml(read_text(path), shown(path))


def _read_with(path: Path, read: Callable[[], Any], errors: tuple[type[Exception], ...], kind: str) -> Any:
    try:
        return read()
    except errors as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{shown(path)}: damaged, or no {kind} file ({reason}); make or fetch it anew") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name. Arrays of Python objects are refused: reading them can run code.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    content = io.BytesIO(_bytes(path))

    def read() -> dict[str, np.ndarray]:
        with np.load(content, allow_pickle=False) as arrays:
            return dict(arrays.items())

    errors = (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error, MemoryError)
    return _read_with(path, read, (*errors, NotImplementedError, RuntimeError), "npz")  # the last two: encrypted


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with opened(path):
        pass
    tensors: dict[str, Any] = _read_with(path, lambda: load_file(path), (SafetensorError, OSError), "safetensors")
    return tensors
