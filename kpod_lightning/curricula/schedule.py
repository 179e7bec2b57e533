"""The in-rationale schedule: budget, clusters, input steps by stage (Eqs. 9-11); knapsack.py chooses questions."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kpod_lightning.config import ScheduleConfig
from kpod_lightning.curricula.knapsack import Selection, select_questions
from kpod_lightning.store.bounds import choices_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key, Keys

STARTS = ("selected", "last_steps", "uniform")

SCALES = choices_of(ScheduleConfig, "diversity_scale")

AUTO = "auto"
"""Step size that ``build_schedule`` chooses."""

SLACK = 0.05
"""``AUTO``: share of D(T − 1) that may be left unasked, and share of the questions that may drop more than Δ_s."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """How many steps of each rationale are input, by stage: row t of ``input_steps`` is c_i(t), the last one is 0.

    With T stages and N rationales: ``keys`` (problem_id, sample) and ``clusters`` [N] name the columns. ``asked``
    is H(t) = Σ_i h_i after the choice of row t and ``budgets`` is D(t), both [T + 1] in nats; ``total`` is B.
    ``values`` and ``upper_bounds`` [T + 1] are those of the row's selection, both 0 where there was none, and
    ``diversity`` [T + 1] is the part of the value that is the diversity's, in nats; a row that was made in several
    rounds holds those of its first one, see ``build_schedule``. ``step_size`` is Δ_s.
    """

    keys: Keys
    input_steps: np.ndarray
    clusters: np.ndarray
    asked: np.ndarray
    budgets: np.ndarray
    values: np.ndarray
    upper_bounds: np.ndarray
    diversity: np.ndarray
    total: float
    step_size: int

    def __post_init__(self) -> None:
        if self.input_steps.ndim != 2 or len(self.input_steps) < 2:
            raise ValueError(f"input_steps is [num_stages + 1, N], got shape {self.input_steps.shape}")
        num_rows, num_rationales = self.input_steps.shape
        if len(self.keys) != num_rationales or self.clusters.shape != (num_rationales,):
            raise ValueError(f"{len(self.keys)} keys, clusters {self.clusters.shape} for {num_rationales} rationales")
        for name in ("asked", "budgets", "values", "upper_bounds", "diversity"):
            if getattr(self, name).shape != (num_rows,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, input_steps has {num_rows} rows")

    @property
    def num_stages(self) -> int:
        return len(self.input_steps) - 1

    @property
    def certificate(self) -> float:
        """Worst value / upper bound over the rows that had something to select; 1 if none had."""
        bounded = self.upper_bounds > 0
        return float(np.min(self.values[bounded] / self.upper_bounds[bounded], initial=1.0))

    @property
    def num_jumping(self) -> int:
        """Questions that still have input steps at stage T − 1 and drop them all at once."""
        return int(np.count_nonzero(self.input_steps[-2]))

    @property
    def num_beyond_step_size(self) -> int:
        """Questions that drop more than Δ_s input steps at stage T, which Eq. (11) allows at no stage before."""
        return int(np.count_nonzero(self.input_steps[-2] > self.step_size))

    @property
    def diversity_share(self) -> float:
        """Share of diversity in the value of the selections, Eq. (12) without its constant; 0 if there was none."""
        return float(self.diversity.sum() / max(self.values.sum(), 1e-300))

    def save(self, path: str | Path) -> None:
        """Write an npz file without pickles. The same schedule gives the same bytes."""
        with open(path, "wb") as file:  # a name would get ".npz" appended
            np.savez(
                file,
                problem_ids=self.keys.ids,
                problem_id_ends=self.keys.ends,
                samples=self.keys.samples,
                input_steps=self.input_steps,
                clusters=self.clusters,
                asked=self.asked,
                budgets=self.budgets,
                values=self.values,
                upper_bounds=self.upper_bounds,
                diversity=self.diversity,
                total=np.float64(self.total),
                step_size=np.int64(self.step_size),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Schedule":
        """Read what ``save`` wrote.

        Raises:
            InputError: the file can't be read, or lacks an array, or its arrays do not fit together.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            keys = Keys(*(arrays.pop(name) for name in ("problem_ids", "problem_id_ends", "samples")))
            total, step_size = float(arrays.pop("total")), int(arrays.pop("step_size"))
            return cls(keys=keys, total=total, step_size=step_size, **arrays)
        except Exception as error:  # a broken archive fails in a dozen ways, and each means the same to its user
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path}: not a schedule ({reason}); compute it again") from error


