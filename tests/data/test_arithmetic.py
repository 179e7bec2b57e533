"""The synthetic benchmark: exact spans, right sums, disjoint splits, reproducible text."""

import re
from dataclasses import replace

import pytest

from kpod_lightning.data.answers import extract_answer
from kpod_lightning.data.arithmetic import KINDS, LARGEST, SPLITS, GeneratedProblem, _split_of, generate
from kpod_lightning.students.tiny import CONCLUSIONS, SUMS
from kpod_lightning.students.tiny_texts import FIRST, pretraining_text

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@pytest.fixture(scope="module", params=SPLITS)
def generated(request):
    return generate(request.param, 300)


@pytest.fixture(scope="module")
def ood():
    return generate("ood", 300)


def expressions(each):
    """(left, operator, right, equals, result) of each step, from the spans alone."""
    text = each.problem.rationale
    parts = [text[start:end] for start, end, kind in each.kinds if not kind.startswith("filler")]
    assert len(parts) % 5 == 0
    return [tuple(parts[i : i + 5]) for i in range(0, len(parts), 5)]


def num_steps(each):
    return sum(kind == "result" for _, _, kind in each.kinds)


def test_spans_tile_the_rationale(generated):
    for each in generated:
        position = 0
        for start, end, kind in each.kinds:
            assert start == position < end
            assert kind in KINDS
            position = end
        assert position == len(each.problem.rationale)


def test_a_number_is_never_plain_filler(generated):
    for each in generated:
        for start, end, kind in each.kinds:
            has_digit = any(character.isdigit() for character in each.problem.rationale[start:end])
            assert has_digit == (kind in ("operand", "result", "filler_number"))


def test_each_result_is_its_expression_evaluated(generated):
    for each in generated:
        for left, operator, right, equals, result in expressions(each):
            assert equals == "="
            assert OPERATIONS[operator](int(left), int(right)) == int(result)
            assert operator != "/" or int(left) % int(right) == 0


def test_the_answer_is_the_last_result(generated):
    for each in generated:
        assert each.problem.answer == expressions(each)[-1][-1]
        assert each.problem.kind == "number"


def test_the_question_tells_every_number_that_is_not_computed(generated):
    for each in generated:
        known = set(each.problem.question.replace(".", " ").replace("$", " ").split())
        for left, _, right, _, result in expressions(each):
            assert {left, right} <= known
            known.add(result)


def test_the_answer_phrase_is_not_in_the_rationale(generated):
    assert not any("answer" in each.problem.rationale for each in generated)


def test_numbers_stay_small_in_distribution():
    for each in generate("train", 300):
        numbers = [int(part) for parts in expressions(each) for part in (parts[0], parts[2], parts[4])]
        assert set(numbers) <= set(range(LARGEST + 1))


def test_splits_share_no_question():
    questions = [each.problem.question for split in SPLITS for each in generate(split, 1500, max_steps=3)]
    assert len(set(questions)) == len(questions)


def test_splits_share_no_question_across_seeds():
    train = {each.problem.question for each in generate("train", 1500, seed=1, min_steps=2, max_steps=2)}
    test = {each.problem.question for each in generate("test", 1500, seed=2, min_steps=2, max_steps=2)}
    assert not train & test


def test_same_seed_same_problems_and_a_prefix_stays():
    assert generate("train", 40) == generate("train", 100)[:40]
    assert generate("train", 5, seed=1) != generate("train", 5, seed=0)
    assert generate("test", 1)[0].problem.id == "arithmetic-test-00000"


@pytest.mark.parametrize(("low", "high"), [(2, 5), (1, 1), (2, 4), (5, 5)])
def test_step_counts_are_in_range(low, high):
    counts = {num_steps(each) for each in generate("train", 200, min_steps=low, max_steps=high)}
    assert counts == set(range(low, high + 1))


def test_ood_has_more_steps_and_larger_numbers(ood):
    assert {num_steps(each) for each in ood} == {5, 6, 7}
    assert any(int(parts[-1]) > LARGEST for each in ood for parts in expressions(each))


def word_runs(text, length):
    """Runs of words without a digit or capital, which no name or number makes differ."""
    words = text.replace(".", " ").replace(",", " ").split()
    runs = zip(*(words[start:] for start in range(length)), strict=False)
    return {run for run in runs if all(word.isalpha() and word.islower() for word in run)}


