"""KeypointModule: trains the weight network and its answer model, Eqs. (2)-(7)."""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from kpod_lightning.config import LaunchConfig, WeightsConfig
from kpod_lightning.data.batches import seed_batch
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.distributed.ranks import summed
from kpod_lightning.distributed.sharding import recompute_activations, shard
from kpod_lightning.distributed.sums import RankSums
from kpod_lightning.keypoints.batches import KeypointBatch, KeypointDataModule
from kpod_lightning.keypoints.draws import Draws, draw_masks
from kpod_lightning.keypoints.loss import keypoint_loss
from kpod_lightning.keypoints.masks import budget_logits, sample_masks, top_share
from kpod_lightning.keypoints.network import FirstBlockFeatures, WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll, masked_answer_nll
from kpod_lightning.students.student import Student

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Kept shares of the sufficiency curve."""

NUM_RANDOM_MASKS = 5
"""Random masks per rationale, whose mean loss the heaviest ``weights.share`` of its tokens is compared with."""


MOST_KEPT = 2 * 2**30
"""Bytes of frozen features that are kept on disk. Of more they are computed anew in each epoch: where a student is so
wide, one block is a small part of it."""


# ---- Training ----


class ProjectedEmbedding(nn.Module):
    """Input embeddings for an answer model with another tokenizer: the student's frozen ones, through a linear map.

    The map starts as an orthogonal matrix, scaled so that its output has the mean norm of the answer model's own
    embeddings. A random matrix would feed the answer model noise at first.
    """

    def __init__(self, student: Student, answer_model: Student) -> None:
        super().__init__()
        theirs = student.model.get_input_embeddings().weight.detach()
        ours = answer_model.model.get_input_embeddings().weight.detach()
        self.frozen = nn.Embedding.from_pretrained(theirs.clone(), freeze=True)
        self.projection = nn.Linear(theirs.shape[1], ours.shape[1])
        nn.init.orthogonal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        with torch.no_grad():
            length = self.projection(theirs.float()).norm(dim=1).mean()
            self.projection.weight *= ours.float().norm(dim=1).mean() / length

    def forward(self, ids: Tensor) -> Tensor:
        projected: Tensor = self.projection(self.frozen(ids))
        return projected


class KeypointModule(L.LightningModule):
    """Trains the weight network together with the answer model; ``predict`` gives weights, Eq. (3).

    Args:
        answer_model: θ_w of Eq. (5), which is changed by the training.
        network: the weight network.
        config: settings.
        updates_per_epoch: optimiser steps of one epoch. In the first ``config.warmup_epochs`` only the answer model
            learns, from random masks; in the ``config.epochs`` after them the weight network learns too.
        seed: masks and prefixes depend on it, on the epoch and on the batch's number, and on nothing else.
        projected: input embeddings from the student's token ids, where the answer model has another tokenizer.
        launch: how the two models are spread over devices.
        precision: Lightning's name of it, for sharding.
    """

    def __init__(
        self,
        answer_model: Student,
        network: WeightNetwork,
        config: WeightsConfig,
        *,
        updates_per_epoch: int,
        seed: int = 0,
        projected: ProjectedEmbedding | None = None,
        launch: LaunchConfig | None = None,
        precision: str = "32-true",
    ) -> None:
        super().__init__()
        self.answer_model = answer_model
        self.model = answer_model.model.train()
        self.launch = launch or LaunchConfig()
        self.precision = precision
        if self.launch.activation_checkpointing:
            recompute_activations(self.model)
        self.network = network
        self.config = config
        self.num_steps = updates_per_epoch * config.epochs
        self.num_warmup_steps = updates_per_epoch * config.warmup_epochs
        self.seed = seed
        # Its norm is that of a token's embedding. Near zero the answer model's first normalisation has a gradient a
        # thousand times as large, which would dominate all others.
        embeddings = self.model.get_input_embeddings().weight.detach()
        mean = embeddings.mean(0)
        self.mask_embedding = nn.Parameter(mean / mean.norm() * embeddings.norm(dim=1).mean())
        self.projected = projected
        self.history: list[dict[str, float]] = []
        self.epoch_sums = RankSums("answer_nats", "kept", "rows")
        if config.mask_with == "zero":
            self.mask_embedding.requires_grad_(False).zero_()

    def configure_model(self) -> None:
        """Shard answer model and weight network where the strategy does.

        ``masked_trunk`` uses the answer model's embeddings outside its forward pass, and they may be tied to its head.
        So this module is the root of the sharding, whose parameters are gathered while the methods below compute.
        """
        computing = ("training_step", "predict_step", "held_out_nats")
        shard(self, self.model, self.device_mesh, self.launch, self.precision, methods=computing)

    def logits(self, batch: KeypointBatch) -> Tensor:
        """[B, L] log(w / (1 - w)); positions outside the rationale hold arbitrary numbers."""
        scores = self.network(batch)
        if self.config.form == "penalty":
            return scores
        return budget_logits(scores, batch.rationale_mask, self.config.share)

    def weights(self, batch: KeypointBatch) -> Tensor:
        """[B, L] w_j in (0, 1), 0 outside the rationale."""
        return torch.sigmoid(self.logits(batch)) * batch.rationale_mask

    def masked_trunk(self, batch: KeypointBatch, mask: Tensor) -> Tensor:
        """[B, L, D] embeddings of prompt and masked rationale: m_j times token j's plus 1 - m_j times the mask's.

        With ``mask_place=features`` m_j multiplies the features e_j of Eq. (2), as in the paper's fig. 1. Each e_j
        attends to its neighbours, so masking a token then leaves what the others' features took from it.

        Args:
            mask: [B, L] m_j in [0, 1]; read inside the rationale only.
        """
        embed = self.model.get_input_embeddings() if self.projected is None else self.projected
        embedded = embed(batch.trunk_ids)
        if self.config.mask_place == "features":
            features = self.network.features(batch.trunk_ids, batch.trunk_mask, batch.rationale_mask)
            if self.projected is not None:
                features = self.projected.projection(features)
            embedded = torch.where(batch.rationale_mask[..., None], features, embedded)
        kept = torch.where(batch.rationale_mask, mask, 1.0).to(embedded.dtype)[..., None]
        return kept * embedded + (1 - kept) * self.mask_embedding

    def temperature(self) -> float:
        """Temperature of the Gumbel samples: constant, or falling geometrically over the steps in which both learn."""
        first, last = self.config.temperature, self.config.final_temperature
        if last is None:
            return first
        done = min(1.0, max(0, self.global_step - self.num_warmup_steps) / max(1, self.num_steps - 1))
        return float(first * (last / first) ** done)

    def on_train_start(self) -> None:
        """Compute the student's frozen first block once a rationale, where one process learns and weighs them all."""
        features, data = self.network.features, getattr(self.trainer, "datamodule", None)
        if not isinstance(features, FirstBlockFeatures) or not isinstance(data, KeypointDataModule):
            return
        most = 4 * features.width * int(lengths_of(data.weighed).sum())  # with the prompts, which are not kept
        if self.trainer.world_size > 1 or self.precision != "32-true" or most > MOST_KEPT:
            return

        def frozen(batch: KeypointBatch) -> Tensor:
            batch = batch.to(self.device)
            return features.block(batch.trunk_ids, batch.trunk_mask, batch.rationale_mask)

        data.keep(frozen)

    def on_train_batch_start(self, batch: KeypointBatch, batch_idx: int) -> None:
        seed_batch(self.seed, self.current_epoch, batch_idx, 0)  # every rank draws the same

    def largest_masked(self) -> float:
        """Most of a rationale that random masks hide: rises from 0 to 1 in the first half of the warm-up.

        The answer model learns to read soonest from whole rationales.
        """
        warming = self.global_step < self.num_warmup_steps
        return min(1.0, 2 * self.global_step / self.num_warmup_steps) if warming else 1.0

    def training_step(self, batch: KeypointBatch, batch_idx: int) -> Tensor:
        """L_k, Eq. (7), of this rank's rows."""
        both_learn = self.global_step >= self.num_warmup_steps
        draws = draw_masks(batch, self.config, both_learn=both_learn, largest_masked=self.largest_masked())
        rank, world_size = self.global_rank, self.trainer.world_size
        mine = slice(draws.num_rows * rank // world_size, draws.num_rows * (rank + 1) // world_size)
        batch, draws = batch.rows(mine), draws.rows(mine)

        logits = self.logits(batch) if both_learn else None
        mask = draws.random_mask if logits is None else self.drawn_mask(logits, draws)
        nll = answer_nll(self.answer_model, batch, self.masked_trunk(batch, mask), draws.ends)
        loss = keypoint_loss(
            nll,
            mask,
            batch.rationale_mask,
            draws,
            self.config,
            logits=logits,
            over_ranks=lambda part: summed([part])[0],
        )
        if not torch.isfinite(loss):
            names = ", ".join(key[0] for key in batch.keys)
            raise FloatingPointError(
                f"loss of the keypoint weights is {loss.item()} at epoch {self.current_epoch + 1}, examples {names}: "
                "lower weights.model_lr or weights.network_lr"
            )
        self.add_to_epoch(nll.detach(), mask.detach(), batch)
        return loss * world_size  # DDP and FSDP take the mean over ranks

    def drawn_mask(self, logits: Tensor, draws: Draws) -> Tensor:
        """[B, L] masks by the Gumbel softmax, Eq. (4), in the chosen rows, random ones in the others."""
        hard = self.config.sample == "hard"
        sampled = sample_masks(logits, self.temperature(), hard=hard, uniform=draws.uniform)
        if self.config.gradient == "score":
            sampled = sampled.detach()  # the surrogate gives the gradient
        return torch.where(draws.chosen, sampled, draws.random_mask)

    def add_to_epoch(self, nll: Tensor, mask: Tensor, batch: KeypointBatch) -> None:
        """Count loss of the answer after the whole rationale, and share of it that was kept, for the epoch's means."""
        kept = (mask * batch.rationale_mask).sum(1) / batch.lengths
        self.epoch_sums.update(answer_nats=nll[:, -1].sum(), kept=kept.sum(), rows=len(kept))

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        sums = self.epoch_sums.compute()
        self.epoch_sums.reset()
        nats, kept = sums["answer_nats"] / sums["rows"], sums["kept"] / sums["rows"]
        self.history.append({"epoch": epoch, "answer_nats": nats, "kept": kept})
        self.print(
            f"keypoint weights, epoch {epoch} of {self.trainer.max_epochs}: {nats:.3f} nats an answer, {kept:.2f} kept"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["sums"] = self.history, self.epoch_sums.compute()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        self.epoch_sums.restore(checkpoint["sums"])

    def predict_step(self, batch: KeypointBatch, batch_idx: int) -> list[np.ndarray]:
        """[n] weights of the rationale tokens, a row for each example."""
        weights = self.weights(batch).cpu().numpy()
        bounds = zip(batch.starts.tolist(), batch.lengths.tolist(), strict=True)
        return [row[start : start + n] for row, (start, n) in zip(weights, bounds, strict=True)]

    def configure_optimizers(self) -> Any:
        network = [p for p in self.network.parameters() if p.requires_grad]
        learned = [*self.model.parameters(), self.mask_embedding]
        if self.projected is not None:
            learned += self.projected.parameters()
        model = [p for p in learned if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [{"params": model, "lr": self.config.model_lr}, {"params": network, "lr": self.config.network_lr}],
            weight_decay=0.0,
        )

        def cosine(step: int) -> float:
            progress = max(0, step - self.num_warmup_steps) / max(1, self.num_steps)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0, cosine])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradients of answer model and weight network apart: their norms differ too much for a common one."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.clip_norm)

    @torch.no_grad()
    def held_out_nats(self, batch: KeypointBatch) -> dict[str, Tensor]:
        """Answer loss [B] in nats, given the whole rationale with all, none, the heaviest or random tokens kept.

        Returns:
            By name: ``all``, ``none``, and ``top <share>`` and ``random <share>`` of every share of the curve.
        """
        named = held_out_masks(self.weights(batch), batch.rationale_mask, self.config.share)
        trunks = torch.stack([self.masked_trunk(batch, mask) for masks in named.values() for mask in masks], 1)
        nats = masked_answer_nll(self.answer_model, batch, trunks)
        parts = nats.split([len(masks) for masks in named.values()], dim=1)
        return {name: part.mean(1) for name, part in zip(named, parts, strict=True)}


def held_out_masks(weights: Tensor, inside: Tensor, share: float) -> dict[str, list[Tensor]]:
    """Masks [B, L] that held-out rationales are judged under, by name; the losses under those of a name are averaged.

    Args:
        weights: [B, L] w.
        inside: [B, L] tokens of the rationale.
        share: of the tokens, in (0, 1), on which the judgement is made; ``SHARES`` are the other points of a curve.
    """
    masks = {"all": [inside.to(weights)], "none": [torch.zeros_like(weights)]}
    for kept in sorted({*SHARES, share}):
        masks[f"top {kept}"] = [top_share(weights, inside, kept)]
        # The other shares are only points of a curve: one random mask is enough there.
        num_drawn = NUM_RANDOM_MASKS if kept == share else 1
        masks[f"random {kept}"] = [top_share(torch.rand_like(weights), inside, kept) for _ in range(num_drawn)]
    return masks


def num_held_out_masks(share: float) -> int:
    """Masks of one held-out rationale."""
    return 2 + 2 * len({*SHARES, share}) + NUM_RANDOM_MASKS - 1
