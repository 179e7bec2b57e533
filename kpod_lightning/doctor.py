"""What stands between an experiment and its run: the installation, the machine, and the memory of its devices."""

import logging
import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table

from kpod_lightning.config import RunConfig
from kpod_lightning.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.planner import Planner

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
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
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
    from kpod_lightning.students import load_config

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
    sizes = {"optim.batch_size": config.optim.batch_size}
    if config.method == "kpod":
        sizes["weights.batch_size"] = config.weights.batch_size
    small = [name for name, size in sizes.items() if size < num_devices]
    return Check(
        what="batches",
        found=", ".join(f"{name}={size}" for name, size in sizes.items()) + f" on {num_devices} devices",
        usable=not small,
        way_out=f"every device needs a rationale: {' '.join(f'{name}={num_devices}' for name in small)}",
    )


def check_surroundings() -> list[Check]:
    """What a run can do without: a scheduler, an account. A key is looked for, never shown."""
    from kpod_lightning.tracking import has_key

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
    if config.method == "kpod" and config.weights.answer_model not in (None, config.student.name):
        found.append(check_student(str(config.weights.answer_model), "answer model"))
    return found


def print_checks(console: Console, found: list[Check]) -> None:
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
            table.add_row(check.what, f"[red]{check.found}[/red]: {check.way_out}")
    console.print(table)


# ---- Memory ----


def visible_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def planner_of(config: RunConfig, memory: float | None) -> "Planner":
    """For devices of ``memory`` GiB, else those of this machine.

    With ``memory`` the devices are GPUs, here or elsewhere, unless ``launch.accelerator=cpu``.

    Raises:
        InputError: a student that is in no table and cannot be had, or of a family that is not planned.
    """
    import torch

    from kpod_lightning.architecture import architecture_of
    from kpod_lightning.memory import GIB
    from kpod_lightning.planner import Planner, uses_keypoints

    if memory is not None and memory <= 0:
        raise InputError(f"--memory is a device's memory in GiB, got {memory}")
    gpu = torch.cuda.is_available() and config.launch.accelerator != "cpu"
    here = torch.cuda.get_device_properties(0).total_memory if gpu else host_bytes()
    student = architecture_of(config.student.name)
    other = config.weights.answer_model if uses_keypoints(config) else None
    return Planner(
        student=student,
        answer_model=architecture_of(other) if other else student,
        memory=here if memory is None else memory * GIB,
        on_gpu=config.launch.accelerator != "cpu" and (gpu or memory is not None),
    )


def setting_words(changed: dict[str, Any]) -> str:
    return " ".join(f"{key}={str(value).lower()}" for key, value in changed.items())


def print_plan(console: Console, config: RunConfig, planner: "Planner", num_devices: int) -> bool:
    """The plan as a table, then whether it fits, and if not, what would make it fit."""
    from kpod_lightning.memory import GIB, MARGIN
    from kpod_lightning.planner import PROMPT_SHARE, train_load

    found = planner.phases(config, num_devices)
    names = list(dict.fromkeys(name for plan in found.values() for name in plan.parts))
    launch, optim = config.launch, config.optim
    strategy = {"auto": "ddp" if num_devices > 1 else "single"}.get(launch.strategy, launch.strategy)
    trained = "all parameters" if config.student.lora_rank is None else f"LoRA of rank {config.student.lora_rank}"
    size = planner.memory / GIB
    devices = f"{num_devices} device{'s' if num_devices > 1 else ''} of {size:.0f} GiB"
    table = Table(title=f"{config.student.name} on {devices}: {trained}, {optim.precision}, {strategy}")
    table.add_column("GiB of a device")
    for phase in found:
        table.add_column(phase, justify="right")
    for name in names:
        table.add_row(name, *(f"{plan.parts.get(name, 0) / GIB:.2f}" for plan in found.values()))
    table.add_section()
    table.add_row("total", *(f"{plan.total / GIB:.2f}" for plan in found.values()), style="bold")
    table.add_row("at the", *(plan.moment for plan in found.values()))
    if any(plan.host for plan in found.values()):
        table.add_row("host, a process", *(f"{plan.host / GIB:.2f}" for plan in found.values()))
    console.print(table)

    load, accumulates = train_load(config, planner.student, num_devices)
    tokens = load.length + load.decoder_length
    console.print(
        f"Assumed: every row is student.max_length={tokens} tokens long, {load.rows} at a time"
        f"{' (accumulated)' if accumulates else ''}, prompts are {PROMPT_SHARE:.0%} of them; "
        f"{MARGIN:.0%} of a device stays free. A process loads {4 * planner.student.parameters / GIB:.1f} GiB "
        "of float32 parameters into the host's memory first."
    )
    if planner.fits(config, num_devices):
        console.print(f"[green]fits[/green] {devices}")
        return True
    changed = planner.change(config, num_devices)
    way_out = f"set {setting_words(changed)}" if changed else "no setting is enough"
    fewest = planner.fewest_devices(config)
    number = "no number of devices is enough as it is set" if fewest is None else f"{fewest} devices are enough"
    console.print(f"[red]does not fit[/red] {devices}: {way_out}; {number}")
    return False


def examine(config: RunConfig, memory: float | None = None) -> int:
    """Check and plan one experiment, and print both.

    Returns:
        0 where it can run and its plan fits, else 2.
    """
    console = Console()
    installation = check_installation()
    if not all(check.usable for check in installation):
        print_checks(console, installation)
        return 2  # what is left to look at needs them
    from kpod_lightning.planner import num_devices_of

    planner = planner_of(config, memory)
    num_devices = num_devices_of(config, visible_gpus() if planner.on_gpu and memory is None else 1)
    found = [*installation, *checks(config), check_batch(config, num_devices), *check_surroundings()]
    print_checks(console, found)
    fits = print_plan(console, config, planner, num_devices)
    return 0 if fits and all(check.usable for check in found) else 2
