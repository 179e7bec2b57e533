"""Figures of a file of samples: distributions and counts, tallied in one pass."""

import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from kpod_lightning.data.steps import n_grams, split_steps
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.teachers.samples.file import Ledger
from kpod_lightning.teachers.samples.quality import VERDICTS, Row, SampleRows, Verdict

NUM_DISTINCT = 10_000
"""Right rationales, the first in the order of the problems, that distinct-n is measured on."""

_NUM_BINS = 40


@dataclass(frozen=True)
class Distribution:
    """Mean of whole numbers, their 5, 50 and 95 % quantiles, and a histogram of counts [B] with edges [B + 1]."""

    mean: float
    quantiles: tuple[float, float, float]
    counts: tuple[int, ...]
    edges: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> "Distribution | None":
        """None where there are no values."""
        if not len(values):
            return None
        low, high = int(values.min()), int(values.max())
        width = -(-(high - low + 1) // _NUM_BINS)
        edges = np.arange(low, high + width + 1, width)
        counts, _ = np.histogram(values, edges)
        q5, q50, q95 = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
        return cls(float(values.mean()), (q5, q50, q95), tuple(counts.tolist()), tuple(edges.tolist()))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Figures of a file of samples. Money in US dollars, latency in seconds."""

    num_rows: int
    num_asked: int
    """All problems; ``num_problems`` of them have a row, ``num_covered`` a right one."""
    num_problems: int
    num_covered: int
    verdicts: dict[str, int]
    """Rows by verdict, all of ``VERDICTS``."""
    num_right: int
    """Rows whose text is whole and ends with the gold answer, contradictory ones and near-duplicates included."""
    tokens: Distribution | None
    """Tokens of the replies that were not refused."""
    steps: Distribution | None
    """Sentences of each rationale that was not refused and has a text."""
    distinct: dict[int, float]
    """distinct-n for n = 1, 2, 3: the share of different word n-grams among all n-grams of the first ``NUM_DISTINCT``
    right rationales. n-grams are counted by a 64-bit hash, so memory is bounded. The share falls with the number of
    rationales: compare files of similar size."""
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    """Cost of the rows."""
    cost_in_vain: Decimal
    """Cost of failed requests, from the ledger."""
    cost_unknown: Decimal
    """Upper bound for the cost of requests that may have been billed or have no known outcome, from the ledger."""
    latency: float
    finish_reasons: dict[str, int]
    teachers: dict[str, int]
    models: dict[str, int]
    prompts: dict[str, int]
    licences: dict[str, int]
    num_written: int | None = None
    """Rows that ``filter_samples`` wrote: those kept, or at most so many of a problem."""

    @property
    def num_kept(self) -> int:
        return self.verdicts["kept"]

    @property
    def right_share(self) -> float:
        """Share of right rows among all; refused and truncated ones count as wrong."""
        return self.num_right / self.num_rows

    @property
    def right_interval(self) -> tuple[float, float]:
        """Wilson interval of ``right_share``, 95 %."""
        return wilson_interval(self.num_right, self.num_rows)

    @property
    def coverage(self) -> float:
        """Share of all problems with a right sample."""
        return self.num_covered / self.num_asked

    @property
    def cost_total(self) -> Decimal:
        """Cost of rows and of failed requests, as far as it is known."""
        return self.cost + self.cost_in_vain

    @property
    def cost_per_right(self) -> Decimal | None:
        """``cost_total`` divided by the right rows; None without any."""
        return self.cost_total / self.num_right if self.num_right else None

    @property
    def cost_per_kept(self) -> Decimal | None:
        """``cost_total`` divided by the kept rows; None without any."""
        return self.cost_total / self.num_kept if self.num_kept else None


@dataclass
class Tally:
    """Counts samples, a problem at a time."""

    num_problems: int = 0
    num_covered: int = 0
    num_right: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    latency: float = 0.0
    names: dict[str, Counter[str]] = field(
        default_factory=lambda: {
            name: Counter() for name in ("verdict", "finish_reason", "teacher", "model", "prompt", "licence")
        }
    )
    _tokens: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    _steps: "array.array[int]" = field(default_factory=lambda: array.array("q"))
    _grams: dict[int, "array.array[int]"] = field(default_factory=lambda: {n: array.array("q") for n in (1, 2, 3)})

    def add(self, rows: Sequence[Row], judged: Sequence[Verdict]) -> None:
        """Count the samples of one problem with their verdicts."""
        self.num_problems += bool(rows)
        self.num_covered += any(verdict.right for verdict in judged)
        for row, verdict in zip(rows, judged, strict=True):
            usage, text = row["usage"], row["rationale"]
            self.prompt_tokens += usage["prompt_tokens"]
            self.completion_tokens += usage["completion_tokens"]
            self.cost += Decimal(str(row["cost"]))
            self.latency += row["latency"]
            for name, counter in self.names.items():
                counter[verdict.name if name == "verdict" else str(row[name] or "not stated")] += 1
            if verdict.name != "refused":
                self._tokens.append(usage["completion_tokens"])
                if text.strip():
                    self._steps.append(len(split_steps(text)))
            if verdict.right and self.num_right < NUM_DISTINCT:
                for n, hashes in self._grams.items():
                    hashes.extend(map(hash, n_grams(text, n)))
            self.num_right += verdict.right

    def statistics(self, samples: SampleRows, num_written: int | None = None) -> Statistics:
        """Figures of the whole file, once every problem was added.

        Raises:
            InputError: the ledger beside the file is damaged.
        """
        counters = {f"{name}s": dict(counter.most_common()) for name, counter in self.names.items()}
        counters["verdicts"] = {name: self.names["verdict"][name] for name in VERDICTS}
        path = samples.path.with_suffix(".ledger.jsonl")
        ledger = Ledger.read(path, samples.attempts) if path.is_file() else Ledger()
        return Statistics(
            num_rows=samples.num_rows,
            num_asked=len(samples.problems),
            num_problems=self.num_problems,
            num_covered=self.num_covered,
            num_right=self.num_right,
            tokens=Distribution.of(np.array(self._tokens, np.int64)),
            steps=Distribution.of(np.array(self._steps, np.int64)),
            distinct={n: len(np.unique(hashes)) / len(hashes) for n, hashes in self._grams.items() if len(hashes)},
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost=self.cost,
            cost_in_vain=ledger.in_vain,
            cost_unknown=sum(ledger.open.values(), Decimal(0)),
            latency=self.latency / samples.num_rows,
            num_written=num_written,
            **counters,
        )
