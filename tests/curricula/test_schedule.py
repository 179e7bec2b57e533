"""The schedule against closed forms, exhaustive search and hand-made cases."""

import itertools
import math
import zipfile

import numpy as np
import pytest

from kpod_lightning.curricula import knapsack as selection_module
from kpod_lightning.curricula.knapsack import FTGP_EPSILON, ftgp, select_questions
from kpod_lightning.curricula.schedule import Schedule, build_schedule, cluster_questions, difficulty_budget
from kpod_lightning.store.errors import InputError

# --- Eq. 10


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_budget_starts_at_its_fraction_ends_at_the_total_and_never_falls(fraction, exponent):
    total = 1234.56789
    budgets = [difficulty_budget(t, 7, total, fraction, exponent) for t in range(8)]
    assert budgets[0] == fraction * total
    assert budgets[-1] == total
    assert budgets == sorted(budgets)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_budget_grows_at_the_rate_of_the_paper(exponent):
    total, fraction, num_stages, width = 900.0, 0.3, 10, 1e-5
    u = total * (1 - fraction) * (exponent + 1) / num_stages ** (exponent + 1)
    for t in (0.5, 1.0, 4.0, 9.5):
        ahead, behind = (difficulty_budget(t + s * width, num_stages, total, fraction, exponent) for s in (1, -1))
        assert (ahead - behind) / (2 * width) == pytest.approx(u * t**exponent, rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, 5, 1.0),
        (6, 5, 1.0),
        (0, 0, 1.0),
        (0, 5, -1.0),
        (0, 5, math.nan),
        (0, 5, math.inf),
        (0, 5, 1.0, 1.1),
        (0, 5, 1.0, math.nan),
        (0, 5, 1.0, 0.3, 0.0),
        (0, 5, 1.0, 0.3, math.nan),
    ],
)
def test_budget_refuses_what_is_out_of_range(arguments):
    with pytest.raises(ValueError):
        difficulty_budget(*arguments)


# --- Eqs. 12 and 13


def spread_value(costs, clusters, subset, diversity):
    counts = [sum(clusters[i] == k for i in subset) for k in set(clusters)]
    return math.fsum(costs[i] for i in subset) + diversity * math.fsum(math.sqrt(count) for count in counts)


def best_by_search(costs, clusters, budget, diversity):
    subsets = itertools.chain.from_iterable(itertools.combinations(range(len(costs)), r) for r in range(len(costs) + 1))
    feasible = (subset for subset in subsets if math.fsum(costs[i] for i in subset) <= budget)
    return max((spread_value(costs, clusters, subset, diversity) for subset in feasible), default=0.0)


def small_instance(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 10))
    kind = rng.integers(6)
    costs = [
        lambda: rng.integers(0, 6, n).astype(float),  # ties, zeros, budgets met exactly
        lambda: rng.lognormal(0, 1, n),
        lambda: rng.integers(1, 5, n) * 0.1,  # sums that rounding puts beside the budget
        lambda: rng.choice([0.0, 0.5, 7.3], n),
        lambda: 10.0 ** rng.uniform(-6, 6, n),
        lambda: np.full(n, rng.random()),
    ][kind]()
    clusters = rng.integers(0, rng.integers(1, 5), n)
    share = rng.choice([0.05, 0.3, 0.6, 0.9])
    budget = (
        float(rng.integers(0, 15)) if kind == 0 else 0.1 * rng.integers(1, 15) if kind == 2 else share * costs.sum()
    )
    return costs, clusters, float(budget), float(rng.choice([0.0, 0.1, 1.0, 12.0]))


@pytest.fixture(scope="module")
def small_instances():
    instances = [small_instance(seed) for seed in range(3000)]
    searched = [(c.tolist(), k.tolist(), budget, diversity) for c, k, budget, diversity in instances]
    return [(*instance, best_by_search(*plain)) for instance, plain in zip(instances, searched, strict=True)]


