"""A reply becomes a row; the work counts its pilot and stops."""

from dataclasses import replace
from decimal import Decimal

import pytest
from teachers.builders import HENS, MELTS, SNOW, all_of, problems_of, taken, work_of

from kpod_lightning.data.answers import extract_answer
from kpod_lightning.distributed.preemption import Preempted
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.teachers.requests import Reply
from kpod_lightning.teachers.writing import PILOT, rationale_of


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
        "extractor": "flexible-2",
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
