"""The parts that all teachers share: prompts, prices, wanted samples, estimates, the file, a reply's row, an order."""

import errno
import hashlib
import json
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from kpod_lightning.config import TeacherConfig, load_config
from kpod_lightning.data.answers import extract_answer
from kpod_lightning.data.problems import Choice, Problem
from kpod_lightning.distributed.preemption import Preempted
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.teachers.endpoint import cost_of, is_whole, reply_of
from kpod_lightning.teachers.estimates import Seen, estimate, probably_billed
from kpod_lightning.teachers.order import Shuffled, alike, licence_of, parse_shard, part_of, sentence, shared
from kpod_lightning.teachers.prices import Prices, check_budget, prices_of, table
from kpod_lightning.teachers.prompts import PROMPTS, Prompt, load_prompt
from kpod_lightning.teachers.requests import Reply, Request, Wanted, order_digest, sample_key, thought_and_rest
from kpod_lightning.teachers.samples.file import Appender, Money, SampleFile
from kpod_lightning.teachers.writing import PILOT, Work, rationale_of

HENS = Problem(
    id="h", question="Ann has 2 hens and buys 3. How many hens has she?", answer="5", kind="number", split="train"
)
MELTS = Problem(
    id="m",
    question="What melts?",
    answer="B",
    kind="choice",
    split="train",
    choices=(Choice(label="A", text="stone"), Choice(label="B", text="ice")),
)
SNOW = Problem(id="s", question="Is snow cold?", answer="yes", kind="yes_no", split="train")
KINDS = {problem.kind: problem for problem in (HENS, MELTS, SNOW)}


def teacher_of(**own: Any) -> TeacherConfig:
    return TeacherConfig(**({"name": "openai:model-a"} | own))


# ---- settings


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("teacher=gpt-4.1", "teacher=gpt-4.1 is none of openai:..."),
        ("teacher=openai:", "teacher=openai: is none of openai:..."),
        ("teacher=human:anna", "teacher=human:anna is none of openai:..."),
        ("samples=0", "teacher.samples is"),
        ("budget=0", "teacher.budget is"),
        ("budget=.nan", "teacher.budget is"),
        ("budget=little", "teacher.budget"),
        ("teacher.stop_at=0", "teacher.stop_at is"),
        ("teacher.stop_at_total=0", "teacher.stop_at_total is"),
        ("teacher.num_examples=0", "teacher.num_examples is"),
        ("teacher.max_tokens=0", "teacher.max_tokens is"),
        ("teacher.concurrency=0", "teacher.concurrency is"),
        ("teacher.max_attempts=0", "teacher.max_attempts is"),
        ("teacher.batch_size=0", "teacher.batch_size is"),
        ("teacher.timeout=0", "teacher.timeout is"),
        ("teacher.poll=-1", "teacher.poll is"),
        ("teacher.temperature=-0.1", "teacher.temperature is"),
        ("teacher.thinking=aloud", "teacher.thinking=aloud is none of keep, drop, distil"),
        ("teacher.limit_field=most_tokens", "teacher.limit_field=most_tokens is none of"),
        ("teacher.prices.input=1", "teacher.prices has input and output"),
        ("teacher.prices={input: 1, output: 2, images: 3}", "teacher.prices has input and output"),
        ("teacher.prices={input: 1, output: -2}", "teacher.prices.output is"),
        ("teacher.colour=red", "teacher.colour"),
    ],
)
def test_a_setting_of_a_teacher_that_cannot_be_is_refused_by_its_key_in_one_line(override, named):
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    # The command is quoted in front of what is wrong with it.
    assert named in str(caught.value).split(": key ")[-1] and "\n" not in str(caught.value)


def test_several_greedy_samples_are_refused_because_they_are_one():
    with pytest.raises(InputError, match="temperature"):
        load_config(None, ["samples=2", "teacher.temperature=0"])
    assert load_config(None, ["teacher.temperature=0"]).teacher.samples == 1
    assert load_config(None, ["samples=2", "teacher.temperature=null"]).teacher.temperature is None


def test_short_names_on_the_command_line_mean_the_long_ones():
    short = load_config(None, ["teacher=openai:gpt-4.1-mini", "samples=3", "budget=2.5", "teacher.top_p=0.9"])
    long = ["teacher.name=openai:gpt-4.1-mini", "teacher.samples=3", "teacher.budget=2.5", "teacher.top_p=0.9"]
    assert short == load_config(None, long)
    assert short.teacher == TeacherConfig(name="openai:gpt-4.1-mini", samples=3, budget=2.5, top_p=0.9)


# ---- prompts

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
        ("{% block user %}\n{{ qestion }}\n{% endblock %}", r"own\.jinja, block user: 'qestion' is undefined"),
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
@pytest.mark.parametrize("value", [None, 2])
def test_an_example_that_lacks_a_text_is_named_by_file_and_line(tmp_path, field, value):
    rows = [EXAMPLES[0], EXAMPLES[1] | {field: value}]
    with pytest.raises(InputError, match=rf"examples\.jsonl:2: .*there is no {field}") as caught:
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


# ---- prices


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("openai:gpt-4.1-mini", "0.00108"),  # (600 * 0.40 + 400 * 0.10 + 500 * 1.60) / 10^6
        ("batch:gpt-4.1-mini", "0.00054"),  # half of it
        ("openai:o3", "0.006"),  # no cheaper price for cached tokens: (1000 * 2 + 500 * 8) / 10^6
        ("batch:o3", "0.003"),
        ("local:some-folder", "0"),
        ("vllm:some-folder", "0"),
        ("recorded:file.jsonl", "0"),
    ],
)
def test_what_a_request_of_1000_tokens_with_400_cached_and_a_reply_of_500_costs(name, cost):
    assert prices_of(teacher_of(name=name, budget=1.0)).cost(1000, 500, cached_tokens=400) == Decimal(cost)


def test_own_prices_win_over_the_table_and_cached_tokens_cost_as_others_where_nothing_is_said():
    plain = prices_of(teacher_of(name="openai:gpt-4.1", budget=1.0, prices={"input": 3.0, "output": 5.0}))
    assert plain.cost(1000, 100, cached_tokens=400) == Decimal("0.0035")  # (1000 * 3 + 100 * 5) / 10^6
    cheaper = prices_of(teacher_of(budget=1.0, prices={"input": 3.0, "output": 5.0, "cached_input": 0.5}))
    assert cheaper.cost(1000, 100, cached_tokens=400) == Decimal("0.0025")  # (600 * 3 + 400 * 0.5 + 100 * 5) / 10^6


def test_prices_are_exact_decimals():
    prices = prices_of(teacher_of(budget=1.0, prices={"input": 0.1, "output": 0.3}))
    assert 3 * prices.cost(1, 0) == prices.cost(0, 1) == Decimal("3e-7")


