"""Method: the seam of every method. One file a method: settings, artefacts, texts, draws, views, loss, report.

No file of a method loads torch when it is imported: settings are checked before anything heavy is.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from kpod_lightning.config import RunConfig, WeightsConfig, layered, with_blocks
from kpod_lightning.curricula.base import GROUP as CURRICULA
from kpod_lightning.curricula.base import SHIPPED as SHIPPED_CURRICULA
from kpod_lightning.curricula.base import Curriculum, find_curriculum
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.keypoints.base import GROUP as WEIGHTINGS
from kpod_lightning.keypoints.base import SHIPPED as SHIPPED_WEIGHTINGS
from kpod_lightning.keypoints.base import Weighting, find_weighting
from kpod_lightning.store import plugins
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.described import Described, described
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.data.rationales import Rationale
    from kpod_lightning.data.stages import Stages
    from kpod_lightning.data.texts import Text
    from kpod_lightning.data.views import Batch
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.students.nll import LossSums
    from kpod_lightning.students.student import Student

GROUP = "kpod_lightning.methods"
SHIPPED = {
    "answers_only": "kpod_lightning.methods.answers_only:AnswersOnly",
    "kpod": "kpod_lightning.methods.kpod:KPOD",
    "krsl": "kpod_lightning.methods.krsl:KRSL",
    "mcc_kd": "kpod_lightning.methods.mcc_kd:MCCKD",
    "plain": "kpod_lightning.methods.plain:Plain",
    "scotd": "kpod_lightning.methods.scotd:SCoTD",
    "scott": "kpod_lightning.methods.scott:Scott",
    "specialized": "kpod_lightning.methods.specialized:Specialized",
    "step_by_step": "kpod_lightning.methods.step_by_step:StepByStep",
}


WARM, MEASURING = "warm", "warm-measuring"
"""Folders of a run with students that were tuned plainly: the start of the training, and the one that measures."""


class Method:
    """What every method has; a method overrides what differs from plain distillation.

    Before a training ``begin`` reads the artefacts; ``views`` and ``loss`` use what it found.
    """

    Settings: ClassVar[type | None] = None
    """Dataclass of its own block of the YAML, which has the method's name; None: it has none."""

    usual: ClassVar[Mapping[str, Any]] = {}
    """Settings of all runs, by their names with dots, that it has other defaults for."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        # Uniform, whatever ``weights`` says: a method that composes weightings takes one by its name.
        self.weighting: Weighting = Weighting(replace(config, weights=WeightsConfig(kind="uniform")))
        self.curriculum: Curriculum = Curriculum(config)
        self.stages: Stages
        self.token_weights: Sequence[Any] | None = None

    @property
    def settings(self) -> Any:
        """The method's own block."""
        return getattr(self.config, self.config.method)

    def check(self) -> None:
        """Refuse settings that contradict each other (InputError)."""
        self.weighting.check()
        self.curriculum.check()
        if self.wrong is not None and not self.config.rationales.correct_only:
            raise InputError(
                f"method={self.config.method} learns right rationales beside wrong ones: take "
                "rationales.correct_only=true"
            )
        if self.wrong == "recorded" and self.config.rationales.source != "recorded":
            raise InputError(
                f"method={self.config.method} with a teacher's wrong rationales needs rationales.source=recorded, not "
                f"{self.config.rationales.source}: take made ones, or a teacher's file"
            )
        if self.config.optim.loss_scale == "mass" and self.weighting.is_in_step:
            raise InputError(
                "optim.loss_scale=mass divides by the weights of a global batch before its step, and weights.kind="
                f"{self.config.weights.kind}, weights.start_epoch={self.config.weights.start_epoch} makes them in the "
                "step: take optim.loss_scale=tokens or sum"
            )

    # ---- Before the training ----

    def arrows(self) -> list[Arrow]:
        """Artefacts that are made before the student learns, in order."""
        return [*self.weighting.arrows(), *self.curriculum.arrows(self.weighting.artefact)]

    def text_settings(self) -> tuple[str, ...]:
        """Settings that ``texts`` depends on: with other values the train set is tokenised anew."""
        return (self.config.method,) if self.Settings is not None else ()

    def training_settings(self) -> tuple[str, ...]:
        """Settings that the training depends on beside those of the run, e.g. ``weights.floor``."""
        return (self.config.method,) if self.Settings is not None else ()

    def models(self) -> dict[str, str]:
        """Models beside the student that have to be fetched: setting -> name."""
        return {**self.weighting.models(), **self.curriculum.models()}

    def uses(self, key: str) -> bool:
        """Whether the run reads a setting, by its name with dots; reports leave out what it does not."""
        block = key.partition(".")[0]
        if key == "schedule.measure_after":
            return any(arrow.measures for arrow in self.arrows())
        if block == "weights":
            return self.weighting.uses(key)
        return self.curriculum.uses(key) if block in ("schedule", "curriculum") else True

    def batch_sizes(self) -> dict[str, int]:
        """Batches that are cut for the devices: setting -> size."""
        return {"optim.batch_size": self.config.optim.batch_size}

    # ---- Texts ----

    kinds: ClassVar[tuple[str, ...]] = ()
    """Names of the kinds of its texts, in the order of ``Text.kind``; () where it does not tell them apart."""

    drop_alone: bool = False
    """Whether a text that is too long is left out alone; else all texts of its rationale are."""

    def prompts_from(self) -> tuple[str, ...]:
        """Artefacts that ``prompt`` depends on beside the problem, once ``see`` has looked at the rationales."""
        return ()

    def see(self, rationales: "Iterable[Rationale]") -> None:
        """Look at all rationales before texts and prompts are made."""

    @property
    def wrong(self) -> str | None:
        """How each rationale gets a wrong one beside it, ``Rationale.wrong``, which may be missing: made of the right
        one, or recorded, one of the teacher's that reach another answer. None: none does."""
        return None

    def prompt(self, problem: "Problem") -> str:
        """What the student is shown of a problem, in training and when it is evaluated."""
        from kpod_lightning.data.template import prompt_text

        return prompt_text(problem)

    def texts(self, rationale: "Rationale") -> "list[Text]":
        """Prompt and target of every example that is made of a rationale."""
        from kpod_lightning.data.texts import text_of

        return [text_of(rationale, prompt=self.prompt(rationale.problem))]

    # ---- The training ----

    def begin(self, context: Any) -> None:
        """Read the artefacts that the training needs.

        Args:
            context: a ``methods.context.Context``.
        """
        self.stages = self.curriculum.stages(context)
        self.token_weights = self.weighting.loss_table(context)

    def draw(self, num_examples: int, epoch: int) -> Sequence[tuple[int, ...]] | None:
        """Positions of the examples that go together in an epoch, e.g. pairs, or one of K; None: each by itself."""
        return None

    def rate_factor(self, epoch: int) -> float:
        """What the learning rate of an epoch is multiplied by."""
        return 1.0

    group_size: int = 1
    """Most examples that ``draw`` puts together: batch sizes count groups, and the doctor plans memory for all."""

    apart: bool = False
    """Whether only examples of one kind (``Text.kind``) meet in a global batch."""

    views: Any = None
    """``views(examples, positions, stage) -> list[View]``: what is shown and asked of examples that go together. None:
    the first ``stages.input_steps(stage)`` steps are input, the rest is asked, ``token_weights`` weigh it."""

    def loss(self, student: "Student", batch: "Batch") -> "LossSums":
        """Weighted loss of a micro-batch, Eq. (15), beside its sum of weights and its loss without weights."""
        return self.weighting.loss(student, batch, self.curriculum.factors(student, batch))

    sums: tuple[str, ...] = ()
    """Names of the sums in ``LossSums.more``; each epoch logs ``train/NAME``, the sum over the targets' number."""

    # ---- The report ----

    def describe(self, folder: Path) -> "list[Section]":
        """Its part of the report, from what lies in the run folder."""
        return [*self.weighting.describe(folder), *self.curriculum.describe(folder)]


