"""Training tiny-llama through Lightning against a bare PyTorch loop on the same batches; prints the ratio of times.

Alternates the two so that a drift of the machine meets both, and compares the fastest of each.
"""

import logging
import time
import warnings

import lightning as L
import torch

from kpod_lightning.config import OptimConfig
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.stages import Progress
from kpod_lightning.data.steps import split_steps
from kpod_lightning.methods.module import DistillationModule, learning_rate_factor
from kpod_lightning.students.nll import logits_and_targets, weighted_token_nll
from kpod_lightning.students.student import load_student

NUM_EXAMPLES, BATCH_SIZE, ROUNDS = 800, 16, 3
OPTIM = OptimConfig(lr=1e-3, epochs=1, batch_size=BATCH_SIZE)


def generated_examples(student, number=NUM_EXAMPLES):
    """Generated rationales, tokenised for a decoder-only student."""
    made = (m.problem for m in generate("train", number, seed=0))
    rationales = (Rationale(problem=p, text=p.rationale, steps=tuple(split_steps(p.rationale))) for p in made)
    return [make_example(rationale, student.tokenizer, encoder_decoder=False) for rationale in rationales]


def datamodule_of(student):
    return ExampleDataModule(
        generated_examples(student),
        encoder_decoder=False,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
    )


def bare(datamodule, student) -> float:
    batches = datamodule.micro_batches(Progress(epoch=0))
    began = time.perf_counter()
    student.model.train()
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=OPTIM.lr, weight_decay=0.0)
    for step, positions in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = OPTIM.lr * learning_rate_factor(step, len(batches), 2, OPTIM.schedule)
        batch = datamodule.dataset[positions]
        loss = weighted_token_nll(*logits_and_targets(student, batch))[0] / batch.divisor
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.model.parameters(), OPTIM.clip_norm)
        optimizer.step()
    return time.perf_counter() - began


def lightning(datamodule, student) -> float:
    return timed_epoch(DistillationModule(student, OPTIM, num_steps=NUM_EXAMPLES // BATCH_SIZE), datamodule)


def timed_epoch(module, datamodule) -> float:
    """Seconds of one epoch through Lightning."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=OPTIM.clip_norm,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
    began = time.perf_counter()
    trainer.fit(module, datamodule=datamodule)
    return time.perf_counter() - began


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    times: dict[str, list[float]] = {"bare": [], "lightning": []}
    for _ in range(ROUNDS):
        for run in (bare, lightning):
            student = load_student("tiny-llama")
            times[run.__name__].append(run(datamodule_of(student), student))
    ratio = min(times["lightning"]) / min(times["bare"])
    for name, seconds in times.items():
        print(f"{name:10} {', '.join(f'{s:.1f}' for s in seconds)} s")
    print(f"lightning / bare = {ratio:.3f} over {NUM_EXAMPLES} examples, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