def test_at_most_counts_bytes_and_what_a_template_adds():
    prices = Prices(input=Decimal(1), cached_input=Decimal(1), output=Decimal(4))
    # Two messages of 2 + 64 and 4 + 64 tokens, 64 round them, 10 of a reply.
    assert prices.at_most((("system", "ab"), ("user", "aüb")), 10) == Decimal(198 + 4 * 10) / 1_000_000


@given(st.data())
def test_no_request_costs_more_than_at_most(data):
    price = st.decimals(0, 1000, places=3)
    fresh, output = data.draw(price), data.draw(price)
    prices = Prices(input=fresh, cached_input=data.draw(st.decimals(0, fresh, places=3)), output=output)
    texts = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=3))
    max_tokens = data.draw(st.integers(1, 4096))
    # A tokenizer has at most a token a byte; a template puts at most 64 round each message, and 64 round all.
    most = sum(len(text.encode()) + 64 for text in texts) + 64
    prompt_tokens = data.draw(st.integers(0, most))
    cached = data.draw(st.integers(0, prompt_tokens))
    cost = prices.cost(prompt_tokens, data.draw(st.integers(0, max_tokens)), cached)
    assert cost <= prices.at_most(tuple(("user", text) for text in texts), max_tokens)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"name": "openai:model-a", "budget": 1.0}, "no price is known for model-a"),
        ({"name": "batch:model-a", "budget": 1.0}, "no price is known for model-a"),
        ({"name": "openai:gpt-4.1"}, "budget="),
        ({"name": "batch:gpt-4.1"}, "budget="),
        ({"name": "openai:gpt-4.1", "prices": {"input": 1.0, "output": 2.0}}, "budget="),
        ({"name": "openai:gpt-4.1", "base_url": "http://localhost:1/v1", "budget": 1.0}, "without prices"),
    ],
)
def test_a_price_that_is_not_known_or_a_budget_that_is_not_set_stops_an_order(own, said):
    with pytest.raises(InputError, match=said) as caught:
        check_budget(teacher := TeacherConfig(**own), prices_of(teacher))
    assert "\n" not in str(caught.value)


def test_an_endpoint_of_ones_own_costs_nothing_and_says_so():
    prices = prices_of(teacher_of(name="openai:gpt-4.1", base_url="http://localhost:1/v1"))
    assert prices.cost(1000, 1000) == 0 and "teacher.base_url" in prices.source


@pytest.mark.parametrize("model", table()["models"])
def test_a_model_of_the_table_has_its_prices_and_the_month_they_were_seen(model):
    found = table()["models"][model]
    assert set(found) - {"cached_input"} == {"input", "output", "seen"}
    assert 0 < found.get("cached_input", found["input"]) <= found["input"] < found["output"]
    assert prices_of(teacher_of(name=f"openai:{model}", budget=1.0)).source.endswith(f", seen {found['seen']}")


# ---- requests

SAMPLING = {"seed": 0, "temperature": 0.7}


def test_the_name_of_a_sample_is_the_same_in_every_process():
    order = order_digest("f00d", "openai:model-a", SAMPLING)
    asked = '["f00d", "openai:model-a", {"seed": 0, "temperature": 0.7}]'
    assert order == hashlib.sha256(asked.encode()).digest()
    sample = f'["h", "{HENS.question}", "5", 2]'
    assert sample_key(HENS, order, 2) == hashlib.sha256(order + sample.encode()).hexdigest()[:32]
    assert sample_key(HENS, order, 2) == "d854be11c071678147ca7e0162714c39"


def key_of(*, problem: Problem, sample: int, **order: Any) -> str:
    return sample_key(problem, order_digest(**order), sample)


@pytest.mark.parametrize(
    "changed",
    [
        {"problem": replace(HENS, question="Ann has 2 hens and buys 4. How many hens has she?")},
        {"problem": replace(HENS, choices=(Choice(label="A", text="5"),))},
        {"problem": replace(HENS, answer="6")},
        {"problem": replace(HENS, id="i")},
        {"prompt": "beef"},
        {"model": "openai:model-b"},
        {"sampling": SAMPLING | {"temperature": 0.8}},
        {"sample": 3},
    ],
)
def test_the_name_of_a_sample_changes_with_all_that_its_text_depends_on(changed):
    parts: dict[str, Any] = {"problem": HENS, "prompt": "f00d", "model": "openai:model-a", "sampling": SAMPLING}
    before = parts | {"sample": 2}
    assert key_of(**before) != key_of(**(before | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"problem": replace(HENS, split="test", rationale="2 + 3 = 5.")},
        {"sampling": {"temperature": 0.7, "seed": 0}},  # another order
    ],
)
def test_the_name_of_a_sample_changes_with_nothing_else(changed):
    parts: dict[str, Any] = {"problem": HENS, "prompt": "f00d", "model": "openai:model-a", "sampling": SAMPLING}
    before = parts | {"sample": 2}
    assert key_of(**before) == key_of(**(before | changed))


@cache
def prompt_of(name: str) -> Prompt:
    return load_prompt(teacher_of(prompt=name), "number")


def wanted_of(
    problems: list[Problem], rows: dict[str, bool] | None = None, seed: int = 0, num_right: int = 0, **own: Any
) -> Wanted:
    teacher = teacher_of(**own)
    return Wanted(problems, prompt_of(teacher.prompt), teacher, seed, (rows or {}).get, num_right=num_right)


@pytest.mark.parametrize(
    "own",
    [
        {"name": "openai:model-b"},
        {"name": "local:model-a"},
        {"prompt": "think"},
        {"temperature": 0.8},
        {"temperature": None},
        {"top_p": 0.9},
        {"max_tokens": 511},
        {"stop": ["Q:"]},
        {"answer_call": True},
        {"extra": {"reasoning_effort": "low"}},
        {"seed": 1},
    ],
)
def test_a_setting_that_a_text_depends_on_asks_for_other_samples(own):
    assert wanted_of([HENS], **own).key(HENS, 0) != wanted_of([HENS]).key(HENS, 0)


@pytest.mark.parametrize(
    "own",
    [
        {"samples": 9},
        {"budget": 9.0},
        {"stop_at": 1},
        {"stop_at_total": 1},
        {"num_examples": 2},  # this prompt has none
        {"logprobs": True},
        {"key_variable": "OTHER_KEY"},
        {"concurrency": 1},
        {"timeout": 1.0},
        {"max_attempts": 1},
        {"prices": {"input": 1.0, "output": 1.0}},
        {"tokenizer": "other"},
        {"licence": "MIT"},
        {"batch_size": 1},
        {"poll": 1.0},
    ],
)
def test_a_setting_that_no_text_depends_on_finds_the_samples_that_there_are(own):
    assert wanted_of([HENS], **own).key(HENS, 0) == wanted_of([HENS]).key(HENS, 0)


