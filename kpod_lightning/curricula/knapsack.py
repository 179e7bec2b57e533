"""Selection of questions at one stage: the value function and its solvers (Eqs. 12 and 13)."""

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kpod_lightning.config import ScheduleConfig
from kpod_lightning.store.bounds import choices_of

SOLVERS = choices_of(ScheduleConfig, "solver")

FTGP_EPSILON = 0.1
"""ε of the paper's solver, whose promise is 1/2 − O(ε) of the optimum."""

MAX_SWAPS = 200
"""Swaps tried after the greedy filling. A few are enough: each one leaves a far smaller rest of the budget."""

FEW = 200
"""Up to this many questions FTGP takes no time, so its set is improved by swaps too."""

COVERS = 50
"""Cuts added to the exact program before its budget is lowered: see ``solve``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Questions chosen at one stage, with a bound on the best possible value.

    ``indices`` [|S|] are sorted; ``cost`` = ΔH(S), in the unit of the costs, never above the budget;
    ``value`` = cost + β Σ_k sqrt(|C_k ∩ S|), Eq. 12 without its constant; ``upper_bound`` ≥ the best possible value.
    """

    indices: np.ndarray
    value: float
    upper_bound: float
    cost: float


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
    _check(costs, clusters, budget, diversity, solver)
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
        starts = [ftgp(costs, labels, budget, diversity)[order]] if order.size <= FEW else []
        chosen = problem.best(starts, exact=solver == "exact")
    value = problem.value(chosen)
    return Selection(
        indices=np.sort(order[chosen]),
        value=value,
        upper_bound=max(value, problem.upper_bound()),
        cost=problem.cost(chosen),
    )


