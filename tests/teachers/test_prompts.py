"""Prompts: what is sent for a problem, and what a prompt file may hold."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from teachers.builders import HENS, MELTS, SNOW, teacher_of

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.answers import extract_answer
from kpod_lightning.data.problems import Problem
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.teachers.prompts import PROMPTS, Prompt, load_prompt

KINDS = {problem.kind: problem for problem in (HENS, MELTS, SNOW)}

HENS_TEXT = "Ann has 2 hens and buys 3. How many hens has she?"

MELTS_TEXT = "What melts? Answer Choices: (A) stone (B) ice"

EXPLAIN = (
    "You explain answers to students. Reason from the question alone, step by step, one step a sentence, and do not "
    "mention that the answer was given to you."
)

ASKED = {
    ("zero_shot_cot", "number"): [("user", f"Q: {HENS_TEXT}\nA: Let's think step by step.")],
    ("zero_shot_cot", "choice"): [("user", f"Q: {MELTS_TEXT}\nA: Let's think step by step.")],
    ("zero_shot_cot", "yes_no"): [("user", "Q: Is snow cold?\nA: Let's think step by step.")],
    ("few_shot", "number"): [
        (
            "user",
            "Q: A bakery puts 6 rolls in a bag. Mara buys 4 bags and eats 5 rolls. How many rolls does she have left?\n"
            "A: Mara buys 4 * 6 = 24 rolls. She eats 5 of them. So she has 24 - 5 = 19 rolls left. Therefore, the "
            "answer is 19.\n"
            "\n"
            "Q: Tickets cost 3 dollars for a child and 7 dollars for an adult. What do 2 adults and 5 children pay in "
            "all?\n"
            "A: The adults pay 2 * 7 = 14 dollars. The children pay 5 * 3 = 15 dollars. In all they pay 14 + 15 = 29 "
            "dollars. Therefore, the answer is 29.\n"
            "\n"
            f"Q: {HENS_TEXT}\n"
            "A:",
        )
    ],
    ("few_shot", "choice"): [
        (
            "user",
            "Q: Where would you keep milk so that it stays fresh? Answer Choices: (A) oven (B) refrigerator (C) shelf "
            "(D) garage (E) window\n"
            "A: Milk spoils when it is warm. It has to be kept cold. Of the choices, the refrigerator is the place "
            "made for keeping food cold. Therefore, the answer is B.\n"
            "\n"
            "Q: What does a person do who is tired at night? Answer Choices: (A) swim (B) sing (C) sleep (D) paint "
            "(E) argue\n"
            "A: A person who is tired needs rest. At night people rest by sleeping. The other choices take effort. "
            "Therefore, the answer is C.\n"
            "\n"
            f"Q: {MELTS_TEXT}\n"
            "A:",
        )
    ],
    ("few_shot", "yes_no"): [
        (
            "user",
            "Q: Could a cat fit into a shoe box?\n"
            "A: A small cat is about 40 centimetres long. A shoe box is about 30 centimetres long, and cats curl up. "
            "So a small cat fits into it. Therefore, the answer is yes.\n"
            "\n"
            "Q: Would ice stay frozen in boiling water?\n"
            "A: Ice melts above 0 degrees. Boiling water has 100 degrees. So the ice melts. Therefore, the answer is "
            "no.\n"
            "\n"
            "Q: Is snow cold?\n"
            "A:",
        )
    ],
    ("answer_given", "number"): [
        ("system", EXPLAIN),
        (
            "user",
            f"Q: {HENS_TEXT}\nThe answer is 5.\n"
            'Explain step by step how to get there. End with "Therefore, the answer is 5."',
        ),
    ],
    ("answer_given", "choice"): [
        ("system", EXPLAIN),
        (
            "user",
            f"Q: {MELTS_TEXT}\nThe answer is B.\n"
            'Explain step by step how to get there. End with "Therefore, the answer is B."',
        ),
    ],
    ("answer_given", "yes_no"): [
        ("system", EXPLAIN),
        (
            "user",
            "Q: Is snow cold?\nThe answer is yes.\n"
            'Explain step by step how to get there. End with "Therefore, the answer is yes."',
        ),
    ],
    ("think", "number"): [
        ("user", f"{HENS_TEXT}\nReason step by step, then state the result as: Therefore, the answer is NUMBER.")
    ],
    ("think", "choice"): [
        (
            "user",
            f"{MELTS_TEXT}\n"
            "Reason step by step, then state the letter of the right choice as: Therefore, the answer is LETTER.",
        )
    ],
    ("think", "yes_no"): [
        (
            "user",
            "Is snow cold?\nReason step by step, then state the result as: Therefore, the answer is yes. Or: "
            "Therefore, the answer is no.",
        )
    ],
}
"""With two examples where the prompt has some."""


@pytest.mark.parametrize(("name", "kind"), ASKED)
def test_the_messages_of_a_shipped_prompt_are_those_written_out_here(name, kind):
    prompt = load_prompt(teacher_of(prompt=name, num_examples=2), kind)
    assert prompt.messages(KINDS[kind]) == tuple(ASKED[name, kind])


def test_every_shipped_prompt_is_written_out_for_every_kind_of_answer():
    assert set(ASKED) == {(file.stem, kind) for file in PROMPTS.glob("*.jinja") for kind in KINDS}


@pytest.mark.parametrize(
    ("name", "kind", "asked"),
    [
        ("zero_shot_cot", "number", "Therefore, the answer (arabic numerals) is"),
        ("zero_shot_cot", "choice", "Therefore, among the choices, the answer (one letter) is"),
        ("zero_shot_cot", "yes_no", "Therefore, the answer (yes or no) is"),
        ("few_shot", "number", "Therefore, the answer is"),
        ("answer_given", "choice", "Therefore, the answer is"),
        ("think", "yes_no", "Therefore, the answer is"),
    ],
)
def test_what_is_asked_after_the_rationale_is_what_is_written_out_here(name, kind, asked):
    assert load_prompt(teacher_of(prompt=name), kind).answer_call(KINDS[kind]) == asked


def test_an_example_is_left_out_where_it_is_the_problem_itself():
    prompt = load_prompt(teacher_of(prompt="few_shot", num_examples=4), "number")
    first, *others = prompt.examples
    itself = Problem(id="e", question=first["question"], answer=first["answer"], kind="number", split="train")
    ((_, text),) = prompt.messages(itself)
    assert text.count(first["question"]) == 1 and first["rationale"] not in text
    assert all(example["rationale"] in text for example in others)


@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_answer_of_a_shipped_example_is_what_is_read_off_its_text(kind):
    rows = list(JsonLines(PROMPTS / f"examples_{kind}.jsonl"))
    assert len(rows) >= TeacherConfig().num_examples
    texts = [f"{row['rationale']} Therefore, the answer is {row['answer']}." for row in rows]
    assert [extract_answer(text, kind, "flexible") for text in texts] == [row["answer"] for row in rows]


def test_numbers_of_shipped_examples_are_right_without_the_stated_answer_too():
    rows = list(JsonLines(PROMPTS / "examples_number.jsonl"))
    assert [extract_answer(row["rationale"], "number", "flexible") for row in rows] == [row["answer"] for row in rows]


EXAMPLES = [
    {"question": "What is 1 + 1?", "rationale": "1 + 1 = 2.", "answer": "2"},
    {"question": "What is 2 + 2?", "rationale": "2 + 2 = 4.", "answer": "4"},
    {"question": "What is 3 + 3?", "rationale": "3 + 3 = 6.", "answer": "6"},
]

ONE_EXAMPLE = "{% block user %}{{ examples[0].question }} {{ question }}{% endblock %}"


def own_prompt(folder: Path, source: str, rows: list[dict[str, Any]] | None = None, **own: Any) -> Prompt:
    """A prompt of the user's own, loaded from a folder of its own."""
    folder.mkdir(exist_ok=True)
    file, examples = folder / "own.jinja", folder / "examples.jsonl"
    file.write_text(source, encoding="utf-8")
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows or []), encoding="utf-8")
    return load_prompt(teacher_of(prompt=str(file), examples=str(examples), **own), "number")