def test_the_randomness_of_a_sample_has_31_bits_of_its_name():
    request = wanted_of([HENS]).take()
    assert request is not None and request.seed == int(request.key, 16) >> (128 - 31)


def problems_of(number: int) -> list[Problem]:
    return [replace(HENS, id=f"p{i}", question=f"What is {i} + 1?", answer=str(i + 1)) for i in range(number)]


def all_of(wanted: Wanted | Work) -> list[Request]:
    """All that is asked while nothing comes back."""
    return list(iter(wanted.take, None))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2))))
def test_exactly_what_has_no_row_is_asked_a_problem_after_the_other(there):
    problems = problems_of(4)
    names = wanted_of(problems, samples=3)
    rows = {names.key(problems[p], sample): sample % 2 == 0 for p, sample in there}
    asked = [(request.problem.id, request.sample) for request in all_of(wanted_of(problems, rows, samples=3))]
    assert asked == [(f"p{p}", sample) for p in range(4) for sample in range(3) if (p, sample) not in there]


def test_a_request_holds_the_messages_of_its_problem_and_what_is_asked_after_them():
    alone, apart = wanted_of([HENS]).take(), wanted_of([HENS], answer_call=True).take()
    assert alone is not None and apart is not None
    assert alone.messages == apart.messages == tuple(ASKED["zero_shot_cot", "number"])
    assert (alone.after, apart.after) == (None, "Therefore, the answer (arabic numerals) is")


TRUTHS = st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4)


def simulate(wanted: Wanted, truths: list[list[bool]], rng: random.Random, stop_at: int) -> set[tuple[int, int]]:
    """Samples (problem, index) that are asked when replies come in random order; checks what is out on the way."""
    out: list[Request] = []
    asked, right = set(), Counter[int]()
    while True:
        request = wanted.take() if not out or rng.random() < 0.7 else None
        if request is not None:
            out.append(request)
            problem = int(request.problem.id[1:])
            assert (problem, request.sample) not in asked
            asked.add((problem, request.sample))
            num_out = sum(other.problem is request.problem for other in out)
            assert right[problem] + num_out <= stop_at
        elif out:
            done = out.pop(rng.randrange(len(out)))
            problem = int(done.problem.id[1:])
            right[problem] += truths[problem][done.sample]
            wanted.done(done, truths[problem][done.sample])
        else:
            return asked


def first_until(truth: list[bool], stop_at: int) -> int:
    """Length of the shortest beginning that has so many right ones, or all."""
    return next((n for n in range(len(truth) + 1) if sum(truth[:n]) == stop_at), len(truth))


@settings(max_examples=50, deadline=None)
@given(TRUTHS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_more_samples_are_out_than_right_ones_lack_and_the_order_of_replies_changes_nothing(truths, stop_at, rng):
    wanted = wanted_of(problems_of(len(truths)), samples=5, stop_at=stop_at)
    expected = {(p, s) for p, truth in enumerate(truths) for s in range(first_until(truth, stop_at))}
    assert simulate(wanted, truths, rng, stop_at) == expected
    assert wanted.num_out == 0 and wanted.num_right == sum(truths[p][s] for p, s in expected)


@settings(max_examples=50, deadline=None)
@given(TRUTHS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_an_interrupted_order_asks_in_the_end_what_an_unbroken_one_asks(truths, stop_at, rng):
    problems = problems_of(len(truths))
    broken = wanted_of(problems, samples=5, stop_at=stop_at)
    rows: dict[str, bool] = {}
    out: list[Request] = []
    for _ in range(rng.randrange(12)):
        if (request := broken.take()) is not None:
            out.append(request)
        if out and rng.random() < 0.5:
            done = out.pop(rng.randrange(len(out)))
            rows[done.key] = truths[int(done.problem.id[1:])][done.sample]
            broken.done(done, rows[done.key])
    before = {(p, s) for p in range(len(truths)) for s in range(5) if broken.key(problems[p], s) in rows}
    again = wanted_of(problems, rows, samples=5, stop_at=stop_at)
    while (request := again.take()) is not None:
        truth = truths[int(request.problem.id[1:])][request.sample]
        before.add((int(request.problem.id[1:]), request.sample))
        again.done(request, truth)
    assert before == {(p, s) for p, truth in enumerate(truths) for s in range(first_until(truth, stop_at))}


def test_right_rows_that_are_there_count_towards_those_that_are_enough():
    problems = problems_of(2)
    names = wanted_of(problems, samples=4)
    rows = {names.key(problems[0], 3): True, names.key(problems[1], 0): False}
    asked = [
        (request.problem.id, request.sample) for request in all_of(wanted_of(problems, rows, samples=4, stop_at=1))
    ]
    assert asked == [("p1", 1)]


def test_nothing_is_asked_once_there_are_enough_right_ones_in_all():
    wanted = wanted_of(problems_of(9), samples=2, stop_at_total=3, num_right=1)
    for right in (True, False, True):
        assert not wanted.enough
        request = wanted.take()
        assert request is not None
        wanted.done(request, right)
    assert wanted.enough and wanted.take() is None


def test_what_was_given_up_stays_missing_and_is_not_asked_again_in_this_run():
    wanted = wanted_of(problems_of(2), samples=2)
    asked = []
    while (request := wanted.take()) is not None:
        asked.append((request.problem.id, request.sample))
        wanted.done(request, None)
    assert asked == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert (wanted.num_out, wanted.num_right) == (0, 0)


def test_where_one_was_given_up_the_next_sample_is_asked_in_its_place():
    wanted = wanted_of(problems_of(1), samples=3, stop_at=1)
    first = wanted.take()
    assert first is not None and wanted.take() is None
    wanted.done(first, None)
    second = wanted.take()
    assert second is not None and second.sample == 1


# ---- estimates


def row_of(key: str, **own: Any) -> dict[str, Any]:
    """A row with the fields that a file of samples counts by."""
    tokens = {"prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 50}
    return {"key": key, "correct": True, "cost": 0.25, "attempts": [], "usage": tokens} | own


def seen_of(*costs: float, num_wasted: float = 0.0) -> Seen:
    seen = Seen(num_wasted=num_wasted)
    for cost in costs:
        seen.count(row_of("k", cost=cost))
    return seen


def test_an_estimate_is_the_mean_with_the_interval_of_a_mean():
    found = estimate(seen_of(0.01, 0.02, 0.03), 100)
    # Mean 0.02, standard deviation 0.01, so half the interval is 1.959964 * 0.01 / sqrt(3) = 0.0113158.
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 0.868414, 3.131586), abs=1e-6)
    assert str(found) == "2 [0.8684, 3.132] US dollars for 100 samples"


def test_an_estimate_adds_the_share_that_is_paid_for_in_vain():
    found = estimate(seen_of(0.01, 0.02, 0.03, num_wasted=1.5), 100)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 1.302621, 4.697379), abs=1e-6)