def check(selection, costs, clusters, budget, diversity, optimum):
    chosen = selection.indices.tolist()
    assert chosen == sorted(set(chosen))
    assert selection.cost == math.fsum(costs[chosen]) <= budget or not chosen
    assert selection.value == pytest.approx(spread_value(costs, clusters.tolist(), chosen, diversity), rel=1e-12)
    assert selection.value <= selection.upper_bound
    assert optimum <= selection.upper_bound
    assert set(np.flatnonzero((costs == 0) & (budget >= 0))) <= set(chosen)


def test_greedy_reaches_half_of_the_optimum_and_the_best_single_question(small_instances):
    ratios = []
    for costs, clusters, budget, diversity, optimum in small_instances:
        selection = select_questions(costs, clusters, budget, diversity)
        check(selection, costs, clusters, budget, diversity, optimum)
        singles = costs[costs <= budget] + diversity
        assert selection.value >= singles.max(initial=0.0) * (1 - 1e-12)
        ratios.append(selection.value / optimum if optimum else 1.0)
    assert min(ratios) >= 0.5
    assert np.mean(ratios) > 0.995


def test_ftgp_keeps_its_promise_in_any_order(small_instances):
    for costs, clusters, budget, diversity, optimum in small_instances:
        selection = select_questions(costs, clusters, budget, diversity, solver="ftgp")
        check(selection, costs, clusters, budget, diversity, optimum)
        assert selection.value >= (0.5 - 2 * FTGP_EPSILON) * optimum
        backwards = select_questions(costs[::-1], clusters[::-1], budget, diversity, solver="ftgp")
        assert backwards.value >= (0.5 - 2 * FTGP_EPSILON) * optimum


def test_exact_equals_exhaustive_search(small_instances):
    for costs, clusters, budget, diversity, optimum in small_instances[:600]:
        selection = select_questions(costs, clusters, budget, diversity, solver="exact")
        check(selection, costs, clusters, budget, diversity, optimum)
        assert selection.value == pytest.approx(optimum, rel=1e-9)


def test_exact_never_oversteps_a_budget_that_rounding_hides():
    # 0.1 + 0.1 + 0.1 > 0.3 by one rounding, far below the tolerance of any solver; so do 84 sets of three.
    selection = select_questions(np.full(9, 0.1), np.arange(9) % 3, 0.3, 12.0, solver="exact")
    assert selection.cost == 0.2


@pytest.mark.parametrize(
    "costs, budget, diversity, expected",
    [
        ([3.0, 3.0, 3.1, 6.0], 6.1, 12.0, [1, 2]),  # the merge takes 3 and 3; a swap inside the cluster spends the rest
        ([0.1, 0.1, 0.1, 10.0], 10.0, 1.0, [3]),  # the merge takes all that is cheap, and no swap makes room for 10
    ],
)
def test_swaps_and_the_best_single_question_mend_the_merge(costs, budget, diversity, expected, monkeypatch):
    monkeypatch.setattr(selection_module, "FEW", 0)  # FTGP would find them too
    selection = select_questions(costs, np.zeros(len(costs), dtype=int), budget, diversity)
    assert selection.indices.tolist() == expected


@pytest.mark.parametrize("solver", ["greedy", "exact"])
def test_more_questions_than_ftgp_looks_at_are_bounded(solver):
    rng = np.random.default_rng(3)
    selection = select_questions(rng.lognormal(0, 0.7, 250), rng.integers(0, 5, 250), 60.0, 12.0, solver)
    assert 0.99 * selection.upper_bound <= selection.value <= selection.upper_bound
    assert selection.cost <= 60.0


@pytest.mark.parametrize("budget", [5.0, 300.0, 1500.0])
@pytest.mark.parametrize("diversity", [0.0, 12.0])
def test_certificate_of_a_large_instance(budget, diversity):
    rng = np.random.default_rng(0)
    selection = select_questions(rng.lognormal(0, 0.7, 2000), rng.integers(0, 5, 2000), budget, diversity)
    assert selection.value >= (0.9995 if budget > 5 else 0.98) * selection.upper_bound