def _check(costs: np.ndarray, clusters: np.ndarray, budget: float, diversity: float, solver: str) -> None:
    """Refuse what ``select_questions`` cannot select from.

    Raises:
        ValueError: a shape is wrong, a number is negative or not finite, or there is no such solver.
    """
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

    def best(self, starts: list[np.ndarray], *, exact: bool) -> np.ndarray:
        """The best of several sets: filled greedily, from nothing and from the dearest question, and from ``starts``.

        Args:
            starts: further sets, which are improved by swaps like the greedy ones.
            exact: also solve the integer program.
        """
        dearest = self.costs == 0
        dearest[np.argmax(self.costs)] = True
        starts = [self.fill(self.costs == 0), self.fill(dearest), *starts]
        solutions = [self.improve(start) for start in starts]
        if exact:  # in front, so that it wins ties; it can lose by what the program's tolerance leaves
            solutions.insert(0, self.solve())
        return max(solutions, key=self.value)

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
        """Add the densest question while it fits. Drop a cluster whose next one does not fit: its others cost more."""
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
        # Slack has a rounding error added, so that a swap that fits exactly is not missed; each is checked below.
        rounding = np.spacing(self.budget)
        slack = self.budget - self.cost(taken) + rounding
        least = 1e-14 * self.value(
            taken
        )  # smaller changes are rounding errors, and could be undone and redone for ever
        for _ in range(MAX_SWAPS):
            counts, inside = self.counts(taken), np.flatnonzero(taken)
            gains = self.diversity * _root_gain(counts)
            losses = self.diversity * _root_gain(np.maximum(counts - 1, 0))
            # Entry 0 is "no question leaves", at no cost: so an addition is a swap too.
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

    A reconstruction with the same promise, 1/2 − O(ε) of the optimum, and O(n/ε log 1/ε) evaluations.

    Args:
        costs: [N] not negative; free questions are taken, those dearer than the budget dropped.
        clusters: [N] labels 0, 1, ...
        budget: ΔD(t), in the unit of the costs.
        diversity: β.
        epsilon: ε in (0, 1/2).

    Returns:
        [N] mask of the chosen questions.
    """
    chosen = (costs == 0) & (costs <= budget)
    candidates = np.flatnonzero((costs > 0) & (costs <= budget)).tolist()
    if not candidates:
        return chosen
    num_clusters = int(clusters.max()) + 1
    problem = _Thresholds(
        cost=costs.tolist(),
        label=clusters.tolist(),
        budget=budget,
        counts=np.bincount(clusters[chosen], minlength=num_clusters).tolist(),
        spreads=(diversity * _root_gain(np.arange(len(costs) + 1))).tolist(),
    )
    chosen[problem.best_of_passes(candidates, problem.estimate(candidates), epsilon)] = True
    return chosen


@dataclass(frozen=True, kw_only=True)
class _Thresholds:
    """The two phases of ``ftgp``. Plain lists: a question at a time, they are faster than arrays.

    ``counts`` [K] are the free questions taken in each cluster; ``spreads[m]`` is the gain in diversity of a cluster's
    question number m + 1.
    """

    cost: list[float]
    label: list[int]
    budget: float
    counts: list[int]
    spreads: list[float]

    def gain(self, question: int, counts: list[int]) -> float:
        """Value that a question adds where ``counts`` questions of each cluster are taken."""
        return self.cost[question] + self.spreads[counts[self.label[question]]]

    def estimate(self, candidates: list[int]) -> float:
        """First phase: at least an eighth of the optimum, and no more than it, by one pass.

        Take every question that is at least as dense as all taken before it together are in the whole budget. The
        last of them that fit are one feasible set, and the best single question is another.
        """
        counts, total, added = self.counts.copy(), 0.0, []
        for u in candidates:
            gain = self.gain(u, counts)
            if gain >= self.cost[u] / self.budget * total:
                added.append(u)
                counts[self.label[u]] += 1
                total += gain
        counts, level, room = self.counts.copy(), 0.0, self.budget
        for u in reversed(added):
            if self.cost[u] > room:
                break
            level += self.gain(u, counts)
            counts[self.label[u]] += 1
            room -= self.cost[u]
        return max(level, max(self.gain(u, self.counts) for u in candidates))

    def best_of_passes(self, candidates: list[int], level: float, epsilon: float) -> list[int]:
        """Second phase: passes with falling thresholds, and the best set that one of them proposes.

        Each pass adds, in the given order, what is as dense as its threshold and fits. It proposes the set so far, and
        that set with the one question of the largest gain that fits.

        Args:
            candidates: that fit into the budget one by one.
            level: the first phase's estimate of the optimum.
            epsilon: ε.
        """
        cost, label, budget = self.cost, self.label, self.budget
        taken: list[int] = []
        counts, total, spent = self.counts.copy(), 0.0, 0.0

        def fits(u: int) -> bool:
            if abs(spent + cost[u] - budget) > 1e-9 * budget:
                return spent + cost[u] < budget
            return math.fsum(cost[v] for v in (*taken, u)) <= budget  # too near for a running sum

        single = max(candidates, key=lambda u: self.gain(u, counts))
        best, proposal = self.gain(single, counts), [single]
        num_passes = 1 + math.ceil(math.log(16 / epsilon) / -math.log(1 - epsilon))
        for index in range(num_passes):  # the last threshold is at most level / (2 budget)
            threshold = 8 * level / epsilon * (1 - epsilon) ** index
            rest = []
            for u in candidates:
                if not fits(u):
                    continue  # nor will it later
                gain = self.gain(u, counts)
                if gain >= threshold * (cost[u] / budget):
                    taken.append(u)
                    counts[label[u]] += 1
                    total += gain
                    spent += cost[u]
                else:
                    rest.append(u)
            candidates = [u for u in rest if fits(u)]
            if total > best:
                best, proposal = total, taken.copy()
            if not candidates:
                break
            extra = max(candidates, key=lambda u: self.gain(u, counts))
            if total + self.gain(extra, counts) > best:
                best, proposal = total + self.gain(extra, counts), [*taken, extra]
        return proposal
