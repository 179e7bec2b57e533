"""Wrong rationales: another answer of the same form, a changed last result, and a teacher's own mistakes."""

from dataclasses import replace
from fractions import Fraction

import pytest

from kpod_lightning.data.problems import Choice, Problem
from kpod_lightning.data.rationales import Rationale, wrong_of
from kpod_lightning.data.steps import split_steps
from kpod_lightning.data.wrong import made_wrong, recorded_wrong, wrong_answer, wrong_rows


def number(answer, question="How many?", name="a"):
    return Problem(id=name, question=question, answer=answer, kind="number", split="train")


def rationale(problem, text, **others):
    return Rationale(problem=problem, text=text, steps=tuple(split_steps(text)), **others)


def of_choice(text):
    choices = (Choice(label="A", text="bank"), Choice(label="B", text="river"))
    problem = Problem(id="c", question="Where?", answer="A", kind="choice", split="train", choices=choices)
    return rationale(problem, text)


# ---- Answers ----


@pytest.mark.parametrize("answer", ["0", "1", "45", "-7", "1450000", "2.50", "-0.5", "3/4", "-3/4", "4:15", "0.05"])
def test_a_wrong_number_has_the_form_and_the_sign_of_the_right_one(answer):
    for seed in range(30):
        wrong = wrong_answer(number(answer), seed)
        assert wrong != answer
        assert wrong.startswith("-") == answer.startswith("-")
        assert (":" in wrong, "/" in wrong) == (":" in answer, "/" in answer)
        assert len(wrong.partition(".")[2]) == len(answer.partition(".")[2])
        if ":" not in answer:
            assert Fraction(wrong) != Fraction(answer) and Fraction(wrong) != 0


def test_a_wrong_answer_depends_on_seed_and_problem_alone():
    answers = [wrong_answer(number("450", name=name), seed) for seed in range(4) for name in "ab"]
    assert answers == [wrong_answer(number("450", "Other?", name), seed) for seed in range(4) for name in "ab"]
    assert len(set(answers)) > 4


# ---- Made ----


@pytest.mark.parametrize(
    ("answer", "question", "text", "expected"),
    [
        (
            "45",
            "Has 20, 3 times, then 15 less?",
            "3 times is 20 * 3 = 60. So she has 60 - 15 = 45 dollars.",
            "3 times is 20 * 3 = 60. So she has 60 - 15 = {} dollars.",
        ),
        # The result of an earlier step that happens to be the same stays.
        ("20", "Sells 20 of 40?", "First 40 - 20 = 20. Then 20 + 5 = 25. Then 25 - 5 = 20 eggs.", None),
        (
            "1450",
            "?",
            "$1,000 + $450 =\n\n$1,450\n\nSo it costs $1,450.00 or 1450 in all.",
            "$1,000 + $450 =\n\n${:,}\n\nSo it costs ${:,} or {} in all.",
        ),
        # An answer that is stated first is wrong there, too, and a fraction is no mention of its value.
        (
            "30",
            "15, 10 and 5?",
            "They ate 30. So 15 + 10 + 5 = 30, it is 30.",
            "They ate {}. So 15 + 10 + 5 = {}, it is {}.",
        ),
        ("1", "?", "As 18/18 + 18/18 = 2, then 2 - 1 = 1 kid.", "As 18/18 + 18/18 = 2, then 2 - 1 = {} kid."),
        ("51", "?", "He paid 51 dollars. Yes, 51 it is.", "He paid {} dollars. Yes, {} it is."),
        ("9", "Has 9 of 12?", "He has 9 of 12. In the end 9 stay.", "He has 9 of 12. In the end {} stay."),
        ("5", "?", "That leaves five pies.", "That leaves {} pies."),
        ("-5", "?", "So 3 - 8 = -5 degrees.", "So 3 - 8 = -{} degrees."),
    ],
)
def test_the_last_result_and_its_later_mentions_become_the_wrong_number(answer, question, text, expected):
    right = rationale(number(answer, question), text)
    wrong = made_wrong(right, seed=3)
    size = int(wrong.problem.answer.removeprefix("-"))
    if expected is None:
        expected = text.removesuffix("20 eggs.") + "{} eggs."
    assert wrong.text == expected.format(*[size] * 3)
    assert "".join(wrong.text[start:end] for start, end in wrong.steps) == wrong.text
    assert len(wrong.steps) == len(right.steps)


def test_a_wrong_choice_takes_the_place_of_text_and_label():
    wrong = made_wrong(of_choice("Banks have money. A bank is (a), not the embankment."), seed=0)
    assert wrong.problem.answer == "B"
    assert wrong.text == "Rivers have money. A river is (b), not the embankment."


def test_none_is_made_of_a_text_that_does_not_mention_the_answer():
    assert made_wrong(of_choice("Nobody knows."), seed=0) is None
    assert made_wrong(rationale(number("7"), "It is 8."), seed=0) is None


# ---- Recorded ----


def candidates(problem):
    texts = ["So 5 + 2 = 7.", "So 5 + 2 = 8. The answer is 8.", "Nobody knows.", "So 5 + 2 = 9. The answer is 9."]
    return [rationale(problem, text, sample=i, teacher="t") for i, text in enumerate(texts)]


def test_a_recorded_wrong_rationale_states_an_answer_that_is_not_the_gold_one():
    found = {recorded_wrong(number("7"), candidates(number("7")), seed).sample for seed in range(20)}
    assert found == {1, 3}
    wrong = recorded_wrong(number("7"), candidates(number("7")), 0)
    assert wrong.text == f"So 5 + 2 = {wrong.problem.answer}."


def test_the_files_own_verdict_says_what_is_wrong_where_it_is_asked():
    rows = [
        replace(one, predicted=said, correct=said == "7")
        for one, said in zip(candidates(number("7")), "7788", strict=True)
    ]
    assert recorded_wrong(number("7"), rows[:2], 0, verdict="recorded") is None
    assert recorded_wrong(number("7"), rows[:3], 0, verdict="recorded").sample == 2


def test_rows_stand_in_the_order_of_the_right_ones_and_give_the_wrong_ones_back():
    problems = [number("7", name="a"), number("7", name="b"), number("7", name="c")]
    right = [rationale(problems[i], "So 5 + 2 = 7.", sample=s) for i, s in ((0, 0), (2, 0), (2, 4))]
    groups = [(p, candidates(p) if p.id == "c" else []) for p in problems]
    rows = list(wrong_rows(right, groups, 0))
    assert [(row["problem_id"], row["sample"]) for row in rows] == [("a", 0), ("c", 0), ("c", 4)]
    assert rows[0]["rationale"] is None and rows[1]["rationale"] == rows[2]["rationale"] is not None
    assert wrong_of(right[0], rows[0]) == right[0]
    wrong = wrong_of(right[1], rows[1]).wrong
    assert wrong.problem.answer == rows[1]["answer"] != "7" and wrong.text == rows[1]["rationale"]