def test_no_estimate_is_below_nothing():
    # Mean 1 and standard deviation 2 of four: half the interval is 1.96.
    found = estimate(seen_of(0.0, 0.0, 0.0, 4.0), 1)
    assert (found.low, found.value, found.high) == pytest.approx((0.0, 1.0, 2.959964), abs=1e-6)


def test_nothing_is_estimated_from_nothing():
    with pytest.raises(ValueError, match="no row"):
        estimate(Seen(num_wasted=3), 10)


def test_what_is_seen_are_the_sums_over_rows():
    seen = Seen()
    seen.count(row_of("a", cost=0.5))
    seen.count(row_of("b", cost=2.0, correct=False, usage={"prompt_tokens": 7, "completion_tokens": 3}))
    assert seen == Seen(num_rows=2, num_right=1, cost=2.5, cost_squared=4.25, num_wasted=0.0)


@pytest.mark.parametrize(
    ("cost", "why", "billed"),
    [
        (None, "timeout", True),
        (None, "connection broken", True),
        (None, "no JSON after 500 bytes", True),
        (None, "500", False),
        (None, "503 overloaded", False),
        (None, "5000 tokens are missing", True),
        (None, "429 slow down", True),
        (Decimal(0), "timeout", False),
        (Decimal("0.01"), "500", True),
    ],
)
def test_what_came_to_nothing_was_paid_for_where_the_model_may_have_written(cost, why, billed):
    assert probably_billed(cost, why) is billed


# ---- the file


@pytest.mark.parametrize("torn", [b'{"key": "c", "corr', b'{"key": "c"}', b"x" * 200_000, b"\xc3"])
@pytest.mark.parametrize("ending", [".jsonl", ".ledger.jsonl"])
def test_a_last_line_that_a_kill_has_torn_is_cut_and_the_rest_kept_byte_for_byte(tmp_path, torn, ending):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.begin("0c", "c", Decimal("0.5")).result()
        file.begin("0d", "d", Decimal("0.5")).result()
        file.add(row_of("a", text="Größe\n" * 30_000)).result()
        file.add(row_of("b")).result()
    place = tmp_path / f"samples{ending}"
    whole = place.read_bytes()
    place.write_bytes(whole + torn)
    with SampleFile(path) as file:
        assert place.read_bytes() == whole
        assert (file.num_rows, set(file.open)) == (2, {"0c", "0d"})
        assert (file.right_of("a"), file.right_of("c")) == (True, None)


