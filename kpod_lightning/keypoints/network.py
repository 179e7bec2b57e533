"""The weight network f_w on features e of a rationale's tokens, Eqs. (2) and (3)."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from kpod_lightning.keypoints.batches import KeypointBatch
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.last_block import feed_forward_at
from kpod_lightning.students.student import Student

SCORE_BOUND = 6.0
"""Bound of the scores g, kept by a tanh, so that sigmoid(g) never saturates and always has a gradient."""


class EmbeddingFeatures(nn.Module):
    """e = Att(Emb(r)), Eq. (2): the student's frozen input embeddings, then one learned self-attention layer."""

    def __init__(self, student: Student, num_heads: int = 4) -> None:
        super().__init__()
        embedding = student.model.get_input_embeddings()
        self.frozen = nn.Embedding.from_pretrained(embedding.weight.detach().clone(), freeze=True)
        self.width = embedding.weight.shape[1]
        self.attention = nn.MultiheadAttention(self.width, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, ids: Tensor, mask: Tensor, rationale_mask: Tensor) -> Tensor:
        embedded = self.norm(self.frozen(ids))
        attended, _ = self.attention(embedded, embedded, embedded, key_padding_mask=~rationale_mask, need_weights=False)
        return embedded + attended


class FirstBlockFeatures(nn.Module):
    """e = the output of the student's frozen first block on question and rationale: it knows context and positions."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        model = student.model
        backbone = model.get_encoder() if student.encoder_decoder else model.base_model
        blocks = next((name for name in ("layers", "block", "h") if hasattr(backbone, name)), None)
        norm = next((name for name in ("norm", "final_layer_norm", "ln_f") if hasattr(backbone, name)), None)
        if blocks is None or norm is None:
            raise InputError(
                f"student {student.name}: {type(backbone).__name__} has no list of blocks that weights.features="
                "first_block knows: take weights.features=embedding"
            )
        # A shallow copy with a table of submodules of its own, so that deepcopy copies only those that are kept.
        first = copy.copy(backbone)
        first._modules = dict(backbone._modules) | {
            blocks: nn.ModuleList(getattr(backbone, blocks)[:1]),
            norm: nn.Identity(),
        }
        self.frozen = copy.deepcopy(first).requires_grad_(False)
        self.width = model.get_input_embeddings().weight.shape[1]
        self.norm = nn.LayerNorm(self.width)

    @torch.no_grad()
    def block(self, ids: Tensor, mask: Tensor, rationale_mask: Tensor) -> Tensor:
        """[B, L, D] of the frozen block, which no training changes; outside the rationales arbitrary numbers."""
        self.frozen.eval()
        with feed_forward_at(self.frozen, rationale_mask.any(0).nonzero()[:, 0]):
            hidden: Tensor = self.frozen(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def forward(self, ids: Tensor, mask: Tensor, rationale_mask: Tensor) -> Tensor:
        return self.norm(self.block(ids, mask, rationale_mask))


class WeightNetwork(nn.Module):
    """f_w: scores g_j of rationale tokens. w_j = sigmoid(g_j), Eq. (3), or sigmoid(g_j - b) with the budget's b."""

    def __init__(self, student: Student, features: str = "first_block", hidden_size: int = 128) -> None:
        super().__init__()
        self.features = FirstBlockFeatures(student) if features == "first_block" else EmbeddingFeatures(student)
        self.mlp = nn.Sequential(nn.Linear(self.features.width, hidden_size), nn.GELU(), nn.Linear(hidden_size, 1))

    def forward(self, batch: KeypointBatch) -> Tensor:
        """[B, L] scores, bounded by ``SCORE_BOUND``."""
        if batch.frozen is None:
            features = self.features(batch.trunk_ids, batch.trunk_mask, batch.rationale_mask)
        else:
            features = self.features.norm(batch.frozen)
        return SCORE_BOUND * torch.tanh(self.mlp(features).squeeze(-1) / SCORE_BOUND)

    def learned(self) -> dict[str, np.ndarray]:
        """Values of the trained parameters by name; the frozen ones are the student's and are left out."""
        return {name: p.detach().cpu().numpy() for name, p in self.named_parameters() if p.requires_grad}