def difficulty_budget(
    stage: float, num_stages: int, total: float, initial_fraction: float = 0.3, growth_exponent: float = 0.5
) -> float:
    """Difficulty D(t) that stage t may ask, Eq. 10 with u substituted: C_0 + (B − C_0) (t / T)^(p + 1).

    Args:
        stage: t in [0, T].
        num_stages: T, at least 1.
        total: B, the difficulty of all steps; D has its unit. D(T) = B exactly.
        initial_fraction: C_0 / B, a share in [0, 1]; D(0) = C_0 exactly.
        growth_exponent: p in dD/dt = u t^p, positive.

    Raises:
        ValueError: a value lies outside its range.
    """
    if num_stages < 1 or not 0 <= stage <= num_stages:
        raise ValueError(f"stage {stage} of {num_stages} stages")
    if not 0 <= total < math.inf:
        raise ValueError(f"total difficulty {total} is negative or not finite")
    if not 0 <= initial_fraction <= 1:
        raise ValueError(f"initial_fraction is a share in [0, 1], got {initial_fraction}")
    if not 0 < growth_exponent < math.inf:
        raise ValueError(f"growth_exponent is positive, got {growth_exponent}")
    if stage == num_stages:
        return float(total)
    initial = initial_fraction * total
    return initial + (total - initial) * (stage / num_stages) ** (growth_exponent + 1)


def cluster_questions(vectors: ArrayLike, num_clusters: int = 5, seed: int = 0) -> np.ndarray:
    """Clusters C_k of Eq. 12: K-means of the question vectors.

    Fewer questions than clusters are each their own. Equal vectors share a cluster, so there are never more clusters
    than distinct vectors.

    Args:
        vectors: [N, d], one row a question.
        num_clusters: K, at least 1.
        seed: of the ten initialisations, of which the best is kept.

    Returns:
        [N] labels in [0, K).

    Raises:
        ValueError: the shape is wrong, a number is not finite, or K is not positive.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"vectors are [N, d], got shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"vector {int(np.argmin(np.isfinite(vectors).all(axis=1)))} holds NaN or infinity")
    if num_clusters < 1:
        raise ValueError(f"num_clusters is positive, got {num_clusters}")
    if len(vectors) < num_clusters:
        return np.arange(len(vectors))
    from sklearn.cluster import KMeans  # slow import
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Vectors that are equal, or differ by rounding alone, leave clusters empty; those are dropped below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(vectors)
    return np.unique(labels, return_inverse=True)[1]


class Steps:
    """Difficulties of all steps, flat: those of rationale i start at ``starts[i]``, and there are ``lengths[i]``."""

    def __init__(self, difficulties: Sequence[np.ndarray]) -> None:
        self.lengths = np.array([len(d) for d in difficulties], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.flat = np.concatenate(difficulties)
        self.index = np.arange(self.flat.size) - np.repeat(self.starts, self.lengths)

    def asked(self, input_steps: np.ndarray) -> float:
        """H = Σ_i h_i, h_i = Σ_{j > c_i} d_j (Eq. 9; steps count from 1 there, from 0 here), exactly rounded."""
        return math.fsum(self.flat[self.index >= np.repeat(input_steps, self.lengths)].tolist())

    def between(self, rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Difficulty of steps first..last − 1 of the rationales ``rows``; each has one such step at least.

        Sums of the steps themselves: differences of running sums would lose a small step behind a large one.
        """
        ends = np.stack((self.starts[rows] + first, self.starts[rows] + last), axis=1)
        return np.add.reduceat(np.append(self.flat, 0.0), ends.ravel())[::2]


