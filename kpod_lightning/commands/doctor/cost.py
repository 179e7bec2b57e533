"""What runs cost: floating-point operations of an experiment's phases, from its settings and the size of its student.

A token costs 2 operations a parameter of the linear maps forward, as many backward to the activations, and as many to
the parameters where they learn (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). Attention itself, a few hundredths
at these lengths, and generation, which waits for memory rather than for arithmetic, are left out.
"""

from dataclasses import dataclass

from kpod_lightning.commands.doctor.architecture import Architecture
from kpod_lightning.commands.doctor.planner import PROMPT_SHARE, measures_difficulties, uses_keypoints
from kpod_lightning.config import RunConfig
from kpod_lightning.data.benchmarks import num_train_of
from kpod_lightning.methods.base import method_of

SUSTAINED = 125.0
"""TFLOP a second of a device: two fifths of an A100's 312 in bf16."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Floating-point operations of a run by phase, with the assumptions that they rest on.

    Attributes:
        rationales: how many are trained on, at most: those that a filter drops are counted.
        tokens: of a rationale with its question, on the average.
    """

    phases: dict[str, float]
    rationales: int
    tokens: int

    @property
    def total(self) -> float:
        return sum(self.phases.values())

    def hours(self, tflops: float) -> float:
        """Of one device that sustains ``tflops`` · 10¹² operations a second."""
        return self.total / (tflops * 1e12) / 3600.0


def cost_of(config: RunConfig, student: Architecture, answer_model: Architecture, tokens: int) -> Cost | None:
    """Cost of a run; None where the number of train problems is not known before the data are read.

    Args:
        tokens: of a rationale with its question, on the average.
    """
    num = num_train_of(config.data)
    if num is None:
        return None
    rank = config.student.lora_rank
    a_pass = num * tokens * per_token(student)
    phases = {}
    if uses_keypoints(config):
        weights = config.weights
        epochs, prefixes = weights.warmup_epochs + weights.epochs, weights.num_prefixes
        learned_from = min(weights.num_train or num, num) * epochs * prefixes * tokens
        learns = 3.0 if weights.lora_rank is None else 2.0
        phases["weights"] = learned_from * per_token(answer_model) * learns
    if measures_difficulties(config):
        phases["difficulties"] = a_pass
    learns = 3.0 if rank is None else 2.0
    recomputed = 1.0 if config.launch.activation_checkpointing else 0.0
    read = trained_on(config, num, tokens)
    phases["train"] = read * per_token(student) * (learns + recomputed)
    return Cost(phases=phases, rationales=num, tokens=tokens)


def trained_on(config: RunConfig, num: int, tokens: int) -> float:
    """Tokens of rationales and questions that the student is trained on, by epochs, steps or target tokens."""
    optim = config.optim
    if optim.tokens is not None:
        return optim.tokens / (1.0 - PROMPT_SHARE)
    groups = optim.steps * optim.batch_size if optim.steps is not None else optim.epochs * num
    return float(groups * method_of(config).group_size * tokens)


def per_token(student: Architecture) -> float:
    """Operations forward for a token. Of an encoder-decoder a token meets the encoder or the decoder: about half."""
    return 2.0 * student.linear_parameters * (0.5 if student.encoder_decoder else 1.0)
