"""Records `losses.json` with the code of commit 6ab68c5, before its files were moved into rooms; see README.md."""

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from kpod_lightning.arithmetic import generate
from kpod_lightning.datamodule import RationaleDataModule
from kpod_lightning.distill import KPODModule
from kpod_lightning.examples import make_example
from kpod_lightning.rationales import Rationale, split_steps
from kpod_lightning.schedule import build_schedule
from kpod_lightning.trainers import trainer_of

from kpod_lightning.config import OptimConfig, RunConfig
from kpod_lightning.students import load_student

NUM_EXAMPLES, BATCH_SIZE, EPOCHS, SEED = 24, 6, 3, 1


class Recorded(KPODModule):
    """Keeps the loss of every step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), float(loss.detach())]
        return loss


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def norm_in_float64(model):
    """T5's norm computes in float32 whatever it is given."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "T5LayerNorm":
                norm = torch.nn.RMSNorm(len(child.weight), child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)


def losses(name: str, method: str) -> dict:
    made = [m.problem for m in generate("train", NUM_EXAMPLES, seed=0)]
    rationales = [Rationale(problem=p, text=p.rationale, steps=tuple(split_steps(p.rationale))) for p in made]
    student = load_student(name, dtype=torch.float64)
    without_dropout(student.model)
    student.model.double()
    norm_in_float64(student.model)
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    input_steps = token_weights = None
    if method == "kpod":
        difficulties = [1.0 + np.arange(e.num_steps) + 0.01 * i for i, e in enumerate(examples)]
        clusters = np.arange(NUM_EXAMPLES) % 3
        input_steps = build_schedule(difficulties, clusters, 2, keys=[e.key for e in examples]).input_steps.tolist()
        # Any weights will do that differ between tokens and between rationales.
        token_weights = [[((7 * i + 3 * j) % 11) / 5 for j in range(len(e.target_ids))] for i, e in enumerate(examples)]
    data = RationaleDataModule(
        examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=BATCH_SIZE,
        seed=SEED,
        input_steps=input_steps,
        token_weights=token_weights,
    )
    optim = replace(OptimConfig(), lr=1e-3, epochs=EPOCHS)
    module = Recorded(student, optim, num_steps=EPOCHS * NUM_EXAMPLES // BATCH_SIZE, seed=SEED)
    trainer = trainer_of(
        RunConfig(seed=SEED),
        max_epochs=EPOCHS,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )
    trainer.fit(module, datamodule=data)
    return {"student": name, "method": method, "input_steps": input_steps, "losses": module.losses}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found = [losses(name, method) for name in ("tiny-llama", "tiny-t5") for method in ("plain", "kpod")]
    lines = ",\n".join(json.dumps(run) for run in found)
    Path(__file__).with_name("losses.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
