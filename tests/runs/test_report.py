import json
import shlex

import plotly.graph_objects as go
import pytest
from test_project import ROOT

from kpod_lightning.__main__ import parse
from kpod_lightning.config import to_dict
from kpod_lightning.evaluation.pages import markdown
from kpod_lightning.evaluation.sections import Section, Table
from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.folder import Run
from kpod_lightning.runs.recipe import Recipe, recipe_of
from kpod_lightning.runs.report import accuracies, kind_of_error, render_report, wrong_calculation


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("She has 3 + 4 = 7 pears.", None),
        ("She has 3 + 4 = 8 pears.", "3 + 4 = 8"),
        ("3 + 4 = 7. Then 7 - 9 = 2.", "7 - 9 = 2"),
        ("It is 10 / 4 = 2.5.", None),
        ("It is 10 / 3 = 3.33, about.", None),
        ("It is 10 / 3 = 3.4.", "10 / 3 = 3.4"),
        ("$1,200 * 2 = $2,400", None),
        ("1 + 2 + 3 = 6", None),
        ("2 * 3 = 6 + 1 = 7", None),
        ("8 / 0 = 8", "8 / 0 = 8"),
        ("6 × 7 = 42 and 42 ÷ 6 = 8", "42 ÷ 6 = 8"),
        ("no numbers", None),
    ],
)
def test_a_calculation_that_does_not_hold_is_found(text, wrong):
    assert wrong_calculation(text) == wrong


def record(text="3 + 4 = 7", predicted="7", right=False, at_limit=False, **more):
    return {
        "problem_id": "p",
        "question": "<b>How many?</b>",
        "answer": "7",
        "text": text,
        "predicted": predicted,
        "right": right,
        "at_limit": at_limit,
    } | more


def test_every_wrong_record_has_one_kind():
    assert kind_of_error(record(at_limit=True, predicted=None)) == "ran into the length limit"
    assert kind_of_error(record(predicted=None)) == "no answer found in the text"
    assert kind_of_error(record(text="3 + 4 = 8")) == "a calculation in the text is wrong"
    assert kind_of_error(record()) == "another answer by calculations that hold"


RECIPE = Recipe(
    facts={"student": "a|b <c>"}, changed=[("optim.lr", "0.1", "5e-05")], again="kpod run config.yaml --run '../<x>'"
)


def report(after, setting=("tiny-llama", "arithmetic"), sections=(), counts=None):
    records = {"test-before": [record()] * len(after), "test": after, "validation": after, "ood": after}
    return render_report(
        "name",
        records,
        [],
        counts=counts or {"kept": 5},
        origins={"openai:m, CC-BY-4.0": 5},
        setting=setting,
        recipe=RECIPE,
        sections=sections,
    )


def test_the_report_says_plainly_that_a_student_answers_next_to_nothing():
    text, html = report([record()] * 40)
    assert "answers next to nothing" in text and "answers next to nothing" in html
    text, html = report([record(right=True)] * 40)
    assert "answers next to nothing" not in text + html


def test_who_wrote_the_rationales_and_under_which_terms_stands_in_the_report():
    for text in report([record(right=True)]):
        assert "Rationales by openai:m, CC-BY-4.0: 5." in text


def test_what_the_train_set_has_lost_stands_in_the_report_with_the_setting():
    lost = {"problems": 10, "of them wrong": 4, "problems without a right one": 4, "kept": 20}
    for text in report([record(right=True)], counts=lost):
        assert "Warning: 4 of 10 problems are left without a rationale" in text and "rationales.teacher" in text
    for text in report([record(right=True)], counts={"kept": 20, "longer than student.max_length": 2}):
        assert "Warning: 2 of 20 rationales are left out" in text
    few = {"problems": 10, "problems without a right one": 3, "kept": 20, "longer than student.max_length": 1}
    assert "are left" not in report([record(right=True)], counts=few)[0]


def test_the_papers_numbers_stand_beside_ours_where_student_and_data_match():
    for text in report([record(right=True)], setting=("flan-t5-large", "gsm8k")):
        assert "6.90" in text and "19.42" in text
    assert "The paper" not in "".join(report([record(right=True)])[0])


