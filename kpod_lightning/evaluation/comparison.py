"""Two arms of a study on the same seeds and problems: how their accuracies differ, and what chance makes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kpod_lightning.evaluation.statistics import PairedTest, bootstrap_interval, mcnemar_exact

Interval = tuple[float, float]

POWER = 0.8
"""With which a difference counts as detectable, by convention."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Arm B minus arm A, as shares in [0, 1]; paired by seed and by problem."""

    difference: float
    """Mean over seeds and problems."""
    by_seed: tuple[float, ...]
    """The difference of each seed, in their order."""
    problems_interval: Interval
    """Bootstrap over problems, each with all its seeds: for other problems, with students of these very seeds."""
    seeds_interval: Interval | None
    """Student's t over seeds: for other seeds, on these very problems. None with one seed."""
    interval: Interval
    """For other seeds and other problems, ``Chance.half_width``; with one seed it is ``problems_interval``."""
    p_value: float
    """Two-sided, of no difference: the level whose ``interval`` ends at 0; with one seed McNemar's."""
    tests: tuple[PairedTest, ...]
    """Exact McNemar test of each seed; ``only_before`` is A's."""
    discordance: float
    """Share of pairs (seed, problem) that one arm alone answers right."""
    detectable: float
    """The least true difference that would be found with 80 % power at the 5 % level, were chance as large as here."""

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the difference between seeds; None with one seed."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else None


def compare(a: Sequence[Sequence[bool]], b: Sequence[Sequence[bool]]) -> Comparison:
    """Compare two arms.

    Args:
        a, b: [seeds][problems] whether the answer is right; row s of both is of the same seed, and column i of all
            rows of the same problem.

    Raises:
        ValueError: the two have different shapes, or nothing in them.
    """
    right_a, right_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if right_a.shape != right_b.shape or right_a.ndim != 2 or not right_a.size:
        raise ValueError(f"arms of shapes {right_a.shape} and {right_b.shape} are not paired by seed and problem")
    differences = right_b - right_a
    num_seeds, num_problems = differences.shape
    tests = tuple(mcnemar_exact(list(x), list(y)) for x, y in zip(right_a > 0, right_b > 0, strict=True))
    problems = bootstrap_interval([differences.mean(0)], lambda mean: mean)
    discordance = float(np.abs(differences).mean())
    if num_seeds == 1:
        seeds, both, p_value = None, problems, tests[0].p_value
        detectable = detectable_by_mcnemar(discordance, num_problems)
    else:
        seeds, chance, mean = (
            t_interval(differences.mean(1).tolist()),
            Chance.of(differences),
            float(differences.mean()),
        )
        half = chance.half_width(0.05)
        both, p_value = (mean - half, mean + half), chance.p_value(mean)
        detectable = detectable_by_t(math.hypot(chance.of_seeds, chance.of_problems), num_seeds - 1)
    return Comparison(
        difference=float(differences.mean()),
        by_seed=tuple(float(mean) for mean in differences.mean(1)),
        problems_interval=problems,
        seeds_interval=seeds,
        interval=both,
        p_value=p_value,
        tests=tests,
        discordance=discordance,
        detectable=detectable,
    )


# ---- Chance of seeds and of problems ----


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Standard errors of the mean of a table whose rows (seeds) and columns (problems) are both drawn.

    Their squares add up to (MS_rows + MS_columns − MS_rest) / SI, the variance of a mean of crossed random factors
    (Clark 1973); the second one is taken as 0 where the estimate is negative.
    """

    of_seeds: float
    """√(MS_rows / SI): that of the mean of the rows, in which each pair's own chance is counted."""
    of_problems: float
    """√((MS_columns − MS_rest) / SI): what problems as such add, shared by all seeds."""
    num_seeds: int
    num_problems: int

    @classmethod
    def of(cls, table: np.ndarray) -> "Chance":
        """
        Args:
            table: [S, I], S and I at least 2.
        """
        num_seeds, num_problems = table.shape
        mean, rows, columns = table.mean(), table.mean(1), table.mean(0)
        rest = ((table - rows[:, None] - columns[None] + mean) ** 2).sum() / ((num_seeds - 1) * (num_problems - 1))
        extra = max(0.0, num_seeds * float(columns.var(ddof=1)) - float(rest))
        of_seeds = math.sqrt(float(rows.var(ddof=1)) / num_seeds)
        return cls(
            of_seeds=of_seeds,
            of_problems=math.sqrt(extra / table.size),
            num_seeds=num_seeds,
            num_problems=num_problems,
        )

    def half_width(self, level: float) -> float:
        """Half of the interval of 1 − ``level``: those of both factors, each by its own t, added as squares.

        Squares of half widths, not of errors (Graybill and Wang 1980): with a few seeds and many problems one t would
        be too narrow for the seeds or far too wide for the problems.
        """
        from scipy.stats import t  # slow import

        seeds = float(t.isf(level / 2.0, self.num_seeds - 1)) * self.of_seeds
        problems = float(t.isf(level / 2.0, self.num_problems - 1)) * self.of_problems
        return math.hypot(seeds, problems)

    def p_value(self, mean: float) -> float:
        """Two-sided, of a true mean of 0: the level whose interval ends at 0."""
        from scipy.optimize import brentq

        if not mean or not math.hypot(self.of_seeds, self.of_problems):
            return 0.0 if mean else 1.0
        # A level below the least float of this size has a half width that is larger than any share.
        return float(brentq(lambda level: self.half_width(level) - abs(mean), 1e-300, 1.0, xtol=1e-300, rtol=1e-12))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of at least two values."""
    from scipy.stats import t  # slow import

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf((1.0 + confidence) / 2.0, len(values) - 1)) * error
    return mean - half, mean + half


# ---- What could have been found ----


def detectable_by_t(error: float, freedom: float, level: float = 0.05, power: float = POWER) -> float:
    """The least true mean that a two-sided t test finds with this power.

    The square of a non-central t is a non-central F, whose tail is both tails of the t.
    """
    from scipy.optimize import brentq
    from scipy.stats import ncf, t

    critical = float(t.isf(level / 2.0, freedom))

    def missing(shift: float) -> float:
        return float(ncf.sf(critical**2, 1, freedom, shift**2)) - power

    return error * float(brentq(missing, 1e-6, 4.0 * critical, xtol=1e-12))


def detectable_by_mcnemar(discordance: float, num_problems: int, level: float = 0.05, power: float = POWER) -> float:
    """The least difference of two runs that McNemar's test finds, (z_{1−α/2} + z_power) √(discordance / problems).

    The normal approximation at no difference; at GSM8K's 659 problems and 15 % discordance it is 4.2 points.
    """
    from scipy.stats import norm

    return float(norm.ppf(1.0 - level / 2.0) + norm.ppf(power)) * math.sqrt(discordance / num_problems)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family, adjusted by Holm's (1979) step-down rule; each stays at most 1.

    The i-th smallest of m is multiplied by m − i + 1, and none is smaller than one before it.
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.asarray(p_values, np.float64)[order] * (len(order) - np.arange(len(order)))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return adjusted.tolist()
