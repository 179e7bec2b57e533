"""Does the straight-through gradient of a mask say what keeping the token is worth?

``python benchmarks/mask_gradients.py STUDENT`` teaches the student as an answer model to read masked rationales, then
keeps and masks single tokens of others, under random masks of the rest. It prints, in nats an answer, the mean effect
of keeping a digit of the last result, its mean straight-through estimate, and the correlation of the two over tokens of
all kinds.
"""

import logging
import sys
import warnings

import lightning as L
import numpy as np
import torch

from kpod_lightning.config import WeightsConfig
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.steps import split_steps
from kpod_lightning.keypoints.batches import KeypointDataModule, collate_keypoints
from kpod_lightning.keypoints.module import KeypointModule
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll
from kpod_lightning.students.student import load_student

NUM_TRAIN, NUM_HELD_OUT, NUM_DRAWS, SHARE = 1000, 100, 5, 0.4


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    student = load_student(sys.argv[1])
    made = generate("train", NUM_TRAIN + NUM_HELD_OUT, seed=0, min_steps=2, max_steps=3)
    rationales = [
        Rationale(problem=m.problem, text=m.problem.rationale, steps=tuple(split_steps(m.problem.rationale)))
        for m in made
    ]
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    L.seed_everything(0)
    config = WeightsConfig(warmup_epochs=3, num_prefixes=1, model_lr=5e-4)
    per_epoch = -(-NUM_TRAIN // config.batch_size)
    module = KeypointModule(student, WeightNetwork(student), config, updates_per_epoch=per_epoch)
    data = KeypointDataModule(
        examples, range(NUM_TRAIN), pad_token_id=student.pad_token_id, batch_size=config.batch_size, seed=0
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=config.warmup_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    module.eval()

    rng = np.random.default_rng(0)
    effects, estimates, of_result = [], [], []
    for m, example in zip(made[NUM_TRAIN:], examples[NUM_TRAIN:], strict=True):
        batch = collate_keypoints([example], student.pad_token_id)
        start, n = int(batch.starts), int(batch.lengths)
        left, right, _ = [span for span in m.kinds if span[2] == "result"][-1]
        digits = [j for j, (a, b) in enumerate(example.spans[:n]) if a < right and b > left]

        def nats(mask, batch=batch):
            return answer_nll(student, batch, module.masked_trunk(batch, mask), batch.lengths[:, None]).sum()

        for draw in range(NUM_DRAWS):
            j = start + int(rng.choice(digits) if draw % 2 else rng.integers(n))
            mask = (torch.rand(batch.trunk_ids.shape) < SHARE).float()
            kept, masked = mask.clone(), mask.clone()
            kept[0, j], masked[0, j] = 1.0, 0.0
            with torch.no_grad():
                effects.append(float(nats(kept) - nats(masked)))
            (gradient,) = torch.autograd.grad(nats(mask.requires_grad_(True)), mask)
            estimates.append(float(gradient[0, j]))
            of_result.append(j - start in digits)
    effect, estimate, chosen = np.array(effects), np.array(estimates), np.array(of_result)
    print(
        f"{sys.argv[1]}: keeping a digit of the last result moves the answer by {effect[chosen].mean():.2f} nats, "
        f"straight-through says {estimate[chosen].mean():.2f}; correlation over {len(effect)} tokens "
        f"{np.corrcoef(effect, estimate)[0, 1]:.2f}"
    )


if __name__ == "__main__":
    main()
