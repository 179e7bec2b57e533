"""Keypoint weights: which tokens of a rationale its answer depends on, Eqs. (2)-(7) of the paper.

A weight network gives every token of a rationale the probability w_j of being kept. It learns together with an answer
model, which reads the question and prefixes of the masked rationale and predicts the answer. As the paper writes the
loss, all w can fall to 0; the budget form, in which every rationale keeps a fixed share, learns relative worth alone.
Masks get their gradient by the score function, or straight through a Gumbel sample, as the paper has it. What was found
with each stands in docs/weights.md.
"""

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kpod_lightning.config import LaunchConfig, WeightsConfig
from kpod_lightning.datamodule import seed_batch
from kpod_lightning.examples import IGNORE
from kpod_lightning.keypoint_batches import KeypointBatch
from kpod_lightning.ranks import summed
from kpod_lightning.sharding import recompute_activations, shard
from kpod_lightning.students import Student, token_nll
from kpod_lightning.weight_network import WeightNetwork

PAPER_ALPHA = 0.5
"""α of Eq. (7), appendix A."""
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Kept shares of the sufficiency curve."""
NUM_RANDOM_MASKS = 5
"""Random choices of tokens, averaged per rationale, that the best ``share`` is compared with."""


# ---- Weights and masks ----


def budget_logits(scores: Tensor, mask: Tensor, share: float) -> Tensor:
    """Scores shifted in each row so that the mean of w = sigmoid(score - b) is ``share``.

    b is found by bisection. Its derivative is exact, by the implicit function theorem: db = Σ κ_j dg_j with
    κ_j ∝ w_j (1 - w_j).

    Args:
        scores: [B, L] g.
        mask: [B, L] tokens that count; every row has one.
        share: ρ in (0, 1).

    Returns:
        [B, L] g - b; outside ``mask`` without meaning.
    """
    with torch.no_grad():
        g = scores.double()
        shift = math.log(share / (1 - share))
        low = g.masked_fill(~mask, math.inf).amin(-1, keepdim=True) - shift
        high = g.masked_fill(~mask, -math.inf).amax(-1, keepdim=True) - shift
        count = mask.sum(-1, keepdim=True)
        for _ in range(60):  # halves an interval of at most 12 nats to less than the last bit
            offset = (low + high) / 2
            too_much = (torch.sigmoid(g - offset) * mask).sum(-1, keepdim=True) / count > share
            low, high = torch.where(too_much, offset, low), torch.where(too_much, high, offset)
        w = torch.sigmoid(g - offset)
        kappa = w * (1 - w) * mask
        kappa = (kappa / kappa.sum(-1, keepdim=True)).to(scores.dtype)
    # The sum is 0, its gradient is that of b.
    moved = torch.where(mask, kappa * (scores - scores.detach()), 0.0).sum(-1, keepdim=True)
    return scores - (offset.to(scores.dtype) + moved)


def sample_masks(logits: Tensor, temperature: float, *, hard: bool = True, uniform: Tensor | None = None) -> Tensor:
    """Binary masks by the Gumbel softmax over the classes (kept, masked), Eq. (4).

    With two classes, log-probabilities log w and log(1 - w), the difference of their two Gumbel variables is logistic.

    Args:
        logits: log(w / (1 - w)).
        hard: 0 or 1 forwards, the gradient of the relaxed sample backwards; else the relaxed sample itself.
        uniform: the random numbers, in [0, 1); drawn here if not given.
    """
    uniform = (torch.rand_like(logits) if uniform is None else uniform).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + torch.logit(uniform)) / temperature)
    if not hard:
        return soft
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def score_surrogate(
    losses: Tensor,
    masks: Tensor,
    logits: Tensor,
    inside: Tensor,
    *,
    total: float | None = None,
    count: int | None = None,
) -> Tensor:
    """A number whose gradient estimates that of the mean loss under masks drawn from w = sigmoid(logits).

    The score-function estimator ∇E[f(m)] = E[(f(m) - b) ∇ log P(m)], without bias for any f, however unsmooth; b is
    the mean loss of the other rows, which does not depend on the row's own mask.

    Args:
        losses: [B] f(m), one a row.
        masks: [B, L] the masks drawn, 0 or 1.
        logits: [B, L] log(w / (1 - w)), which get the gradient.
        inside: [B, L] tokens that were drawn.
        total, count: sum of the losses and number of the rows, where these are only a rank's part of the batch.
    """
    losses, masks = losses.detach(), masks.detach()
    count = len(losses) if count is None else count
    if count < 2:
        return logits.sum() * 0.0  # nothing to compare with
    mean = (losses.sum() if total is None else total) / count
    advantage = (losses - mean) * count / (count - 1)
    log_probability = -F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return (advantage * torch.where(inside, log_probability, 0.0).sum(1)).sum() / count


def top_share(weights: Tensor, mask: Tensor, share: float) -> Tensor:
    """[B, L] 1 for the ``share`` of each row's tokens with the largest weights (at least one), else 0."""
    count = (mask.sum(-1, keepdim=True) * share).round().clamp(min=1)
    order = weights.masked_fill(~mask, -math.inf).argsort(dim=-1, descending=True, stable=True)
    return ((order.argsort(-1) < count) & mask).to(weights.dtype)


