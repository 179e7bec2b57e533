"""The table of a study: accuracies of its arms, and the comparisons that were named beforehand, as text and pages."""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from kpod_lightning.evaluation.comparison import Comparison, compare, holm, t_interval
from kpod_lightning.evaluation.figures import labelled
from kpod_lightning.evaluation.pages import render
from kpod_lightning.evaluation.statistics import wilson_interval
from kpod_lightning.runs.study_records import Records, RunRecord
from kpod_lightning.store.errors import InputError

NEARLY = 0.01
"""Arms have equally many tokens, steps or epochs where their means differ by at most this share."""


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm over its finished runs."""

    name: str
    runs: tuple[RunRecord, ...]

    @property
    def mean(self) -> float:
        return sum(run.accuracy for run in self.runs) / len(self.runs)

    @property
    def deviation(self) -> float | None:
        """Standard deviation between seeds; None with one."""
        if len(self.runs) < 2:
            return None
        return math.sqrt(sum((run.accuracy - self.mean) ** 2 for run in self.runs) / (len(self.runs) - 1))

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: Student's t over seeds; with one run Wilson's over problems."""
        if len(self.runs) > 1:
            return t_interval([run.accuracy for run in self.runs])
        return wilson_interval(self.runs[0].right.count("1"), len(self.runs[0].right))

    def average(self, of: str) -> float:
        """Mean over its runs of ``epochs``, ``steps``, ``tokens`` or ``seconds``."""
        return float(sum(getattr(run, of) for run in self.runs) / len(self.runs))


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """B against A over the seeds that both have."""

    a: ArmRow
    b: ArmRow
    seeds: tuple[int, ...]
    found: Comparison
    adjusted: float
    """p-value by Holm's correction over the comparisons of the table."""

    @property
    def equal(self) -> list[str]:
        """In which of epochs, steps and tokens the two are alike."""
        pairs = {of: (self.a.average(of), self.b.average(of)) for of in ("epochs", "steps", "tokens")}
        return [of for of, (one, other) in pairs.items() if abs(one - other) <= NEARLY * max(one, other)]


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """What every form of the table shows.

    Attributes:
        missing: names of comparisons of which no seed has both runs yet.
    """

    records: Records
    arms: tuple[ArmRow, ...]
    comparisons: tuple[ComparisonRow, ...]
    missing: tuple[str, ...]


def table_of(records: Records) -> StudyTable:
    """
    Raises:
        InputError: two runs that are compared have other test problems.
    """
    by_arm = {name: tuple(run for run in records.runs if run.arm == name) for name in records.named["arms"]}
    arms = {name: ArmRow(name=name, runs=runs) for name, runs in by_arm.items() if runs}
    pairs = [tuple(pair) for pair in records.named["family"]]
    found = [(a, b, *paired(arms[a], arms[b])) for a, b in pairs if a in arms and b in arms]
    there = [(a, b, seeds, compared) for a, b, seeds, compared in found if compared is not None]
    adjusted = holm([compared.p_value for *_, compared in there])
    return StudyTable(
        records=records,
        arms=tuple(arms.values()),
        comparisons=tuple(
            ComparisonRow(a=arms[a], b=arms[b], seeds=seeds, found=compared, adjusted=p)
            for (a, b, seeds, compared), p in zip(there, adjusted, strict=True)
        ),
        missing=tuple(f"{b} − {a}" for a, b in pairs if (a, b) not in [(x, y) for x, y, *_ in there]),
    )


def paired(a: ArmRow, b: ArmRow) -> tuple[tuple[int, ...], Comparison | None]:
    """The comparison over the seeds that both arms have; None where there is no such seed.

    Raises:
        InputError: their test problems differ.
    """
    of_a, of_b = ({run.seed: run for run in arm.runs} for arm in (a, b))
    seeds = tuple(seed for seed in of_a if seed in of_b)
    if not seeds:
        return (), None
    if len({arm[seed].problems for arm in (of_a, of_b) for seed in seeds}) > 1:
        raise InputError(f"{a.name} and {b.name} were tested on other problems: they cannot be compared")
    return seeds, compare([of_a[seed].rights() for seed in seeds], [of_b[seed].rights() for seed in seeds])


