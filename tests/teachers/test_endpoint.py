"""Replies of OpenAI-compatible endpoints: text, completeness and cost."""

from decimal import Decimal

import pytest
from teachers.builders import teacher_of

from kpod_lightning.teachers.endpoint import cost_of
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.replies import Usage, first_choice, reply_of, usage_of


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
    reply = reply_of(choices[0], Usage(), 0.0, stop, "m")
    assert (reply.text, reply.finish_reason) == (text, reason)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, {"choices": [{"index": 0}]}])
def test_a_reply_without_a_message_is_none(body):
    assert first_choice(body) is None


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 3}])
def test_a_reply_that_does_not_say_its_tokens_costs_the_most_it_can(usage):
    found = usage_of({"choices": [], "usage": usage}, 8)
    assert cost_of(found, Prices(input=Decimal(1), output=Decimal(1)), Decimal(7), teacher_of()) == 7
