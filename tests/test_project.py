"""The project's own promises: versions that agree, imports that go one way, commands that start fast."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import rooms
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kpod_lightning

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kpod_lightning"
IMPORTS = rooms.imports()

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def pinned() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return requirements([line for line in lines if line and not line.startswith("#")])


def test_conda_environment_asks_for_the_versions_of_pyproject(project, conda):
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    wanted = {name: str(r.specifier) for name, r in requirements(project["dependencies"]).items()}
    assert {name: str(r.specifier) for name, r in requirements(pip).items()} == wanted


def test_conda_environment_has_a_python_that_pyproject_allows(project, conda):
    (python,) = [entry for entry in conda if isinstance(entry, str) and entry.startswith("python=")]
    assert Requirement("python" + project["requires-python"]).specifier.contains(python.removeprefix("python="))


def test_every_requirement_is_pinned_within_its_bounds(project):
    pins = pinned()
    lines = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for name, requirement in requirements(lines).items():
        if name == "vllm":  # each version asks for a torch of its own, so it gets an environment of its own
            continue
        assert name in pins, f"{name} is missing in constraints.txt"
        (pin,) = pins[name].specifier
        assert pin.operator == "==" and "+" not in pin.version, pins[name]
        assert requirement.specifier.contains(pin.version), f"{pins[name]} against {requirement}"


def test_every_package_that_is_imported_is_declared(project):
    """Also in functions; what only a dependency of a dependency brings along can vanish with its next version."""
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"kpod_lightning"}
    distributions = {
        canonicalize_name({"yaml": "pyyaml", "sklearn": "scikit-learn", "google": "protobuf"}.get(name, name))
        for name in outside
    }
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    assert distributions <= set(requirements(project["dependencies"] + extras))


def test_package_has_the_version_of_pyproject(project):
    text = (PACKAGE / "__init__.py").read_text()
    stated = re.search(r'^__version__ = "(.*)"$', text, flags=re.MULTILINE)
    if stated is not None:
        assert stated.group(1) == project["version"]
    assert f"version: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_file_is_in_a_room():
    assert {module.split(".")[0] for module in rooms.files() if module} == set(rooms.LEVEL)


@pytest.mark.parametrize("module", [module for module in rooms.files() if module])
def test_a_file_imports_only_from_its_own_room_or_a_lower_one(module):
    room = module.split(".")[0]
    others = {other for other in IMPORTS[module] if other} - {o for o in IMPORTS[module] if o.split(".")[0] == room}
    higher = sorted(other for other in others if rooms.LEVEL[other.split(".")[0]] >= rooms.LEVEL[room])
    assert not higher, f"{module} imports {', '.join(higher)}"


def test_no_files_import_each_other_in_a_circle():
    assert rooms.circle(IMPORTS) == []


def test_a_circle_of_files_is_found():
    assert rooms.circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert rooms.circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import kpod_lightning.data.answers", ["data.answers"]),
        ("import kpod_lightning.data.answers as a, os", ["data.answers"]),
        ("import kpod_lightning", [""]),
        ("from kpod_lightning import config", ["config"]),
        ("from kpod_lightning.data import answers, steps", ["data.answers", "data.steps"]),
        ("from kpod_lightning.data.answers import extract_answer", ["data.answers.extract_answer"]),
        ("from . import steps", ["data.steps"]),
        ("from .steps import split_steps", ["data.steps.split_steps"]),
        ("from .. import config", ["config"]),
        ("from ..store.errors import InputError", ["store.errors.InputError"]),
        ("def late():\n    from kpod_lightning.runs import folder", ["runs.folder"]),
        ("if TYPE_CHECKING:\n    from kpod_lightning.runs import folder", ["runs.folder"]),
        ("class A:\n    import kpod_lightning.runs.folder", ["runs.folder"]),
        ("try:\n    import kpod_lightning.runs.folder\nexcept ImportError:\n    raise", ["runs.folder"]),
        ("import os, kpod_lightning_other\nfrom json import loads", []),
    ],
)
def test_reader_of_imports_sees_every_form(line, found):
    assert list(rooms.imported_names(line, "data.sources")) == found


def test_a_folder_s_own_file_counts_relative_imports_from_the_folder():
    assert list(rooms.imported_names("from . import steps\nfrom ..store import keys", "data", is_folder=True)) == [
        "data.steps",
        "store.keys",
    ]


@pytest.mark.parametrize("module", [module for module in rooms.files() if module])
def test_what_a_file_names_as_a_string_exists_in_its_own_room(module):
    """Methods, curricula and other kinds are found by name: ``kpod_lightning.methods.kpod:KPOD``."""
    for node in ast.walk(ast.parse(rooms.files()[module].read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"kpod_lightning\.([\w.]+):(\w+)", node.value)
            if named is not None:
                assert named[1].split(".")[0] == module.split(".")[0], node.value
                assert hasattr(import_module(f"kpod_lightning.{named[1]}"), named[2]), node.value


@pytest.mark.parametrize("name", kpod_lightning.__all__)
def test_public_name_is_where_the_package_says(name):
    found = getattr(kpod_lightning, name)
    assert found.__module__ == f"kpod_lightning.{kpod_lightning._PUBLIC[name]}"


def strings_compared_with_the_method(source: str) -> list[int]:
    """Lines that compare ``config.method``, or ``run.config.method``, with a string."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            is_method = any(ast.unparse(side).endswith("config.method") for side in sides)
            constants = (c for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant))
            if is_method and any(isinstance(constant.value, str) for constant in constants):
                found.append(node.lineno)
        elif isinstance(node, ast.Match) and ast.unparse(node.subject).endswith("config.method"):
            found.append(node.lineno)
    return found


