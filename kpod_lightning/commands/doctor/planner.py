"""Plans the memory of a run's phases from its settings, and finds settings to change where it is too much."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kpod_lightning.commands.doctor.architecture import Architecture
from kpod_lightning.commands.doctor.memory import Extras, Load, Numerics, Plan, generation_plan, plan, scoring_plan
from kpod_lightning.config import RunConfig
from kpod_lightning.keypoints.learned import Learned
from kpod_lightning.methods.base import method_of
from kpod_lightning.students.token_losses import LEAST_SCORED

PROMPT_SHARE = 0.25
"""Share of an example's tokens that the shortest prompt of a batch takes. In GSM8K the question is a quarter to a half
of question, rationale and answer together. A smaller share means more positions with logits."""

NUM_DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of devices to try where the settings ask for too few."""

ANSWER_TOKENS = 16
"""Tokens of answer phrase and answer, which the weights phase predicts: "Therefore, the answer is 1,234" has 10."""

NUM_STEPS = 8
"""Steps of the longest rationale (``weights.prefixes=step_ends``): GSM8K's have two to eight."""


# ---- From the settings ----


def num_devices_of(config: RunConfig, visible: int = 1) -> int:
    """Devices of a run: as set, else for ddp and fsdp ``visible``, those of this machine."""
    on_all = config.launch.strategy in ("ddp", "fsdp")
    return config.launch.num_nodes * (config.launch.devices or (visible if on_all else 1))


def numerics_of(config: RunConfig, num_devices: int, on_gpu: bool, lora_rank: int | None) -> Numerics:
    sharded = config.launch.strategy == "fsdp" and num_devices > 1
    return Numerics(precision=config.optim.precision, lora_rank=lora_rank, sharded=sharded, on_gpu=on_gpu)


def uses_keypoints(config: RunConfig) -> bool:
    """Whether the run learns keypoint weights: the phase ``weights``."""
    weighting = method_of(config).weighting
    return isinstance(weighting, Learned) and weighting.learned


