"""The paper's numbers, and what chance alone makes of the gaps between the rows of its tables 1 to 3."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.store.files import ASSETS
from kpod_lightning.store.reading import read_yaml

OURS, WITHOUT = "kpod", "none"


@cache
def published() -> dict[str, Any]:
    """``problems``: data set -> size of its test set; ``accuracy``: student -> method -> data set -> % right;
    ``variants``: the same of KPOD's ablations, of other curricula and of other settings."""
    found: dict[str, Any] = read_yaml(ASSETS / "published.yaml")
    return found


def accuracy_in_percent(student: str, method: str, dataset: str) -> float | None:
    """A number of the paper; ``method`` is one or a variant. None where the paper has none."""
    rows = published()["accuracy"].get(student, {}) | published()["variants"].get(student, {})
    number: float | None = rows.get(method, {}).get(dataset)
    return number


def row_names() -> list[str]:
    """Methods and variants that the paper has numbers of."""
    tables = [*published()["accuracy"].values(), *published()["variants"].values()]
    return list(dict.fromkeys(name for table in tables for name in table))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """KPOD and the best other method of the paper, for one student and data set; shares in [0, 1]."""

    student: str
    dataset: str
    problems: int
    best: str
    of_best: float
    of_kpod: float

    @property
    def difference(self) -> float:
        return self.of_kpod - self.of_best

    @property
    def z(self) -> float:
        """The difference over its standard error, √(Σ p (1 − p) / n).

        Of two independent samples: which problems each run had right is not published. Runs on the same problems agree
        more than that, which makes the error smaller; and other seeds are not in it, which would make it larger.
        """
        variances = [share * (1.0 - share) / self.problems for share in (self.of_best, self.of_kpod)]
        return self.difference / math.sqrt(sum(variances))

    def interval(self, method: str) -> tuple[float, float]:
        """Wilson's 95 % interval of ``kpod`` or of the best other method."""
        share = self.of_kpod if method == OURS else self.of_best
        return wilson_interval(round(share * self.problems), self.problems)


def gaps() -> list[Gap]:
    """Of every student and data set of the paper."""
    sizes: dict[str, int] = published()["problems"]
    found = []
    for student, methods in published()["accuracy"].items():
        for dataset, problems in sizes.items():
            shares = {name: row[dataset] / 100.0 for name, row in methods.items() if name != WITHOUT}
            of_kpod = shares.pop(OURS)
            best = max(shares, key=lambda name: shares[name])
            found.append(
                Gap(
                    student=student,
                    dataset=dataset,
                    problems=problems,
                    best=best,
                    of_best=shares[best],
                    of_kpod=of_kpod,
                )
            )
    return found
