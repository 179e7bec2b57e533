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
from kpod_lightning.teachers.samples.quality import NUM_DISTINCT, VERDICTS, Row, SampleRows, Verdict

_NUM_BINS = 40


@dataclass(frozen=True)
class Distribution:
    """Of whole numbers: mean, 5, 50 and 95 % quantiles, and a histogram [B] with its edges [B + 1]."""

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
    """Problems that there are; ``num_problems`` of them have a row, ``num_covered`` a right one."""
    num_problems: int
    num_covered: int
    verdicts: dict[str, int]
    """Rows by verdict, all of ``VERDICTS``."""
    num_right: int
    """Rows whose text is whole and ends with the gold answer; contradictory ones and near-duplicates may be among
    them."""
    tokens: Distribution | None
    """Of the reply, of rows that were not refused."""
    steps: Distribution | None
    """Sentences of the rationale, of rows that were not refused and have a text."""
    distinct: dict[int, float]
    """distinct-n for n = 1, 2, 3: different n-grams of words over all of them, in the first ``NUM_DISTINCT`` right
    rationales, counted by a hash of 64 bits, so that memory is bounded. It falls with the number of rationales:
    compare files of like size."""
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    """Of the rows."""
    cost_in_vain: Decimal
    """Of requests that came to nothing, by the ledger."""
    cost_unknown: Decimal
    """At most, of requests of whose end nothing is known, or whether they were billed, by the ledger."""
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
        """Of all rows: what was refused or truncated is wrong."""
        return self.num_right / self.num_rows

    @property
    def right_interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson_interval(self.num_right, self.num_rows)

    @property
    def coverage(self) -> float:
        """Share of all problems with a right sample."""
        return self.num_covered / self.num_asked

    @property
    def cost_total(self) -> Decimal:
        """Of rows and of what came to nothing, as far as it is known."""
        return self.cost + self.cost_in_vain

    @property
    def cost_per_right(self) -> Decimal | None:
        """Share of ``cost_total``."""
        return self.cost_total / self.num_right if self.num_right else None

    @property
    def cost_per_kept(self) -> Decimal | None:
        """Share of ``cost_total``."""
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
        """The samples of one problem with their verdicts."""
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
        """Of the whole file, all of whose problems were added."""
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