@pytest.mark.parametrize("solver", ["greedy", "ftgp", "exact"])
def test_diversity_spreads_over_clusters(solver):
    costs, clusters = np.array([5.0, 5.0, 5.0, 4.0, 4.0, 4.0]), np.array([0, 0, 0, 1, 2, 3])
    spread = select_questions(costs, clusters, 15.0, 12.0, solver)
    assert len(set(clusters[spread.indices])) == 3
    if solver != "ftgp":
        assert select_questions(costs, clusters, 15.0, 0.0, solver).indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize("solver", ["greedy", "ftgp", "exact"])
def test_free_questions_are_taken_unless_the_budget_is_negative(solver):
    costs, clusters = np.array([0.0, 3.0, 0.0]), np.array([7, 7, -1])
    assert select_questions(costs, clusters, 0.0, 1.0, solver).indices.tolist() == [0, 2]
    assert select_questions(costs, clusters, 2.0, 0.0, solver).indices.tolist() == [0, 2]
    assert select_questions(costs, clusters, math.inf, 1.0, solver).indices.tolist() == [0, 1, 2]
    for nothing in (select_questions(costs, clusters, -1.0, 1.0, solver), select_questions([], [], 1.0, 1.0, solver)):
        assert (nothing.indices.tolist(), nothing.value, nothing.upper_bound, nothing.cost) == ([], 0.0, 0.0, 0.0)


@pytest.mark.parametrize("solver", ["greedy", "ftgp", "exact"])
def test_costs_of_very_different_size_raise_no_warning(solver):
    costs = np.array([5e-324, 1e-300, 1.0, 2.0, 1e9])
    selection = select_questions(costs, np.zeros(5, dtype=int), 2.5, 12.0, solver)
    assert selection.cost <= 2.5
    assert select_questions(costs, np.zeros(5, dtype=int), 1e-300, 12.0, solver).cost <= 1e-300


def test_ftgp_is_linear_in_the_number_of_questions():
    class Counted(float):
        """A cost that counts its sums: one for each value that is asked for."""

        num = 0

        def __add__(self, other):
            Counted.num += 1
            return float(self) + other

    class Costs(np.ndarray):
        def tolist(self):
            return [Counted(cost) for cost in super().tolist()]

    counts = []
    for n in (500, 1000, 2000):
        Counted.num = 0
        costs = np.random.default_rng(0).lognormal(0, 0.7, n).view(Costs)
        ftgp(costs, np.arange(n) % 5, float(costs.sum()) / 4, 12.0)
        counts.append(Counted.num / n)
    assert max(counts) < 1.2 * min(counts)


@pytest.mark.parametrize(
    "change",
    [
        {"costs": [1.0, math.nan]},
        {"costs": [1.0, math.inf]},
        {"costs": [1.0, -1.0]},
        {"costs": [[1.0], [2.0]]},
        {"costs": [1.0]},
        {"clusters": [0.0, 1.0]},
        {"budget": math.nan},
        {"diversity": -1.0},
        {"diversity": math.nan},
        {"solver": "magic"},
    ],
)
def test_selection_refuses_what_makes_no_sense(change):
    with pytest.raises(ValueError):
        select_questions(**{"costs": [1.0, 2.0], "clusters": [0, 1], "budget": 3.0, **change})


# --- clusters


def test_clusters_are_those_of_the_vectors():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 20)
    labels = cluster_questions(10 * np.eye(3)[truth] + rng.normal(0, 0.1, (60, 3)), num_clusters=3)
    assert [len(set(labels[truth == k])) for k in range(3)] == [1, 1, 1]
    assert set(labels) == {0, 1, 2}


