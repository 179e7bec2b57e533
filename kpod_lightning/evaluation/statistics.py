"""Intervals of shares and of functions of means, and the paired test of two runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Exact McNemar test of two runs: numbers of problems that only one of them answers right, two-sided p-value."""

    only_before: int
    only_after: int
    p_value: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); unlike the normal one it stays inside [0, 1].

    Raises:
        ValueError: n is not positive, or successes lie outside [0, n].
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"no interval for {successes} of {n}")
    from scipy.stats import binomtest  # slow import

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(before: Sequence[bool], after: Sequence[bool]) -> PairedTest:
    """Two-sided exact McNemar test on the same problems in the same order.

    Raises:
        ValueError: the two have different lengths.
    """
    from scipy.stats import binomtest  # slow import

    pairs = list(zip(before, after, strict=True))
    only_before = sum(b and not a for b, a in pairs)
    only_after = sum(a and not b for b, a in pairs)
    discordant = only_before + only_after
    p_value = float(binomtest(only_after, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedTest(only_before=only_before, only_after=only_after, p_value=p_value)


def bootstrap_interval(
    samples: Sequence[Any],
    of_means: Callable[..., Any],
    *,
    confidence: float = 0.95,
    num_resamples: int = 5000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a function of means (Efron 1979); the rows are paired, so a resample takes
    whole columns.

    Args:
        samples: one row of values for each argument of ``of_means``; column i is item i in all rows.
        of_means: elementwise function of the means, e.g. a difference or a ratio of differences.
    """
    from scipy.stats import bootstrap  # slow import

    result = bootstrap(
        [np.asarray(row, dtype=np.float64) for row in samples],
        lambda *rows, axis: of_means(*(row.mean(axis) for row in rows)),
        paired=True,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
