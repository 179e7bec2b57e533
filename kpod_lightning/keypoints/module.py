"""KeypointModule: trains the weight network and its answer model, Eqs. (2)-(7)."""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from kpod_lightning.config import LaunchConfig, WeightsConfig
from kpod_lightning.data.batches import seed_batch
from kpod_lightning.distributed.ranks import summed
from kpod_lightning.distributed.sharding import recompute_activations, shard
from kpod_lightning.keypoints.batches import KeypointBatch
from kpod_lightning.keypoints.masks import budget_logits, sample_masks, score_surrogate, top_share
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.prefixes import answer_nll, prefix_ends
from kpod_lightning.students.student import Student

PAPER_ALPHA = 0.5
"""α of Eq. (7), appendix A."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Kept shares of the sufficiency curve."""

NUM_RANDOM_MASKS = 5
"""Random choices of tokens, averaged per rationale, that the best ``share`` is compared with."""


# ---- Training ----


class ProjectedEmbedding(nn.Module):
    """Input embeddings for an answer model with another tokenizer: the student's frozen ones, through a linear map.

    It starts as an isometry of the length that the answer model is used to; a random map would be noise at first.
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
        updates_per_epoch: optimiser steps of one epoch. In the first ``config.warmup_epochs`` the answer model alone
            learns, from random masks; in ``config.epochs`` after them both do.
        seed: with epoch and batch, all that masks and prefixes depend on.
        projected: embeddings of the student's tokens, where the answer model has another tokenizer.
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
        # As long as a token's embedding: at zero a normalisation has a thousandfold gradient, which drowns the rest.
        embeddings = self.model.get_input_embeddings().weight.detach()
        mean = embeddings.mean(0)
        self.mask_embedding = nn.Parameter(mean / mean.norm() * embeddings.norm(dim=1).mean())
        self.projected = projected
        self.by_score = config.gradient == "score"
        self.history: list[dict[str, float]] = []
        self.epoch_sums = torch.zeros(2, dtype=torch.float64)  # nats of an answer, share kept: of this rank's rows
        self.epoch_rows = 0
        if config.mask_with == "zero":
            self.mask_embedding.requires_grad_(False).zero_()

    def configure_model(self) -> None:
        """Shard answer model and weight network where the strategy does.

        The answer model's embeddings are used apart from it, and may be tied to its head: so the root is the module
        itself, whose parameters are all there while it computes.
        """
        computing = ("training_step", "predict_step", "held_out_nats")
        shard(self, self.model, self.device_mesh, self.launch, self.precision, methods=computing)

    def logits(self, batch: KeypointBatch) -> Tensor:
        """[B, L] log(w / (1 - w)); outside the rationale without meaning."""
        scores = self.network(batch)
        if self.config.form == "penalty":
            return scores
        return budget_logits(scores, batch.rationale_mask, self.config.share)

    def weights(self, batch: KeypointBatch) -> Tensor:
        """[B, L] w_j in (0, 1), 0 outside the rationale."""
        return torch.sigmoid(self.logits(batch)) * batch.rationale_mask

    def masked_trunk(self, batch: KeypointBatch, mask: Tensor) -> Tensor:
        """[B, L, D] embeddings in which m_j multiplies token j of the rationale, and 1 - m_j the mask embedding.

        With ``mask_place=features`` it multiplies e_j of Eq. (2), as the paper's fig. 1 has it: what the attention
        layer took from a token's neighbours then stays when they are masked.
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
        """Of the Gumbel samples: constant, or falling geometrically over the steps in which both learn."""
        first, last = self.config.temperature, self.config.final_temperature
        if last is None:
            return first
        done = min(1.0, max(0, self.global_step - self.num_warmup_steps) / max(1, self.num_steps - 1))
        return float(first * (last / first) ** done)

    def on_train_batch_start(self, batch: KeypointBatch, batch_idx: int) -> None:
        seed_batch(self.seed, self.current_epoch, batch_idx, 0)  # the same on every rank

    def random_masks(self, inside: Tensor) -> Tensor:
        """[B, L] masks of which every rationale keeps a share of its own: in the warm-up nearly all at first, then any.

        Reading is learned soonest from whole rationales.
        """
        warming = self.global_step < self.num_warmup_steps
        hardness = min(1.0, 2 * self.global_step / self.num_warmup_steps) if warming else 1.0
        rates = hardness * torch.rand(len(inside), 1, device=inside.device)
        return (torch.rand(inside.shape, device=inside.device) >= rates).float()

    def training_step(self, batch: KeypointBatch, batch_idx: int) -> Tensor:
        """L_k, Eq. (7), of this rank's rows. What is random is drawn for the whole batch first, so that the number of
        ranks changes nothing."""
        config, num_rows, inside = self.config, len(batch.keys), batch.rationale_mask
        both_learn = self.global_step >= self.num_warmup_steps
        mask = self.random_masks(inside)
        chosen = uniform = mask.new_zeros(num_rows, 1)
        if both_learn:
            chosen = torch.rand(num_rows, 1, device=inside.device) >= config.random_share
            uniform = torch.rand(inside.shape, device=inside.device)
        ends, shares = prefix_ends(batch, config.prefixes, config.num_prefixes)
        num_chosen = int(chosen.sum())

        rank, world_size = self.global_rank, self.trainer.world_size
        mine = slice(num_rows * rank // world_size, num_rows * (rank + 1) // world_size)
        batch = batch.rows(mine)
        inside, mask, chosen, uniform, ends, shares = (t[mine] for t in (inside, mask, chosen, uniform, ends, shares))

        if both_learn:
            logits = self.logits(batch)
            sampled = sample_masks(logits, self.temperature(), hard=config.sample == "hard", uniform=uniform)
            mask = torch.where(chosen, sampled.detach() if self.by_score else sampled, mask)
        nll = answer_nll(self.answer_model, batch, self.masked_trunk(batch, mask), ends)
        scale = (batch.lengths + 1, batch.lengths) if config.normalise == "sum" else (1, 1)
        prediction = scale[0] * (shares * nll).sum(1)  # L_p, Eq. (5), as a mean over prefixes
        loss = prediction.sum() / num_rows
        if both_learn and self.by_score:
            drawn = chosen[:, 0]
            (total,) = summed([float(prediction.detach()[drawn].sum())])
            parts = (prediction[drawn], mask[drawn], logits[drawn], inside[drawn])
            loss = loss + score_surrogate(*parts, total=total, count=num_chosen)
        if both_learn and config.form == "penalty":
            kept = torch.sigmoid(logits) if self.by_score else mask
            size = scale[1] * (kept * inside).sum(1) / batch.lengths  # L_m, Eq. (6), as a mean over tokens
            loss = loss + (PAPER_ALPHA if config.alpha is None else config.alpha) * size.sum() / num_rows
        if not torch.isfinite(loss):
            names = ", ".join(key[0] for key in batch.keys)
            raise FloatingPointError(
                f"loss of the keypoint weights is {loss.item()} at epoch {self.current_epoch}, examples {names}: "
                "lower weights.model_lr or weights.network_lr"
            )
        kept_share = (mask.detach() * inside).sum(1) / batch.lengths
        sums = torch.stack([nll[:, -1].detach().sum(), kept_share.sum()]).double()
        self.epoch_sums = self.epoch_sums.to(sums.device) + sums
        self.epoch_rows += len(inside)
        return loss * world_size  # DDP and FSDP take the mean over ranks

    def on_train_epoch_end(self) -> None:
        epoch = self.current_epoch + 1
        nats, kept, rows = summed([*self.epoch_sums.tolist(), self.epoch_rows])
        nats, kept = nats / rows, kept / rows
        self.epoch_sums, self.epoch_rows = torch.zeros_like(self.epoch_sums), 0
        self.history.append({"epoch": epoch, "answer_nats": nats, "kept": kept})
        self.print(
            f"keypoint weights, epoch {epoch} of {self.trainer.max_epochs}: {nats:.3f} nats an answer, {kept:.2f} kept"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = summed([*self.epoch_sums.tolist(), self.epoch_rows])
        checkpoint["history"], checkpoint["sums"] = self.history, sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        if self.trainer.is_global_zero:  # what all ranks had
            *sums, rows = checkpoint["sums"]
            self.epoch_sums, self.epoch_rows = torch.tensor(sums, dtype=torch.float64), int(rows)

    def predict_step(self, batch: KeypointBatch, batch_idx: int) -> list[np.ndarray]:
        """Weights [n] of the rationale tokens of each example."""
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
        """Answer model and weight network apart: the norm of the one would drown the other."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.clip_norm)

    @torch.no_grad()
    def held_out_nats(self, batch: KeypointBatch) -> dict[str, Tensor]:
        """Answer loss [B] of the whole rationale with all, none, the top and random tokens kept."""
        inside, ends = batch.rationale_mask, batch.lengths[:, None]

        def nats(mask: Tensor) -> Tensor:
            return answer_nll(self.answer_model, batch, self.masked_trunk(batch, mask), ends)[:, 0]

        weights = self.weights(batch)
        found = {"all": nats(inside.to(weights)), "none": nats(torch.zeros_like(weights))}
        for share in sorted({*SHARES, self.config.share}):
            found[f"top {share}"] = nats(top_share(weights, inside, share))
            num_drawn = NUM_RANDOM_MASKS if share == self.config.share else 1  # elsewhere only a curve is drawn
            chosen = [nats(top_share(torch.rand_like(weights), inside, share)) for _ in range(num_drawn)]
            found[f"random {share}"] = torch.stack(chosen).mean(0)
        return found