@pytest.mark.parametrize(
    ("source", "rows", "own"),
    [
        (ONE_EXAMPLE + "\n", EXAMPLES, {}),
        (ONE_EXAMPLE, EXAMPLES[1:], {}),
        (ONE_EXAMPLE, [*EXAMPLES[:1], EXAMPLES[1] | {"rationale": "Four."}, *EXAMPLES[2:]], {}),
        (ONE_EXAMPLE, [*EXAMPLES[:2], EXAMPLES[2] | {"answer": "7"}], {}),
        (ONE_EXAMPLE, [EXAMPLES[1], EXAMPLES[0], EXAMPLES[2]], {}),
        (ONE_EXAMPLE, EXAMPLES, {"num_examples": 2}),
    ],
)
def test_a_prompts_hash_changes_with_its_text_and_its_examples(tmp_path, source, rows, own):
    before = own_prompt(tmp_path / "a", ONE_EXAMPLE, EXAMPLES).sha256
    assert own_prompt(tmp_path / "b", source, rows, **own).sha256 != before


@pytest.mark.parametrize(
    ("rows", "own"),
    [
        (EXAMPLES, {}),  # another folder
        ([row | {"source": "a book"} for row in EXAMPLES], {"num_examples": 3}),
        ([*EXAMPLES, EXAMPLES[0]], {"num_examples": 3}),
        (EXAMPLES, {"num_examples": 9}),
        (EXAMPLES, {"name": "local:model-b", "temperature": 0.1, "samples": 4, "answer_call": True}),
    ],
)
def test_a_prompts_hash_changes_with_nothing_else(tmp_path, rows, own):
    before = own_prompt(tmp_path / "a", ONE_EXAMPLE, EXAMPLES).sha256
    assert own_prompt(tmp_path / "b", ONE_EXAMPLE, rows, **own).sha256 == before


