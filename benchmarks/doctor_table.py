"""Writes docs/doctor-llama-7b.md: what `kpod doctor` plans for LLaMA-7B on 1, 4 and 8 devices of 80 GiB."""

from pathlib import Path

from kpod_lightning.commands.doctor.command import planner_of, setting_words
from kpod_lightning.commands.doctor.memory import GIB
from kpod_lightning.config import load_config

MEMORY = 80
SHARED = ["student.name=llama-7b", "optim.batch_size=8", "optim.micro_batch_size=1", "weights.batch_size=8"]
TRAINED = {"all": [], "LoRA 64": ["student.lora_rank=64", "weights.lora_rank=64"]}
ROOT = Path(__file__).resolve().parents[1]
HEAD = """# LLaMA-7B on devices of 80 GiB

What `kpod doctor` plans for KPOD with LLaMA-7B: GiB of one device in the phases `weights`, `difficulties` and `train`,
and in the validation amid the latter (32 problems side by side), each at the moment when it holds most. A row is

```
{command} SETTINGS
```

with the settings of the row. Rationales are 512 tokens long with their questions, and 10 % of a device stays free for
CUDA's context, NCCL and what the allocator cannot use. The column "outcome" says what the doctor proposes where a row
does not fit. No row has been run on a GPU; what has been measured, on a CPU, stands in
[benchmarks](../benchmarks/README.md). This page is written by `python benchmarks/doctor_table.py`.
"""


def row(trained: str, strategy: str, num_devices: int, precision: str) -> str:
    words = [*TRAINED[trained], f"optim.precision={precision}", f"launch.devices={num_devices}"]
    words += [f"launch.strategy={strategy}"]
    config = load_config(ROOT / "experiments" / "gsm8k.yaml", SHARED + words)
    planner = planner_of(config, MEMORY)
    sizes = [f"{plan.total / GIB:.1f}" for plan in planner.phases(config, num_devices).values()]
    if planner.fits(config, num_devices):
        outcome = "fits"
    else:
        changed = planner.change(config, num_devices)
        outcome = f"no: `{setting_words(changed)}`" if changed else "no"
    return f"| {' | '.join(sizes)} | {outcome} | `{' '.join(words)}` |"


def main() -> None:
    command = f"kpod doctor experiments/gsm8k.yaml --memory {MEMORY} {' '.join(SHARED)}"
    lines = [HEAD.format(command=command.replace(" optim.batch", " \\\n    optim.batch"))]
    for precision in ("32-true", "bf16-mixed", "bf16-true"):
        lines.append(f"## {precision}\n")
        lines.append(
            "| devices | trained | strategy | weights | difficulties | train | validation | outcome | SETTINGS |"
        )
        lines.append("|---|---|---|---|---|---|---|---|---|")
        for num_devices in (1, 4, 8):
            for trained in TRAINED:
                for strategy in ("single",) if num_devices == 1 else ("ddp", "fsdp"):
                    cells = row(trained, strategy, num_devices, precision)
                    lines.append(f"| {num_devices} | {trained} | {strategy} {cells}")
        lines.append("")
    (ROOT / "docs" / "doctor-llama-7b.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
