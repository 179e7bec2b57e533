"""RankSums: named sums over the batches and ranks of a training, as one torchmetrics metric."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from kpod_lightning.distributed.ranks import is_first, summed


class RankSums(Metric):
    """Sums of several numbers over all batches and all ranks, e.g. nats and target tokens of an epoch.

    A mean is the quotient of two of them. In a LightningModule, with each call made on every rank::

        self.epoch_sums = RankSums("nats", "tokens")              # __init__
        self.epoch_sums.update(nats=total.detach(), tokens=57)    # training_step: this rank's own numbers
        sums = self.epoch_sums.compute()                          # {"nats": ..., "tokens": ...} over all ranks
        self.epoch_sums.reset()                                   # on_train_epoch_end
        checkpoint["sums"] = self.epoch_sums.compute()            # on_save_checkpoint
        self.epoch_sums.restore(checkpoint["sums"])               # on_load_checkpoint

    ``compute`` leaves the rank's own sums as they are. The state is one float64 vector on the host. It is no buffer
    and no entry of the state dict: DDP would overwrite it with that of rank 0, and a checkpoint would keep one rank's.

    Args:
        names: of the sums.
    """

    full_state_update = False
    totals: Tensor

    def __init__(self, *names: str) -> None:
        # Without a cache: ``compute`` is a collective, so no rank may skip it because it has seen no batch since.
        super().__init__(dist_sync_fn=_sum_over_ranks, compute_with_cache=False)
        self.names = names
        self.add_state("totals", torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true, so that torchmetrics does not warn where nothing was added yet: the sum of nothing is 0."""
        return True

    def update(self, **values: Tensor | float) -> None:
        """Add one batch's numbers of this rank.

        Args:
            values: a number for each of ``names``.

        Raises:
            ValueError: the names are not those of the sums.
        """
        if values.keys() != set(self.names):
            raise ValueError(f"the sums are {', '.join(self.names)}, got {', '.join(values)}")
        self.totals += torch.tensor([float(values[name]) for name in self.names], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """The sums over all ranks, by name."""
        return dict(zip(self.names, self.totals.tolist(), strict=True))

    def restore(self, sums: Mapping[str, float]) -> None:
        """Go on from what ``compute`` gave, on any number of ranks: the first one takes it all, the others start at 0.

        Args:
            sums: over all ranks, by name.
        """
        self.reset()
        if is_first():
            self.update(**sums)

    def _apply(self, fn: Any, exclude_state: Any = ()) -> "RankSums":
        """Stay in float64 on the host when the LightningModule moves to a GPU or to bfloat16."""
        return self


def _sum_over_ranks(totals: Tensor, group: Any = None) -> list[Tensor]:
    """[K] sums of all ranks, as the one row that torchmetrics then reduces; sent between hosts, not GPUs."""
    return [torch.tensor(summed(totals.tolist()), dtype=torch.float64)]
