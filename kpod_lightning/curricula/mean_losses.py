"""Mean losses of rationales, from losses of their tokens or measured in the course of a training."""

from collections.abc import Sequence

import numpy as np
import torch

from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.data.examples import Example
from kpod_lightning.distributed.ranks import gathered, share_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.nll import losses
from kpod_lightning.students.student import Student
from kpod_lightning.students.token_losses import LEAST_SCORED, whole_batch


def means_of_rationales(examples: Sequence[Example], nll: Sequence[np.ndarray]) -> np.ndarray:
    """[num_examples] mean losses of rationales in nats.

    Args:
        nll: [num_examples] rows [len(target_ids)]; the losses of the answer phrase are not used.
    """
    return np.array(
        [row[: example.num_rationale_tokens].mean(dtype=np.float64) for example, row in zip(examples, nll, strict=True)]
    )


@torch.no_grad()
def measured(student: Student, examples: Sequence[Example], batch_size: int) -> np.ndarray:
    """[num_examples] mean losses of all rationales in nats, without dropout; every rank calls it and gets all of them.

    Batches are cut from all examples and then divided among the ranks, so the number of ranks changes no loss.

    Raises:
        InputError: a loss is not finite.
    """
    device = next(student.model.parameters()).device
    was_training = student.model.training
    student.model.eval()
    found: dict[int, float] = {}
    for positions in share_of(batches_by_length(lengths_of(examples), max(batch_size, LEAST_SCORED))):
        few = [examples[i] for i in positions.tolist()]
        nll = losses(student, whole_batch(few, student).to(device))[1].double().cpu()
        rows = nll.split([len(e.target_ids) for e in few])
        found |= dict(zip(positions.tolist(), means_of_rationales(few, [row.numpy() for row in rows]), strict=True))
    student.model.train(was_training)
    means = np.array([mean for _, mean in sorted(gathered(found).items())])
    if (bad := np.flatnonzero(~np.isfinite(means))).size:
        raise InputError(
            f"problem {examples[int(bad[0])].key[0]}: the loss of its rationale is not finite; lower optim.lr or use "
            "optim.precision=32-true"
        )
    return means
