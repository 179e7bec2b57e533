"""Prefixes of a rationale, Eq. (5): which ones an update takes, and the answer's loss after each of them."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from kpod_lightning.data.views import IGNORE
from kpod_lightning.keypoints.batches import KeypointBatch
from kpod_lightning.students.last_block import feed_forward_at
from kpod_lightning.students.nll import token_nll
from kpod_lightning.students.student import Student


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


def masked_answer_nll(answer_model: Student, batch: KeypointBatch, trunks: Tensor) -> Tensor:
    """Negative log-likelihood of the answer given the question and the whole rationale under each of M masks.

    A decoder reads each prompt once, whose keys and values the masks share. Equals ``answer_nll`` of each trunk with
    the whole rationale seen, but for rounding. Without gradients.

    Args:
        trunks: [B, M, L, D] embeddings of prompt and masked rationale; the prompt is the same under all masks.

    Returns:
        [B, M] nats, summed over the answer's tokens.
    """
    num_rows, num_masks = trunks.shape[:2]
    with torch.no_grad():
        if answer_model.encoder_decoder:
            rows = batch.repeated(num_masks)
            nll = answer_nll(answer_model, rows, trunks.flatten(0, 1), rows.lengths[:, None])[:, 0]
        else:
            nll = token_nll(*_shared_prompt_logits(answer_model, batch, trunks)).sum(-1)
    return nll.unflatten(0, (num_rows, num_masks))


def _shared_prompt_logits(answer_model: Student, batch: KeypointBatch, trunks: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B * M, T, V] and targets [B * M, T] over the answer's own tokens, after the whole rationale."""
    model, num_masks, device = answer_model.model, trunks.shape[1], trunks.device
    starts, lengths = batch.starts[:, None], batch.lengths[:, None]
    width, num_tokens, copy_length = int(starts.max()), int(lengths.max()), batch.answer_ids.shape[1]
    prompt, tokens = torch.arange(width, device=device), torch.arange(num_tokens, device=device)
    copy = torch.arange(copy_length, device=device)

    def attention(allowed: Tensor) -> Tensor:
        mask = torch.zeros(allowed.shape, dtype=trunks.dtype, device=device)
        return mask.masked_fill_(~allowed, torch.finfo(trunks.dtype).min)[:, None]

    # Keys and values of a prompt's padding are never attended to. No window of the model's own: as in training, the
    # masks given here are all that limits attention.
    read = DynamicCache()
    cached = {_cache_argument(model): read, "use_cache": True}
    with feed_forward_at(model, prompt[-1:]):  # nothing is asked of the prompt but keys and values
        model(
            inputs_embeds=trunks[:, 0, :width],
            attention_mask=attention((prompt <= prompt[:, None]).expand(len(starts), -1, -1)),
            position_ids=prompt.expand(len(starts), -1),
            logits_to_keep=1,
            **cached,
        )
    read.batch_repeat_interleave(num_masks)

    place = (starts + tokens).clamp(max=trunks.shape[2] - 1)  # [B, R] of the rationale in the trunk
    rationale = trunks.gather(2, place[:, None, :, None].expand(-1, num_masks, -1, trunks.shape[3]))
    answer = model.get_input_embeddings()(batch.answer_ids)[:, None].expand(-1, num_masks, -1, -1)
    # Every key stands in its order in the sequence; what a query sees is every key that is none of padding before it.
    order = torch.cat([prompt.expand(len(starts), -1), starts + tokens, starts + lengths + copy], 1)
    real = torch.cat([prompt < starts, tokens < lengths, (copy >= 0).expand(len(starts), -1)], 1)
    asked = order[:, width:]
    allowed = (order[:, None] <= asked[:, :, None]) & real[:, None]
    first = int((batch.answer_targets != IGNORE).int().argmax(1).min())
    kept = num_tokens + torch.arange(first - 1, copy_length - 1, device=device)  # logits at t predict t + 1
    with feed_forward_at(model, kept):
        logits = model(
            inputs_embeds=torch.cat([rationale, answer], 2).flatten(0, 1),
            attention_mask=attention(allowed.repeat_interleave(num_masks, 0)),
            position_ids=asked.repeat_interleave(num_masks, 0),
            logits_to_keep=kept,
            **cached,
        ).logits
    return logits, batch.answer_targets[:, first:].repeat_interleave(num_masks, 0)


def _cache_argument(model: Any) -> str:
    """What ``forward`` calls its cache: transformers renamed it, and models of the hub may keep the old name."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # not an adapter's, which passes on
    return "cache" if "cache" in inspect.signature(plain.forward).parameters else "past_key_values"


def _all_prefix_logits(
    answer_model: Student, batch: KeypointBatch, trunk: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Score the answer after all prefixes in one pass of a decoder: the trunk is followed by K copies of the answer.

    Copy k attends to the trunk up to the end of prefix k and to itself, and its positions continue from there. So it
    computes what a sequence of its own would.

    Returns:
        logits [B, K, T, V] and targets [B, K, T] over the answer's own tokens.
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
    allowed = (place < limit[:, :, None]) | own  # padding stands to the right of every asked position
    attention = torch.zeros(allowed.shape, dtype=trunk.dtype, device=device)
    attention.masked_fill_(~allowed, torch.finfo(trunk.dtype).min)

    first = int((batch.answer_targets != IGNORE).int().argmax(1).min())
    asked = torch.arange(first - 1, copy_length - 1, device=device)  # logits at t predict t + 1
    kept = (width + copy_length * torch.arange(num_copies, device=device)[:, None] + asked).flatten()
    with feed_forward_at(model, kept):
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
    """Score the answer with one pass of encoder and decoder for each prefix: encoder states depend on the whole input.

    Returns:
        logits [B, K, T, V] and targets [B, K, T] over the answer's own tokens.
    """
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
