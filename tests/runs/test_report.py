import plotly.graph_objects as go
import pytest

from kpod_lightning.evaluation.sections import Section, Table
from kpod_lightning.runs.report import PAPER, accuracies, kind_of_error, render_report, wrong_calculation


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


def report(after, setting=("tiny-llama", "arithmetic"), sections=()):
    records = {"test-before": [record()] * len(after), "test": after, "validation": after, "ood": after}
    return render_report(
        "name",
        records,
        [],
        counts={"kept": 5},
        origins={"openai:m, CC-BY-4.0": 5},
        setting=setting,
        sections=sections,
    )


def test_the_report_says_plainly_that_a_student_answers_next_to_nothing():
    markdown, html = report([record()] * 40)
    assert "answers next to nothing" in markdown and "answers next to nothing" in html
    markdown, html = report([record(right=True)] * 40)
    assert "answers next to nothing" not in markdown + html


def test_who_wrote_the_rationales_and_under_which_terms_stands_in_the_report():
    for text in report([record(right=True)]):
        assert "Rationales by openai:m, CC-BY-4.0: 5." in text


def test_the_papers_numbers_stand_beside_ours_where_student_and_data_match():
    low, high = PAPER[("flan-t5-large", "gsm8k")]
    assert (low, high) == (6.90, 19.42)
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
    markdown, html = report([record()], sections=[section, seen])
    assert "## A <part>\n\nOne & two.\n\n| kind | share |\n|---|---|\n| a\\|b | 0.2 |\n| c |  |\n\n## What" in markdown
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