def _check_difficulties(arrays: Sequence[np.ndarray], keys: Sequence[Key]) -> None:
    """Refuse difficulties that are not [n_i] with n_i > 0, finite and not negative.

    All are looked at in one go first, since there may be millions; only a failure is searched for one by one.

    Raises:
        InputError: a rationale has no step, or a difficulty that is negative or not finite.
        ValueError: a shape is wrong.
    """
    if all(array.ndim == 1 and array.size for array in arrays):
        flat = np.concatenate(arrays)
        if (np.isfinite(flat) & (flat >= 0)).all():
            return
    for (problem_id, sample), array in zip(keys, arrays, strict=True):
        name = f"rationale {sample} of problem {problem_id}"
        if array.ndim != 1:
            raise ValueError(f"{name}: difficulties are [n_i], got shape {array.shape}")
        if not array.size:
            raise InputError(f"{name}: no steps; drop it")
        if not (np.isfinite(array) & (array >= 0)).all():
            raise InputError(f"{name}: step difficulties {array.tolist()} are not all finite and >= 0; drop it")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """One row of a schedule while it is built: c_i [N], their H in nats, and the row's (first) selection."""

    input_steps: np.ndarray
    asked: float
    selection: Selection

    @classmethod
    def of(cls, steps: Steps, input_steps: np.ndarray) -> "_Row":
        """A row that nothing was selected for."""
        none = Selection(indices=np.zeros(0, np.int64), value=0.0, upper_bound=0.0, cost=0.0)
        return cls(input_steps=input_steps, asked=steps.asked(input_steps), selection=none)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Advance:
    """How the rationales' input steps c_i fall by one selection, Eqs. (11)-(13).

    ``clusters`` [N], ``step_size`` Δ_s, ``diversity``, ``diversity_scale`` and ``solver`` are those of
    ``build_schedule``.
    """

    steps: Steps
    clusters: np.ndarray
    step_size: int
    diversity: float
    diversity_scale: str
    solver: str

    def beta(self, costs: np.ndarray, clusters: np.ndarray, budget: float) -> float:
        """β of a selection, in nats.

        Where it goes with the budget, all questions that can move have a diversity β Σ_k sqrt(|C_k|) that is
        ``diversity`` times what can be asked: ΔD, or the cost of all of them where that is less.

        Args:
            costs: [M] of the questions that can move.
            clusters: [M] theirs.
            budget: ΔD.
        """
        if self.diversity_scale == "absolute" or not costs.size:
            return self.diversity
        _, sizes = np.unique(clusters, return_counts=True)
        most = max(0.0, min(budget, math.fsum(costs.tolist())))
        return self.diversity * most / math.fsum(np.sqrt(sizes).tolist())

    def __call__(self, before: _Row, target: float, least: np.ndarray) -> _Row:
        """Make one selection. Afterwards H <= max(before, target).

        Args:
            before: whose H is known: most of the time of a large schedule goes into its sum.
            target: D, what may be asked.
            least: [N] c_i that no question goes below.
        """
        current = before.input_steps
        able = np.flatnonzero(current > least)
        moved = np.maximum(current - self.step_size, least)
        costs = self.steps.between(able, moved[able], current[able])
        # Where all of them fit, rounding in D − H must not keep the last question back.
        budget = math.inf if self.steps.asked(moved) <= target else target - before.asked
        beta = self.beta(costs, self.clusters[able], target - before.asked)
        while True:
            selection = select_questions(costs, self.clusters[able], budget, beta, self.solver)
            chosen, after = able[selection.indices], current.copy()
            after[chosen] = moved[chosen]
            asked = self.steps.asked(after)
            if asked <= max(before.asked, target):
                return _Row(input_steps=after, asked=asked, selection=selection)
            budget -= np.spacing(target)  # D − H was rounded up

    def fill(self, before: _Row, target: float, least: np.ndarray) -> _Row:
        """Make selections until nothing more is chosen; the row has the first one.

        Args:
            target: D, what may be asked.
            least: [N] c_i that no question goes below.
        """
        row = first = self(before, target, least)
        while row.selection.indices.size:
            row = self(row, target, least)
        return _Row(input_steps=row.input_steps, asked=row.asked, selection=first.selection)

    def once_a_stage(self, first: _Row, targets: Sequence[float]) -> list[_Row]:
        """Rows 0 to T − 1 where a question moves at most once a stage, by Δ_s, Eq. (11)."""
        rows = [first]
        for target in targets:
            rows.append(self(rows[-1], target, np.zeros_like(first.input_steps)))
        return rows

    def step_by_step(self, first: _Row, targets: Sequence[float], most: int) -> list[_Row]:
        """Rows 0 to T − 1 where a question moves step by step, and at most ``most`` steps a stage."""
        rows = [first]
        for target in targets:
            rows.append(self.fill(rows[-1], target, np.maximum(rows[-1].input_steps - most, 0)))
        return rows