def test_fewer_questions_than_clusters_are_each_their_own():
    assert cluster_questions(np.zeros((3, 2)), num_clusters=5).tolist() == [0, 1, 2]
    assert cluster_questions(np.zeros((0, 2))).tolist() == []


@pytest.mark.parametrize("num_distinct", [1, 2, 4])
def test_equal_vectors_share_a_cluster(num_distinct):
    rows = np.random.default_rng(0).normal(size=(num_distinct, 3))
    which = np.arange(40) % num_distinct
    labels = cluster_questions(rows[which])
    assert [len(set(labels[which == i])) for i in range(num_distinct)] == [1] * num_distinct
    assert len(set(labels)) == num_distinct


def test_vectors_that_differ_by_rounding_raise_no_warning():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 8))[np.arange(30) % 2]
    labels = cluster_questions(rows * (1 + 1e-16 * rng.integers(-3, 4, rows.shape)))
    assert labels.shape == (30,)


@pytest.mark.parametrize("vectors, num_clusters", [([[math.nan]], 1), ([[math.inf]], 1), ([1.0], 1), ([[1.0]], 0)])
def test_clustering_refuses_what_makes_no_sense(vectors, num_clusters):
    with pytest.raises(ValueError):
        cluster_questions(vectors, num_clusters)


# --- the schedule


def random_rationales(n, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.lognormal(0, 0.7, k) for k in rng.integers(1, 9, n)], rng.integers(0, 5, n)


def difficulty_asked(difficulties, input_steps):
    return math.fsum(d for row, c in zip(difficulties, input_steps, strict=True) for d in row[c:])


def test_schedule_by_hand():
    # B = 8, C_0 = 2, D(t) = 2 + 6 (t/3)^2 = 2, 8/3, 14/3, 8. Row 0: both last steps cost 2, one fits. Stage 1: 2/3 is
    # too little for a step of 1 or 2. Stage 2: 8/3 pays for one of the two steps, and the dearer one is worth more.
    schedule = build_schedule(
        [[1.0, 2.0], [3.0, 2.0]], [0, 1], 3, initial_fraction=0.25, growth_exponent=1.0, diversity=1.0
    )
    assert schedule.keys == (("0", 0), ("1", 0))
    assert schedule.input_steps.tolist() == [[1, 2], [1, 2], [1, 1], [0, 0]]
    assert schedule.asked.tolist() == [2.0, 2.0, 4.0, 8.0]
    assert schedule.budgets == pytest.approx([2, 8 / 3, 14 / 3, 8], rel=1e-12)
    assert schedule.values.tolist() == [3.0, 0.0, 3.0, 0.0]
    # Row 2: all of 8/3, the gain of the question of cost 1, and (5/3) / 2 of the other's.
    assert schedule.upper_bounds == pytest.approx([3, 0, 8 / 3 + 1 + 5 / 6, 0], rel=1e-9)
    assert schedule.certificate == pytest.approx(3 / 4.5)
    assert (schedule.num_stages, schedule.total, schedule.num_jumping) == (3, 8.0, 2)


@pytest.mark.parametrize("solver", ["greedy", "ftgp"])
@pytest.mark.parametrize("step_size", [None, 1, 2, 3])
def test_difficulty_stays_within_the_budget_of_every_stage(solver, step_size):
    for seed in range(10):
        difficulties, clusters = random_rationales(40, seed)
        schedule = build_schedule(difficulties, clusters, 5, solver=solver, step_size=step_size)
        assert (schedule.asked <= schedule.budgets).all()
        assert (schedule.values <= schedule.upper_bounds).all()
        assert schedule.asked[-1] == schedule.budgets[-1] == schedule.total
        assert schedule.total == pytest.approx(sum(d.sum() for d in difficulties), abs=1e-9)