def find_method(name: str) -> type[Method]:
    """A shipped method, or one of an installed package (entry points ``kpod_lightning.methods``).

    Raises:
        InputError: there is none of this name, or what has the name is no method.
    """
    found: type[Method] = plugins.load(GROUP, name, SHIPPED, setting="method", base=Method)
    return found


def method_of(config: RunConfig) -> Method:
    """The method of a run, with its weighting and its curriculum."""
    return find_method(config.method)(config)


def blocks_of(written: DictConfig) -> dict[str, type]:
    """Settings blocks that method, curriculum and weighting of an experiment bring along: name -> dataclass.

    Raises:
        InputError: there is no such part, or two parts would have blocks of one name.
    """
    parts: list[tuple[str, Any]] = [
        (written.method, find_method(written.method).Settings),
        (written.curriculum, find_curriculum(written.curriculum).Settings),
        (written.weights.kind, find_weighting(written.weights.kind).Settings),
    ]
    blocks: dict[str, type] = {}
    for name, block in parts:
        if name in blocks and block is not None:
            raise InputError(
                f"{name}: two of method={written.method}, curriculum={written.curriculum} and "
                f"weights.kind={written.weights.kind} have settings in a block of this name; rename an entry point"
            )
        if block is not None:
            blocks[name] = block
    return blocks


