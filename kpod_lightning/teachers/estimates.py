"""What the samples that are still to be asked will cost, from those that were paid for."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

_SERVER_ERROR = re.compile(r"5\d\d\b")


def probably_billed(cost: Decimal | None, why: str) -> bool:
    """Whether a request that came to nothing costs money, so that asking again costs it twice.

    Of a time-out, a broken connection or a mutilated reply nobody knows, but the model has written; a server that
    reports an error of its own has not.
    """
    return not _SERVER_ERROR.match(why) if cost is None else cost > 0


@dataclass
class Seen:
    """Rows with what they cost in US dollars, and billed requests that came to nothing."""

    num_rows: int = 0
    num_right: int = 0
    cost: float = 0.0
    cost_squared: float = 0.0
    num_wasted: float = 0.0

    def count(self, row: dict[str, Any]) -> None:
        """
        Raises:
            KeyError: the row is none of a file of samples.
        """
        self.num_rows += 1
        self.num_right += bool(row["correct"])
        self.cost += row["cost"]
        self.cost_squared += row["cost"] ** 2


@dataclass(frozen=True)
class Estimate:
    """US dollars that some samples will cost, with an interval of 95 % for the mean length of the replies."""

    value: float
    low: float
    high: float
    num_samples: int

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] US dollars for {self.num_samples} samples"


def estimate(seen: Seen, num_samples: int) -> Estimate:
    """Each sample costs what those seen did on average, and as often as they did one is paid for in vain.

    Problems are asked in random order, so those seen are a random sample of all.

    Raises:
        ValueError: no row has been seen.
    """
    if not seen.num_rows:
        raise ValueError("no row has been seen that an estimate could be made from")
    mean = seen.cost / seen.num_rows
    variance = max(0.0, seen.cost_squared / seen.num_rows - mean**2)
    # Of a single row nobody knows how much others differ from it.
    error = math.sqrt(variance / (seen.num_rows - 1)) if seen.num_rows > 1 else math.inf
    half = NormalDist().inv_cdf(0.975) * error
    factor = num_samples * (1 + seen.num_wasted / seen.num_rows)
    return Estimate(factor * mean, factor * max(0.0, mean - half), factor * (mean + half), num_samples)