def build_schedule(
    difficulties: Sequence[ArrayLike],
    clusters: ArrayLike,
    num_stages: int,
    *,
    keys: Sequence[Key] | None = None,
    initial_fraction: float = 0.3,
    growth_exponent: float = 0.5,
    diversity: float = 12.0,
    diversity_scale: str = "absolute",
    solver: str = "greedy",
    step_size: int | str | None = None,
    start: str = "selected",
) -> Schedule:
    """The whole schedule up front: c_i(t) of every rationale at every stage (Eqs. 9-13, Algorithm 1).

    Stages 1..T − 1 each make one selection with the budget D(t) − H(t − 1), so what one leaves carries over; a chosen
    question's c_i falls by Δ_s, never below 0 (Eq. 11). From stage T on all c_i are 0.

    The paper does not say how c_i(0) is found. ``selected``: from c_i = n_i the same selection is made in rounds until
    C_0 is filled, so H(0) ≤ C_0; row 0 certifies the first round, the others fill what it left. ``last_steps``, the
    paper's words: everyone's last step. ``uniform``: everyone's last ⌈C_0 / B · n_i⌉ steps. The last two select
    nothing, and may ask more than C_0; then nobody moves until D(t) has passed H.

    ``step_size="auto"``: questions move one step at a time, by as many rounds of the selection as D(t) pays for, and
    Δ_s bounds what a question moves in all of a stage. Δ_s is the smallest with which H(T − 1) reaches 95 % of
    D(T − 1) and less than 5 % of the questions drop more than Δ_s steps at stage T; if none does, the longest n_i.

    Args:
        difficulties: N arrays [n_i] of step difficulties d_k (Eq. 8), in nats.
        clusters: [N] label of each question's cluster, integers.
        num_stages: T, at least 1.
        keys: [N] (problem_id, sample); the positions if none are given.
        initial_fraction: C_0 / B, see ``difficulty_budget``.
        growth_exponent: p, see ``difficulty_budget``.
        diversity: β, see ``select_questions``.
        diversity_scale: ``absolute``, or ``budget``: β of a selection is such that the diversity of all questions that
            can move is ``diversity`` times ΔD, or times their cost where that is less.
        solver: see ``select_questions``.
        step_size: Δ_s, steps a question moves a stage, or ``auto``. Default: the 95th percentile of n_i / T, rounded
            up, so that few questions are left to jump at stage T.
        start: ``selected``, ``last_steps`` or ``uniform``.

    Raises:
        InputError: a rationale has no step, or a difficulty that is negative or not finite.
        ValueError: a shape or a setting is wrong.
    """
    keys = [(str(i), 0) for i in range(len(difficulties))] if keys is None else [(str(p), int(s)) for p, s in keys]
    arrays, clusters = [np.asarray(d, dtype=np.float64) for d in difficulties], np.asarray(clusters)
    if not arrays or clusters.shape != (len(arrays),) or len(keys) != len(arrays):
        raise ValueError(f"{len(arrays)} rationales, {len(keys)} keys, clusters of shape {clusters.shape}")
    if len(set(keys)) < len(keys):
        raise ValueError("two rationales have the same key")
    if num_stages < 1:
        raise ValueError(f"num_stages is positive, got {num_stages}")
    if start not in STARTS:
        raise ValueError(f"start {start!r} is none of {', '.join(STARTS)}")
    if diversity_scale not in SCALES:
        raise ValueError(f"diversity_scale {diversity_scale!r} is none of {', '.join(SCALES)}")
    _check_difficulties(arrays, keys)
    steps = Steps(arrays)
    if step_size is None:
        step_size = max(1, math.ceil(np.percentile(steps.lengths, 95) / num_stages))
    if step_size != AUTO and (isinstance(step_size, str) or step_size < 1):
        raise ValueError(f"step_size is positive or {AUTO}, got {step_size}")

    total = math.fsum(steps.flat.tolist())
    stages = range(num_stages + 1)
    budgets = [difficulty_budget(t, num_stages, total, initial_fraction, growth_exponent) for t in stages]
    advance = _Advance(
        steps=steps,
        clusters=clusters,
        step_size=1 if isinstance(step_size, str) else step_size,
        diversity=diversity,
        diversity_scale=diversity_scale,
        solver=solver,
    )
    first = _first_row(advance, start, budgets[0], initial_fraction)
    if isinstance(step_size, str):
        rows, step_size = _fitting(advance, first, budgets[:-1])
    else:
        rows = advance.once_a_stage(first, budgets[1:-1])
    rows.append(_Row.of(steps, np.zeros_like(steps.lengths)))
    return Schedule(
        keys=Keys.of(keys),
        input_steps=np.stack([row.input_steps for row in rows]),
        clusters=clusters,
        asked=np.array([row.asked for row in rows]),
        budgets=np.array(budgets),
        values=np.array([row.selection.value for row in rows]),
        upper_bounds=np.array([row.selection.upper_bound for row in rows]),
        diversity=np.array([row.selection.value - row.selection.cost for row in rows]),
        total=total,
        step_size=step_size,
    )