def test_a_prompt_without_examples_is_the_same_whatever_examples_are_set(tmp_path):
    source = "{% block user %}{{ question }}{% endblock %}"
    first, second = (own_prompt(tmp_path / str(i), source, EXAMPLES[:i]) for i in (1, 2))
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% block user %}\n{{ qestion }}\n{% endblock %}", r"own\.jinja, line 2, block user: 'qestion' is undefined"),
        ("{% block system %}{{ question }}{% endblock %}", r"own\.jinja has no block user"),
        ("{{ question }}", r"own\.jinja has no block user"),
        ("{% block user %}\n{{ question }\n{% endblock %}", r"own\.jinja: line 2: "),
        ("{% block user %}\n{% for x in question %}\n{% endblock %}", r"own\.jinja: line 3: "),
        ("{% block user %}{{ question | louder }}{% endblock %}", r"own\.jinja: line 1: .*louder"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named_in_one_line(tmp_path, source, said):
    with pytest.raises(InputError, match=said) as caught:
        own_prompt(tmp_path, source).messages(HENS)
    assert "\n" not in str(caught.value)


def test_a_broken_prompt_stops_before_anything_is_asked(tmp_path):
    with pytest.raises(InputError, match="line 1"):
        own_prompt(tmp_path, "{% block user %}{{ question }{% endblock %}")


@pytest.mark.parametrize(("name", "said"), [("zero_shot", "few_shot, think, zero_shot_cot"), ("./none.jinja", "none")])
def test_a_prompt_that_is_not_there_is_named_with_those_that_are(name, said):
    with pytest.raises(InputError, match=said) as caught:
        load_prompt(teacher_of(prompt=name), "number")
    assert f"teacher.prompt={name}: no such prompt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["question", "rationale", "answer"])
@pytest.mark.parametrize("value", [None, 2, " ", ["text"]])
def test_an_example_that_lacks_a_text_is_named_by_file_and_line(tmp_path, field, value):
    rows = [EXAMPLES[0], EXAMPLES[1] | {field: value}]
    with pytest.raises(InputError, match=rf"examples\.jsonl:2: {field} is ") as caught:
        own_prompt(tmp_path, ONE_EXAMPLE, rows)
    assert "\n" not in str(caught.value)


def test_asking_for_the_answer_apart_needs_a_block_for_it(tmp_path):
    prompt = own_prompt(tmp_path, "{% block user %}{{ question }}{% endblock %}")
    with pytest.raises(InputError, match=r"own\.jinja has no block answer_call"):
        prompt.answer_call(HENS)


def test_text_of_a_problem_is_sent_as_it_is_and_never_read_as_a_template():
    odd = replace(HENS, question='Is 2 < 3 & "{{ answer }}" {% block x %}?')
    messages = load_prompt(teacher_of(), "number").messages(odd)
    assert messages == (("user", 'Q: Is 2 < 3 & "{{ answer }}" {% block x %}?\nA: Let\'s think step by step.'),)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('{% block user %}{% if kind == "choice" %}{{ question }}{% endif %}{% endblock %}', "block user: is empty"),
        ("{% block user %}{{ question + 1 }}{% endblock %}", "block user: can only concatenate"),
        ('{% block user %}{% include "x" %}{% endblock %}', "block user: no loader"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_told_in_one_line(tmp_path, source, said):
    path = tmp_path / "own.jinja"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        load_prompt(teacher_of(prompt=str(path)), "number").messages(HENS)
    assert "\n" not in str(caught.value)


def test_a_prompt_says_what_ends_a_reply():
    assert load_prompt(teacher_of(prompt="few_shot"), "number").stop == ("\nQ:",)
    assert load_prompt(teacher_of(), "number").stop == ()