def test_a_file_that_is_one_torn_line_is_empty(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(json.dumps({"problem_id": "p"} | row_of("a")).encode()[:60])
    with SampleFile(path) as file:
        assert file.num_rows == 0 and path.read_bytes() == b""


def test_rows_are_found_again_with_whether_they_are_right(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.add(row_of("a"))
        file.add(row_of("b", correct=False))
        now = [file.right_of(key) for key in "abc"]
    with SampleFile(path) as file:
        assert [file.right_of(key) for key in "abc"] == now == [True, False, None]
        assert file.num_rows == 2


def ledger_of(path: Path, *, cost: str | None = None, fails: bool = False, row_from: str | None = None) -> SampleFile:
    """A file opened again, where an attempt was begun that may have cost half a dollar."""
    with SampleFile(path, Decimal(1)) as file:
        file.begin("0a", "k", Decimal("0.5"))
        if fails:
            file.fail("0a", None if cost is None else Decimal(cost), "timeout")
        if row_from is not None:
            file.add(row_of("k", cost=0.125, attempts=[row_from]))
    return SampleFile(path, Decimal(1))


@pytest.mark.parametrize(
    ("history", "spent", "held"),
    [
        ({}, "0", "0.5"),
        ({"fails": True, "cost": "0.25"}, "0.25", "0"),
        ({"fails": True, "cost": "0"}, "0", "0"),
        ({"fails": True}, "0", "0.5"),
        ({"row_from": "0a"}, "0.125", "0"),
        ({"fails": True, "cost": "0.25", "row_from": "0b"}, "0.375", "0"),
        ({"fails": True, "row_from": "0b"}, "0.125", "0.5"),
    ],
)
def test_what_a_file_has_cost_is_known_when_it_is_opened_again(tmp_path, history, spent, held):
    with ledger_of(tmp_path / "samples.jsonl", **history) as file:
        assert (file.money.spent, file.money.held) == (Decimal(spent), Decimal(held))
        assert file.open == ({"0a": Decimal("0.5")} if Decimal(held) else {})


def test_a_held_attempt_leaves_less_of_the_budget(tmp_path):
    with ledger_of(tmp_path / "samples.jsonl") as file:
        assert not file.money.reserve(Decimal("0.51"))
        assert file.money.reserve(Decimal("0.5"))


@pytest.mark.parametrize(("cost", "num_wasted"), [(None, 1), ("0.25", 1), ("0", 0)])
def test_what_was_wasted_is_counted_alike_at_once_and_when_the_file_is_opened_again(tmp_path, cost, num_wasted):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.begin("0a", "k", Decimal("0.5"))
        file.fail("0a", None if cost is None else Decimal(cost), "timeout")
        assert file.seen.num_wasted == num_wasted
    with SampleFile(path) as file:
        assert file.seen.num_wasted == num_wasted


def test_rows_asked_in_another_way_cost_money_and_tell_nothing_of_those_to_come(tmp_path):
    path = tmp_path / "samples.jsonl"

    def ours(row: dict[str, Any]) -> bool:
        return row["teacher"] == "a"

    def counts(file: SampleFile) -> tuple[int, int, float]:
        return file.num_rows, file.seen.num_rows, file.seen.cost

    with SampleFile(path, alike=ours) as file:
        file.add(row_of("x", teacher="a", cost=0.25))
        file.add(row_of("y", teacher="b", cost=0.5))
        file.add(row_of("z", teacher="a", cost=1.0))
        now = counts(file)
    with SampleFile(path, alike=ours) as file:
        assert counts(file) == now == (3, 2, 1.25)
        assert file.money.spent == Decimal("1.75")
        assert file.right_of("y") is True


def test_a_second_process_is_refused_by_the_name_of_the_first_while_that_has_the_file(tmp_path):
    path = tmp_path / "gpt-4.1.jsonl"
    with SampleFile(path), pytest.raises(InputError) as caught:
        SampleFile(path)
    assert f"{path} is being written by process {os.getpid()} on " in str(caught.value)
    assert "\n" not in str(caught.value)
    with SampleFile(path) as file:
        assert file.num_rows == 0


def test_two_files_of_a_folder_are_written_side_by_side(tmp_path):
    with SampleFile(tmp_path / "a-1-of-2.jsonl") as one, SampleFile(tmp_path / "a-2-of-2.jsonl") as other:
        one.add(row_of("a")).result()
        assert other.right_of("a") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"problem_id": "p", "rationale": "x"}\n', r"samples\.jsonl:2: no row .*correct"),
        (json.dumps({"key": "b", "correct": True, "cost": 0.1, "usage": None}) + "\n", r"samples\.jsonl:2: no row"),
        ('{"key": "b", "correct": true}\n', r"samples\.jsonl:2: no row .*cost"),
        ("no JSON\n", r"samples\.jsonl:2: broken JSON"),
        ("[]\n", r"samples\.jsonl:2: a line holds one JSON object"),
    ],
)
def test_a_file_of_other_rows_is_refused_as_it_is_and_not_held(tmp_path, line, said):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row_of("a")) + "\n" + line, encoding="utf-8")
    before = path.read_bytes()
    for _ in range(2):  # the first one has let go of it
        with pytest.raises(InputError, match=said) as caught:
            SampleFile(path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_of_other_rows_without_a_last_newline_is_refused_as_it_is(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"id": "p", "question": "x"}\n{"id": "q", "question": "y"}', encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(InputError):
        SampleFile(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["samples.json", "samples", "samples.jsonl.gz"])
def test_a_file_that_does_not_end_in_jsonl_is_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        SampleFile(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/samples\.jsonl: ") as caught:
        SampleFile(tmp_path / "file" / "samples.jsonl")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_made(tmp_path):
    with SampleFile(tmp_path / "new" / "folder" / "samples.jsonl") as file:
        file.add(row_of("a")).result()
    assert len(JsonLines(tmp_path / "new" / "folder" / "samples.jsonl")) == 1


FULL = Path("/dev/full")
on_linux = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@on_linux
def test_on_a_full_disk_a_line_and_all_later_ones_end_in_an_error_that_says_so():
    appender = Appender(FULL)
    said = {str(appender.append(FULL, {"row": i}).exception(timeout=5)) for i in range(3)}
    appender.close()
    assert said == {f"/dev/full: {os.strerror(errno.ENOSPC)}; free space or permissions there, then repeat"}


@on_linux
def test_once_one_file_is_full_no_other_line_is_taken_for_written(tmp_path):
    appender = Appender(FULL, tmp_path / "rows.jsonl")
    assert isinstance(appender.append(FULL, {}).exception(timeout=5), InputError)
    assert isinstance(appender.append(tmp_path / "rows.jsonl", {}).exception(timeout=5), InputError)
    appender.close()
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


class Held:
    """``os.fsync`` that waits until it is let go."""

    def __init__(self) -> None:
        self.called, self.free, self.number = threading.Event(), threading.Event(), 0
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        self.called.set()
        assert self.free.wait(5)
        self._fsync(descriptor)
        self.number += 1


@pytest.fixture
def held(monkeypatch) -> Held:
    held = Held()
    monkeypatch.setattr(os, "fsync", held)
    return held


def test_a_line_is_done_only_when_it_is_on_disk(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    done = appender.append(path, {"row": 0})
    assert held.called.wait(5)
    assert path.read_bytes() == b'{"row": 0}\n' and not done.done()
    held.free.set()
    done.result(timeout=5)
    assert held.number == 1
    appender.close()


def test_lines_that_came_while_the_disk_was_busy_share_one_write_to_disk_and_keep_their_order(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    appender.append(path, {"row": 0})
    assert held.called.wait(5)
    futures = [appender.append(path, {"row": i}) for i in range(1, 100)]
    held.free.set()
    for future in futures:
        future.result(timeout=5)
    assert held.number == 2
    assert [row["row"] for row in JsonLines(path)] == list(range(100))
    appender.close()


def test_closing_waits_for_what_was_appended(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    futures = [appender.append(path, {"row": i}) for i in range(9)]
    threading.Timer(0.05, held.free.set).start()
    appender.close()
    assert all(future.done() and future.exception() is None for future in futures)


@on_linux
def test_closing_ends_although_the_last_lines_do_not_reach_the_disk(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path, FULL)
    appender.append(path, {})
    assert held.called.wait(5)
    failed = appender.append(FULL, {})
    closing = threading.Thread(target=appender.close, daemon=True)
    closing.start()
    closing.join(0.1)  # by then the end is marked
    held.free.set()
    assert isinstance(failed.exception(timeout=5), InputError)
    closing.join(0.2)
    ended = not closing.is_alive()
    appender._lines.put(None)  # lets go of a thread that waits
    closing.join(5)
    assert ended


def test_rows_from_many_threads_are_all_there_each_a_whole_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file, ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda i: file.add(row_of(f"k{i}", text="Größe\n" * (i % 50))), range(400)))
        for future in futures:
            future.result(timeout=5)
        assert file.num_rows == 400
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert {row["key"]: row["text"] for row in rows} == {f"k{i}": "Größe\n" * (i % 50) for i in range(400)}
    assert len(rows) == 400


def test_half_a_surrogate_pair_becomes_a_question_mark_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.add(row_of("a", text="5 \ud83d hens \U0001f414")).result()
    assert JsonLines(path)[0]["text"] == "5 ? hens \U0001f414"


def test_money_is_reserved_and_settled_as_by_hand():
    money = Money(Decimal(10), spent=Decimal(3))
    assert money.reserve(Decimal(4)) and money.reserve(Decimal(3))  # 3 + 4 + 3 is all of it
    assert not money.reserve(Decimal("0.01"))
    money.settle(Decimal(4), Decimal(1))
    assert money == Money(Decimal(10), spent=Decimal(4), held=Decimal(3))
    money.settle(Decimal(3), None)  # may have been billed
    assert money == Money(Decimal(10), spent=Decimal(4), held=Decimal(3))
    assert not money.reserve(Decimal("3.01")) and money.reserve(Decimal(3))


def test_without_a_limit_all_is_reserved():
    assert Money().reserve(Decimal(10**9))


CENTS = st.integers(0, 300).map(lambda cents: Decimal(cents) / 100)


@given(CENTS, st.lists(st.tuples(CENTS, st.sampled_from(["out", "billed", "unknown"]), st.integers(0, 100))))
def test_no_order_of_requests_spends_more_than_the_limit(limit, requests):
    money, out = Money(limit), []
    bill = Decimal(0)
    for at_most, end, percent in requests:
        if money.reserve(at_most):
            out.append(at_most)
        if end != "out" and out:
            first = out.pop(0)
            cost = first * percent / 100
            bill += cost  # of what nobody knows too
            money.settle(first, cost if end == "billed" else None)
        assert bill + sum(out) <= money.spent + money.held <= limit


# ---- a reply's row


@pytest.mark.parametrize(
    ("text", "thinking", "thought", "rest"),
    [
        ("<think>\n2 + 3 = 5.\n</think>\n\nShe has 5.", None, "2 + 3 = 5.", "She has 5."),
        ("  <think>2 + 3</think>She has 5.\n", None, "2 + 3", "She has 5."),
        ("2 + 3 = 5.\n</think>\nShe has 5.", None, "2 + 3 = 5.", "She has 5."),  # the template opened the tag
        ("<think></think>She has 5.", None, "", "She has 5."),
        ("<think>2 + 3 =", None, "2 + 3 =", ""),  # the limit came before the end
        ("<think>a</think>b</think>c", None, "a", "b</think>c"),
        ("<think>2 + 3 = 5.</think>", None, "2 + 3 = 5.", ""),
        (" She has 5. ", " 2 + 3 = 5.\n", "2 + 3 = 5.", "She has 5."),
        (" She has 5. ", None, "", "She has 5."),
        ("", None, "", ""),
    ],
)
def test_what_was_thought_is_told_from_what_was_said(text, thinking, thought, rest):
    assert thought_and_rest(text, thinking) == (thought, rest)


@pytest.mark.parametrize(
    ("thinking", "rationale"),
    [
        ("keep", "<think>\n2 + 3 = 5.\n</think>\nShe has 5 hens."),
        ("drop", "She has 5 hens."),
        ("distil", "2 + 3 = 5."),
    ],
)
@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="<think>2 + 3 = 5.</think>She has 5 hens."),
        Reply(text="She has 5 hens.", thinking="2 + 3 = 5."),
    ],
)
def test_a_rationale_has_the_thought_with_its_tags_or_leaves_it_out_or_is_it(thinking, rationale, reply):
    assert rationale_of(reply, HENS, thinking) == (rationale, "5")