@pytest.mark.parametrize("seed", [141, 300, 171, 190, 378])
def test_rounding_in_what_is_left_never_oversteps_the_budget(seed):
    # Multiples of 0.1, with seeds where D − H is rounded up to just what a question costs.
    rng = np.random.default_rng(seed)
    difficulties = [0.1 * rng.integers(1, 4, n) for n in rng.integers(1, 6, 6)]
    for step_size in (1, 2):
        schedule = build_schedule(
            difficulties, rng.integers(0, 2, 6), 4, step_size=step_size, initial_fraction=0.5, growth_exponent=1.0
        )
        assert (schedule.asked <= schedule.budgets).all()


def test_a_small_step_behind_a_large_one_keeps_its_cost():
    schedule = build_schedule([[1e17], [1.0, 2.0]], [0, 0], 2, step_size=2)
    assert schedule.values[0] == 3.0 + 12.0


def test_difficulty_asked_counts_the_first_generated_step():
    difficulties, clusters = random_rationales(60)
    schedule = build_schedule(difficulties, clusters, 4)
    assert schedule.asked.tolist() == [difficulty_asked(difficulties, row) for row in schedule.input_steps]


def test_exact_schedule_is_no_worse_at_its_first_selection():
    difficulties, clusters = random_rationales(12)
    greedy, exact = (build_schedule(difficulties, clusters, 3, solver=solver) for solver in ("greedy", "exact"))
    assert exact.values[0] >= greedy.values[0]
    assert (exact.asked <= exact.budgets).all()


@pytest.mark.parametrize("start", ["selected", "last_steps", "uniform"])
@pytest.mark.parametrize("step_size", [1, 2])
def test_input_steps_fall_by_at_most_the_step_size_and_never_rise(start, step_size):
    difficulties, clusters = random_rationales(100)
    schedule = build_schedule(difficulties, clusters, 6, step_size=step_size, start=start)
    falls = -np.diff(schedule.input_steps, axis=0)
    assert falls.min() >= 0
    assert falls[:-1].max() <= step_size
    assert (schedule.input_steps[0] <= [len(d) for d in difficulties]).all()
    assert not schedule.input_steps[-1].any()
    assert schedule.num_jumping == np.count_nonzero(falls[-1])


def test_default_step_size_is_the_95th_percentile_of_the_steps_a_stage_must_ask():
    difficulties = [np.ones(n) for n in [19] * 98 + [200] * 2]  # 19 steps in 5 stages are 4 a stage
    schedule = build_schedule(difficulties, np.zeros(100, dtype=int), 5, initial_fraction=0.0)
    assert set(np.unique(np.diff(schedule.input_steps, axis=0)[:-1])) == {-4, 0}