def test_ood_wording_is_used_nowhere_else(ood):
    known = set().union(*(word_runs(each.problem.question, 3) for each in generate("train", 2000)))
    for each in ood:
        new = word_runs(each.problem.question, 3)
        assert len(new - known) >= 0.9 * len(new)


@pytest.mark.parametrize("odds", [FIRST, SUMS, CONCLUSIONS])
def test_what_is_read_before_the_stories_has_none_of_the_benchmarks_wording(odds):
    benchmark = set().union(*(word_runs(each.problem.question, 4) for each in generate("train", 2000)))
    for index in range(2000):
        assert not word_runs("".join(pretraining_text(index, odds=odds)), 4) & benchmark


@pytest.fixture(scope="module")
def stories():
    return [pretraining_text(index, "0/stories", {"story": 1.0}) for index in range(5000)]


def question_in(prompt):
    return prompt.removeprefix("Q: ").removesuffix(" A: Let's think step by step.")


def test_a_story_that_is_read_is_no_problem_of_the_benchmark(stories):
    problems = {each.problem.question for split in SPLITS for each in generate(split, 2000)}
    questions = [question_in(prompt) for prompt, _ in stories]
    assert not problems.intersection(questions)
    assert {_split_of(question) for question in questions} == {"train"}


def test_a_story_that_is_read_calculates_right_and_does_not_follow_its_question(stories):
    num_following = 0
    for prompt, target in stories:
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", target)
        assert all(OPERATIONS[operator](int(a), int(b)) == int(result) for a, operator, b, result in steps)
        assert extract_answer(target, "number", "strict") == steps[-1][-1]
        told = set(re.findall(r"\d+", prompt))
        known = told | {step[-1] for step in steps}
        num_following += steps[0][0] in told and all({a, b} <= known for a, _, b, _ in steps)
    assert num_following <= 0.02 * len(stories)


def test_any_wording_makes_the_same_calculations_of_the_same_problems():
    own, any_words = (generate("train", 200, wording=wording) for wording in ("scene", "any"))
    assert [each.problem.question for each in own] == [each.problem.question for each in any_words]
    assert [sorted(expressions(each)) for each in own] == [sorted(expressions(each)) for each in any_words]
    assert sum(a.problem.rationale != b.problem.rationale for a, b in zip(own, any_words, strict=True)) > 150


def test_some_full_stops_end_no_sentence():
    rationales = " ".join(each.problem.rationale for each in generate("train", 500))
    assert all(text in rationales for text in ("Mr. Lee", "approx. ", "a.m. ", ".50 ", "No. "))


@pytest.mark.parametrize("arguments", [("dev", 1), ("train", 1, 0, 0, 3), ("train", 1, 0, 4, 3)])
def test_a_wrong_split_or_range_is_an_error(arguments):
    with pytest.raises(ValueError, match=r"split|steps"):
        generate(*arguments)


# ---- Several rationales of one problem ----


@pytest.fixture(scope="module", params=SPLITS)
def several(request):
    return generate(request.param, 60, num_rationales=8, min_steps=1)


def test_further_rationales_differ_and_leave_the_first_as_it_is(several):
    alone = generate(several[0].problem.split, 60, min_steps=1)
    for each, same in zip(several, alone, strict=True):
        assert (each.problem, each.kinds, same.others) == (same.problem, same.kinds, ())
        texts = {each.problem.rationale, *(text for text, _ in each.others)}
        assert len(texts) == 8


def test_further_rationales_make_the_same_calculations_each_after_what_it_needs(several):
    for each in several:
        asked = expressions(each)
        for text, kinds in each.others:
            other = GeneratedProblem(problem=replace(each.problem, rationale=text), kinds=kinds)
            assert "".join(text[start:end] for start, end, _ in kinds) == text
            assert sorted(expressions(other)) == sorted(asked)
            known = set(each.problem.question.replace(".", " ").replace("$", " ").split())
            for left, _, right, _, result in expressions(other):
                assert {left, right} <= known
                known.add(result)
            assert expressions(other)[-1] == asked[-1]


def test_more_rationales_change_none_before(several):
    fewer = generate(several[0].problem.split, 60, num_rationales=3, min_steps=1)
    assert [each.others for each in fewer] == [each.others[:2] for each in several]


def test_further_rationales_end_with_an_answer_that_is_read_off_them(several):
    for each in several:
        for text, _ in each.others:
            assert extract_answer(text, "number", "flexible") == each.problem.answer