@pytest.mark.parametrize("thinking", ["keep", "drop", "distil"])
def test_without_a_thought_the_rationale_is_what_was_said(thinking):
    assert rationale_of(Reply(text=" 2 + 3 = 5. "), HENS, thinking) == ("2 + 3 = 5.", "5")


def test_a_thought_that_ends_elsewhere_gets_the_answer_that_was_said():
    reply = Reply(text="<think>5 hens. Before she had 2.</think>She has 5.")
    assert rationale_of(reply, HENS, "distil") == ("5 hens. Before she had 2. Therefore, the answer is 5.", "5")


@pytest.mark.parametrize(
    ("problem", "text", "answer", "rationale", "predicted"),
    [
        (HENS, "2 + 3 = 5.", "5", "2 + 3 = 5.", "5"),
        (HENS, "2 + 3 = 5.", " 5.00", "2 + 3 = 5.", "5"),
        (HENS, "She has some.", " 5.", "She has some. Therefore, the answer is 5.", "5"),
        (HENS, "2 + 3 = 6.", "5", "2 + 3 = 6. Therefore, the answer is 5.", "5"),
        (HENS, "So the answer is 6.", "5 hens", "So the answer is 6. Therefore, the answer is 5.", "5"),
        (HENS, "2 + 3 = 6.", "hard to say", "2 + 3 = 6.", "6"),
        (HENS, "2 + 3 = 6.", None, "2 + 3 = 6.", "6"),
        (HENS, "She has some.", None, "She has some.", None),
        (MELTS, "Ice turns to water.", "(b)", "Ice turns to water. Therefore, the answer is B.", "B"),
        (MELTS, "Ice turns to water.", "A", "Ice turns to water. Therefore, the answer is A.", "A"),
        (SNOW, "It is frozen.", "Yes", "It is frozen. Therefore, the answer is yes.", "yes"),
    ],
)
def test_an_answer_asked_apart_is_appended_where_the_text_says_another_or_none(
    problem, text, answer, rationale, predicted
):
    assert rationale_of(Reply(text=text, answer=answer), problem, "drop") == (rationale, predicted)
    assert extract_answer(rationale, problem.kind, "flexible") == predicted


def work_of(folder: Path, problems: list[Problem], **own: Any) -> Work:
    teacher = teacher_of(**own)
    file = SampleFile(folder / "samples.jsonl")
    wanted = Wanted(problems, prompt_of(teacher.prompt), teacher, 7, file.right_of)
    return Work(teacher, Prices(), wanted, file, "CC0-1.0", seed=7)


def taken(work: Work) -> Request:
    request = work.take()
    assert request is not None
    return request


def test_a_row_has_all_that_is_known_of_its_sample(tmp_path):
    work = work_of(tmp_path, [HENS], samples=2, thinking="drop", answer_call=True, logprobs=True, stop=["Q:"])
    request = taken(work)
    reply = Reply(
        text="<think>Hens.</think>She has some.",
        answer=" 5",
        prompt_tokens=30,
        cached_tokens=10,
        completion_tokens=9,
        latency=1.23456,
        model="model-a-2026-01",
        logprobs=[("She", -0.5)],
    )
    with work.file:
        work.add(request, reply, ["0a", "0b"], Decimal("0.0125")).result()
    row = JsonLines(tmp_path / "samples.jsonl")[0]
    assert len(row.pop("written")) == len("2026-01-01T00:00:00+00:00")
    assert row == {
        "problem_id": "h",
        "sample": 0,
        "teacher": "openai:model-a",
        "rationale": "She has some. Therefore, the answer is 5.",
        "predicted_answer": "5",
        "correct": True,
        "finish_reason": "stop",
        "key": request.key,
        "prompt": "zero_shot_cot",
        "prompt_sha256": work.wanted.prompt.sha256,
        "sampling": {
            "temperature": 0.7,
            "top_p": None,
            "max_tokens": 512,
            "stop": ["Q:"],
            "answer_call": True,
            "thinking": "drop",
            "extra": {},
            "seed": 7,
        },
        "model": "model-a-2026-01",
        "extractor": "flexible",
        "usage": {"prompt_tokens": 30, "cached_tokens": 10, "completion_tokens": 9},
        "cost": 0.0125,
        "latency": 1.2346,
        "attempts": ["0a", "0b"],
        "licence": "CC0-1.0",
        "text": "<think>Hens.</think>She has some.",
        "answer_call": " 5",
        "logprobs": [["She", -0.5]],
    }


