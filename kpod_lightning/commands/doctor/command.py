"""`kpod doctor`: checks the installation, plans the memory of an experiment's devices, and what it or a study costs."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
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
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.reading import read_yaml

if TYPE_CHECKING:
    from kpod_lightning.commands.doctor.cost import Cost
    from kpod_lightning.commands.doctor.planner import Planner


def add(verbs: Verbs) -> None:
    command = verbs.add_parser(
        "doctor", help="check the installation, and plan memory and cost of an experiment or a study"
    )
    which = "a YAML file of an experiment or a study (default: every setting's default)"
    command.add_argument("experiment", type=a_path, nargs="?", help=which)
    of_a_gpu = "of a GPU (default: what is in this machine)"
    command.add_argument("--memory", type=number("--memory", float, 0.001, 1e6), metavar="GIB", help=of_a_gpu)
    tokens = "of a rationale with its question, on the average, for the cost (default: half of student.max_length)"
    command.add_argument("--tokens", type=number("--tokens", int, 1, 1_000_000), help=tokens)
    sustained = "TFLOP a second that a device sustains, for the hours (default: 125)"
    command.add_argument("--tflops", type=number("--tflops", float, 0.001, 1e6), help=sustained)
    add_settings(command, "launch.devices=8")
    command.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    from kpod_lightning.methods.base import load_experiment

    experiment, settings = arguments.experiment, arguments.settings
    if experiment is not None and "=" in str(experiment):  # the first setting, where no experiment is named
        experiment, settings = None, [str(experiment), *settings]
    prices = Prices(tokens=arguments.tokens, tflops=arguments.tflops)
    if experiment is not None and is_study(experiment):
        return examine_study(experiment, settings, arguments.memory, prices)
    return examine(load_experiment(experiment, settings), arguments.memory, prices)


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


# ---- Cost ----


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a cost rests on beside the settings; None: the default."""

    tokens: int | None = None
    """Of a rationale with its question, on the average."""
    tflops: float | None = None
    """Sustained by a device."""

    def cost(self, config: RunConfig, planner: "Planner") -> "Cost | None":
        from kpod_lightning.commands.doctor.cost import cost_of

        return cost_of(config, planner.student, planner.answer_model, self.tokens or config.student.max_length // 2)

    def hours(self, cost: "Cost") -> float:
        from kpod_lightning.commands.doctor.cost import SUSTAINED

        return cost.hours(self.tflops or SUSTAINED)

    def note(self) -> str:
        from kpod_lightning.commands.doctor.cost import SUSTAINED

        tokens = "half of student.max_length" if self.tokens is None else f"{self.tokens} tokens"
        return (
            f"Cost: rationales with their questions are {tokens} long on the average (--tokens), a device sustains "
            f"{self.tflops or SUSTAINED:g} TFLOP/s (--tflops). Attention, generation and waiting are not in it."
        )


def print_cost(config: RunConfig, planner: "Planner", prices: Prices) -> None:
    cost = prices.cost(config, planner)
    if cost is None:
        console.print("Cost: how many rationales there are is known from the data alone; set data.num_train")
        return
    phases = ", ".join(f"{name} {flop / 1e15:.3g}" for name, flop in cost.phases.items())
    console.print(
        f"{cost.total / 1e15:.3g} PFLOP ({phases}) for {cost.rationales:,} rationales: "
        f"{prices.hours(cost):.2g} hours of a device.",
        highlight=False,
    )
    console.print(prices.note(), highlight=False)


def is_study(path: Path) -> bool:
    """Whether a file has the arms of a study, or a shipped study has this name."""
    from kpod_lightning.runs.study import study_file

    if not os.path.lexists(path):
        try:
            study_file(path)
        except InputError:
            return False
        return True
    written = read_yaml(path) if path.is_file() else None
    return isinstance(written, dict) and "arms" in written


def examine_study(path: Path, settings: list[str], memory: float | None, prices: Prices) -> int:
    """Plan every arm of a study: whether it fits, and what its runs cost.

    Returns:
        0 where all fit, else 2.
    """
    from kpod_lightning.commands.doctor.planner import num_devices_of
    from kpod_lightning.runs.study import load_study

    study = load_study(path, settings)
    title = f"{study.name}: {len(study.arms)} arms, {len(study.seeds)} seeds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    for column in ("GPUs" if memory is not None else "devices", "PFLOP", "hours", "all seeds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("memory", no_wrap=True)
    everything, unknown = 0.0, 0
    ways_out: dict[str, list[str]] = {}
    for arm in study.arms:
        config = study.configs[arm.name]
        planner = planner_of(config, memory)
        devices = num_devices_of(config, visible_gpus() if planner.on_gpu and memory is None else 1)
        cost = prices.cost(config, planner)
        cells = ["?", "?", "?"]
        if cost is not None:
            hours = prices.hours(cost)
            everything += hours * len(study.seeds)
            cells = [
                f"{cost.total / 1e15:,.{0 if cost.total >= 1e17 else 2}f}",
                f"{hours:.2g}",
                f"{hours * len(study.seeds):.2g}",
            ]
        unknown += cost is None
        outcome = Text("fits", "green")
        if not planner.fits(config, devices):
            changed = planner.change(config, devices)
            way_out = f"set {setting_words(changed)}" if changed else "more devices are needed"
            ways_out.setdefault(way_out, []).append(arm.name)
            outcome = Text(f"no ({list(ways_out).index(way_out) + 1})", "red")
        table.add_row(arm.name, str(devices), *cells, outcome)
    console.print(table)
    for number_of_note, way_out in enumerate(ways_out, start=1):
        console.print(f"({number_of_note}) {way_out}", highlight=False)
    left_out = f", {unknown} arms left out whose data.num_train is not set" if unknown else ""
    console.print(f"{everything:,.3g} device hours for {len(study.runs)} runs{left_out}.", highlight=False)
    console.print(prices.note(), highlight=False)
    return 2 if ways_out else 0


# ---- All of it ----


def examine(config: RunConfig, memory: float | None = None, prices: Prices = Prices()) -> int:
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
    print_cost(config, planner, prices)
    return 0 if fits and all(check.usable for check in found) else 2