def prefix_ends(batch: KeypointBatch, scheme: str, num_prefixes: int) -> tuple[Tensor, Tensor]:
    """Which prefixes of each rationale predict the answer, and how much each counts; Eq. (5) sums over all.

    Args:
        scheme: ``stratified``: one end drawn from each of ``num_prefixes - 1`` parts of equal length, and the whole,
            equally weighted; ``unbiased``: the same ends, weighted so that the mean over all prefixes is estimated
            without bias; ``step_ends``: nothing, one step, two steps, ...; ``all``.

    Returns:
        ends [B, K]: kept leading tokens, from 0 to n; shares [B, K]: a row sums to 1.
    """
    n = batch.lengths[:, None]
    if scheme == "all":
        ends = torch.arange(int(n.max()) + 1, device=n.device).expand(len(n), -1)
        counted = (ends <= n).float()
        return ends.minimum(n), counted / counted.sum(1, keepdim=True)
    if scheme == "step_ends":
        ends = F.pad(batch.step_ends, (1, 0))
        counted = F.pad((batch.step_ends.diff(dim=1) > 0).float(), (2, 0), value=1.0)
        return ends, counted / counted.sum(1, keepdim=True)
    num_parts = num_prefixes - 1
    if num_parts == 0:
        return n, torch.ones_like(n, dtype=torch.float32)
    parts = torch.arange(num_parts, device=n.device)
    drawn = ((parts + torch.rand(len(n), num_parts, device=n.device)) / num_parts * n).long().minimum(n - 1)
    ends = torch.cat([drawn, n], dim=1)
    if scheme == "stratified":
        return ends, torch.full(ends.shape, 1 / num_prefixes, device=n.device)
    whole = 1.0 / (n + 1)
    return ends, torch.cat([((1 - whole) / num_parts).expand(-1, num_parts), whole], dim=1)


# ---- The answer from prefixes of the masked rationale ----


def answer_nll(answer_model: Student, batch: KeypointBatch, trunk: Tensor, ends: Tensor) -> Tensor:
    """Negative log-likelihood of the answer given the question and each prefix of the rationale, Eq. (5).

    Args:
        trunk: [B, L, D] embeddings of prompt and masked rationale.
        ends: [B, K] leading rationale tokens that are seen.

    Returns:
        [B, K] nats, summed over the answer's tokens.
    """
    if answer_model.encoder_decoder:
        logits, targets = _seq2seq_logits(answer_model, batch, trunk, ends)
    else:
        logits, targets = _all_prefix_logits(answer_model, batch, trunk, ends)
    return token_nll(logits, targets).sum(-1)


def _all_prefix_logits(
    answer_model: Student, batch: KeypointBatch, trunk: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """All prefixes in one pass of a decoder: a copy of the answer for each stands behind the trunk.

    A copy sees the trunk up to its prefix's end and itself, and its positions go on from there, so it computes what
    a sequence of its own would. logits [B, K, T, V] and targets [B, K, T] over the answer's own tokens.
    """
    model = answer_model.model
    (num_rows, width), num_copies, copy_length = trunk.shape[:2], ends.shape[1], batch.answer_ids.shape[1]
    answer = model.get_input_embeddings()(batch.answer_ids)
    embedded = torch.cat([trunk, answer.repeat(1, num_copies, 1)], dim=1)

    device = trunk.device
    seen = batch.starts[:, None] + ends  # [B, K] leading trunk positions that a copy sees
    place = torch.arange(embedded.shape[1], device=device)
    positions = torch.cat(
        [
            place[:width].expand(num_rows, -1),
            (seen[:, :, None] + torch.arange(copy_length, device=device)).flatten(1),
        ],
        dim=1,
    )
    limit = torch.cat([(place[:width] + 1).expand(num_rows, -1), seen.repeat_interleave(copy_length, 1)], dim=1)
    copy = (place - width).div(copy_length, rounding_mode="floor").clamp(min=-1)
    own = (copy[:, None] == copy) & (copy >= 0) & (place <= place[:, None])
    allowed = (place < limit[:, :, None]) | own  # padding stands right of all that is asked, so nothing reads it
    attention = torch.zeros(allowed.shape, dtype=trunk.dtype, device=device)
    attention.masked_fill_(~allowed, torch.finfo(trunk.dtype).min)

    first = int((batch.answer_targets != IGNORE).int().argmax(1).min())
    asked = torch.arange(first - 1, copy_length - 1, device=device)  # logits at t predict t + 1
    kept = (width + copy_length * torch.arange(num_copies, device=device)[:, None] + asked).flatten()
    logits = model(
        inputs_embeds=embedded,
        attention_mask=attention[:, None],
        position_ids=positions,
        logits_to_keep=kept,
        use_cache=False,
    ).logits
    targets = batch.answer_targets[:, None, first:].expand(-1, num_copies, -1)
    return logits.unflatten(1, (num_copies, len(asked))), targets.contiguous()


def _seq2seq_logits(answer_model: Student, batch: KeypointBatch, trunk: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """A pass of encoder and decoder for each prefix: an encoder's states depend on all that it reads."""
    model = answer_model.model
    num_rows, num_prefixes = ends.shape
    seen = batch.starts[:, None] + ends
    width = int(seen.max()) + 1
    place = torch.arange(width, device=trunk.device)
    closing = model.get_input_embeddings()(torch.tensor(answer_model.tokenizer.eos_token_id, device=trunk.device))
    rows = F.pad(trunk, (0, 0, 0, 1))[:, None, :width]
    embedded = torch.where((place == seen[..., None])[..., None], closing, rows)
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels=batch.answer_ids)
    logits = model(
        inputs_embeds=embedded.flatten(0, 1),
        attention_mask=(place <= seen[..., None]).flatten(0, 1).long(),
        decoder_input_ids=decoder_input_ids.repeat_interleave(num_prefixes, 0),
        use_cache=False,
    ).logits
    first = int((batch.answer_targets != IGNORE).int().argmax(1).min())
    targets = batch.answer_targets[:, None, first:].expand(-1, num_prefixes, -1)
    return logits[:, first:].unflatten(0, (num_rows, num_prefixes)), targets.contiguous()


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
