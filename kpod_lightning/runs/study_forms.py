"""Forms of a study's table: Markdown, LaTeX, CSV and a page, with what their numbers can and cannot say."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from kpod_lightning.evaluation.figures import labelled
from kpod_lightning.evaluation.pages import render
from kpod_lightning.runs.study_table import ArmRow, ComparisonRow, StudyTable

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
PAPER = "the paper, one run"
"""A column behind them, where the paper has a number of any arm."""
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


def of_paper(arm: ArmRow) -> str:
    return "" if arm.published is None else f"{arm.published:.2f}"


def comparison_cells(row: ComparisonRow) -> list[str]:
    found = row.found
    return [
        f"{row.question}: {row.b.name} − {row.a.name}" if row.question else f"{row.b.name} − {row.a.name}",
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
        sizes = Counter(row.question for row in table.comparisons)
        over = (
            f"the {len(table.comparisons)} comparisons of this table"
            if len(sizes) == 1
            else f"the comparisons of each question ({', '.join(f'{name}: {size}' for name, size in sizes.items())})"
        )
        found.append(
            f"Holm's correction is over {over}, which the study file names. Detectable is the least true difference "
            "that would be found with 80 % power."
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
    arms = [arm_cells(arm) for arm in table.arms]
    if any(arm.published is not None for arm in table.arms):
        arms = [[*cells, of_paper(arm)] for cells, arm in zip(arms, table.arms, strict=True)]
    return arms, [comparison_cells(row) for row in table.comparisons]


def arm_columns(table: StudyTable) -> tuple[str, ...]:
    """Names of the columns that ``rows_of`` gives of an arm."""
    return (*ARM_COLUMNS, PAPER) if any(arm.published is not None for arm in table.arms) else ARM_COLUMNS


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
    write(["question", "a", "b", "seeds", "difference", "low", "high", "p", "p_holm", "discordance", "detectable"])
    for row in table.comparisons:
        found = row.found
        numbers = [found.difference, *found.interval, found.p_value, row.adjusted, found.discordance, found.detectable]
        write([row.question, row.a.name, row.b.name, len(row.seeds), *numbers])
    return file.getvalue()


def fields_of(table: StudyTable) -> dict[str, Any]:
    arms, comparisons = rows_of(table)
    return {
        "title": table.records.study,
        "about": table.records.about,
        "arm_columns": arm_columns(table),
        "comparison_columns": COMPARISON_COLUMNS,
        "arms": arms,
        "comparisons": comparisons,
        "runs": [arm.runs for arm in table.arms],
        "notes": notes(table),
    }


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
