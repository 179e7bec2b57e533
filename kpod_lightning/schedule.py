"""The in-rationale schedule: budget, clusters, value function and selection; input steps per stage (Eqs. 9-13)."""

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kpod_lightning.errors import InputError

SOLVERS = ("greedy", "ftgp", "exact")
STARTS = ("selected", "last_steps", "uniform")

FTGP_EPSILON = 0.1
"""ε of the paper's solver, whose promise is 1/2 − O(ε) of the optimum."""

MAX_SWAPS = 200
"""Swaps tried after a merge. A few are enough: each one leaves a far smaller part of the budget."""

FEW = 200
"""Up to this many questions FTGP costs nothing, and is one more start for the swaps."""

COVERS = 50
"""Cuts added to the exact program before it gives up on sets within its tolerance of the budget."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Questions chosen at one stage, and what proves how good the choice is.

    ``indices`` [|S|] are sorted; ``cost`` = ΔH(S), in the unit of the costs, never above the budget;
    ``value`` = cost + β Σ_k sqrt(|C_k ∩ S|), Eq. 12 without its constant; ``upper_bound`` ≥ the best possible value.
    """

    indices: np.ndarray
    value: float
    upper_bound: float
    cost: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """How many steps of each rationale are input, by stage: row t of ``input_steps`` is c_i(t), the last one is 0.

    With T stages and N rationales: ``keys`` (problem_id, sample) and ``clusters`` [N] name the columns. ``asked``
    is H(t) = Σ_i h_i after the choice of row t and ``budgets`` is D(t), both [T + 1] in nats; ``total`` is B.
    ``values`` and ``upper_bounds`` [T + 1] are those of the row's selection, both 0 where there was none; row 0
    holds those of its first round, see ``build_schedule``.
    """

    keys: tuple[tuple[str, int], ...]
    input_steps: np.ndarray
    clusters: np.ndarray
    asked: np.ndarray
    budgets: np.ndarray
    values: np.ndarray
    upper_bounds: np.ndarray
    total: float

    def __post_init__(self) -> None:
        if self.input_steps.ndim != 2 or len(self.input_steps) < 2:
            raise ValueError(f"input_steps is [num_stages + 1, N], got shape {self.input_steps.shape}")
        num_rows, num_rationales = self.input_steps.shape
        if len(self.keys) != num_rationales or self.clusters.shape != (num_rationales,):
            raise ValueError(f"{len(self.keys)} keys, clusters {self.clusters.shape} for {num_rationales} rationales")
        for name in ("asked", "budgets", "values", "upper_bounds"):
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

    def save(self, path: str | Path) -> None:
        """Write an npz file without pickles. The same schedule gives the same bytes."""
        with open(path, "wb") as file:  # a name would get ".npz" appended
            np.savez(
                file,
                problem_ids=np.array([problem_id for problem_id, _ in self.keys], dtype=np.str_),
                samples=np.array([sample for _, sample in self.keys], dtype=np.int64),
                input_steps=self.input_steps,
                clusters=self.clusters,
                asked=self.asked,
                budgets=self.budgets,
                values=self.values,
                upper_bounds=self.upper_bounds,
                total=np.float64(self.total),
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
            keys = zip(arrays.pop("problem_ids").tolist(), arrays.pop("samples").tolist(), strict=True)
            return cls(keys=tuple(keys), total=float(arrays.pop("total")), **arrays)
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


def select_questions(
    costs: ArrayLike, clusters: ArrayLike, budget: float, diversity: float = 12.0, solver: str = "greedy"
) -> Selection:
    """Choose the questions whose next steps are asked from now on: maximise Eq. 12 under Eq. 13's knapsack.

    The constant −ΔD of Eq. 12 is left out: value / optimum means something only without it. Free questions are
    always taken, those dearer than the budget never; the cost is exactly rounded (``math.fsum``), whatever the order.
    ``greedy`` reaches at least half of the optimum, and by its bound 0.9999 of it on thousands of questions; ``ftgp``
    is the paper's solver; ``exact`` is an integer program, for small sets.

    Args:
        costs: [N] ΔH of each question, not negative.
        clusters: [N] label of each question's cluster, integers.
        budget: ΔD(t), in the unit of the costs; if it is negative nothing is chosen.
        diversity: β, in the unit of the costs, not negative.
        solver: ``greedy``, ``ftgp`` or ``exact``.

    Raises:
        ValueError: a shape is wrong, a number is negative or not finite, or there is no such solver.
    """
    costs, clusters = np.asarray(costs, dtype=np.float64), np.asarray(clusters)
    if costs.ndim != 1 or clusters.shape != costs.shape:
        raise ValueError(f"costs and clusters are both [N], got shapes {costs.shape} and {clusters.shape}")
    if clusters.size and clusters.dtype.kind not in "iu":
        raise ValueError(f"clusters are integers, got {clusters.dtype}")
    if not (np.isfinite(costs) & (costs >= 0)).all():
        raise ValueError(f"costs are finite and not negative, got {costs[~(np.isfinite(costs) & (costs >= 0))][0]}")
    if math.isnan(budget):
        raise ValueError("the budget is NaN")
    if not 0 <= diversity < math.inf:
        raise ValueError(f"diversity is finite and not negative, got {diversity}")
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r} is none of {', '.join(SOLVERS)}")

    _, labels = np.unique(clusters, return_inverse=True)
    order = np.lexsort((costs, labels))
    order = order[costs[order] <= budget]
    if not order.size:
        return Selection(indices=order, value=0.0, upper_bound=0.0, cost=0.0)
    problem = _Knapsack(costs[order], labels[order], float(budget), float(diversity))
    everything = np.ones(order.size, dtype=bool)
    if problem.cost(everything) <= budget:
        chosen = everything
    elif solver == "ftgp":
        chosen = ftgp(costs, labels, budget, diversity)[order]
    else:
        dearest = problem.costs == 0
        dearest[np.argmax(problem.costs)] = True
        starts = [problem.fill(problem.costs == 0), problem.fill(dearest)]
        if order.size <= FEW:
            starts.append(ftgp(costs, labels, budget, diversity)[order])
        solutions = [problem.improve(start) for start in starts]
        if solver == "exact":  # in front: it wins ties, and losing means that the solver's tolerance left something
            solutions.insert(0, problem.solve())
        chosen = max(solutions, key=problem.value)
    value = problem.value(chosen)
    return Selection(
        indices=np.sort(order[chosen]),
        value=value,
        upper_bound=max(value, problem.upper_bound()),
        cost=problem.cost(chosen),
    )