def _first_row(advance: _Advance, start: str, target: float, initial_fraction: float) -> _Row:
    """Row 0, c_i(0).

    Args:
        target: C_0.
    """
    lengths = advance.steps.lengths
    if start == "selected":
        return advance.fill(_Row.of(advance.steps, lengths), target, np.zeros_like(lengths))
    asked = 1 if start == "last_steps" else _share_of_steps(lengths, initial_fraction)
    return _Row.of(advance.steps, lengths - asked)


def _fitting(advance: _Advance, first: _Row, budgets: Sequence[float]) -> tuple[list[_Row], int]:
    """Rows 0 to T − 1 and Δ_s, chosen as ``build_schedule`` says.

    Args:
        budgets: [T] D(0) to D(T − 1).
    """
    longest = int(advance.steps.lengths.max())
    for size in range(1, longest + 1):
        rows = advance.step_by_step(first, budgets[1:], size)
        enough = rows[-1].asked >= (1 - SLACK) * budgets[-1]
        if enough and np.mean(rows[-1].input_steps > size) < SLACK:
            break
    return rows, size


def _share_of_steps(lengths: np.ndarray, share: float) -> np.ndarray:
    """[N] ⌈share · n_i⌉. The product is rounded first: 0.07 · 100 is a little above 7 and would become 8."""
    return np.ceil(np.round(share * lengths, 9)).astype(np.int64)
