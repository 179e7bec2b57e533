"""Adaptive prefixes: of each rationale so many first steps are input as the student needs to reach the answer."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpod_lightning.config import RunConfig
from kpod_lightning.curricula.base import Curriculum
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.store.bounds import at_least, check, within

if TYPE_CHECKING:
    from kpod_lightning.data.example_table import ExampleTable
    from kpod_lightning.data.problems import Problem
    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.students.student import Student


@dataclass(frozen=True, kw_only=True)
class PrefixAdaptiveSettings:
    """The block ``prefix_adaptive:`` of an experiment; AdaBack's values where it has them (Amani et al., 2026)."""

    whole: float = field(default=0.1, metadata=within("[0, 1]"))
    """Probability that a rationale is whole in an epoch, whatever its interval; 1 is no curriculum."""
    whole_from: float = field(default=0.5, metadata=within("[0, 1]"))
    """Share of ``optim.epochs`` from which on every rationale is whole, rounded down to an epoch, at least one. Ours:
    KPOD's is half of them, AdaBack's is 1. 0 is no curriculum."""
    num_measured: int | None = field(default=256, metadata=at_least(1))
    """Examples that are measured after an epoch, drawn anew each time; null: all."""
    measure_every: int = field(default=1, metadata=at_least(1))
    """Epochs after which examples are measured again."""
    smoothing: float = field(default=0.5, metadata=within("[0, 1]"))
    """a: weight of the intervals that were measured last in the means of which others draw. AdaBack takes 0.2 after
    every batch; here many batches' worth of examples is measured at once."""

    def __post_init__(self) -> None:
        check(self, "prefix_adaptive")


class PrefixStages(Stages):
    """A stage is an epoch: example i draws ρ_i from its interval, and its first ⌊ρ_i n_i⌋ steps are input.

    ρ_i < 1, so that the last step is always asked. All rationales are whole from stage T on.

    Args:
        num_steps: [num_examples] n_i.
        num_stages: T.
        seed: ρ_i depends on (seed, epoch, i) and on the interval, and on nothing else.
    """

    def __init__(self, num_steps: np.ndarray, num_stages: int, settings: PrefixAdaptiveSettings, seed: int) -> None:
        super().__init__(len(num_steps))
        self.num_steps, self.num_stages, self.settings, self.seed = num_steps, num_stages, settings, seed
        self.intervals = np.tile([0.0, 1.0], (self.num_examples, 1))
        """[num_examples, 2] (ρ_min, ρ_max) of each example."""
        self.is_measured = np.zeros(self.num_examples, bool)
        self.means = np.array([0.0, 1.0])
        """[2] moving averages of the measured intervals, of which examples draw that were never measured."""
        self.success: float | None = None
        """Share of those measured last that reached the answer."""
        self._drawn: tuple[int, np.ndarray] | None = None

    def stage_of(self, progress: Progress) -> int:
        return min(progress.epoch, self.num_stages)

    def is_whole(self, stage: int) -> bool:
        return stage >= self.num_stages

    def in_use(self) -> np.ndarray:
        """[num_examples, 2] the intervals that ρ is drawn from."""
        return np.where(self.is_measured[:, None], self.intervals, self.means)

    def shares(self, stage: int) -> np.ndarray:
        """[num_examples] ρ of a stage, in [0, 1)."""
        if self._drawn is None or self._drawn[0] != stage:
            # Row i is the same for any number of examples: it depends on (seed, stage, i) alone.
            place, chance = np.random.default_rng([self.seed, 6, stage]).random((self.num_examples, 2)).T
            low, high = self.in_use().T
            self._drawn = stage, np.where(chance < self.settings.whole, 0.0, low + (high - low) * place)
        return self._drawn[1]

    def input_steps(self, stage: int) -> np.ndarray:
        if self.is_whole(stage):
            return np.zeros(self.num_examples, np.int64)
        return steps_shown(self.shares(stage), self.num_steps)

    def to_measure(self, stage: int) -> np.ndarray:
        """Positions of the examples that are measured after a stage, ascending; they depend on (seed, stage) alone."""
        number = self.settings.num_measured
        if number is None or number >= self.num_examples:
            return np.arange(self.num_examples)
        rng = np.random.default_rng([self.seed, 7, stage])
        return np.sort(rng.choice(self.num_examples, number, replace=False))

    def learn(self, stage: int, positions: np.ndarray, right: np.ndarray) -> None:
        """Move the intervals of measured examples.

        Args:
            stage: the one that ended.
            positions: of the examples.
            right: whether the student reached the answer from the steps that the stage had shown.
        """
        moved = moved_intervals(
            self.intervals[positions], self.shares(stage)[positions], self.num_steps[positions], right
        )
        self.intervals[positions], self.is_measured[positions] = moved, True
        a = self.settings.smoothing
        self.means = (1.0 - a) * self.means + a * moved.mean(0)
        self.success, self._drawn = float(right.mean()), None

    def metrics(self, stage: int) -> dict[str, float]:
        shown = {"prefix_adaptive/mean_shown": float((self.input_steps(stage) / self.num_steps).mean())}
        if self.is_whole(stage):
            return shown
        low, high = self.in_use().mean(0).tolist()
        success = {} if self.success is None else {"prefix_adaptive/success": self.success}
        return {**shown, "prefix_adaptive/mean_low": low, "prefix_adaptive/mean_high": high, **success}

    def state_dict(self) -> dict[str, Any]:
        import torch

        arrays = {"intervals": self.intervals, "is_measured": self.is_measured, "means": self.means}
        # Copies: a checkpoint may be written while the training goes on.
        return {name: torch.tensor(array) for name, array in arrays.items()} | {"success": self.success}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            names = ("intervals", "is_measured", "means")
            self.intervals, self.is_measured, self.means = (np.asarray(state[name]).copy() for name in names)
            self.success = state["success"]
            self._drawn = None