def test_the_raw_text_stands_in_a_row_only_where_the_rationale_is_another(tmp_path):
    work = work_of(tmp_path, [HENS])
    with work.file:
        assert "text" not in work.row(taken(work), Reply(text="2 + 3 = 5."), [], Decimal(0))


@pytest.mark.parametrize("reason", ["length", "content_filter", "prompt_too_long"])
@pytest.mark.parametrize("answer", [None, "5"])
def test_a_reply_that_did_not_end_by_itself_is_never_right(tmp_path, reason, answer):
    work = work_of(tmp_path, [HENS])
    with work.file:
        request = taken(work)
        right, cut = (
            work.row(request, Reply(text="2 + 3 = 5.", answer=answer, finish_reason=end), [], Decimal(0))
            for end in ("stop", reason)
        )
    assert (right["correct"], cut["correct"]) == (True, False)
    assert cut["predicted_answer"] == "5"


def test_the_prediction_does_not_look_at_the_gold_answer():
    reply = Reply(text="She has 2 + 3 = 6 hens, not 5 of them.", answer="7")
    assert rationale_of(reply, HENS, "drop") == rationale_of(reply, replace(HENS, answer="6"), "drop")


@pytest.mark.parametrize("text", ["", "<think>2 + 3 = 5.</think>"])
def test_a_row_without_a_rationale_is_never_right(tmp_path, text):
    work = work_of(tmp_path, [HENS], answer_call=True)
    with work.file:
        row = work.row(taken(work), Reply(text=text, answer="5"), [], Decimal(0))
    assert row["rationale"] == "" and not row["correct"]


def test_a_sample_that_is_in_the_file_is_counted_and_not_asked_again(tmp_path):
    work = work_of(tmp_path, problems_of(2), samples=2)
    with work.file:
        work.add(taken(work), Reply(text="0 + 1 = 1."), [], Decimal(0)).result()
        work.give_up(taken(work))
        assert (work.wanted.num_out, work.wanted.num_right, work.given_up) == (0, 1, 1)
    again = work_of(tmp_path, problems_of(2), samples=2)
    with again.file:
        assert [(request.problem.id, request.sample) for request in all_of(again)] == [("p0", 1), ("p1", 0), ("p1", 1)]


@pytest.mark.parametrize("why", [InputError("the budget is spent"), Preempted(requeue=False)])
def test_nothing_is_asked_once_the_work_was_stopped(tmp_path, why):
    work = work_of(tmp_path, problems_of(2))
    with work.file:
        taken(work)
        work.stopped = why
        assert work.take() is None


def test_every_reply_and_every_sample_given_up_is_told(tmp_path):
    work, told = work_of(tmp_path, problems_of(2)), []
    work.on_change = lambda: told.append((work.file.num_rows, work.given_up))
    with work.file:
        work.add(taken(work), Reply(text="1"), [], Decimal(0))
        work.give_up(taken(work))
    assert told == [(1, 0), (1, 1)]


def test_the_pilot_are_the_first_samples_that_were_asked_and_not_the_first_that_came(tmp_path):
    work = work_of(tmp_path, problems_of(PILOT + 10))
    with work.file:
        requests = all_of(work)
        assert len(requests) == PILOT + 10
        for i in reversed(range(len(requests))):  # the one that was asked first comes last
            assert not work.pilot_is_done
            work.add(requests[i], Reply(text="1", completion_tokens=i), [], Decimal(i) / 8)
        assert work.pilot_is_done
        # 0 + 1 + ... + 49 = 1225
        assert (work.pilot.num_rows, work.pilot.cost) == (50, 1225 / 8)
        assert work.file.seen.num_rows == 60


def test_the_pilot_is_not_done_before_as_many_were_asked_and_does_not_wait_for_those_given_up(tmp_path):
    work = work_of(tmp_path, problems_of(PILOT))
    with work.file:
        for i in range(PILOT):
            assert not work.pilot_is_done
            request = taken(work)
            if i % 2:
                work.give_up(request)
            else:
                work.add(request, Reply(text="1"), [], Decimal(0))
        assert work.pilot_is_done and work.pilot.num_rows == PILOT // 2


# ---- an order


@pytest.mark.parametrize(("text", "shard"), [("1/1", (1, 1)), ("2/4", (2, 4)), ("4/4", (4, 4)), ("10/16", (10, 16))])
def test_a_shard_is_read(text, shard):
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/2/3", "a/b", "1.0/2", " 1/2", "/"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match="--shard") as caught:
        parse_shard(text)
    assert "\n" not in str(caught.value)


def test_a_raised_digit_is_no_shard():
    with pytest.raises(InputError, match="--shard"):
        parse_shard("²/4")


def test_the_parts_of_an_order_have_files_of_their_own():
    out = Path("folder/gpt-4.1.jsonl")
    assert part_of(out, (1, 1)) == out
    assert part_of(out, (2, 4)) == Path("folder/gpt-4.1-2-of-4.jsonl")
    assert len({part_of(out, (part, 4)) for part in range(1, 5)}) == 4


@given(st.integers(0, 30), st.integers(1, 7), st.integers(0, 2**31))
def test_the_parts_of_an_order_are_all_problems_each_once(number, num_parts, seed):
    problems = problems_of(number)
    parts = [Shuffled.of(problems, seed, (part, num_parts)) for part in range(1, num_parts + 1)]
    assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in problems)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and sizes == [len(list(part)) for part in parts]


def test_the_order_is_random_and_the_seeds_alone():
    problems = problems_of(50)

    def ids(seed: int) -> list[str]:
        return [problem.id for problem in Shuffled.of(problems, seed, (1, 1))]

    assert ids(0) == ids(0)
    assert len({tuple(ids(0)), tuple(ids(1)), tuple(problem.id for problem in problems)}) == 3


def test_problems_in_random_order_can_be_gone_through_twice():
    shuffled = Shuffled.of(problems_of(5), 0, (1, 1))
    assert list(shuffled) == list(shuffled) and len(shuffled) == 5


def test_a_part_has_its_share_of_the_budget_and_of_what_is_enough():
    config = load_config(None, ["budget=6", "teacher.stop_at_total=10", "teacher.stop_at=3", "samples=5"])
    part = shared(config, 4)
    assert (part.teacher.budget, part.teacher.stop_at_total) == (1.5, 3)  # 10 / 4, rounded up
    assert replace(part, teacher=replace(part.teacher, budget=6, stop_at_total=10)) == config


def test_what_is_not_set_is_not_shared():
    config = load_config(None, ["teacher=local:folder"])
    assert shared(config, 4) == config
    whole = load_config(None, ["budget=0.7", "teacher.stop_at_total=3"])
    assert shared(whole, 1) == whole


