"""A study: arms, seeds and comparisons that a file names beforehand, and the runs that they come to."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from kpod_lightning.config import LARGEST_SEED, LaunchConfig, RunConfig
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.published import accuracy_in_percent, row_names
from kpod_lightning.store.bounds import shortened
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.reading import kind_of, read_yaml, shown
from kpod_lightning.store.typed import fitted

NAMED = "study.json"
"""What was named beforehand, beside the run folders; `kpod study` writes it."""

EXPERIMENT = "experiment="
"""The one word of a grid that is no setting."""

ARM = re.compile(r"[\w.+=-]+")
"""An arm's name is part of the names of its run folders."""


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """The keys of a study file. Settings are words of a command line, such as ``method=plain``."""

    about: str = ""
    """What it asks, in a sentence; stands above its table."""
    experiment: str = ""
    """The experiment of all arms, relative to the study file; ``grid`` may have several instead."""
    seeds: list[int] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    """Of all arms."""
    arms: dict[str, list[str]] = field(default_factory=dict)
    """Settings of each arm beside those of all."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Every arm is run with every combination of what stands here: setting (or ``experiment``) -> list of its values;
    or any word -> mapping of names to settings that go together, such as ``gsm8k: [experiment=../gsm8k.yaml]``."""
    family: Any = field(default_factory=list)
    """Pairs [A, B] of arms whose difference B − A is tested, in each combination of the grid; or a mapping of questions
    to such pairs. Holm's correction is over all of them, or over those of a question, so they are named before the runs
    are made."""
    published: dict[str, str] = field(default_factory=dict)
    """Arm -> row of the paper's tables (``assets/published.yaml``): its number of the arm's student and data set stands
    beside ours where there is one."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the study's table: an experiment with settings, over all seeds."""

    name: str
    experiment: Path
    settings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of an arm."""

    arm: Arm
    seed: int
    folder: Path

    @property
    def settings(self) -> list[str]:
        return [*self.arm.settings, f"seed={self.seed}"]

    @property
    def words(self) -> list[str]:
        """What stands behind ``kpod``."""
        return ["run", str(self.arm.experiment), "--run", str(self.folder), *self.settings]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study file asks for.

    Attributes:
        folder: of its run folders, which are named ARM-sSEED.
        family: pairs of arms' names, A before B; a third word is the question that the pair belongs to.
        published: arm -> the paper's accuracy in %, of those that it has.
        configs: arm -> its settings as they are read, with the first seed.
    """

    name: str
    about: str
    folder: Path
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    family: tuple[tuple[str, ...], ...]
    published: dict[str, float] = field(default_factory=dict)
    configs: dict[str, RunConfig] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that whole comparisons are there early."""
        return [
            PlannedRun(arm=arm, seed=seed, folder=self.folder / f"{arm.name}-s{seed}")
            for seed in self.seeds
            for arm in self.arms
        ]

    def only(self, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> "Study":
        """The study with some of its arms and seeds alone, for running; what was named stays that of the whole.

        Raises:
            InputError: an arm or a seed that it does not have.
        """
        names = [arm.name for arm in self.arms]
        for what, asked, there in (("arm", arms, names), ("seed", seeds, list(self.seeds))):
            unknown = [each for each in asked or () if each not in there]
            if unknown:
                raise InputError(
                    f"{self.name}: {shortened(unknown[0])} is no {what} of it; {', '.join(map(str, there))} are"
                )
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arms is None or arm.name in arms),
            seeds=tuple(seed for seed in self.seeds if seeds is None or seed in seeds),
        )

    def as_dict(self) -> dict[str, Any]:
        """What was named beforehand, as a study folder keeps it."""
        arms = {arm.name: [str(arm.experiment), *arm.settings] for arm in self.arms}
        family = [list(pair) for pair in self.family]
        return {"arms": arms, "seeds": list(self.seeds), "family": family, "published": self.published}


def load_study(path: Path, settings: list[str], folder: Path | None = None) -> Study:
    """A study file with the settings of the command line, which come last and win; those of every arm are checked.

    Args:
        folder: of the runs; None: ``runs/`` and the file's name.

    Raises:
        InputError: no such file, a key that there is not, an arm whose settings contradict each other, two arms of one
            name, a comparison of an arm that is not there.
    """
    path = study_file(path)
    written = read_yaml(path)
    if not isinstance(written, dict):
        raise InputError(f"{shown(path)}: a mapping of a study's keys is expected, not a {kind_of(written)}")
    try:
        file = StudyFile(**fitted(StudyFile, written))
        arms = arms_of(file, path.parent, settings)
        configs = configs_of([arm for cell in arms.values() for arm in cell.values()], seeds_of(file)[0])
        study = Study(
            name=path.stem,
            about=file.about,
            folder=folder or Path("runs") / path.stem,
            arms=tuple(arm for cell in arms.values() for arm in cell.values()),
            seeds=seeds_of(file),
            family=tuple(pair for cell in arms.values() for pair in family_of(file, cell)),
            published=published_of(file, arms, configs),
            configs=configs,
        )
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from error
    return study


def study_file(path: Path) -> Path:
    """The file of a study: ``path``, or the one shipped under this name, e.g. ``quick``.

    Raises:
        InputError: there is no such file, and no shipped study has this name.
    """
    shipped = {file.stem: file for file in sorted((ASSETS / "experiments" / "studies").glob("*.yaml"))}
    if not os.path.lexists(path) and str(path) not in shipped:
        raise InputError(f"{shown(path)}: no such study; write a file's path or a name among {', '.join(shipped)}")
    return path if os.path.lexists(path) else shipped[str(path)]


def seeds_of(file: StudyFile) -> tuple[int, ...]:
    """
    Raises:
        InputError: none, one twice, or one that is no seed.
    """
    if not file.seeds or len(set(file.seeds)) < len(file.seeds):
        raise InputError("seeds are a list of different numbers, such as [0, 1, 2]")
    wrong = [seed for seed in file.seeds if not 0 <= seed <= LARGEST_SEED]
    if wrong:
        raise InputError(f"seeds: {shortened(wrong[0])} is not from 0 to {LARGEST_SEED}")
    return tuple(file.seeds)


def arms_of(file: StudyFile, beside: Path, settings: list[str]) -> dict[str, dict[str, Arm]]:
    """Combination of the grid -> name in the file -> arm. Without a grid there is one combination, "".

    Args:
        beside: the folder that experiments are relative to.
        settings: of the command line.

    Raises:
        InputError: a name that no folder can have, or that two arms would have; no experiment.
    """
    if not file.arms:
        raise InputError("arms are missing: a mapping such as plain: [method=plain]")
    wrong = [name for name in file.arms if not ARM.fullmatch(name)]
    if wrong:
        raise InputError(f"arms.{shortened(wrong[0])}: a name has letters, digits, - . + = and _ alone")
    found: dict[str, dict[str, Arm]] = {}
    for combination in product(*(axis_of(key, values) for key, values in file.grid.items())):
        suffix = "".join(f"-{name}" for name, _ in combination)
        if suffix in found:
            raise InputError(f"grid: two combinations are named {suffix[1:]}")
        words = [word for _, own in combination for word in own]
        experiments = [word.removeprefix(EXPERIMENT) for word in words if word.startswith(EXPERIMENT)]
        experiment = (experiments or [file.experiment])[-1]
        if not experiment:
            raise InputError("experiment is missing: a file such as ../arithmetic.yaml, relative to the study")
        common = [*file.settings, *(word for word in words if not word.startswith(EXPERIMENT))]
        path = Path(os.path.normpath(beside / experiment))
        found[suffix] = {
            name: Arm(name=f"{name}{suffix}", experiment=path, settings=(*common, *own, *settings))
            for name, own in file.arms.items()
        }
    if not found:
        raise InputError("grid: every entry there needs a value")
    names = [arm.name for cell in found.values() for arm in cell.values()]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two arms are named {twice[0]}")
    return found


def axis_of(key: str, values: Any) -> list[tuple[str, list[str]]]:
    """One entry of the grid: the name of each of its values, and the settings that it stands for.

    Raises:
        InputError: it is neither a list of values nor a mapping of names to lists of settings.
    """
    if isinstance(values, list) and not any(isinstance(value, list | dict) for value in values):
        return [(named(key, value), [f"{key}={word_of(value)}"]) for value in values]
    if not isinstance(values, dict) or not all(isinstance(words, list) for words in values.values()):
        raise InputError(f"grid.{key} is a list of values, or a mapping of names to lists of settings")
    wrong = [name for name in values if not ARM.fullmatch(str(name))]
    if wrong:
        raise InputError(f"grid.{key}.{shortened(wrong[0])}: a name has letters, digits, - . + = and _ alone")
    return [(str(name), [str(word) for word in words]) for name, words in values.items()]


def word_of(value: Any) -> str:
    """A value of the grid as the command line has it."""
    return {True: "true", False: "false", None: "null"}[value] if isinstance(value, bool | None) else str(value)


def named(key: str, value: Any) -> str:
    """A value of the grid in the name of an arm: a word stands for itself, a number beside the name of its setting."""
    if isinstance(value, str):
        text = Path(value).stem if f"{key}=" == EXPERIMENT else value
        return re.sub(r"[^\w.+=-]+", "-", text)
    return f"{key.rpartition('.')[2]}={word_of(value)}"


def family_of(file: StudyFile, cell: dict[str, Arm]) -> list[tuple[str, ...]]:
    """The comparisons of one combination of the grid.

    Raises:
        InputError: no pair, an arm that is not there, or a pair twice in one question.
    """
    questions = file.family if isinstance(file.family, dict) else {"": file.family}
    found: list[tuple[str, ...]] = []
    for question, family in questions.items():
        if not isinstance(family, list) or not all(isinstance(pair, list) for pair in family):
            raise InputError(
                "family is a list of pairs of arms such as [plain, kpod], or a mapping of questions to such"
            )
        pairs: list[list[str]] = []
        for pair in family:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise InputError(f"family: a pair of two arms such as [plain, kpod], got {shortened(pair)}")
            unknown = [name for name in pair if name not in cell]
            if unknown:
                raise InputError(f"family: {shortened(unknown[0])} is none of the arms {', '.join(cell)}")
            if sorted(pair) in [sorted(other) for other in pairs]:
                raise InputError(f"family: {pair[0]} and {pair[1]} are compared twice")
            pairs.append(pair)
        found += [(cell[a].name, cell[b].name, *([str(question)] if question else [])) for a, b in pairs]
    return found


def configs_of(arms: list[Arm], seed: int) -> dict[str, RunConfig]:
    """The settings of every arm by its name, read as its runs will.

    Raises:
        InputError: they are wrong; the line names the arm.
    """
    found = {}
    for arm in arms:
        try:
            found[arm.name] = load_experiment(arm.experiment, [*arm.settings, f"seed={seed}"])
        except InputError as error:
            raise InputError(f"arm {arm.name}: {error}") from error
    return found


def published_of(file: StudyFile, arms: dict[str, dict[str, Arm]], configs: dict[str, RunConfig]) -> dict[str, float]:
    """Arm -> accuracy in % that the paper has for its row, student and data set.

    Raises:
        InputError: an arm that is not there, or a row that the paper does not have.
    """
    unknown = [name for name in file.published if name not in file.arms]
    if unknown:
        raise InputError(f"published: {shortened(unknown[0])} is none of the arms {', '.join(file.arms)}")
    rows = [row for row in file.published.values() if row not in row_names()]
    if rows:
        raise InputError(f"published: {shortened(rows[0])} is none of the paper's rows {', '.join(row_names())}")
    found = {}
    for cell in arms.values():
        for name, row in file.published.items():
            config = configs[cell[name].name]
            number = accuracy_in_percent(config.student.name, row, config.data.dataset)
            if number is not None:
                found[cell[name].name] = number
    return found


def devices_of(launch: LaunchConfig) -> int:
    """GPUs that a run takes of its machine, if it has any."""
    return 0 if launch.accelerator == "cpu" else launch.devices or 1
