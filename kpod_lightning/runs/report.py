"""The report of a run: accuracies, the method's sections, what went wrong; the paper's numbers where they compare."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.table import Table

from kpod_lightning.data.rationales import sentence_on_lengths, sentence_on_losses
from kpod_lightning.data.sources import sentence_on_origins
from kpod_lightning.distributed.console import console
from kpod_lightning.evaluation.figures import accuracy_figure
from kpod_lightning.evaluation.grade import Accuracy, accuracy
from kpod_lightning.evaluation.pages import render
from kpod_lightning.evaluation.prior import describe_prior
from kpod_lightning.evaluation.sections import Section
from kpod_lightning.evaluation.statistics import mcnemar_exact
from kpod_lightning.runs.folder import Run, has_ended
from kpod_lightning.runs.published import WITHOUT, accuracy_in_percent
from kpod_lightning.runs.recipe import Recipe, recipe_of
from kpod_lightning.store.files import write_text


def report_of(run: Run, sections: Sequence[Section]) -> tuple[str, str]:
    """The report as Markdown and as HTML, from what lies in the run folder.

    Args:
        sections: what the method says of its own part.

    Raises:
        InputError: graded outputs are missing or damaged.
    """
    names = [path.stem for path in (run.folder / "predictions").glob("*.jsonl")]
    return render_report(
        run.folder.name,
        {name: run.records(name) for name in names},
        run.metrics,
        counts=run.provenance.get("counts", {}),
        origins=run.provenance.get("origins", {}),
        setting=(run.config.student.name, run.config.data.dataset),
        recipe=recipe_of(run),
        sections=[*describe_prior(run.folder), *sections],
    )


def save_report(path: Path, run: Run, sections: Sequence[Section]) -> None:
    """Write ``report.html`` at ``path``, and ``report.md`` in the run folder.

    Args:
        sections: what the method says of its own part.
    """
    markdown, html = report_of(run, sections)
    write_text(run.folder / "report.md", markdown)
    path.write_text(html, encoding="utf-8")


def print_result(run: Run, sets: Iterable[str]) -> None:
    """Print the accuracies of a finished run, and where its report lies.

    Args:
        sets: names of the problem sets that were asked after distillation; ``test`` and ``validation`` are among them.
    """
    records = {name: run.records(name) for name in ("test-before", *sets)}
    table = Table("set", "accuracy [95 % interval]", title=run.folder.name, title_justify="left")
    for label, result in accuracies(records):
        table.add_row(label, str(result))
    console.print(table)
    console.print(sentence_on_test(records["test-before"], records["test"]))
    if has_ended(run.folder):
        console.print(f"report: {run.folder / 'report.html'}")


_NUMBER = r"[$€£]?(\d[\d,]*(?:\.\d+)?)"

NUM_EXAMPLES = 3
"""Wrong outputs shown of each kind of error."""

_CALCULATION = re.compile(rf"{_NUMBER}\s*([-+*/×÷x])\s*{_NUMBER}\s*=\s*{_NUMBER}(?![\d.]*\d|\s*[-+*/×÷])")


def wrong_calculation(text: str) -> str | None:
    """The first ``a + b = c`` of a text that is false by more than half a unit of c's last digit; None: all hold."""
    for match in _CALCULATION.finditer(text):
        if match.start() and re.search(r"[-+*/×÷x]\s*$", text[: match.start()]):
            continue  # only the end of a longer calculation, as 2 + 3 = 6 in 1 + 2 + 3 = 6
        left, right, result = (Fraction(match[group].replace(",", "")) for group in (1, 3, 4))
        operator = {"×": "*", "x": "*", "÷": "/"}.get(match[2], match[2])
        if operator == "/" and right == 0:
            return match[0]
        truth = {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[operator]
        decimals = len(match[4].partition(".")[2])
        if abs(truth - result) > Fraction(1, 2 * 10**decimals) or (
            decimals == 0 and truth != result and operator != "/"
        ):
            return match[0]
    return None


def kind_of_error(record: dict[str, Any]) -> str:
    """Why a wrong output is wrong, by the first that applies: its length, no answer, a false calculation, another."""
    if record["at_limit"]:
        return "ran into the length limit"
    if record["predicted"] is None:
        return "no answer found in the text"
    if wrong_calculation(record["text"]):
        return "a calculation in the text is wrong"
    return "another answer by calculations that hold"


def render_report(
    title: str,
    records: Mapping[str, list[dict[str, Any]]],
    metrics: Sequence[Mapping[str, Any]],
    *,
    counts: Mapping[str, Any],
    origins: Mapping[str, int],
    setting: tuple[str, str],
    recipe: Recipe,
    sections: Sequence[Section] = (),
) -> tuple[str, str]:
    """The report of a run as Markdown and as HTML.

    Args:
        title: name of the run.
        records: graded outputs by set: ``test-before``, ``test``, ``validation`` and sets out of distribution.
        metrics: rows of ``metrics.jsonl``.
        counts: what was trained on and what was left out.
        origins: rationales by who wrote them, with licence or terms.
        setting: student and data set, to find the paper's numbers.
        recipe: what the run was made with, shown first.
        sections: what the method says of its own part, shown between the accuracies and the errors.
    """
    before, after = records["test-before"], records["test"]
    wrong = [record for record in after if not record["right"]]
    kinds = Counter(kind_of_error(record) for record in wrong).most_common()
    fields = {
        "title": title,
        "recipe": recipe,
        "accuracies": accuracies(records),
        "test": sentence_on_test(before, after),
        "paper": sentence_on_paper(setting),
        "weak": sentence_on_weakness(accuracy(after)),
        "training": " ".join(filter(None, [sentence_on_length(metrics), sentence_on_training(counts, origins)])),
        "accuracy_figure": accuracy_figure(metrics),
        "sections": sections,
        "kinds": kinds,
        "examples": {kind: [r for r in wrong if kind_of_error(r) == kind][:NUM_EXAMPLES] for kind, _ in kinds},
    }
    return render("report.md.j2", **fields), render("report.html.j2", **fields)


def accuracies(records: Mapping[str, list[dict[str, Any]]]) -> list[tuple[str, Accuracy]]:
    """Accuracy of every set with its label, the test set first and sets out of distribution last."""
    others = sorted(set(records) - {"test-before", "test", "validation"})
    return [
        ("test, before distillation", accuracy(records["test-before"])),
        *((f"{name}, after distillation", accuracy(records[name])) for name in ("test", "validation", *others)),
    ]


def sentence_on_test(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    test = mcnemar_exact([r["right"] for r in before], [r["right"] for r in after])
    return (
        f"Exact McNemar test, before against after: {test.only_after} gained, {test.only_before} lost, "
        f"p = {test.p_value:.2g}."
    )


def sentence_on_length(metrics: Sequence[Mapping[str, Any]]) -> str:
    """How long the student was trained, by all three measures that methods are compared at; empty where it was not."""
    epochs = [row for row in metrics if "train/tokens_seen" in row]
    if not epochs:
        return ""
    last = epochs[-1]
    return (
        f"The student saw {last['epoch'] + 1:,.0f} epochs, {last['step'] + 1:,.0f} optimiser steps and "
        f"{last['train/tokens_seen']:,.0f} target tokens."
    )


def sentence_on_training(counts: Mapping[str, Any], origins: Mapping[str, int]) -> str:
    numbers = ", ".join(f"{name} {number}" for name, number in counts.items())
    warnings = [warning for warning in (sentence_on_losses(counts), sentence_on_lengths(counts)) if warning]
    said = "".join(f" {warning[0].upper()}{warning[1:]}." for warning in warnings)
    return f"Training: {numbers}. {sentence_on_origins(origins)}{said}"


def sentence_on_paper(setting: tuple[str, str]) -> str | None:
    """The paper's numbers for a student and a data set; None where it has none."""
    student, dataset = setting
    without, with_plain = (accuracy_in_percent(student, method, dataset) for method in (WITHOUT, "scotd"))
    if without is None or with_plain is None:
        return None
    return (
        f"The paper, same student and data set, single run: {without:.2f} % without distillation, "
        f"{with_plain:.2f} % with Eq. (1)."
    )


def sentence_on_weakness(result: Accuracy) -> str | None:
    """A warning where the student answers fewer than 5 % of the test problems; None elsewhere."""
    if result.value >= 0.05:
        return None
    return (
        f"This student answers next to nothing here ({result}): the run shows that the data goes the whole way, "
        "and says nothing about the method."
    )