@pytest.mark.parametrize(
    ("own", "licence"),
    [
        ({"name": "openai:gpt-4.1"}, "https://openai.com/policies/"),
        ({"name": "batch:gpt-4.1"}, "https://openai.com/policies/"),
        ({"name": "openai:gpt-4.1", "licence": "MIT"}, "MIT"),
        ({"name": "openai:gpt-4.1", "base_url": "http://localhost:1/v1"}, "not stated"),
        ({"name": "local:some/model"}, "not stated"),
        ({"name": "recorded:file.jsonl"}, "not stated"),
    ],
)
def test_the_licence_is_the_one_set_or_the_providers_terms(own, licence):
    assert licence_of(TeacherConfig(**own)).endswith(licence)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\nA model.\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: model-a-licence\n---\n", "model-a-licence"),
        ("---\nlanguage: en\n---\n", "not stated"),
    ],
)
@pytest.mark.parametrize("kind", ["local", "vllm"])
def test_the_licence_of_a_local_teacher_is_that_of_its_card(tmp_path, card, licence, kind):
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert licence_of(TeacherConfig(name=f"{kind}:{tmp_path}")) == licence
    assert licence_of(TeacherConfig(name=f"{kind}:{tmp_path}", licence="MIT")) == "MIT"


def test_a_row_read_again_was_asked_as_its_teacher_asks(tmp_path):
    work = work_of(tmp_path, [HENS], stop=["Q:", "A:"], extra={"reasoning_effort": "low"}, temperature=0.1)
    with work.file:
        row = json.loads(json.dumps(work.row(taken(work), Reply(text="5"), [], Decimal(0))))
    same = alike(work.teacher, work.wanted.prompt, 7)
    assert same(row) and same(row | {"cost": 9.0, "correct": False, "licence": "MIT", "model": "other"})
    assert not alike(work.teacher, work.wanted.prompt, 8)(row)
    for changed in (
        {"teacher": "openai:model-b"},
        {"prompt_sha256": "f00d"},
        {"sampling": row["sampling"] | {"temperature": 0.2}},
    ):
        assert not same(row | changed)


def test_the_sentence_at_the_end_says_what_there_is_and_what_each_right_one_did_cost(tmp_path):
    work = work_of(tmp_path, problems_of(4))
    with work.file as file:
        assert sentence(work) == f"{file.path}: no samples yet, 0.0000 US dollars spent"
        for text, cost in (("1", "0.001"), ("2", "0.002"), ("none", "0.003"), ("7", "0")):
            file.money.reserve(Decimal(1))
            file.money.settle(Decimal(1), Decimal(cost))
            work.add(taken(work), Reply(text=text), [], Decimal(cost))
        file.money.reserve(Decimal("0.5"))
        said = sentence(work)
    # Wilson's interval of 2 of 4 is 0.5 -+ 1.96 * sqrt(1/16 + 1.96^2/64) / (1 + 1.96^2/4) = 0.5 -+ 0.35.
    assert said == (
        f"{file.path}: 4 samples, 2 right (50.0 % [15.0, 85.0]); 0.0060 US dollars spent, and 0.5000 more may have "
        "been billed; 0.00300 a right one"
    )


def test_the_sentence_says_nothing_of_money_where_none_was_spent(tmp_path):
    work = work_of(tmp_path, problems_of(1), name="local:folder")
    with work.file as file:
        work.add(taken(work), Reply(text="none"), [], Decimal(0))
        assert sentence(work) == f"{file.path}: 1 samples, 0 right (0.0 % [0.0, 79.3])"


def test_a_cached_token_that_is_dearer_than_a_fresh_one_is_set_aside_for():
    prices = Prices(input=Decimal(1), cached_input=Decimal(5), output=Decimal(2))
    message = (("user", "abcd"),)
    assert prices.at_most(message, 1) == (Decimal(5) * (4 + 2 * 64) + 2) / 1_000_000


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


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        (["\nA:", "\nQ:"], "2 + 3 = 5. The answer is 5.", "stop"),
        (["\nB:"], "2 + 3 = 5. The answer is 5.\nQ: Another?", "length"),
    ],
)
def test_a_reply_ends_before_the_first_text_that_ends_it(stop, text, reason):
    message = {"role": "assistant", "content": "2 + 3 = 5. The answer is 5.\nQ: Another?"}
    choices = [{"index": 0, "message": message, "finish_reason": "length"}]
    reply = reply_of(ChatCompletion.construct(model="m", choices=choices), 0.0, stop)
    assert (reply.text, reply.finish_reason) == (text, reason)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, {"choices": [{"index": 0}]}])
def test_a_reply_without_a_message_is_none(body):
    assert not is_whole(ChatCompletion.construct(**body))


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 3}])
def test_a_reply_that_does_not_say_its_tokens_costs_the_most_it_can(usage):
    completion = ChatCompletion.construct(choices=[], usage=usage)
    assert cost_of(completion.usage, Prices(input=Decimal(1), output=Decimal(1)), Decimal(7), teacher_of()) == 7


def test_a_line_that_is_none_of_a_ledger_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.with_suffix(".ledger.jsonl").write_text('{"attempt": "0a", "cost": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"samples\.ledger\.jsonl:1: no line of a ledger"):
        SampleFile(path)


@pytest.mark.parametrize(("texts", "stops"), [(("a", "a"), True), (("a", "b"), False)])
def test_a_teacher_that_writes_every_sample_alike_is_stopped_after_the_pilot(tmp_path, texts, stops):
    problems = [replace(HENS, id=f"p{i}") for i in range(PILOT)]
    work = work_of(tmp_path, problems, samples=2)
    asked = [work.take() for _ in range(PILOT)]
    for request in asked:
        assert work.stopped is None
        work.add(request, Reply(text=texts[request.sample]), [], Decimal(0)).result()
    assert (work.stopped is not None) == stops
    assert (work.take() is None) == stops
    work.file.close()


def test_a_sample_that_a_fault_puts_off_has_its_place_in_the_pilot_taken_by_the_next(tmp_path):
    work = work_of(tmp_path, [replace(HENS, id=f"p{i}") for i in range(PILOT + 2)])
    asked = [work.take() for _ in range(PILOT + 1)]
    work.delay(asked[0])
    for request in asked[1:]:
        work.add(request, Reply(text="2 + 3 = 5."), [], Decimal("0.25")).result()
    assert not work.pilot_is_done  # one more is to be asked
    work.add(work.take(), Reply(text="2 + 3 = 5."), [], Decimal("0.25")).result()
    assert work.pilot_is_done and work.pilot.num_rows == PILOT
    work.add(asked[0], Reply(text="long"), [], Decimal(90)).result()
    assert work.pilot.cost == PILOT / 4
    work.file.close()