@pytest.mark.parametrize("num_stages", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", ["random", "short", "long", "equal"])
def test_auto_meets_the_budget_and_lets_few_questions_drop_more_than_its_step_size(kind, num_stages):
    rng = np.random.default_rng(num_stages)
    difficulties = {
        "random": lambda: random_rationales(60, num_stages)[0],
        "short": lambda: [rng.lognormal(1, 0.3, k) for k in rng.integers(2, 4, 200)],  # as the generator's
        "long": lambda: [rng.exponential(1, k) for k in rng.integers(5, 25, 50)],
        "equal": lambda: [np.full(3, 2.0)] * 80,
    }[kind]()
    clusters = rng.integers(0, 5, len(difficulties))
    schedule = build_schedule(difficulties, clusters, num_stages, step_size="auto")
    falls = -np.diff(schedule.input_steps, axis=0)
    assert schedule.asked[-2] >= 0.95 * schedule.budgets[-2]
    assert np.mean(falls[-1] > schedule.step_size) < 0.05
    assert schedule.num_beyond_step_size == np.count_nonzero(falls[-1] > schedule.step_size)
    # What holds with every other step size holds here, too.
    assert falls.min() >= 0 and falls[:-1].max() <= schedule.step_size
    assert (schedule.asked <= schedule.budgets).all() and (schedule.values <= schedule.upper_bounds).all()
    assert schedule.asked[-1] == schedule.budgets[-1] == schedule.total
    assert schedule.asked.tolist() == [difficulty_asked(difficulties, row) for row in schedule.input_steps]


def test_auto_by_hand():
    # B = 12, D = 4, 6, 12. Row 0 asks the last step of each, row 1 one more of two questions. The other two drop two
    # steps at stage T, so that Δ_s = 1 is too small.
    schedule = build_schedule(
        [np.ones(3)] * 4, [0] * 4, 2, initial_fraction=1 / 3, growth_exponent=1.0, step_size="auto"
    )
    assert [sorted(row) for row in schedule.input_steps.tolist()] == [[2] * 4, [1, 1, 2, 2], [0] * 4]
    assert schedule.asked.tolist() == [4.0, 6.0, 12.0]
    assert (schedule.step_size, schedule.num_jumping, schedule.num_beyond_step_size) == (2, 4, 0)


def test_auto_where_no_step_size_meets_the_budget_sets_no_bound():
    schedule = build_schedule([[9.0, 1.0]], [0], 3, step_size="auto")  # D(2) = 6.8 pays for the last step alone
    assert schedule.input_steps.tolist() == [[1], [1], [1], [0]]
    assert schedule.step_size == 2


def test_diversity_by_budget_does_not_depend_on_the_unit_of_the_difficulties():
    difficulties, clusters = random_rationales(60)
    scaled = [1000 * row for row in difficulties]
    one, other = (
        build_schedule(rows, clusters, 4, diversity=0.2, diversity_scale="budget") for rows in (difficulties, scaled)
    )
    np.testing.assert_array_equal(one.input_steps, other.input_steps)
    assert other.diversity == pytest.approx(1000 * one.diversity)


def test_diversity_by_budget_by_hand():
    # Clusters of 4 and 1 questions: sqrt(4) + sqrt(1) = 3. ΔD of row 0 is C_0 = .3 · 20 = 6, less than the 10 that all
    # last steps cost, so β = .5 · 6 / 3 = 1: three questions of cost 2, one of them of the other cluster, are worth
    # 6 + sqrt(2) + sqrt(1).
    schedule = build_schedule(
        [[2.0, 2.0]] * 5, [0, 0, 0, 0, 1], 2, diversity=0.5, diversity_scale="budget", step_size=1
    )
    assert schedule.diversity[0] == pytest.approx(math.sqrt(2) + 1)
    assert schedule.values[0] == pytest.approx(6 + math.sqrt(2) + 1)


def test_without_diversity_its_scale_changes_nothing():
    difficulties, clusters = random_rationales(40)
    one, other = (
        build_schedule(difficulties, clusters, 5, diversity=0.0, diversity_scale=scale)
        for scale in ("absolute", "budget")
    )
    np.testing.assert_array_equal(one.input_steps, other.input_steps)
    assert not one.diversity.any() and one.diversity_share == 0


def test_starts_of_the_paper_and_of_equal_shares():
    difficulties, clusters = [np.ones(n) for n in (1, 3, 10, 20)], np.zeros(4, dtype=int)
    last, uniform = (build_schedule(difficulties, clusters, 2, start=start) for start in ("last_steps", "uniform"))
    assert last.input_steps[0].tolist() == [0, 2, 9, 19]
    assert uniform.input_steps[0].tolist() == [0, 2, 7, 14]
    assert last.values[0] == last.upper_bounds[0] == 0


def test_a_start_above_the_budget_waits_until_the_budget_has_passed_it():
    difficulties = [np.array([1.0, 9.0])] * 10
    schedule = build_schedule(
        difficulties, np.zeros(10, dtype=int), 6, start="last_steps", initial_fraction=0.1, growth_exponent=2.0
    )
    waiting = schedule.budgets < 90
    assert waiting.sum() > 3
    assert (schedule.input_steps[waiting] == 1).all()


@pytest.mark.parametrize("start", ["selected", "uniform"])
def test_everything_is_asked_at_once_where_the_first_budget_is_the_total(start):
    for seed in range(20):
        difficulties, clusters = random_rationales(30, seed)
        schedule = build_schedule(difficulties, clusters, 4, initial_fraction=1.0, start=start)
        assert not schedule.input_steps.any()
        assert schedule.certificate == pytest.approx(1.0)


def test_rationales_without_difficulty_and_single_stages_are_scheduled():
    free = build_schedule([[0.0, 0.0], [0.0]], [0, 0], 3)
    assert not free.input_steps.any()
    assert build_schedule([[1.0, 2.0]], [0], 1).input_steps.tolist() == [[2], [0]]


def test_certificate_of_a_schedule_on_thousands_of_questions():
    difficulties, clusters = random_rationales(2000)
    assert build_schedule(difficulties, clusters, 10).certificate >= 0.9995


def test_schedule_does_not_depend_on_how_clusters_are_named():
    difficulties, clusters = random_rationales(80)
    named = build_schedule(difficulties, clusters * 3 - 7, 5)
    np.testing.assert_array_equal(named.input_steps, build_schedule(difficulties, clusters, 5).input_steps)


@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf], [-1.0, 2.0], []])
def test_a_rationale_that_cannot_be_scheduled_is_named(bad):
    with pytest.raises(InputError, match="rationale 3 of problem gsm8k-17") as error:
        build_schedule([[1.0], bad], [0, 0], 2, keys=[("a", 0), ("gsm8k-17", 3)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"difficulties": []},
        {"difficulties": [[1.0], [[1.0]]]},
        {"clusters": [0]},
        {"num_stages": 0},
        {"keys": [("a", 0)]},
        {"keys": [("a", 0), ("a", 0)]},
        {"step_size": 0},
        {"step_size": "magic"},
        {"diversity_scale": "magic"},
        {"start": "magic"},
        {"solver": "magic"},
        {"initial_fraction": 2.0},
    ],
)
def test_schedule_refuses_what_makes_no_sense(change):
    with pytest.raises(ValueError):
        build_schedule(**{"difficulties": [[1.0], [2.0]], "clusters": [0, 1], "num_stages": 2, **change})