def _root_gain(counts: np.ndarray) -> np.ndarray:
    """√(m + 1) − √m, in a form that rounding can't make rise with m."""
    return 1.0 / (np.sqrt(counts + 1.0) + np.sqrt(counts))


@dataclass(frozen=True, eq=False)
class _Knapsack:
    """The questions that fit into the budget one by one, sorted by cluster (0, 1, ...), then by cost.

    A set of them is a mask over this order. The m-th question taken from a cluster gains β(√m − √(m − 1)), whichever
    it is, so within a cluster the densest next one is always the cheapest.
    """

    costs: np.ndarray
    cluster: np.ndarray
    budget: float
    diversity: float

    def counts(self, taken: np.ndarray) -> np.ndarray:
        return np.bincount(self.cluster[taken], minlength=int(self.cluster[-1]) + 1)

    def cost(self, taken: np.ndarray) -> float:
        return math.fsum(self.costs[taken].tolist())

    def value(self, taken: np.ndarray) -> float:
        spread = math.fsum(np.sqrt(np.bincount(self.cluster[taken])).tolist())
        return self.cost(taken) + self.diversity * spread

    def merge(self, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Questions outside ``taken``, densest first and free ones in front of all, with their gains.

        Density 1 + gain / cost falls within a cluster, so one stable sort of all is the merge of the clusters. The 1
        is left out: it would only round away small differences.
        """
        outside = np.flatnonzero(~taken)
        cluster, costs = self.cluster[outside], self.costs[outside]
        rank = np.arange(outside.size) - np.searchsorted(cluster, cluster)
        gains = self.diversity * _root_gain(self.counts(taken)[cluster] + rank)
        order = np.argsort(-_ratio(gains, costs, math.inf), kind="stable")
        return outside[order], gains[order]

    def fill(self, taken: np.ndarray) -> np.ndarray:
        """Add the densest question while it fits; close a cluster whose next one does not: the others are dearer."""
        taken = taken.copy()
        queue, _ = self.merge(taken)
        while queue.size:
            spent = self.cost(taken) + np.cumsum(self.costs[queue])
            num_fitting = int(np.searchsorted(spent, self.budget, side="right"))
            taken[queue[:num_fitting]] = True
            while self.cost(taken) > self.budget:  # the running sum was rounded
                num_fitting -= 1
                taken[queue[num_fitting]] = False
            queue = queue[num_fitting:]
            queue = queue[self.cluster[queue] != self.cluster[queue[:1]]]
        return taken

    def improve(self, taken: np.ndarray) -> np.ndarray:
        """Make the best swap of one taken for one other question, or the best addition, until none helps.

        For a question that leaves and a cluster to enter from, the best is the dearest that fits: the change of
        diversity depends on the two clusters alone.
        """
        taken = taken.copy()
        # One rounding more than is left: a swap that fits exactly must not be missed, and each is checked in the end.
        rounding = np.spacing(self.budget)
        slack = self.budget - self.cost(taken) + rounding
        least = 1e-14 * self.value(taken)  # smaller changes are rounding, and could go round in a circle
        for _ in range(MAX_SWAPS):
            counts, inside = self.counts(taken), np.flatnonzero(taken)
            gains = self.diversity * _root_gain(counts)
            losses = self.diversity * _root_gain(np.maximum(counts - 1, 0))
            # In front of those that may leave stands nobody, at no cost: an addition is a swap too.
            leaving = np.concatenate(([0.0], self.costs[inside]))
            origin = np.concatenate(([-1], self.cluster[inside]))
            lost = np.concatenate(([0.0], losses[self.cluster[inside]]))
            best, swap = least, None
            for cluster, gain in enumerate(gains):
                outside = np.flatnonzero(~taken & (self.cluster == cluster))
                if not outside.size:
                    continue
                place = np.searchsorted(self.costs[outside], leaving + slack, side="right") - 1
                change = self.costs[outside[place]] - leaving + np.where(origin == cluster, 0.0, gain - lost)
                change[place < 0] = -math.inf
                first = int(np.argmax(change))
                if change[first] > best:
                    best, swap = change[first], (first, outside[place[first]])
            if swap is None:
                break
            leaver, enters = swap
            trial = taken.copy()
            trial[enters] = True
            if leaver:
                trial[inside[leaver - 1]] = False
            total = self.cost(trial)
            if total > self.budget:
                slack -= rounding
            else:
                taken, slack = trial, self.budget - total + rounding
        return taken

    def upper_bound(self) -> float:
        """A value that no feasible set exceeds: all of the budget, and the best spread over the clusters for it.

        The spread is relaxed to a separable concave function over convex costs, whose optimum takes fractions of
        questions in the order of the merge. Rounded outwards.
        """
        queue, gains = self.merge(np.zeros(self.costs.size, dtype=bool))
        costs = self.costs[queue]
        left = self.budget - np.concatenate(([0.0], np.cumsum(costs)[:-1]))
        shares = np.clip(_ratio(left, costs, 1.0), 0.0, 1.0)
        bound = min(self.budget, math.fsum(costs.tolist())) + math.fsum((gains * shares).tolist())
        return bound * (1 + 1e-12 + costs.size * sys.float_info.epsilon)

    def solve(self) -> np.ndarray:
        """Optimal set, by an integer program: x_i takes question i, z_km counts the m-th taken from cluster k.

        Σ_m z_km = Σ_i x_i over the cluster; gains fall with m, so that z fills in order by itself.

        Raises:
            RuntimeError: the program was not solved.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow import
        from scipy.sparse import csr_array, hstack

        num = self.costs.size
        gains = self.diversity * _root_gain(np.arange(num) - np.searchsorted(self.cluster, self.cluster))
        # The solver's tolerances are absolute: the budget becomes 1, the optimum about 1000.
        shares, scale = self.costs / self.budget, 1e3 / self.upper_bound()
        membership = csr_array((np.ones(num), (self.cluster, np.arange(num))))
        counted = LinearConstraint(hstack([membership, -membership], format="csr"), 0, 0)
        within = np.concatenate((shares, np.zeros(num)))
        limit, covers = 1.0, list[LinearConstraint]()
        while True:
            result = milp(
                -scale * np.concatenate((self.costs, gains)),
                integrality=np.repeat([1, 0], num),
                bounds=Bounds(np.concatenate((self.costs == 0, np.zeros(num))), 1),
                constraints=[counted, LinearConstraint(within, -np.inf, limit), *covers],
                options={"mip_rel_gap": 0},
            )
            if result.x is None:
                raise RuntimeError(f"the exact selection of {num} questions failed: {result.message}")
            taken = result.x[:num] > 0.5
            if self.cost(taken) <= self.budget:
                return taken
            # Over the budget by less than the solver's tolerance. As many questions, each in the set or at least as
            # dear as its dearest, cost no less: all such sets are cut off at once.
            cover = taken | (self.costs >= self.costs[taken].max())
            covers.append(LinearConstraint(np.concatenate((cover, np.zeros(num))), -np.inf, taken.sum() - 1))
            if len(covers) > COVERS:
                limit -= 1e-7


def _ratio(top: np.ndarray, bottom: np.ndarray, at_zero: float) -> np.ndarray:
    """top / bottom, ``at_zero`` where the bottom is 0, infinite where the quotient is too large."""
    with np.errstate(over="ignore"):
        return np.divide(top, bottom, out=np.full(bottom.shape, at_zero), where=bottom > 0)


def ftgp(
    costs: np.ndarray, clusters: np.ndarray, budget: float, diversity: float, epsilon: float = FTGP_EPSILON
) -> np.ndarray:
    """The paper's solver: density thresholds that fall by 1 − ε (Li et al., NeurIPS 2022), for the shifted Eq. 12.

    A reconstruction with the same promise, 1/2 − O(ε) of the optimum, and O(n/ε log 1/ε) evaluations. One pass
    estimates the optimum within a factor of 8. Then each pass adds, in the given order, what is as dense as its
    threshold and fits, and proposes the set so far, and that set with the one question of the largest gain that fits.

    Args:
        costs: [N] not negative; free questions are taken, those dearer than the budget dropped.
        clusters: [N] labels 0, 1, ...
        budget: ΔD(t), in the unit of the costs.
        diversity: β.
        epsilon: ε in (0, 1/2).

    Returns:
        [N] mask of the chosen questions.
    """
    cost, label = costs.tolist(), clusters.tolist()
    chosen = (costs == 0) & (costs <= budget)
    at_start = np.bincount(clusters[chosen], minlength=max(label, default=0) + 1).tolist()
    questions = np.flatnonzero((costs > 0) & (costs <= budget)).tolist()
    if not questions:
        return chosen
    spreads = (diversity * _root_gain(np.arange(len(cost) + 1))).tolist()

    counts, total, added = at_start.copy(), 0.0, []
    for u in questions:
        gain = cost[u] + spreads[counts[label[u]]]
        if gain >= cost[u] / budget * total:
            added.append(u)
            counts[label[u]] += 1
            total += gain
    counts, level, room = at_start.copy(), 0.0, budget
    for u in reversed(added):
        if cost[u] > room:
            break
        level += cost[u] + spreads[counts[label[u]]]
        counts[label[u]] += 1
        room -= cost[u]
    singles = {u: cost[u] + spreads[at_start[label[u]]] for u in questions}
    single = max(singles, key=singles.__getitem__)
    level = max(level, singles[single])

    taken: list[int] = []
    counts, total, spent = at_start.copy(), 0.0, 0.0

    def fits(u: int) -> bool:
        if abs(spent + cost[u] - budget) > 1e-9 * budget:
            return spent + cost[u] < budget
        return math.fsum(cost[v] for v in (*taken, u)) <= budget  # too near for a running sum

    best, proposal = singles[single], [single]
    num_passes = 1 + math.ceil(math.log(16 / epsilon) / -math.log(1 - epsilon))
    for index in range(num_passes):  # the last threshold is at most level / (2 budget)
        threshold = 8 * level / epsilon * (1 - epsilon) ** index
        rest = []
        for u in questions:
            if not fits(u):
                continue  # nor will it later
            gain = cost[u] + spreads[counts[label[u]]]
            if gain >= threshold * (cost[u] / budget):
                taken.append(u)
                counts[label[u]] += 1
                total += gain
                spent += cost[u]
            else:
                rest.append(u)
        questions = [u for u in rest if fits(u)]
        if total > best:
            best, proposal = total, taken.copy()
        gains = {u: cost[u] + spreads[counts[label[u]]] for u in questions}
        if not gains:
            break
        extra = max(gains, key=gains.__getitem__)
        if total + gains[extra] > best:
            best, proposal = total + gains[extra], [*taken, extra]
    chosen[proposal] = True
    return chosen


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


class _Steps:
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


def build_schedule(
    difficulties: Sequence[ArrayLike],
    clusters: ArrayLike,
    num_stages: int,
    *,
    keys: Sequence[tuple[str, int]] | None = None,
    initial_fraction: float = 0.3,
    growth_exponent: float = 0.5,
    diversity: float = 12.0,
    solver: str = "greedy",
    step_size: int | None = None,
    start: str = "selected",
) -> Schedule:
    """The whole schedule up front: c_i(t) of every rationale at every stage (Eqs. 9-13, Algorithm 1).

    Stages 1..T − 1 each make one selection with the budget D(t) − H(t − 1), so what one leaves carries over; a chosen
    question's c_i falls by Δ_s, never below 0 (Eq. 11). From stage T on all c_i are 0.

    The paper does not say how c_i(0) is found. ``selected``: from c_i = n_i the same selection is made in rounds until
    C_0 is filled, so H(0) ≤ C_0; row 0 certifies the first round, the others fill what it left. ``last_steps``, the
    paper's words: everyone's last step. ``uniform``: everyone's last ⌈C_0 / B · n_i⌉ steps. The last two select
    nothing, and may ask more than C_0; then nobody moves until D(t) has passed H.

    Args:
        difficulties: N arrays [n_i] of step difficulties d_k (Eq. 8), in nats.
        clusters: [N] label of each question's cluster, integers.
        num_stages: T, at least 1.
        keys: [N] (problem_id, sample); the positions if none are given.
        initial_fraction: C_0 / B, see ``difficulty_budget``.
        growth_exponent: p, see ``difficulty_budget``.
        diversity: β, see ``select_questions``.
        solver: see ``select_questions``.
        step_size: Δ_s, steps a question moves a stage. Default: the 95th percentile of n_i / T, rounded up, so that few
            questions are left to jump at stage T.
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
    for (problem_id, sample), array in zip(keys, arrays, strict=True):
        name = f"rationale {sample} of problem {problem_id}"
        if array.ndim != 1:
            raise ValueError(f"{name}: difficulties are [n_i], got shape {array.shape}")
        if not array.size:
            raise InputError(f"{name}: no steps; drop it")
        if not (np.isfinite(array) & (array >= 0)).all():
            raise InputError(f"{name}: step difficulties {array.tolist()} are not all finite and >= 0; drop it")
    steps = _Steps(arrays)
    lengths = steps.lengths
    if step_size is None:
        step_size = max(1, math.ceil(np.percentile(lengths, 95) / num_stages))
    if step_size < 1:
        raise ValueError(f"step_size is positive, got {step_size}")

    def advance(current: np.ndarray, target: float) -> tuple[np.ndarray, Selection]:
        """One selection from the state ``current``, after which H is at most ``target`` or as before."""
        able = np.flatnonzero(current)
        moved = np.maximum(current - step_size, 0)
        costs = steps.between(able, moved[able], current[able])
        before = steps.asked(current)
        # Rounding in D − H must not keep the last question back where all of them fit.
        budget = math.inf if steps.asked(moved) <= target else target - before
        while True:
            selection = select_questions(costs, clusters[able], budget, diversity, solver)
            chosen, after = able[selection.indices], current.copy()
            after[chosen] = moved[chosen]
            if steps.asked(after) <= max(before, target):
                return after, selection
            budget -= np.spacing(target)  # D − H was rounded up

    total = math.fsum(steps.flat.tolist())
    stages = range(num_stages + 1)
    budgets = [difficulty_budget(t, num_stages, total, initial_fraction, growth_exponent) for t in stages]
    certificates: list[tuple[float, float]] = []
    if start == "selected":
        current = lengths
        while True:
            current, selection = advance(current, budgets[0])
            certificates = certificates or [(selection.value, selection.upper_bound)]
            if not selection.indices.size:
                break
    else:
        # 0.07 · 100 is a little above 7: without rounding first it would be 8.
        uniform = np.ceil(np.round(initial_fraction * lengths, 9)).astype(np.int64)
        current = lengths - (1 if start == "last_steps" else uniform)
        certificates = [(0.0, 0.0)]
    rows = [current]
    for target in budgets[1:-1]:
        current, selection = advance(current, target)
        rows.append(current)
        certificates.append((selection.value, selection.upper_bound))
    rows.append(np.zeros_like(lengths))
    certificates.append((0.0, 0.0))
    values, upper_bounds = np.array(certificates).T.copy()
    return Schedule(
        keys=tuple(keys),
        input_steps=np.stack(rows),
        clusters=clusters,
        asked=np.array([steps.asked(row) for row in rows]),
        budgets=np.array(budgets),
        values=values,
        upper_bounds=upper_bounds,
        total=total,
    )
