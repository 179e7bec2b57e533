"""Plain chain-of-thought distillation, Eq. (1): every token of every rationale, whole, from the first epoch on."""

from kpod_lightning.methods.base import Method


class Plain(Method):
    """The paper's baseline without keypoints and progression."""