# --- files


@pytest.fixture
def schedule():
    difficulties, clusters = random_rationales(20)
    return build_schedule(difficulties, clusters, 4, keys=[(f"Frage ü{i}", i % 2) for i in range(20)])


def test_a_saved_schedule_comes_back_from_the_path_given(schedule, tmp_path):
    path = tmp_path / "schedule"  # without npz
    schedule.save(path)
    loaded = Schedule.load(path)
    assert loaded.keys == schedule.keys
    assert loaded.total == schedule.total
    assert loaded.step_size == schedule.step_size
    for name in ("input_steps", "clusters", "asked", "budgets", "values", "upper_bounds", "diversity"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(schedule, name))
        assert getattr(loaded, name).dtype == getattr(schedule, name).dtype


def test_the_same_schedule_has_the_same_bytes(schedule, tmp_path):
    schedule.save(tmp_path / "one.npz")
    Schedule.load(tmp_path / "one.npz").save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}  # no clock


def missing(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def no_archive(path):
    path.write_text("step\n1\n")


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def without_an_array(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "asked"}
    np.savez(path, **arrays)


def with_a_short_array(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{**arrays, "asked": arrays["asked"][:-1]})


def with_an_object(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{**arrays, "asked": np.array([None])})


@pytest.mark.parametrize(
    "damage", [missing, cut, emptied, no_archive, one_array, without_an_array, with_a_short_array, with_an_object]
)
def test_a_broken_file_is_named_in_one_line(schedule, tmp_path, damage):
    path = tmp_path / "schedule.npz"
    schedule.save(path)
    damage(path)
    with pytest.raises(InputError, match=r"schedule\.npz: not a schedule") as error:
        Schedule.load(path)
    assert "\n" not in str(error.value)
