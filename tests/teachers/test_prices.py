"""Prices: what a request costs, at most and afterwards, in exact decimals."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teachers.builders import teacher_of

from kpod_lightning.config import TeacherConfig
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.prices import Prices, check_budget, prices_of, table


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


def test_a_cached_token_that_is_dearer_than_a_fresh_one_is_set_aside_for():
    prices = Prices(input=Decimal(1), cached_input=Decimal(5), output=Decimal(2))
    message = (("user", "abcd"),)
    assert prices.at_most(message, 1) == (Decimal(5) * (4 + 2 * 64) + 2) / 1_000_000