def run_settings(method: str) -> type[RunConfig]:
    """The class of a run's settings with the block of a method; curriculum and weighting are the defaults."""
    block = find_method(method).Settings
    return with_blocks({} if block is None else {method: block})


def load_experiment(path: Path | None, overrides: list[str]) -> RunConfig:
    """Settings of an experiment, with the blocks of its method, curriculum and weighting; all of them are checked.

    Raises:
        InputError: an unknown key, a value of the wrong type, a contradiction, a file that is no YAML.
    """
    return load_with_sources(path, overrides)[0]


def load_with_sources(path: Path | None, overrides: list[str]) -> tuple[RunConfig, dict[str, str]]:
    """As ``load_experiment``, and where every setting that is no default comes from, by its name with dots."""
    written, sources = layered(path, overrides, blocks_of)
    written = with_usual(written, sources)
    loaded = with_stages_for(written, overrides)
    if loaded is not written:
        sources["schedule.num_stages"] = "optim.epochs of the command line"
    method_of(loaded).check()
    return loaded, sources


def described_settings() -> list[Described]:
    """Every setting: those of all runs, then the blocks of all methods, curricula and weightings that are installed."""
    found = described(RunConfig)
    parts: list[tuple[str, str, Mapping[str, str], Callable[[str], Any]]] = [
        ("method", GROUP, SHIPPED, find_method),
        ("curriculum", CURRICULA, SHIPPED_CURRICULA, find_curriculum),
        ("weights.kind", WEIGHTINGS, SHIPPED_WEIGHTINGS, find_weighting),
    ]
    for setting, group, shipped, find in parts:
        for name in plugins.find(group, shipped):
            block = find(name).Settings
            for row in [] if block is None else described(block, f"{name}."):
                found.append(replace(row, meaning=f"{setting}={name}: {row.meaning}"))
    return found


def with_usual(config: RunConfig, sources: dict[str, str], given: Collection[str] = ()) -> RunConfig:
    """The settings with the method's own defaults, where nothing else was said.

    Args:
        sources: where settings that are no default come from; it gets those that the method gives.
        given: blocks that are whole already.
    """
    for key, value in find_method(config.method).usual.items():
        block, name = key.split(".")
        if key not in sources and block not in given:
            config = replace(config, **{block: replace(getattr(config, block), **{name: value})})
            sources[key] = f"method={config.method}"
    return config


def with_stages_for(config: RunConfig, overrides: list[str]) -> RunConfig:
    """As many stages as the epochs of the command line allow, where the experiment file has more, and a line on it.

    Stages that last epochs end before the last epoch, which is to train whole rationales. What the command line itself
    says of the stages stays as it is, and so do stages of steps or tokens.
    """
    words = {word.partition("=")[0] for word in overrides}
    schedule, epochs = config.schedule, config.optim.epochs
    stages, length = schedule.num_stages, schedule.stage_length or 1
    if not schedule.progressive or schedule.progress != "epochs" or stages is None or stages * length <= epochs:
        return config
    if "optim.epochs" not in words or "schedule.num_stages" in words:
        return config
    fewer = max(1, (epochs - 1) // length)
    if is_first() and method_of(config).uses("schedule.num_stages"):
        lasts = "a stage is an epoch" if length == 1 else f"a stage is {length} epochs"
        text = f"schedule.num_stages={fewer} instead of the file's {stages}: {lasts}"
        print(f"kpod: {text}, and optim.epochs={epochs}", file=sys.stderr)
    return replace(config, schedule=replace(config.schedule, num_stages=fewer))
