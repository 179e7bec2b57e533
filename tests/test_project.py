"""The project's own promises: versions that agree, imports that go one way, commands that start fast."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kpod_lightning"

DATA_FLOW = [
    "errors",
    "files",
    "ranks",
    "sharding",
    "json_lines",
    "keys",
    "ragged",
    "problems",
    "arithmetic",
    "answers",
    "statistics",
    "rationales",
    "examples",
    "example_table",
    "students",
    "datamodule",
    "evaluation",
    "teachers",
    "token_weights",
    "keypoint_batches",
    "weight_network",
    "weights",
    "sufficiency",
    "difficulties",
    "question_vectors",
    "selection",
    "schedule",
    "distill",
    "pictures",
    "report",
]
"""A file imports only from files before it; a folder is a family of files, with an order of its own."""

FAMILIES = {
    "teachers": [
        "__init__",
        "prompts",
        "prices",
        "requests",
        "estimates",
        "sample_file",
        "writing",
        "openai",
        "batch",
        "local",
        "vllm",
        "recorded",
        "quality",
        "page",
        "merge",
    ]
}

BESIDE = {
    "__init__",
    "__main__",
    "architecture",
    "checkpoints",
    "config",
    "doctor",
    "memory",
    "dashboard",
    "export",
    "method",
    "order",
    "pipeline",
    "planner",
    "predictions",
    "preemption",
    "prepare",
    "pretraining_texts",
    "run",
    "smollm2",
    "status",
    "submit",
    "tiny_students",
    "tracking",
    "train_set",
    "trainers",
    "training",
}
"""Files that put the others together, or stand beside them."""

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
        canonicalize_name({"yaml": "pyyaml", "sklearn": "scikit-learn"}.get(name, name)) for name in outside
    }
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    assert distributions <= set(requirements(project["dependencies"] + extras))


def test_package_has_the_version_of_pyproject(project):
    text = (PACKAGE / "__init__.py").read_text()
    stated = re.search(r'^__version__ = "(.*)"$', text, flags=re.MULTILINE)
    if stated is not None:
        assert stated.group(1) == project["version"]
    assert f"version: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()


def imported_files(source: str) -> set[str]:
    """Files of the package that `source` imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("kpod_lightning." if node.level else "") + (node.module or "")
            base = base.rstrip(".")
            names = [base] + [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("kpod_lightning.")}
    return {name for name in found if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()}


def test_every_file_has_its_place():
    assert {path.stem for path in PACKAGE.glob("*.py")} <= set(DATA_FLOW) | BESIDE


@pytest.mark.parametrize("name", DATA_FLOW)
def test_a_file_imports_only_from_files_before_it(name):
    later = set(DATA_FLOW[DATA_FLOW.index(name) :]) - ({name} if name in FAMILIES else set())
    for path in (PACKAGE / name).glob("*.py") if name in FAMILIES else [PACKAGE / f"{name}.py"]:
        imported = imported_files(path.read_text())
        assert not imported & {"run", "pipeline", "__main__"}, f"{path.name} imports what puts it together"
        assert not imported & later, f"{path.name} imports from {sorted(imported & later)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_a_family_imports_only_from_files_before_it(family):
    order = FAMILIES[family]
    assert {path.stem for path in (PACKAGE / family).glob("*.py")} <= set(order)
    for path in (PACKAGE / family).glob("*.py"):
        within = set(re.findall(rf"from kpod_lightning\.{family}\.(\w+) import", path.read_text()))
        later = set(order[order.index(path.stem) :])
        assert not within & later, f"{family}/{path.name} imports from {sorted(within & later)}"


def test_reader_of_imports_sees_every_form():
    source = """
import kpod_lightning.answers
from kpod_lightning import examples
from . import students
from .report import anything
def late():
    from kpod_lightning.run import Run
"""
    named = {"answers", "examples", "students", "report", "run"}
    assert imported_files(source) == {name for name in named if (PACKAGE / f"{name}.py").exists()}


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