# ---- In words ----


def points(share: float) -> str:
    """A share in points of a hundred, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def interval_of(bounds: tuple[float, float] | None, text: Any = points) -> str:
    return "" if bounds is None else f"[{text(bounds[0])}, {text(bounds[1])}]"


def chance(p_value: float) -> str:
    """A p-value with two digits, or that it is small."""
    return f"{p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"


def percents(share: float) -> str:
    return f"{100 * share:.1f}"


def mcnemar_of(row: ComparisonRow) -> str:
    """Of each seed: problems that B alone has right, that A alone has right, and p."""
    tests = zip(row.seeds, row.found.tests, strict=True)
    return "; ".join(f"s{seed}: {t.only_after}/{t.only_before}, p = {chance(t.p_value)}" for seed, t in tests)


ARM_COLUMNS = ("arm", "seeds", "% right, by seed", "mean ± sd", "95 % interval", "epochs", "steps", "tokens", "seconds")
COMPARISON_COLUMNS = (
    "B − A",
    "seeds",
    "points",
    "95 %: other seeds and problems",
    "95 %: other seeds",
    "95 %: other problems",
    "p",
    "p, Holm",
    "discordant, %",
    "detectable, points",
    "equal in",
    "McNemar by seed (B alone/A alone right)",
)


def arm_cells(arm: ArmRow) -> list[str]:
    spread = "" if arm.deviation is None else f" ± {percents(arm.deviation)}"
    low, high = clipped(arm.interval)
    return [
        arm.name,
        ", ".join(str(run.seed) for run in arm.runs),
        ", ".join(percents(run.accuracy) for run in arm.runs),
        f"{percents(arm.mean)}{spread}",
        f"[{percents(low)}, {percents(high)}]",
        f"{arm.average('epochs'):.1f}",
        f"{arm.average('steps'):,.0f}",
        f"{arm.average('tokens'):,.0f}",
        f"{arm.average('seconds'):,.0f}",
    ]


def comparison_cells(row: ComparisonRow) -> list[str]:
    found = row.found
    return [
        f"{row.b.name} − {row.a.name}",
        str(len(row.seeds)),
        points(found.difference) + ("" if found.deviation is None else f" ± {percents(found.deviation)}"),
        interval_of(found.interval) if len(row.seeds) > 1 else "",
        interval_of(found.seeds_interval),
        interval_of(found.problems_interval),
        chance(found.p_value),
        chance(row.adjusted),
        percents(found.discordance),
        percents(found.detectable),
        ", ".join(row.equal) or "nothing",
        mcnemar_of(row),
    ]


def notes(table: StudyTable) -> list[str]:
    """What stands under the tables: how many runs there are, and what the numbers can and cannot say."""
    records = table.records
    found = [f"{len(records.runs)} of {records.planned} runs have ended."]
    if table.missing:
        found.append(f"Not compared yet, for want of a seed that has both runs: {', '.join(table.missing)}.")
    if table.comparisons and records.beforehand:
        found.append(records.beforehand)
    if table.comparisons:
        found.append(
            f"Holm's correction is over the {len(table.comparisons)} comparisons of this table, which the study file "
            "names. Detectable is the least true difference that would be found with 80 % power."
        )
    if any(len(row.seeds) == 1 for row in table.comparisons):
        found.append(
            "A comparison of one seed says whether these two students differ on problems like these. It does not say "
            "whether one method is better than the other: seeds of one arm differ, too, and by how much is not known."
        )
    if any(1 < len(row.seeds) < 5 for row in table.comparisons):
        found.append("With fewer than five seeds the interval for other seeds rests on a poorly known deviation.")
    return found


# ---- Forms ----


def rows_of(table: StudyTable) -> tuple[list[list[str]], list[list[str]]]:
    return [arm_cells(arm) for arm in table.arms], [comparison_cells(row) for row in table.comparisons]


def as_markdown(table: StudyTable) -> str:
    return render("study.md.j2", **fields_of(table))


def as_html(table: StudyTable, links: dict[str, str]) -> str:
    """
    Args:
        links: name of a run -> path of its report, relative to the page; a run without one is shown as text.
    """
    return render("study.html.j2", **fields_of(table), links=links, figure=figure_of(table))


def as_latex(table: StudyTable) -> str:
    return render("study.tex.j2", **fields_of(table))


def as_csv(table: StudyTable) -> str:
    """Both tables as numbers of full precision: a line an arm and seed, then a line a comparison."""
    file = io.StringIO()
    write = csv.writer(file, lineterminator="\n").writerow
    write(["arm", "seed", "right", "problems", "accuracy", "epochs", "steps", "tokens", "seconds"])
    for run in (run for arm in table.arms for run in arm.runs):
        counts = [run.right.count("1"), len(run.right), run.accuracy]
        write([run.arm, run.seed, *counts, run.epochs, run.steps, run.tokens, run.seconds])
    write([])
    write(["a", "b", "seeds", "difference", "low", "high", "p", "p_holm", "discordance", "detectable"])
    for row in table.comparisons:
        found = row.found
        numbers = [found.difference, *found.interval, found.p_value, row.adjusted, found.discordance, found.detectable]
        write([row.a.name, row.b.name, len(row.seeds), *numbers])
    return file.getvalue()


def fields_of(table: StudyTable) -> dict[str, Any]:
    arms, comparisons = rows_of(table)
    return {
        "title": table.records.study,
        "about": table.records.about,
        "arm_columns": ARM_COLUMNS,
        "comparison_columns": COMPARISON_COLUMNS,
        "arms": arms,
        "comparisons": comparisons,
        "runs": [[run.run for run in arm.runs] for arm in table.arms],
        "notes": notes(table),
        "latex": latex,
    }


_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


def latex(text: str) -> str:
    """A text as LaTeX shows it."""
    return re.sub(r"[&%$#_{}~^\\−±<>]", lambda mark: _LATEX[mark[0]], text)


def figure_of(table: StudyTable) -> go.Figure:
    """Accuracy of every arm: a dot a seed, the mean and its 95 % interval."""
    figure = go.Figure()
    names = [arm.name for arm in table.arms]
    for arm in table.arms:
        figure.add_scatter(
            x=[100 * run.accuracy for run in arm.runs],
            y=[arm.name] * len(arm.runs),
            mode="markers",
            marker={"color": "#0072B2", "opacity": 0.6},
            text=[run.run for run in arm.runs],
            showlegend=False,
        )
    low, high = zip(*(clipped(arm.interval) for arm in table.arms), strict=True)
    means = [arm.mean for arm in table.arms]
    figure.add_scatter(
        x=[100 * mean for mean in means],
        y=names,
        mode="markers",
        marker={"color": "#D55E00", "symbol": "line-ns-open", "size": 14},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (top - mean) for top, mean in zip(high, means, strict=True)],
            "arrayminus": [100 * (mean - bottom) for bottom, mean in zip(low, means, strict=True)],
        },
        name="mean, 95 % interval",
        showlegend=False,
    )
    labelled(figure, "test accuracy: seeds, mean and 95 % interval", "% right", "")
    figure.update_layout(height=120 + 32 * len(names), margin={"l": 10})
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(rangemode="tozero")
    return figure


def clipped(bounds: Iterable[float]) -> Sequence[float]:
    """Bounds of a share, within [0, 1]: a t interval of few seeds may reach beyond."""
    return [min(1.0, max(0.0, bound)) for bound in bounds]
