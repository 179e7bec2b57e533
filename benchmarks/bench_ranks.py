"""Two DDP ranks of one thread against one process of two threads, tiny-llama, in target tokens a second.

Each is a program of its own, so that no start counts; rounds alternate, and the best of each is compared.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.inputs import generated_examples
from kpod_lightning.config import LaunchConfig, OptimConfig, RunConfig
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.distributed import ranks
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.methods.module import KPODModule
from kpod_lightning.students.student import load_student

NUM_EXAMPLES, BATCH_SIZE, ROUNDS = 800, 16, 3
OPTIM = OptimConfig(lr=1e-3, epochs=1, batch_size=BATCH_SIZE)


class Timed(KPODModule):
    """Keeps the speed of its last epoch."""

    speed = 0.0

    def epoch_metrics(self):
        found = super().epoch_metrics()
        self.speed = found["train/tokens_per_second"]
        return found


def train(launch: LaunchConfig) -> float:
    """Target tokens a second, over all ranks."""
    student = load_student("tiny-llama")
    data = ExampleDataModule(
        generated_examples(student),
        encoder_decoder=False,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
        group_by_length=True,
    )
    module = Timed(student, OPTIM, num_steps=2 * NUM_EXAMPLES // BATCH_SIZE)
    trainer = trainer_of(
        RunConfig(seed=0, launch=launch),
        max_epochs=2,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    return module.speed


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.devices is None:
        speeds: dict[int, list[float]] = {1: [], 2: []}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(ROUNDS):
                for devices, found in speeds.items():
                    out = Path(folder) / "speed"
                    command = [
                        sys.executable,
                        "-m",
                        "benchmarks.bench_ranks",
                        "--devices",
                        str(devices),
                        "--out",
                        str(out),
                    ]
                    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(2 // devices)})
                    found.append(json.loads(out.read_text()))
        one, two = max(speeds[1]), max(speeds[2])
        print(f"two ranks {two:.0f} tokens/s, one process of two threads {one:.0f}: {two / one:.3f} times as fast")
        return 0
    launch = LaunchConfig(devices=words.devices, accelerator="cpu")
    code = ranks.start(launch, [sys.executable, "-m", "benchmarks.bench_ranks", *sys.argv[1:]])
    if code is not None:
        return code
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    with ranks.joined(launch):
        speed = train(launch)
        if ranks.is_first():
            words.out.write_text(json.dumps(speed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
