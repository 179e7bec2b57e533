"""Plugins: objects found by name, shipped with this package or added by another one through an entry point.

A package adds a teacher of the kind ``mine`` by an entry point in its pyproject.toml::

    [project.entry-points."kpod_lightning.teachers"]
    mine = "my_package.teacher"
"""

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kpod_lightning.store.errors import InputError


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of a group, by name. Reading them takes milliseconds, so they are kept for one ``sys.path``."""
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module


def _plugins(group: str, shipped: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Entry points of other packages, by name.

    Raises:
        InputError: a name is taken, by this package or by another plugin.
    """
    found: dict[str, EntryPoint] = {}
    for point in _installed(group, tuple(sys.path)):
        if point.name in shipped or point.name in found:
            owner = "kpod_lightning" if point.name in shipped else f"the package {_package(found[point.name])}"
            raise InputError(
                f"entry point {point.name} of the group {group}: the package {_package(point)} gives a name that "
                f"{owner} has already; uninstall {_package(point)} or rename its entry point"
            )
        found[point.name] = point
    return found


def find(group: str, shipped: Mapping[str, str]) -> list[str]:
    """Names that can be loaded: the shipped ones in their order, then those of plugins in the order of the alphabet.

    Nothing is imported.

    Args:
        group: of entry points, e.g. ``kpod_lightning.teachers``.
        shipped: "module" or "module:attribute" by name.

    Raises:
        InputError: a plugin's name is taken.
    """
    return [*shipped, *_plugins(group, shipped)]


def load(
    group: str, name: str, shipped: Mapping[str, str], *, setting: str | None = None, base: type | None = None
) -> Any:
    """The module or attribute of a name, imported now.

    Args:
        group: of entry points, e.g. ``kpod_lightning.teachers``.
        name: shipped, or of an entry point of the group.
        shipped: "module" or "module:attribute" by name.
        setting: whose value the name is, for messages.
        base: class of which a plugin's object is a subclass; None: it may be anything.

    Raises:
        InputError: no such name; a plugin's name is taken; a plugin cannot be imported, or is no subclass.
    """
    plugins = _plugins(group, shipped)
    if name in shipped:
        return EntryPoint(name, shipped[name], group).load()
    if name not in plugins:
        what = name if setting is None else f"{setting}={name}"
        raise InputError(
            f"{what} is none of {', '.join([*shipped, *plugins])}; an installed package can add a name by an entry "
            f"point of the group {group}"
        )
    try:
        found = plugins[name].load()
    except InputError:
        raise
    except Exception as error:  # a plugin's code can fail in any way; the cause stays chained
        raise InputError(
            f"{name}: the package {_package(plugins[name])} does not import ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); mend or uninstall it"
        ) from error
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{name}: the entry point of the package {_package(plugins[name])} names {plugins[name].value}, which is "
            f"no subclass of {base.__module__}.{base.__qualname__}; mend or uninstall it"
        )
    return found