def steps_shown(shares: np.ndarray, num_steps: np.ndarray) -> np.ndarray:
    """[N] ⌊ρ n⌋, at most n − 1: rounded up, a rationale would often have its answer alone left to ask."""
    found: np.ndarray = np.minimum(np.floor(shares * num_steps), num_steps - 1).astype(np.int64)
    return found


def moved_intervals(intervals: np.ndarray, shares: np.ndarray, num_steps: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[N, 2] intervals after the student has tried to reach the answer with a share of the steps shown.

    Right: ρ_max ← ρ, ρ_min ← 0. Wrong: ρ_min ← max(ρ_min, ρ). AdaBack's ρ_max never rises, and an example that was
    right by luck would stay where it fails; here a failure with as many steps as the interval can show lets ρ_max ← 1.
    With ρ = 0 by chance, a failure below ρ_min says nothing new, and a success makes the interval [0, 0].

    Args:
        intervals: [N, 2] (ρ_min, ρ_max).
        shares: [N] ρ that was shown; it may lie outside the interval.
        num_steps: [N] n.
        right: [N] of bool.
    """
    low, high = intervals.T
    most = np.maximum(np.ceil(high * num_steps) - 1, 0)
    is_refuted = steps_shown(shares, num_steps) >= most
    after_failure = np.stack([np.maximum(low, shares), np.where(is_refuted, 1.0, high)], 1)
    after_success = np.stack([np.zeros_like(shares), shares], 1)
    return np.where(right[:, None], after_success, after_failure)


class PrefixAdaptive(Curriculum):
    """First steps as input, as many as the student needs, measured by its own continuations; whole in the end."""

    Settings = PrefixAdaptiveSettings

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.examples: ExampleTable
        self.problems: Sequence[Problem] = ()
        self.prefixes: PrefixStages
        self.num_measuring = 0
        """Epochs before the last one that shows prefixes."""

    @property
    def follows_student(self) -> bool:
        return self.num_stages > 0

    def uses(self, key: str) -> bool:
        return key == "curriculum"

    @property
    def num_stages(self) -> int:
        """T: epochs that show prefixes; 0: no curriculum."""
        settings: PrefixAdaptiveSettings = self.settings
        if settings.whole_from == 0 or settings.whole == 1:
            return 0
        return max(1, int(round(settings.whole_from * self.config.optim.epochs, 6)))

    def stages(self, context: Any) -> Stages:
        if not self.num_stages:
            return super().stages(context)
        optim = self.config.optim
        self.examples, self.problems = context.examples, context.problems
        self.prefixes = PrefixStages(self.examples.num_steps, self.num_stages, self.settings, self.config.seed)
        of_an_epoch = -(-len(self.examples) // optim.batch_size)
        trained = optim.epochs if optim.steps is None else -(-optim.steps // of_an_epoch)
        self.num_measuring = min(self.num_stages, trained) - 1
        if optim.tokens is None and trained <= self.num_stages:
            context.say(
                f"the training ends before rationales are whole: prefix_adaptive.whole_from={self.settings.whole_from} "
                f"shows prefixes in {self.num_stages} epochs, and it has {trained}"
            )
        return self.prefixes

    def after_epoch(self, student: "Student", epoch: int) -> None:
        """Let the student finish some rationales from the steps that it was shown, and move their intervals.

        Not where no later epoch shows prefixes.
        """
        if epoch >= self.num_measuring or (epoch + 1) % self.settings.measure_every:
            return
        from kpod_lightning.curricula.successes import successes
        from kpod_lightning.distributed.console import say

        began, positions = time.monotonic(), self.prefixes.to_measure(epoch)
        examples = [self.examples[i] for i in positions.tolist()]
        wanted = {example.key[0] for example in examples}
        by_id = {problem.id: problem for problem in self.problems if problem.id in wanted}
        problems, input_steps = [by_id[example.key[0]] for example in examples], self.prefixes.input_steps(epoch)
        right = successes(student, examples, problems, input_steps[positions], self.config.evaluation)
        self.prefixes.learn(epoch, positions, right)
        say(
            f"{len(positions)} of {len(self.examples)} rationales finished from their shown steps: {right.mean():.1%} "
            f"right; measured in {time.monotonic() - began:.1f} s"
        )

    def describe(self, folder: Path) -> "Sequence[Section]":
        from kpod_lightning.evaluation.sections import Section, Table
        from kpod_lightning.store.json_lines import load_jsonl

        # Only of a finished training: W&B takes a table once.
        if not self.num_stages or not (folder / "student").is_dir() or not (folder / "metrics.jsonl").is_file():
            return []
        names = [f"prefix_adaptive/{name}" for name in ("mean_shown", "mean_low", "mean_high", "success")]
        rows = [row for row in load_jsonl(folder / "metrics.jsonl") if names[0] in row]
        columns = {
            "epoch": "d",
            "steps shown": ".1%",
            "mean ρ_min": ".3f",
            "mean ρ_max": ".3f",
            "right, measured before": ".1%",
        }
        cells = tuple((row["epoch"] + 1, *(row.get(name) for name in names)) for row in rows)
        return [
            Section(
                "Adaptive prefixes",
                (
                    f"In the first {self.num_stages} epochs the first steps of a rationale were input, as many as the "
                    "student needed to reach its answer; later all rationales were whole. The table has the mean share "
                    "of a rationale's steps that was shown, the mean interval that shares were drawn from, and how "
                    "many of the rationales that were measured before the epoch the student had finished right.",
                ),
                table=Table("prefix-adaptive", columns, cells),
            )
        ]
