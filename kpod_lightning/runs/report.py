"""Tables and pages from the records of a run, the paper's numbers beside ours where the setting matches."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from jinja2 import Environment
from rich.table import Table

from kpod_lightning.data.sources import sentence_on_origins
from kpod_lightning.evaluation.grade import Accuracy, accuracy
from kpod_lightning.evaluation.statistics import mcnemar_exact
from kpod_lightning.evaluation.figures import accuracy_figure, html
from kpod_lightning.methods.kpod import described
from kpod_lightning.runs.folder import Run
from kpod_lightning.runs.train_set import console
from kpod_lightning.store.files import write_text


def save_report(path: Path, run: Run) -> None:
    """``report.html`` at ``path`` from what lies in the run folder, and ``report.md`` in it."""
    names = [path.stem for path in (run.folder / "predictions").glob("*.jsonl")]
    markdown, html = render_report(
        run.folder.name,
        {name: run.records(name) for name in names},
        run.metrics,
        counts=run.provenance["counts"],
        origins=run.provenance.get("origins", {}),
        setting=(run.config.student.name, run.config.data.dataset),
        made=described(run),
    )
    write_text(run.folder / "report.md", markdown)
    path.write_text(html, encoding="utf-8")


def print_result(run: Run, out_of_distribution: Iterable[str] = ()) -> None:
    before, after = run.records("test-before"), run.records("test")
    table = Table("set", "accuracy [95 % interval]", title=f"{run.folder.name}", title_justify="left")
    table.add_row("test, before distillation", str(accuracy(before)))
    table.add_row("test, after distillation", str(accuracy(after)))
    for name in out_of_distribution:
        table.add_row(f"{name}, after distillation", str(accuracy(run.records(name))))
    console.print(table)
    test = mcnemar_exact([r["right"] for r in before], [r["right"] for r in after])
    console.print(
        f"exact McNemar test, before against after: {test.only_after} gained, {test.only_before} lost, "
        f"p = {test.p_value:.2g}"
    )
    if (run.folder / "report.html").is_file():
        console.print(f"report: {run.folder / 'report.html'}")


# Feng et al. (ICML 2024), tables 1 to 3: accuracy in % of "no distillation" and of SCoTD, which is Eq. (1).
PAPER: dict[tuple[str, str], tuple[float, float]] = {
    ("llama-7b", "gsm8k"): (11.00, 38.54),
    ("llama-7b", "asdiv"): (40.20, 63.38),
    ("llama-7b", "svamp"): (32.80, 62.67),
    ("llama-7b", "commonsenseqa"): (33.90, 71.33),
    ("flan-t5-xl", "gsm8k"): (13.50, 21.85),
    ("flan-t5-xl", "asdiv"): (20.70, 25.16),
    ("flan-t5-xl", "svamp"): (17.70, 26.67),
    ("flan-t5-xl", "commonsenseqa"): (72.70, 79.61),
    ("flan-t5-large", "gsm8k"): (6.90, 19.42),
    ("flan-t5-large", "asdiv"): (10.10, 20.06),
    ("flan-t5-large", "svamp"): (6.80, 19.33),
    ("flan-t5-large", "commonsenseqa"): (67.60, 76.58),
}



MARKDOWN = """# {{ title }}

| set | right | accuracy | 95 % interval | no answer | at the length limit |
|---|---|---|---|---|---|
{% for name, a in accuracies %}| {{ name }} | {{ a.num_right }} of {{ a.num_problems }} | {{ pct(a.value) }} | \
{{ pct(a.interval[0]) }} to {{ pct(a.interval[1]) }} | {{ a.num_unparsable }} | {{ a.num_at_limit }} |
{% endfor %}
Exact McNemar test, before against after: {{ test.only_after }} gained, {{ test.only_before }} lost, \
p = {{ '%.2g' % test.p_value }}.
{% if paper %}
The paper, same student and data set, single run: {{ '%.2f' % paper[0] }} % without distillation, \
{{ '%.2f' % paper[1] }} % with Eq. (1).
{% endif %}{% if weak %}
{{ weak }}
{% endif %}
Training: {% for name, number in counts.items() %}{{ name }} {{ number }}{{ '' if loop.last else ', ' }}{% endfor %}. \
{{ origins }}

{% if made.weights %}
## Keypoint weights

{{ made.weights }}

| kind of token | mean weight | tokens |
|---|---|---|
{% for kind, (mean, number) in made.kinds.items() %}| {{ kind }} | {{ '%.2f' % mean }} | {{ number }} |
{% endfor %}{% endif %}{% if made.schedule %}
## Schedule

{{ made.schedule }}

| stage | budget D(t) | asked H(t) | value / upper bound | mean input steps |
|---|---|---|---|---|
{% for row in made.stages %}| {{ row.stage }} | {{ '%.1f' % row.budget }} | {{ '%.1f' % row.asked }} | \
{{ '%.5f' % row.certificate if row.certificate else '' }} | {{ '%.2f' % row.input_steps }} |
{% endfor %}{% endif %}
## What went wrong on the test set

