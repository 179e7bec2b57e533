"""`kpod doctor`: checks the installation and plans the memory of an experiment's devices."""

import argparse
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.arguments import Verbs, a_path, add_settings, number
from kpod_lightning.commands.doctor.installation import (
    check_batch,
    check_installation,
    check_surroundings,
    checks,
    host_bytes,
    print_checks,
)
from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.console import console

if TYPE_CHECKING:
    from kpod_lightning.commands.doctor.planner import Planner


def add(verbs: Verbs) -> None:
    command = verbs.add_parser("doctor", help="check the installation, and plan the memory of an experiment's devices")
    command.add_argument("experiment", type=a_path, nargs="?", help="a YAML file (default: every setting's default)")
    of_a_gpu = "of a GPU (default: what is in this machine)"
    command.add_argument("--memory", type=number("--memory", float, 0.001, 1e6), metavar="GIB", help=of_a_gpu)
    add_settings(command, "launch.devices=8")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import load_experiment

    experiment, settings = arguments.experiment, arguments.settings
    if experiment is not None and "=" in str(experiment):  # the first setting, where no experiment is named
        experiment, settings = None, [str(experiment), *settings]
    return examine(load_experiment(experiment, settings), arguments.memory)


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

    from kpod_lightning.commands.doctor.architecture import architecture_of
    from kpod_lightning.commands.doctor.memory import GIB
    from kpod_lightning.commands.doctor.planner import Planner, uses_keypoints

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


def print_plan(config: RunConfig, planner: "Planner", num_devices: int) -> bool:
    """The plan as a table, then whether it fits, and if not, what would make it fit."""
    from kpod_lightning.commands.doctor.memory import GIB, MARGIN
    from kpod_lightning.commands.doctor.planner import PROMPT_SHARE, train_load

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
        console.print(Text.assemble(("fits", "green"), f" {devices}"))
        return True
    changed = planner.change(config, num_devices)
    way_out = f"set {setting_words(changed)}" if changed else "no setting is enough"
    fewest = planner.fewest_devices(config)
    number = "no number of devices is enough as it is set" if fewest is None else f"{fewest} devices are enough"
    console.print(Text.assemble(("does not fit", "red"), f" {devices}: {way_out}; {number}"))
    return False


def examine(config: RunConfig, memory: float | None = None) -> int:
    """Check and plan one experiment, and print both.

    Returns:
        0 where it can run and its plan fits, else 2.
    """
    installation = check_installation()
    if not all(check.usable for check in installation):
        print_checks(installation)
        return 2  # what is left to look at needs them
    from kpod_lightning.commands.doctor.planner import num_devices_of

    planner = planner_of(config, memory)
    num_devices = num_devices_of(config, visible_gpus() if planner.on_gpu and memory is None else 1)
    found = [*installation, *checks(config), check_batch(config, num_devices), *check_surroundings()]
    print_checks(found)
    fits = print_plan(config, planner, num_devices)
    return 0 if fits and all(check.usable for check in found) else 2
