"""Training on one GPU in bf16, by wall clock: this package against a bare loop, HF Trainer and TRL, compiled and not.

FlashAttention serves whoever can use it, where it is installed; TRL runs with Liger's kernels, too, where they are.
"""

from collections.abc import Iterator
from importlib.util import find_spec

import torch

from benchmarks.bench_training import Table, compared, contenders_here, grouped_batches, measured
from benchmarks.contenders import BATCH_SIZE, Task
from benchmarks.inputs import SMOLLM, data_name, examples_of, student_folder
from benchmarks.measure import Options, Ratio
from kpod_lightning.store.errors import InputError

CONTENDERS = ("plain", "kpod", "dft", "bare", "hf", "hf_grouped", "trl", "trl_packed", "trl_packed_liger")
STEPS, ROUNDS, POOL = 40, 5, 3200


def check() -> None:
    """Refuse where there is no GPU.

    Raises:
        InputError: there is none.
    """
    if not torch.cuda.is_available():
        raise InputError("section gpu: torch finds no CUDA device; run it where `nvidia-smi` lists one")


def measure(options: Options) -> Iterator[Ratio]:
    """
    Raises:
        InputError: there is no GPU.
    """
    check()
    flash = "flash_attention_2" if find_spec("flash_attn") else None
    names = tuple(name for name in CONTENDERS if not name.endswith("liger") or find_spec("liger_kernel"))
    students = options.students or ("llama-49k", "llama-151k", *([SMOLLM] if student_folder().is_dir() else []))
    rounds = options.rounds or ROUNDS
    for student in students:
        chosen = grouped_batches(examples_of(student, options, POOL), STEPS)
        for compiled in (False, True):
            task = Task(examples=chosen, epochs=rounds + 1, on_gpu=True, compiled=compiled, attention=flash)
            found = measured(task, student, contenders_here(names), rounds, options.threads)
            note = f"{torch.cuda.get_device_name()}, bf16, attention {flash or 'sdpa'}, {data_name(options)}, "
            note += f"batch {BATCH_SIZE}"
            label = f"{student}, compiled" if compiled else student
            table = Table(student=label, epochs=found, num_targets=task.num_targets, note=note, clock="wall")
            yield from compared(table, student)