| kind | problems |
|---|---|
{% for kind, number in kinds %}| {{ kind }} | {{ number }} |
{% endfor %}
"""

HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}
pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}.n{text-align:right}</style>
<h1>{{ title }}</h1>
<table><tr><th>set<th>right<th>accuracy<th>95 % interval<th>no answer<th>at the length limit</tr>
{% for name, a in accuracies %}<tr><td>{{ name }}<td class=n>{{ a.num_right }} of {{ a.num_problems }}
<td class=n>{{ pct(a.value) }}<td>{{ pct(a.interval[0]) }} to {{ pct(a.interval[1]) }}
<td class=n>{{ a.num_unparsable }}<td class=n>{{ a.num_at_limit }}</tr>{% endfor %}</table>
<p>Exact McNemar test, before against after: {{ test.only_after }} gained, {{ test.only_before }} lost,
p = {{ '%.2g' % test.p_value }}.</p>
{% if paper %}<p>The paper, same student and data set, single run: {{ '%.2f' % paper[0] }} % without distillation,
{{ '%.2f' % paper[1] }} % with Eq. (1).</p>{% endif %}
{% if weak %}<p><strong>{{ weak }}</strong></p>{% endif %}
<p>Training: {% for name, number in counts.items() %}{{ name }} {{ number }}{{ '' if loop.last else ', ' }}{% endfor %}.
{{ origins }}</p>{{ figures.accuracy | safe }}
{% if made.weights %}<h2>Keypoint weights</h2><p>{{ made.weights }}</p>
{% for text in made.coloured %}<p>{{ text | safe }}</p>{% endfor %}
{{ figures.sufficiency | safe }}{{ figures.kinds | safe }}{{ figures.history | safe }}{% endif %}
{% if figures.difficulty %}<h2>Difficulty of the steps</h2>{{ figures.difficulty | safe }}{% endif %}
{% if made.schedule %}<h2>Schedule</h2><p>{{ made.schedule }}</p>
<table><tr><th>stage<th>budget D(t), nats<th>asked H(t)<th>value / upper bound<th>mean input steps</tr>
{% for row in made.stages %}<tr><td class=n>{{ row.stage }}<td class=n>{{ '%.1f' % row.budget }}
<td class=n>{{ '%.1f' % row.asked }}<td class=n>{{ '%.5f' % row.certificate if row.certificate else '' }}
<td class=n>{{ '%.2f' % row.input_steps }}</tr>{% endfor %}</table>
{{ figures.asked | safe }}{{ figures['input-steps'] | safe }}{% endif %}
<h2>What went wrong on the test set</h2>
{% for kind, number in kinds %}<h3>{{ kind }}: {{ number }}</h3>
{% for r in examples[kind] %}<pre>{{ r.problem_id }}, gold {{ r.answer }}, extracted {{ r.predicted }}
{{ r.question }}
→{{ r.text }}</pre>{% endfor %}{% endfor %}</html>
"""

_NUMBER = r"[$€£]?(\d[\d,]*(?:\.\d+)?)"

_CALCULATION = re.compile(rf"{_NUMBER}\s*([-+*/×÷x])\s*{_NUMBER}\s*=\s*{_NUMBER}(?![\d.]*\d|\s*[-+*/×÷])")


def wrong_calculation(text: str) -> str | None:
    """The first ``a + b = c`` of a text that does not hold, to half a unit of the last digit of c; None if all do."""
    for match in _CALCULATION.finditer(text):
        if match.start() and re.search(r"[-+*/×÷x]\s*$", text[: match.start()]):
            continue  # the end of a longer calculation
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
    """Why a record is wrong: no end, no answer, a calculation that does not hold, or else another way."""
    if record["at_limit"]:
        return "ran into the length limit"
    if record["predicted"] is None:
        return "no answer found in the text"
    if wrong_calculation(record["text"]):
        return "a calculation in the text is wrong"
    return "another answer by calculations that hold"


def render_report(
    title: str,
    records: dict[str, list[dict[str, Any]]],
    metrics: list[dict[str, Any]],
    *,
    counts: dict[str, Any],
    origins: Mapping[str, int],
    setting: tuple[str, str],
    made: dict[str, Any] | None = None,
) -> tuple[str, str]:
    """The report of a run as Markdown and as HTML.

    Args:
        title: name of the run.
        records: graded outputs by set: ``test-before``, ``test``, ``validation`` and sets out of distribution.
        metrics: rows of ``metrics.jsonl``.
        counts: what was trained on and what was left out.
        origins: rationales by who wrote them, with licence or terms.
        setting: student and data set, to find the paper's numbers.
        made: what ``describe_weights``, ``describe_difficulties`` and ``describe_schedule`` say of the method.
    """
    before, after = records["test-before"], records["test"]
    others = sorted(set(records) - {"test-before", "test", "validation"})
    accuracies: list[tuple[str, Accuracy]] = [
        ("test, before distillation", accuracy(before)),
        ("test, after distillation", accuracy(after)),
        ("validation, after distillation", accuracy(records["validation"])),
        *[(f"{name}, after distillation", accuracy(records[name])) for name in others],
    ]
    wrong = [record for record in after if not record["right"]]
    kinds = Counter(kind_of_error(record) for record in wrong).most_common()
    result = accuracy(after)
    fields = {
        "title": title,
        "accuracies": accuracies,
        "test": mcnemar_exact([r["right"] for r in before], [r["right"] for r in after]),
        "paper": PAPER.get(setting),
        "weak": (
            f"This student answers next to nothing here ({result}): the run shows that the data goes the whole way, "
            "and says nothing about the method."
            if result.value < 0.05
            else ""
        ),
        "counts": counts,
        "origins": sentence_on_origins(origins),
        "made": made or {},
        "kinds": kinds,
        "examples": {kind: [r for r in wrong if kind_of_error(r) == kind][:3] for kind, _ in kinds},
        "figures": html({"accuracy": accuracy_figure(metrics), **(made or {}).get("figures", {})}),
        "pct": lambda share: f"{100 * share:.1f} %",
    }
    markdown = Environment(keep_trailing_newline=True).from_string(MARKDOWN).render(fields)
    return markdown, Environment(autoescape=True).from_string(HTML).render(fields)
