"""Requests: the names of samples, and which are still wanted."""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers.builders import HENS, all_of, problems_of, prompt_of, teacher_of

from kpod_lightning.data.problems import Choice, Problem
from kpod_lightning.teachers.requests import Request, Wanted, order_digest, sample_key

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
        {"logprobs": True, "top_logprobs": 5},
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
    assert alone.messages == apart.messages == (("user", f"Q: {HENS.question}\nA: Let's think step by step."),)
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