def train_load(config: RunConfig, arch: Architecture, num_devices: int) -> tuple[Load, bool]:
    """The largest micro-batch of a device, all rows ``student.max_length`` long; and whether several make a step."""
    share = -(-config.optim.batch_size // num_devices)
    groups = min(share, config.optim.micro_batch_size or share)
    rows = groups * method_of(config).group_size
    prompt = int(PROMPT_SHARE * config.student.max_length)
    asked = config.student.max_length - prompt
    packed = arch.packs and config.optim.packing is not False
    mask = "packed" if packed else "padding" if rows > 1 or arch.encoder_decoder else "none"
    length, decoder_length = (prompt, asked) if arch.encoder_decoder else (config.student.max_length, 0)
    load = Load(rows=rows, length=length, decoder_length=decoder_length, num_logits=asked, mask=mask)
    return load, share > groups


def measures_difficulties(config: RunConfig) -> bool:
    """Whether the run measures step difficulties: the phase ``difficulties``."""
    return any(arrow.verb == "difficulties" for arrow in method_of(config).arrows())


def difficulties_load(config: RunConfig, arch: Architecture) -> Load:
    """A batch of step difficulties, which each device has to itself. Its rows are of one length, but for a few."""
    load = train_load(config, arch, 1)[0]
    return replace(load, rows=max(config.optim.batch_size, LEAST_SCORED), mask="padding")


def weights_load(config: RunConfig, arch: Architecture, num_devices: int) -> Load:
    """The largest batch of the weights phase on a device: every prefix of a rationale predicts the answer."""
    settings = config.weights
    rows, answer = -(-settings.batch_size // num_devices), ANSWER_TOKENS
    trunk = max(1, config.student.max_length - answer)
    prefixes = {"all": trunk - int(PROMPT_SHARE * trunk) + 1, "step_ends": NUM_STEPS + 1}
    num_prefixes = prefixes.get(settings.prefixes, settings.num_prefixes)
    if arch.encoder_decoder:  # a pass for each prefix, in one batch
        shape = Load(rows=rows * num_prefixes, length=trunk, decoder_length=answer, num_logits=answer)
        return replace(shape, mask="padding", fused=False)
    copies = num_prefixes * answer
    return Load(rows=rows, length=trunk + copies, num_logits=copies, mask="own", fused=False)


def weights_extras(config: RunConfig, student: Architecture, answer_model: Architecture, on_gpu: bool) -> Extras:
    """Parameters beside the answer model in the weights phase.

    The weight network reads features of the student's frozen embeddings and, with ``weights.features=first_block``, of
    its first block. On a CPU the whole student lies in the same memory.
    """
    embeddings = student.vocabulary * student.hidden
    first_block = config.weights.features == "first_block"
    frozen = embeddings + (student.block_parameters if first_block else 0)
    learned = (student.hidden + 1) * config.weights.hidden_size + (0 if first_block else 4 * student.hidden**2)
    if config.weights.answer_model not in (None, config.student.name):
        # Another answer model reads the student's embeddings through a linear map.
        frozen, learned = frozen + embeddings, learned + student.hidden * answer_model.hidden
    return Extras(frozen=frozen if on_gpu else frozen + student.parameters, learned=learned)


def phases(
    config: RunConfig, student: Architecture, answer_model: Architecture, *, num_devices: int = 1, on_gpu: bool = True
) -> dict[str, Plan]:
    """Plans of ``weights`` and ``difficulties`` (where the method has them), ``train``, and its ``validation``."""
    launch = config.launch
    spread: dict[str, Any] = {
        "num_devices": num_devices,
        "ddp": num_devices > 1 and launch.strategy in ("auto", "ddp"),
        "cpu_offload": launch.cpu_offload,
    }
    checkpointing = launch.activation_checkpointing
    plans = {}
    if uses_keypoints(config):
        plans["weights"] = plan(
            answer_model,
            weights_load(config, answer_model, num_devices),
            numerics_of(config, num_devices, on_gpu, config.weights.lora_rank),
            extras=weights_extras(config, student, answer_model, on_gpu),
            checkpointing=checkpointing,
            **spread,
        )
    numerics = numerics_of(config, num_devices, on_gpu, config.student.lora_rank)
    if measures_difficulties(config):
        scored = difficulties_load(config, student)
        plans["difficulties"] = scoring_plan(student, scored, numerics, num_devices=num_devices)
    load, accumulates = train_load(config, student, num_devices)
    plans["train"] = plan(student, load, numerics, accumulates=accumulates, checkpointing=checkpointing, **spread)
    plans["validation"] = generation_plan(
        student,
        numerics,
        rows=config.evaluation.batch_size,
        prompt=int(PROMPT_SHARE * config.student.max_length),
        num_new=config.evaluation.max_new_tokens,
        **spread,
    )
    return plans


# ---- What to change ----


def with_settings(config: RunConfig, changed: dict[str, Any]) -> RunConfig:
    """The settings with some of them changed, by keys such as ``optim.precision``."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in changed.items():
        part, name = key.split(".")
        parts.setdefault(part, {})[name] = value
    return replace(config, **{part: replace(getattr(config, part), **named) for part, named in parts.items()})


def changes(config: RunConfig, num_devices: int) -> Iterator[dict[str, Any]]:
    """Changes of settings that save memory.

    First come single changes that leave the result of the training as it is, then several of them together, then
    changes of what is learned (LoRA, bf16-true).
    """
    same: dict[str, Any] = {}
    share = -(-config.optim.batch_size // num_devices)
    if num_devices > 1 and config.launch.strategy != "fsdp":
        same["launch.strategy"] = "fsdp"
    if not config.launch.activation_checkpointing:
        same["launch.activation_checkpointing"] = True
    if min(share, config.optim.micro_batch_size or share) > 1:
        same["optim.micro_batch_size"] = 1
    if config.evaluation.batch_size > 4:
        same["evaluation.batch_size"] = 4
    if config.optim.precision == "32-true":
        same["optim.precision"] = "bf16-mixed"
    yield from ({key: value} for key, value in same.items())
    together: dict[str, Any] = {}
    for key, value in same.items():
        together = together | {key: value}
        yield together
    if num_devices > 1 and not config.launch.cpu_offload:
        yield together | {"launch.strategy": "fsdp", "launch.cpu_offload": True}
    if uses_keypoints(config) and config.weights.batch_size > 4:
        together = together | {"weights.batch_size": 4}
        yield together
    parts = ("student", "weights") if uses_keypoints(config) else ("student",)
    adapters = {f"{part}.lora_rank": 64 for part in parts if getattr(config, part).lora_rank is None}
    if adapters:
        together = together | adapters
        yield together
    yield together | {"optim.precision": "bf16-true"}


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans for one student, one answer model and one kind of device under varying settings."""

    student: Architecture
    answer_model: Architecture
    memory: float
    """Bytes of a device."""
    on_gpu: bool

    def phases(self, config: RunConfig, num_devices: int) -> dict[str, Plan]:
        return phases(config, self.student, self.answer_model, num_devices=num_devices, on_gpu=self.on_gpu)

    def fits(self, config: RunConfig, num_devices: int) -> bool:
        return all(plan.fits(self.memory) for plan in self.phases(config, num_devices).values())

    def change(self, config: RunConfig, num_devices: int) -> dict[str, Any] | None:
        """The first of ``changes`` that fits, less the settings that are not needed; None if none fits."""

        def fits(tried: dict[str, Any]) -> bool:
            return self.fits(with_settings(config, tried), num_devices)

        for tried in changes(config, num_devices):
            if fits(tried):
                for key in list(tried):
                    rest = {other: value for other, value in tried.items() if other != key}
                    if "launch.cpu_offload" not in rest or key != "launch.strategy":  # the one needs the other
                        tried = rest if rest and fits(rest) else tried
                return tried
        return None

    def fewest_devices(self, config: RunConfig) -> int | None:
        """The fewest devices that fit, among ``NUM_DEVICES``; None if no number does. A device has at least one row."""
        most = config.optim.batch_size
        if uses_keypoints(config):
            most = min(most, config.weights.batch_size)
        spread = [num for num in NUM_DEVICES if num <= most]
        if config.launch.strategy == "single":
            spread = [1]
        return next((num for num in spread if self.fits(config, num)), None)
