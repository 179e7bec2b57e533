"""Memory that `kpod doctor` plans against what training steps take: prints planned / measured for several settings.

Every setting runs in a process of its own: two steps of the real module on whole-length examples, packed where nothing
else is said. It counts the peak of its resident memory above what it has once everything is imported; on a GPU, of the
memory allocated there.
The threshold above which the C library takes memory from the system, and gives it back when freed, is fixed: by default
it grows, and freed tensors would be counted as taken.

    python benchmarks/bench_doctor.py [NAME ...]     settings whose name has one of these words
    python benchmarks/bench_doctor.py --large        also those of about 10 GiB
"""

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NARROW = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8}
WIDE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 32}
MODELS: dict[str, dict[str, Any]] = {
    "llama-1b": WIDE | {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False},  # 1.16e9
    "llama-50m": NARROW | {"model_type": "llama", "vocab_size": 8192, "tie_word_embeddings": True},
    "t5-110m": {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 512,
        "d_ff": 1536,
        "d_kv": 64,
        "num_layers": 12,
        "num_heads": 8,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
}
"""Shapes of random models; any other name is a student."""

SMOLLM, SMALL_LLAMA, WIDE_LLAMA, T5 = "smollm2-135m-q4", "llama-50m", "llama-1b", "t5-110m"


def setting(model: str, rows: int, length: int, precision: str = "32-true", **others: Any) -> dict[str, Any]:
    return {"model": model, "rows": rows, "length": length, "precision": precision, **others}


SETTINGS = {
    "llama-50m 4 x 256": setting(SMALL_LLAMA, 4, 256),
    "smollm2 1 x 256": setting(SMOLLM, 1, 256),
    "smollm2 4 x 256": setting(SMOLLM, 4, 256),
    "smollm2 2 x 256 LoRA": setting(SMOLLM, 2, 256, lora_rank=64),
    "smollm2 2 x 256 checkpointing": setting(SMOLLM, 2, 256, checkpointing=True),
    "smollm2 2 x 256 bf16-mixed": setting(SMOLLM, 2, 256, "bf16-mixed"),
    "smollm2 2 x 256 bf16-true": setting(SMOLLM, 2, 256, "bf16-true"),
    "smollm2 2 x 256 accumulated": setting(SMOLLM, 2, 256, micro=1),
    "smollm2 2 x 256 LoRA bf16-mixed": setting(SMOLLM, 2, 256, "bf16-mixed", lora_rank=64),
    "smollm2 2 x 256 LoRA checkpointing": setting(SMOLLM, 2, 256, lora_rank=64, checkpointing=True),
    "smollm2 2 x 256 padded": setting(SMOLLM, 2, 256, packing=False),
    "smollm2 1 x 1024": setting(SMOLLM, 1, 1024),
    "t5 4 x 256": setting(T5, 4, 256),
    "t5 4 x 256 bf16-mixed": setting(T5, 4, 256, "bf16-mixed"),
    "t5 4 x 256 checkpointing": setting(T5, 4, 256, checkpointing=True),
    "t5 4 x 256 padded": setting(T5, 4, 256, packing=False),
    "difficulties of smollm2 16 x 64": setting(SMOLLM, 16, 64, phase="difficulties"),
    "difficulties of t5 16 x 64": setting(T5, 16, 64, phase="difficulties"),
    "weights of smollm2 2 x 256": setting(SMOLLM, 2, 256, phase="weights"),
    "weights of t5 2 x 256": setting(T5, 2, 256, phase="weights"),
    "llama-1b 2 x 64 LoRA": setting(WIDE_LLAMA, 2, 64, lora_rank=64),
    "llama-1b 1 x 64 LoRA bf16-true": setting(WIDE_LLAMA, 1, 64, "bf16-true", lora_rank=64),
}
LARGE = {"llama-1b 1 x 64 bf16-true": setting(WIDE_LLAMA, 1, 64, "bf16-true")}
"""Two steps of it hold 9 GiB."""


def status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) * 1024