def test_no_file_asks_for_a_method_by_name():
    """It asks the method instead (``methods.base.Method``), so that a new method needs no change elsewhere."""
    found = {module: strings_compared_with_the_method(path.read_text()) for module, path in rooms.files().items()}
    assert not {module: lines for module, lines in found.items() if lines}


@pytest.mark.parametrize(
    "line",
    [
        'config.method == "kpod"',
        '"kpod" != self.config.method',
        'run.config.method in ("kpod", "plain")',
        'match config.method:\n    case "kpod":\n        pass',
    ],
)
def test_reader_of_comparisons_sees_every_form(line):
    assert strings_compared_with_the_method(line) == [1]
    assert strings_compared_with_the_method("config.method == name") == []


def test_list_of_files_is_up_to_date():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert rooms.written(text) == text, "run `make rooms`"


@needs_make
def test_make_alone_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split()
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == targets


@needs_make
@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        (["DATASET=arithmetic"], "runs/arithmetic-tiny-llama-kpod-s0"),
        (["DATASET=gsm8k"], "runs/gsm8k-flan-t5-large-kpod-s0"),
        (["DATASET=gsm8k", "STUDENT=tiny-llama", "SEED=3"], "runs/gsm8k-tiny-llama-kpod-s3"),
        (["EXPERIMENT=experiments/gsm8k.yaml", "STUDENT=a/b"], "runs/gsm8k-a-b-kpod-s0"),
        (["DATASET=own", "DATA_DIR=my data/pens and ink.jsonl.gz"], "runs/own-pens-and-ink-tiny-llama-kpod-s0"),
    ],
)
def test_make_train_names_the_run_by_what_it_is(variables, folder):
    # -n prints the recipe and runs none of it; an empty INSTALLED leaves the installation out.
    command = ["make", "-n", "train", "INSTALLED=", *variables]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f" --run {folder} " in shown


def test_settings_may_follow_the_run_folder():
    # The exit code is 2 either way; the message tells that the file was looked for, so the words were read.
    words = ["run", "experiments/no-such.yaml", "--run", "runs/no-such", "seed=0", "optim.lr=1e-4"]
    command = [sys.executable, "-m", "kpod_lightning", *words]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "no-such.yaml" in ran.stderr and "unrecognized" not in ran.stderr, ran.stderr


def test_help_does_not_load_torch():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['kpod', '--help']\n"
        "try:\n"
        "    runpy.run_module('kpod_lightning', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[-1] == "False"
    assert "usage" in ran.stdout.lower()
