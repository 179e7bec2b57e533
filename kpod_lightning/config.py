"""Every setting, once: its default, unit and source. YAML overrides it, then ``key=value``; unknown keys stop."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kpod_lightning.errors import InputError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which problems, and how many of them."""

    dataset: str = "arithmetic"
    """arithmetic | gsm8k | asdiv | svamp | commonsenseqa | own."""
    dir: str | None = None
    """Folder in the layout of data/README.md; without it the benchmarks come from the Hugging Face hub."""
    fields: dict[str, str] = field(default_factory=dict)
    """dataset=own: our field name -> theirs, over the files train/validation/test.jsonl in ``dir``."""
    kind: str = "number"
    """dataset=own: number | choice | yes_no."""
    num_train: int | None = None
    """First so many training problems; none means all (arithmetic: 2,000)."""
    num_validation: int | None = None
    """First so many validation problems; none means all (arithmetic: 200)."""
    num_test: int | None = None
    """First so many test problems; none means all (arithmetic: 300)."""
    min_steps: int = 2
    """Arithmetic: fewest steps of a problem."""
    max_steps: int = 5
    """Arithmetic: most steps of a problem."""
    seed: int = 0
    """Arithmetic: which problems are made. Apart from the run's seed, so that seeds share their test set."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_validation", "num_test"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"data.{name} is a positive count or null, got {value}")
        _require(
            1 <= self.min_steps <= self.max_steps,
            f"data.min_steps={self.min_steps} must lie between 1 and data.max_steps={self.max_steps}",
        )


@dataclass(frozen=True, kw_only=True)
class RationalesConfig:
    """Whose rationales, and which of them are kept (method note, section 8)."""

    source: str = "generated"
    """generated (arithmetic) | human (the dataset's own) | recorded (a JSONL file of a teacher)."""
    teacher: str | None = None
    """recorded: file name without .jsonl in <data.dir>/<dataset>/rationales, or a path."""
    correct_only: bool = True
    """Drop a rationale that does not reach the gold answer. The paper mentions no filter."""
    num_per_problem: int = 1
    """K: most rationales kept of one problem; 1 is chosen by seed, more are the first K distinct ones."""
    step_rule: str = "sentence"
    """sentence | newline | paragraph | a regular expression that matches a step's end."""

    def __post_init__(self) -> None:
        sources = ("generated", "human", "recorded")
        _require(self.source in sources, f"rationales.source={self.source} is none of {', '.join(sources)}")
        _require(self.num_per_problem >= 1, "rationales.num_per_problem is at least 1")
        _require(
            self.source != "recorded" or self.teacher is not None,
            "rationales.source=recorded needs rationales.teacher=NAME, a file in <data.dir>/<dataset>/rationales",
        )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Which student, and which of its parameters learn."""

    name: str = "tiny-llama"
    """A preset (students.py), a hub id or a local folder."""
    lora_rank: int | None = None
    """LoRA rank; null trains every parameter. The paper: 64 (LLaMA-7B), 128 (FlanT5-XL)."""
    lora_alpha: int | None = None
    """Null means alpha = rank, i.e. no scaling, as MCC-KD has it."""
    max_length: int = 512
    """Tokens of prompt plus target; a longer example is left out and counted, never cut."""

    def __post_init__(self) -> None:
        _require(
            self.lora_rank is None or self.lora_rank > 0,
            f"student.lora_rank={self.lora_rank}: a rank is at least 1; null trains every parameter",
        )
        _require(
            self.lora_alpha is None or self.lora_rank is not None,
            "student.lora_alpha is set but student.lora_rank is null: set the rank or drop alpha",
        )
        _require(self.max_length > 0, f"student.max_length is positive, got {self.max_length}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the student learns. Values of the paper: appendix A."""

    name: str = "adamw"
    """adamw | adam. The paper: Adam."""
    lr: float = 5e-5
    """Peak learning rate. The paper: 1e-5 (LLaMA-7B), 5e-5 (FlanT5)."""
    weight_decay: float = 0.0
    schedule: str = "cosine"
    """constant | linear | cosine, after the warm-up. The paper states none."""
    warmup_fraction: float = 0.03
    """Share of all optimiser steps with a rising rate, in [0, 1)."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    epochs: int = 20
    """Passes over the rationales. The paper: 20 or 40 (LLaMA-7B), 100 (FlanT5)."""
    batch_size: int = 4
    """GLOBAL batch, in rationales. The paper: 4."""
    micro_batch_size: int | None = None
    """Rationales in one forward pass; null means the whole batch. Accumulation follows from it."""
    checkpoint_every: int | None = None
    """Optimiser steps between checkpoints inside an epoch, for clusters that preempt; null: only at its end."""
    patience: int | None = None
    """Validations without a better accuracy after which training stops; null never stops early."""
    group_by_length: bool = False
    """Batch examples of like length: less padding, the same examples an epoch. The paper draws batches at random."""
    precision: str = "32-true"
    """32-true | bf16-mixed | bf16-true | 16-mixed (not for T5, whose activations overflow)."""

    def __post_init__(self) -> None:
        _require(self.name in ("adam", "adamw"), f"optim.name={self.name} is neither adam nor adamw")
        _require(
            self.schedule in ("constant", "linear", "cosine"),
            f"optim.schedule={self.schedule} is none of constant, linear, cosine",
        )
        precisions = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")
        _require(self.precision in precisions, f"optim.precision={self.precision} is none of {precisions}")
        for name in ("checkpoint_every", "patience"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"optim.{name} is at least 1 or null, got {value}")
        _require(self.lr > 0, f"optim.lr is positive, got {self.lr}")
        _require(0 <= self.warmup_fraction < 1, f"optim.warmup_fraction is a share, got {self.warmup_fraction}")
        _require(self.epochs >= 1, f"optim.epochs is at least 1, got {self.epochs}")
        _require(self.batch_size >= 1, f"optim.batch_size is at least 1, got {self.batch_size}")
        if self.micro_batch_size is not None:
            _require(
                self.micro_batch_size >= 1 and self.batch_size % self.micro_batch_size == 0,
                f"optim.micro_batch_size={self.micro_batch_size} does not divide "
                f"optim.batch_size={self.batch_size}: choose a divisor",
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a student is asked and graded; the names of template and extractor go into every record."""

    every: int = 1
    """Epochs between two validations by greedy generation."""
    batch_size: int = 32
    """Problems generated side by side; changes speed, not text."""
    max_new_tokens: int = 256
    """Longest output in tokens; an output that reaches it is flagged."""
    num_samples: int = 1
    """Outputs of one problem; 1 is greedy, more are sampled and the majority answers (maj@k). Validation is greedy."""
    temperature: float = 0.7
    """Of the samples."""
    variant: str = "flexible"
    """Extractor: strict | flexible | mcc_kd | mcc_kd_2023 | fu."""

    def __post_init__(self) -> None:
        variants = ("strict", "flexible", "mcc_kd", "mcc_kd_2023", "fu")
        _require(self.variant in variants, f"evaluation.variant={self.variant} is none of {', '.join(variants)}")
        _require(self.temperature > 0, f"evaluation.temperature is positive, got {self.temperature}")
        for name in ("every", "batch_size", "max_new_tokens", "num_samples"):
            _require(getattr(self, name) >= 1, f"evaluation.{name} is at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    wandb: str = "auto"
    """auto (online where WANDB_API_KEY is set, else offline) | offline | disabled."""
    project: str = "kpod_lightning"

    def __post_init__(self) -> None:
        _require(
            self.wandb in ("auto", "offline", "disabled"),
            f"logging.wandb={self.wandb} is none of auto, offline, disabled",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One experiment, whole."""

    method: str = "plain"
    """plain (chain-of-thought distillation, Eq. 1) | answers_only (the answer without a rationale)."""
    seed: int = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    rationales: RationalesConfig = field(default_factory=RationalesConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    num_workers: int = 0
    """Processes that collate batches; changes speed, not batches."""

    def __post_init__(self) -> None:
        _require(
            self.method in ("plain", "answers_only"),
            f"method={self.method} is neither plain nor answers_only",
        )
        _require(self.num_workers >= 0, f"num_workers is a count, got {self.num_workers}")
        _require(
            (self.rationales.source == "generated") == (self.data.dataset == "arithmetic"),
            f"rationales.source={self.rationales.source} does not fit data.dataset={self.data.dataset}: "
            "arithmetic has generated rationales, and only arithmetic has",
        )


def load_config(path: Path, overrides: list[str]) -> RunConfig:
    """Settings of an experiment: defaults < the YAML file < ``key=value``.

    Raises:
        InputError: an unknown key, a value of the wrong type, a contradiction, a file that is no YAML.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such experiment file; `ls experiments` shows those there are")
    bare = [pair for pair in overrides if "=" not in pair]
    if bare:
        raise InputError(f"{bare[0]}: a setting is written key=value, e.g. optim.lr=1e-4")
    try:
        written = OmegaConf.load(path)
        if not isinstance(written, DictConfig):
            raise InputError(f"{path}: an experiment is a mapping of settings, not a list or a word")
        config = OmegaConf.merge(OmegaConf.structured(RunConfig), written, OmegaConf.from_dotlist(overrides))
        loaded = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or "?"
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} with {' '.join(overrides) or 'no overrides'}: key {where}: {reason}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    assert isinstance(loaded, RunConfig)
    return loaded


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The settings as plain containers, every default filled in."""
    return asdict(config)


def that_matter(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that change no number of a run: how it is logged, and by how many processes fed."""
    return {key: value for key, value in settings.items() if key not in ("logging", "num_workers")}


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two runs differ, as ``key: this, was that``."""
    found = []
    for key in sorted(one.keys() | other.keys()):
        new, old = one.get(key), other.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            found += differences(new, old, f"{prefix}{key}.")
        elif new != old:
            found.append(f"{prefix}{key}: {new}, was {old}")
    return found