def test_text_of_a_student_cannot_break_the_page():
    _, html = report([record(text="<script>alert(1)</script>")] * 2)
    assert "<script>alert(1)</script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_sections_of_a_method_stand_in_the_report():
    section = Section(
        "A <part>",
        ("One & two.",),
        html={"pieces": "<b>bold</b>"},
        table=Table("kinds", {"kind": "", "share": ".1f"}, (("a|b", 0.25), ("c", None))),
        figures={"bars": go.Figure(go.Bar(y=[1, 2]))},
    )
    seen = Section("Only seen", figures={"more": go.Figure()})
    text, html = report([record()], sections=[section, seen])
    assert "## A \\<part\\>\n\nOne & two.\n\n| kind | share |\n|---|---|\n| a\\|b | 0.2 |\n| c |  |\n\n## What" in text
    assert "<h2>A &lt;part&gt;</h2>" in html and "<p>One &amp; two.</p>" in html and "<b>bold</b>" in html
    assert "Only seen" in html and 'id="bars"' in html and 'id="more"' in html


def test_a_page_carries_plotlys_script_once_and_loads_nothing():
    _, html = report([record()], sections=[Section(name, figures={name: go.Figure()}) for name in ("one", "other")])
    assert 4e6 < len(html) < 6e6
    assert not any(tag in html for tag in ("<script src", "<link", "@import", "<img"))


def test_every_set_has_one_accuracy_and_the_test_set_comes_first():
    names = ("validation", "test", "ood", "test-before")
    labels = [label for label, _ in accuracies({name: [record()] for name in names})]
    assert labels == [
        "test, before distillation",
        "test, after distillation",
        "validation, after distillation",
        "ood, after distillation",
    ]


def recipe(tmp_path, *words):
    return recipe_of(Run(tmp_path / "first try", load_experiment(ROOT / "experiments" / "arithmetic.yaml", [*words])))


def test_the_report_begins_with_what_the_run_was_made_with_and_the_command_for_it():
    text, html = report([record()])
    assert text.startswith("# name\n\n| | |\n|---|---|\n| student | a\\|b \\<c\\> |\n")
    assert "| optim.lr | 0.1 | 5e-05 |" in text and "\n    kpod run config.yaml --run '../<x>'\n" in text
    assert (
        html.index("a|b &lt;c&gt;") < html.index("<code>optim.lr</code>") < html.index("--run &#39;../&lt;x&gt;&#39;")
    )
    assert html.index("kpod run config.yaml") < html.index("<h2>Result</h2>")


def test_a_recipe_has_the_settings_that_differ_and_none_that_the_method_does_not_read(tmp_path):
    kpod = {key: (value, default) for key, value, default in recipe(tmp_path).changed}
    assert kpod["weights.floor"] == ("0.5", "0.0") and kpod["schedule.num_stages"] == ("2", "null")
    plain = recipe(tmp_path, "method=plain", "logging.wandb=disabled", "student.lora_rank=4")
    names = [key for key, *_ in plain.changed]
    assert "optim.lr" in names and "student.lora_rank" in names
    assert not any(name.startswith(("weights.", "schedule.", "logging.", "launch.")) for name in names)
    assert (
        plain.facts["method"] == "plain" and plain.facts["seed"] == "0" and "LoRA of rank 4" in plain.facts["student"]
    )


def test_the_command_of_a_recipe_makes_a_run_of_the_same_settings(tmp_path):
    words = shlex.split(recipe(tmp_path, "optim.epochs=3").again)
    config = load_experiment(ROOT / "experiments" / "arithmetic.yaml", ["optim.epochs=3"])
    (tmp_path / "first try").mkdir()
    (tmp_path / "first try" / "config.yaml").write_text(json.dumps(to_dict(config)))
    arguments = parse(words[1:])
    assert words[0] == "kpod" and load_experiment(arguments.experiment, arguments.settings) == config
    assert arguments.run == tmp_path / "first try-again"


def test_wrong_answers_and_outputs_without_one_are_counted_apart():
    after = [record(right=True), record(predicted="8"), record(predicted="9"), record(predicted=None)]
    text, html = report(after)
    assert "| test, after distillation | 1 of 4 | 2 | 1 | 25.0 % |" in text
    assert "<td class=n>1 of 4<td class=n>2\n<td class=n>1<td class=n>25.0 %" in html


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("num_train 3 [0.1, 0.2]", "num_train 3 [0.1, 0.2]"),
        ("a|b", r"a\|b"),
        ("_x_ *y* `z` ~~w~~", r"\_x\_ \*y\* \`z\` \~\~w\~\~"),
        ("[a](b) <script>", r"[a]\(b) \<script\>"),
        ("# one\n2. two", r"\# one 2. two"),
        ("-0.5 1.5 and so on", "-0.5 1.5 and so on"),
        ("12. two", r"12\. two"),
        ("&lt; & co", r"\&lt; & co"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, shown):
    assert markdown(text) == shown
