"""The table of a study: accuracies of its arms, and the comparisons that were named beforehand."""

from dataclasses import dataclass
from statistics import fmean, stdev

from kpod_lightning.evaluation.comparison import Comparison, compare, holm, t_interval
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.runs.study_records import Records, RunRecord
from kpod_lightning.store.errors import InputError

NEARLY = 0.01
"""Arms have equally many tokens, steps or epochs where their means differ by at most this share."""


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm over its finished runs."""

    name: str
    runs: tuple[RunRecord, ...]
    published: float | None = None
    """The paper's accuracy in %, of one run."""

    @property
    def mean(self) -> float:
        return fmean(run.accuracy for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds; None with one."""
        return stdev(run.accuracy for run in self.runs) if len(self.runs) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: Student's t over seeds; with one run Wilson's over problems."""
        if len(self.runs) > 1:
            return t_interval([run.accuracy for run in self.runs])
        return wilson_interval(self.runs[0].right.count("1"), len(self.runs[0].right))

    def average(self, of: str) -> float:
        """Mean over its runs of ``epochs``, ``steps``, ``tokens`` or ``seconds``."""
        return fmean(getattr(run, of) for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """B against A over the seeds that both have."""

    a: ArmRow
    b: ArmRow
    seeds: tuple[int, ...]
    found: Comparison
    adjusted: float
    """p-value by Holm's correction over the comparisons of its question."""
    question: str = ""
    """Empty where the study file does not sort its comparisons by questions."""

    @property
    def equal(self) -> list[str]:
        """In which of epochs, steps and tokens the two are alike."""
        pairs = {of: (self.a.average(of), self.b.average(of)) for of in ("epochs", "steps", "tokens")}
        return [of for of, (one, other) in pairs.items() if abs(one - other) <= NEARLY * max(one, other)]


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """What every form of the table shows.

    Attributes:
        missing: names of comparisons of which no seed has both runs yet.
    """

    records: Records
    arms: tuple[ArmRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    missing: tuple[str, ...]


def table_of(records: Records) -> StudyTable:
    """
    Raises:
        InputError: two runs that are compared have other test problems.
    """
    by_arm = {name: tuple(run for run in records.runs if run.arm == name) for name in records.named["arms"]}
    paper = records.named.get("published", {})
    arms = {name: ArmRow(name=name, runs=runs, published=paper.get(name)) for name, runs in by_arm.items() if runs}
    named = [tuple(pair) for pair in records.named["family"]]
    found = {pair: paired(arms[pair[0]], arms[pair[1]]) for pair in named if pair[0] in arms and pair[1] in arms}
    there = {pair: (seeds, compared) for pair, (seeds, compared) in found.items() if compared is not None}
    adjusted: dict[tuple[str, ...], float] = {}
    for question in dict.fromkeys(question_of(pair) for pair in there):
        asked = [pair for pair in there if question_of(pair) == question]
        adjusted |= zip(asked, holm([there[pair][1].p_value for pair in asked]), strict=True)
    return StudyTable(
        records=records,
        arms=tuple(arms.values()),
        comparisons=tuple(
            ComparisonRow(
                a=arms[pair[0]],
                b=arms[pair[1]],
                seeds=seeds,
                found=compared,
                adjusted=adjusted[pair],
                question=question_of(pair),
            )
            for pair, (seeds, compared) in there.items()
        ),
        missing=tuple(f"{pair[1]} − {pair[0]}" for pair in named if pair not in there),
    )


def question_of(pair: tuple[str, ...]) -> str:
    """The third word of a comparison in a study's family, or "" where it has none."""
    return pair[2] if len(pair) > 2 else ""


def paired(a: ArmRow, b: ArmRow) -> tuple[tuple[int, ...], Comparison | None]:
    """The comparison over the seeds that both arms have; None where there is no such seed.

    Raises:
        InputError: their test problems differ.
    """
    of_a, of_b = ({run.seed: run for run in arm.runs} for arm in (a, b))
    seeds = tuple(seed for seed in of_a if seed in of_b)
    if not seeds:
        return (), None
    if len({arm[seed].problems for arm in (of_a, of_b) for seed in seeds}) > 1:
        raise InputError(f"{a.name} and {b.name} were tested on other problems: they cannot be compared")
    return seeds, compare([of_a[seed].rights() for seed in seeds], [of_b[seed].rights() for seed in seeds])