def model_of(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from kpod_lightning.students.student import load_student

    if name not in MODELS:
        return load_student(name).model
    shape = dict(MODELS[name])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    return (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)


def examples_of(asked: dict[str, Any], prompt: int, num_answer: int) -> list[Any]:
    """Two batches of examples of the whole length, every other one a token shorter, so that rows differ."""
    from kpod_lightning.data.examples import Example

    found = []
    for i in range(2 * asked["rows"]):
        num_targets = asked["length"] - prompt - (i % 2)
        num_rationale = num_targets - num_answer
        found.append(
            Example(
                key=(str(i), 0),
                prompt_ids=tuple(range(5, 5 + prompt)),
                target_ids=tuple(range(9, 9 + num_targets)),
                step_of=(0,) * num_rationale + (1,) * num_answer,
                spans=((0, 0),) * num_targets,
                num_steps=1,
                answer_start=num_rationale,
            )
        )
    return found


def trainer_of(asked: dict[str, Any], **settings: Any) -> Any:
    import lightning as L

    class Peak(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak that loading had

        on_predict_start = on_train_start

    return L.Trainer(
        accelerator="auto",
        devices=1,
        precision=asked["precision"],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Peak()],
        **settings,
    )


def train(asked: dict[str, Any]) -> dict[str, Any]:
    """Two batches of a phase; bytes planned and measured."""
    import numpy as np
    import torch

    import kpod_lightning.runs.pipeline  # noqa: F401  imported before memory is counted
    from kpod_lightning.commands.doctor.architecture import architecture
    from kpod_lightning.commands.doctor.planner import ANSWER_TOKENS, PROMPT_SHARE, phases, with_settings
    from kpod_lightning.config import RunConfig
    from kpod_lightning.data.datamodule import ExampleDataModule
    from kpod_lightning.keypoints.batches import KeypointDataModule
    from kpod_lightning.keypoints.module import KeypointModule
    from kpod_lightning.keypoints.network import WeightNetwork
    from kpod_lightning.methods.module import DistillationModule
    from kpod_lightning.students.student import Student, add_lora
    from kpod_lightning.students.token_losses import TokenLossModule, token_loss_loader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    on_gpu = torch.cuda.is_available()
    rows, micro, lora_rank = asked["rows"], asked.get("micro", asked["rows"]), asked.get("lora_rank")
    checkpointing, phase = bool(asked.get("checkpointing")), asked.get("phase", "train")
    config = with_settings(
        RunConfig(seed=0),
        {
            "student.name": asked["model"],
            "student.max_length": asked["length"],
            "student.lora_rank": lora_rank,
            "optim.batch_size": rows,
            "optim.micro_batch_size": micro,
            "optim.precision": asked["precision"],
            "optim.packing": asked.get("packing"),
            "launch.activation_checkpointing": checkpointing,
            "weights.batch_size": rows,
            "weights.lora_rank": lora_rank,
            "weights.warmup_epochs": 0,
            "weights.epochs": 1,
        },
    )
    before = status("VmRSS")

    def student_of() -> Student:
        model = model_of(asked["model"])
        tokenizer = SimpleNamespace(eos_token_id=1, pad_token_id=0)  # all that a training asks of it
        return Student(asked["model"], model, tokenizer, bool(model.config.is_encoder_decoder))

    student = student_of()
    arch = architecture(student.model.config)
    learner = student_of() if phase == "weights" else student
    if lora_rank:
        learner = add_lora(learner, lora_rank, None, 0)
    if checkpointing:
        learner.model.gradient_checkpointing_enable({"use_reentrant": False})
    prompt = int(PROMPT_SHARE * asked["length"])
    module: Any
    if phase == "weights":
        network = WeightNetwork(student, config.weights.features, config.weights.hidden_size)
        module = KeypointModule(learner, network, config.weights, updates_per_epoch=2)
        examples = examples_of(asked, prompt, ANSWER_TOKENS + 1)
        keypoints = KeypointDataModule(examples, range(len(examples)), pad_token_id=0, batch_size=rows, seed=0)
        trainer_of(asked).fit(module, datamodule=keypoints)
    elif phase == "difficulties":
        examples, batches = examples_of(asked, prompt, 1), np.arange(2 * rows).reshape(2, rows)
        loader = token_loss_loader(examples, student, list(batches))
        trainer_of(asked).predict(TokenLossModule(student), loader)
    else:
        data = ExampleDataModule(
            examples_of(asked, prompt, 1),
            encoder_decoder=student.encoder_decoder,
            pad_token_id=0,
            eos_token_id=1,
            batch_size=rows,
        )
        module = DistillationModule(learner, config.optim, num_steps=2)
        trainer = trainer_of(asked, accumulate_grad_batches=rows // micro, gradient_clip_val=1.0)
        trainer.fit(module, datamodule=data)
    measured = torch.cuda.max_memory_allocated() if on_gpu else status("VmHWM") - before
    planned = phases(config, arch, arch, on_gpu=on_gpu)[phase]
    return {"planned": planned.total, "measured": measured, "moment": planned.moment}


def in_own_process(asked: dict[str, Any]) -> dict[str, Any]:
    fixed = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--child", json.dumps(asked)]
    ran = subprocess.run(command, env=os.environ | fixed, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-2000:])
    return json.loads(ran.stdout.splitlines()[-1])


def main(words: list[str]) -> None:
    chosen = SETTINGS | (LARGE if "--large" in words else {})
    words = [word for word in words if not word.startswith("--")]
    print(f"{'setting':45s} {'planned':>9s} {'measured':>9s} ratio")
    for name, asked in chosen.items():
        if words and not any(word in name for word in words):
            continue
        found = in_own_process(asked)
        planned, measured = found["planned"] / 2**30, found["measured"] / 2**30
        print(
            f"{name:45s} {planned:5.2f} GiB {measured:5.2f} GiB {planned / measured:.2f}  {found['moment']}", flush=True
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(train(json.loads(sys.argv[2]))))
    else:
        main(sys.argv[1:])
