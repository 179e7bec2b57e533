"""Checks what stands between an experiment and its run: the installation, the machine, the student."""

import logging
import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.table import Table
from rich.text import Text

from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.console import console
from kpod_lightning.methods.base import method_of
from kpod_lightning.store.errors import InputError

PROJECT = "kpod_lightning"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line: what was looked at, what was found, and a way out where that is wrong."""

    what: str
    found: str
    usable: bool = True
    way_out: str = ""


# ---- The installation ----


def asked_versions() -> tuple[str, list[Requirement]]:
    """Versions of Python and of the packages that pyproject.toml asks for, without its extras.

    A checkout has the file itself, which may be newer than its installation; an installed package has its metadata.
    """
    path = Path(__file__).resolve().parents[3] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    if project.get("name") == PROJECT:
        python, lines = project["requires-python"], project["dependencies"]
    else:
        python, lines = metadata.metadata(PROJECT)["Requires-Python"], metadata.requires(PROJECT) or []
    parsed = [Requirement(line) for line in lines]
    return python, [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_python(asked: str) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        what="Python",
        found=version,
        usable=version in SpecifierSet(asked),
        way_out=f"make an environment with Python {asked}: `conda env create -f environment.yml`",
    )


def check_package(requirement: Requirement, version_of: Callable[[str], str | None] = installed) -> Check:
    """Whether a package is there, as new as it is asked for."""
    version = version_of(requirement.name)
    return Check(
        what=requirement.name,
        found=version or "not installed",
        usable=version is not None and requirement.specifier.contains(version, prereleases=True),
        way_out=f'pip install "{requirement}"',
    )


# ---- The machine ----


def host_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_accelerator(config: RunConfig) -> Check:
    import torch

    if torch.cuda.is_available() and config.launch.accelerator != "cpu":
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in names)
        usable = not config.optim.precision.startswith("bf16") or torch.cuda.is_bf16_supported()
        return Check(
            what="accelerator",
            found=found,
            usable=usable,
            way_out=f"optim.precision={config.optim.precision} needs a GPU with bf16: take optim.precision=32-true",
        )
    return Check(
        what="accelerator",
        found=f"none: {os.cpu_count()} CPU cores, {host_bytes() / 2**30:.0f} GiB",
        usable=config.launch.accelerator != "gpu",
        way_out="launch.accelerator=auto takes the CPU; for a GPU, install the torch build of its driver (pytorch.org)",
    )


def check_student(name: str, what: str = "student") -> Check:
    """Whether the student's configuration can be read: from a folder, the hub's cache or the hub."""
    from kpod_lightning.students.student import load_config

    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it warns of each try
    try:
        config = load_config(name)
    except InputError as error:
        reason, _, way_out = str(error).rpartition("; ")
        return Check(what=what, found=reason, usable=False, way_out=way_out)
    finally:
        hub.setLevel(level)
    return Check(what=what, found=f"{name} ({config.model_type})")


def check_batch(config: RunConfig, num_devices: int) -> Check:
    """Whether every device gets a part of every batch."""
    sizes = method_of(config).batch_sizes()
    small = [name for name, size in sizes.items() if size < num_devices]
    return Check(
        what="batches",
        found=", ".join(f"{name}={size}" for name, size in sizes.items()) + f" on {num_devices} devices",
        usable=not small,
        way_out=f"every device needs a rationale: {' '.join(f'{name}={num_devices}' for name in small)}",
    )


def check_surroundings() -> list[Check]:
    """What a run can do without: a scheduler, an account. A key is looked for, never shown."""
    from kpod_lightning.runs.tracking import has_key

    slurm = shutil.which("sbatch") is not None
    return [
        Check(what="Slurm", found="yes: sbatch is there" if slurm else "no: sbatch is not on the PATH"),
        Check(what="W&B key", found="yes" if has_key() else "no: runs are logged offline until `wandb login`"),
    ]


def check_installation() -> list[Check]:
    python, requirements = asked_versions()
    return [check_python(python), *(check_package(each) for each in requirements)]


def checks(config: RunConfig) -> list[Check]:
    """Of what the experiment needs."""
    found = [check_accelerator(config), check_student(config.student.name)]
    answer_model = method_of(config).models().get("weights.answer_model", config.student.name)
    if answer_model != config.student.name:
        found.append(check_student(answer_model, "answer model"))
    return found


def print_checks(found: list[Check]) -> None:
    """One line each; packages that are as asked share one."""
    right = [check for check in found if check.usable]
    packages = {requirement.name for requirement in asked_versions()[1]}
    versions = [f"{check.what} {check.found}" for check in right if check.what in packages]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    if versions:
        table.add_row("packages", ", ".join(versions))
    for check in found:
        if check.usable and check.what not in packages:
            table.add_row(check.what, check.found)
        elif not check.usable:
            table.add_row(check.what, Text.assemble((check.found, "red"), f": {check.way_out}"))
    console.print(table)
