"""Divergences of what a student predicts from what it predicts elsewhere."""

import torch
from torch import Tensor
from torch.nn import functional as F


def two_way_kl(one: Tensor, other: Tensor, pair_of: Tensor, num_pairs: int, temperature: float = 1.0) -> Tensor:
    """½ [mean_t KL(P_t‖Q_t) + mean_t KL(Q_t‖P_t)] of each pair, with P = softmax(one / T) and Q = softmax(other / T).

    Both have a gradient, and nothing is multiplied by T².

    Args:
        one, other: [R, V] logits; row r of both belongs together.
        pair_of: [R] pair of each row; every pair has a row.

    Returns:
        [num_pairs] in nats, in float32 at least: probabilities of a vocabulary are too small for 16 bits.
    """
    wide = torch.promote_types(one.dtype, torch.float32)
    log_p, log_q = (F.log_softmax(logits.to(wide) / temperature, dim=-1) for logits in (one, other))
    of_row = 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)  # the two directions in one sum
    total = of_row.new_zeros(num_pairs).index_add(0, pair_of, of_row)
    return total / torch.bincount(pair_of, minlength=num_pairs)
