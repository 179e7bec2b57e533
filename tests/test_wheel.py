"""The wheel holds all that the default experiment needs: it runs without the checkout, from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TINY = [
    *("data.num_train=16", "data.num_validation=4", "data.num_test=4"),
    *("weights.num_train=null", "weights.num_held_out=4", "weights.warmup_epochs=1", "weights.epochs=1"),
    *("weights.if_not_found=uniform", "schedule.num_stages=1", "optim.epochs=1", "optim.batch_size=4"),
    *("evaluation.max_new_tokens=8", "logging.wandb=disabled"),
]


def done(command: list[str | Path], folder: Path, **variables: str) -> str:
    """Output of a command that must succeed, outside the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment | variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools writes its build folder into the source
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("kpod_lightning", "experiments"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done([*pip, "--wheel-dir", folder, source], folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Python of a fresh environment with the wheel; the dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    done([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    packages = Path(done([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    done([*install, wheel], folder)
    # A path in a .pth file is put behind the environment's own packages, and the .pth files there (of an editable
    # installation) are not read.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python


def test_wheel_holds_every_file_that_the_package_has(wheel):
    package = ROOT / "kpod_lightning"
    files = {path.relative_to(ROOT) for path in package.rglob("*") if path.is_file()}
    experiments = [path for folder in ("experiments", "experiments/studies") for path in (ROOT / folder).glob("*.yaml")]
    files |= {Path("kpod_lightning/assets") / path.relative_to(ROOT) for path in experiments}
    wanted = {str(path) for path in files if "__pycache__" not in path.parts}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("kpod_lightning/")}
    assert held == wanted


def test_installed_wheel_runs_the_default_experiment_from_an_empty_folder(python, tmp_path):
    where = done([python, "-c", "import kpod_lightning; print(kpod_lightning.__file__)"], tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1])
    kpod = [python.with_name("kpod"), "run", "arithmetic", "--run", "r", *TINY]
    done(kpod, tmp_path, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    assert (tmp_path / "r" / "report.html").is_file()
