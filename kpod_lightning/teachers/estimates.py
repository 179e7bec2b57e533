"""Estimates of what the missing samples will cost, from those that were paid for."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

_SERVER_ERROR = re.compile(r"5\d\d\b")


def probably_billed(cost: Decimal | None, why: str) -> bool:
    """Whether a failed request was probably billed, so that its retry is a second payment for one sample.

    Args:
        cost: in US dollars; None if unknown. Then a time-out, a dropped connection or a malformed reply counts as
            billed, since the model has probably written, and a server error (5xx) does not.
        why: the reason of the failure, as in the ledger.
    """
    return not _SERVER_ERROR.match(why) if cost is None else cost > 0


@dataclass
class Seen:
    """Sums over rows, with costs in US dollars. ``num_wasted``: failed requests that were probably billed."""

    num_rows: int = 0
    num_right: int = 0
    cost: float = 0.0
    cost_squared: float = 0.0
    num_wasted: float = 0.0

    def count(self, row: dict[str, Any]) -> None:
        """Add a row.

        Raises:
            KeyError: it is no row of a file of samples.
        """
        self.num_rows += 1
        self.num_right += bool(row["correct"])
        self.cost += row["cost"]
        self.cost_squared += row["cost"] ** 2


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of some samples in US dollars, with a 95 % interval from the spread of the costs so far."""

    value: float
    low: float
    high: float
    num_samples: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] US dollars for {self.num_samples} samples"


def estimate(seen: Seen, num_samples: int) -> Estimate:
    """Extrapolate the mean cost of the samples seen, and their share of failed requests that were billed.

    Problems are asked in random order, so the samples seen are a random sample of all.

    Raises:
        ValueError: no row has been seen.
    """
    if not seen.num_rows:
        raise ValueError("no row has been seen that an estimate could be made from")
    mean = seen.cost / seen.num_rows
    variance = max(0.0, seen.cost_squared / seen.num_rows - mean**2)
    # A single row has no spread.
    error = math.sqrt(variance / (seen.num_rows - 1)) if seen.num_rows > 1 else math.inf
    half = NormalDist().inv_cdf(0.975) * error
    factor = num_samples * (1 + seen.num_wasted / seen.num_rows)
    return Estimate(factor * mean, factor * max(0.0, mean - half), factor * (mean + half), num_samples)
