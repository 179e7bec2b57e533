"""The rooms of the package, what each file imports, and the list of files that CONTRIBUTING.md has of them.

``python tests/rooms.py`` (`make rooms`) writes that list anew.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "kpod_lightning"
ROOMS: list[tuple[str, ...]] = [
    ("store",),
    ("config",),
    ("distributed",),
    ("data",),
    ("students",),
    ("evaluation",),
    ("teachers", "keypoints", "curricula"),
    ("methods",),
    ("runs",),
    ("commands",),
    ("__main__",),
]
"""Bottom first. A file imports from its own room or a lower one; rooms on one level do not import each other."""

LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
FIRST, LAST = "<!-- rooms: written by `make rooms` -->\n", "<!-- end of rooms -->\n"


def files() -> dict[str, Path]:
    """Every file of the package by its module's name without the package's: ``data.steps``, ``data``, ``config``."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(source: str, module: str, *, is_folder: bool = False) -> Iterator[str]:
    """Modules of the package that a file may import, in functions and under TYPE_CHECKING too.

    ``from a import b`` gives ``a.b`` and ``a``, since ``b`` may be a module or a name in one.

    Args:
        source: the file's text.
        module: its name without the package's.
        is_folder: whether the file is an ``__init__.py``; relative imports then count from the folder itself.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = [PACKAGE, *module.split(".")] if module else [PACKAGE]
                up = node.level - is_folder
                base = ".".join([*own[: len(own) - up], *([base] if base else [])])
            names = [(f"{base}.{alias.name}", base) for alias in node.names]
        else:
            continue
        for choices in names:
            inside = [name.removeprefix(PACKAGE).removeprefix(".") for name in choices if is_inside(name)]
            yield from inside[:1]


def is_inside(name: str) -> bool:
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def imports() -> dict[str, set[str]]:
    """The files that each file imports."""
    modules = files()
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = imported_names(path.read_text(), module, is_folder=path.name == "__init__.py")
        found[module] = {name if name in modules else name.rpartition(".")[0] for name in names}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle; none where there is no circle."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        found = next((c for other in sorted(graph[module]) if (c := follow(other, [*way, module]))), [])
        done.add(module)
        return found

    return next((found for module in sorted(graph) if (found := follow(module, []))), [])


def first_sentence(path: Path) -> str:
    """Of the file's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    end = next(
        (i for i in range(1, len(text)) if text[i - 1] in ".!?" and text[i] == " " and text[i + 1].isupper()), None
    )
    return text[:end]


def listed() -> str:
    """The rooms from the lowest to the highest, each with its files and their first sentences, in Markdown."""
    lines = []
    modules = files()
    for rooms in ROOMS:
        for room in rooms:
            path = modules[room]
            is_folder = path.name == "__init__.py"
            lines += [f"\n**{room + '/' if is_folder else path.name}** {first_sentence(path)}"]
            inside = [module for module in modules if module.startswith(room + ".")]
            for module in inside:
                name = modules[module].relative_to(ROOT / PACKAGE / room)
                if name.name != "__init__.py":
                    lines.append(f"- `{name}` {first_sentence(modules[module])}")
    return "\n".join(lines).lstrip("\n") + "\n"


def written(text: str) -> str:
    """CONTRIBUTING.md with the list as it is now."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return before + FIRST + listed() + LAST + after


if __name__ == "__main__":
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(written(page.read_text()))
