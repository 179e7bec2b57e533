"""Parts of an order: shards, shuffling, shares, licences, and the summary at the end."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teachers.builders import HENS, problems_of, taken, work_of

from kpod_lightning.config import TeacherConfig, load_config
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.order import (
    Shuffled,
    asked_alike,
    licence_of,
    parse_shard,
    part_of,
    settings_of_part,
    summary,
)
from kpod_lightning.teachers.requests import Reply


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
    part = settings_of_part(config, 4)
    assert (part.teacher.budget, part.teacher.stop_at_total) == (1.5, 3)  # 10 / 4, rounded up
    assert replace(part, teacher=replace(part.teacher, budget=6, stop_at_total=10)) == config


def test_what_is_not_set_is_not_shared():
    config = load_config(None, ["teacher=local:folder"])
    assert settings_of_part(config, 4) == config
    whole = load_config(None, ["budget=0.7", "teacher.stop_at_total=3"])
    assert settings_of_part(whole, 1) == whole


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
    same = asked_alike(work.teacher, work.wanted.prompt, 7)
    assert same(row) and same(row | {"cost": 9.0, "correct": False, "licence": "MIT", "model": "other"})
    assert not asked_alike(work.teacher, work.wanted.prompt, 8)(row)
    for changed in (
        {"teacher": "openai:model-b"},
        {"prompt_sha256": "f00d"},
        {"sampling": row["sampling"] | {"temperature": 0.2}},
    ):
        assert not same(row | changed)


def test_the_sentence_at_the_end_says_what_there_is_and_what_each_right_one_did_cost(tmp_path):
    work = work_of(tmp_path, problems_of(4))
    with work.file as file:
        assert summary(work) == f"{file.path}: no samples yet, 0.0000 US dollars spent"
        for text, cost in (("1", "0.001"), ("2", "0.002"), ("none", "0.003"), ("7", "0")):
            file.money.reserve(Decimal(1))
            file.money.settle(Decimal(1), Decimal(cost))
            work.add(taken(work), Reply(text=text), [], Decimal(cost))
        file.money.reserve(Decimal("0.5"))
        said = summary(work)
    # Wilson's interval of 2 of 4 is 0.5 -+ 1.96 * sqrt(1/16 + 1.96^2/64) / (1 + 1.96^2/4) = 0.5 -+ 0.35.
    assert said == (
        f"{file.path}: 4 samples, 2 right (50.0 % [15.0, 85.0]); 0.0060 US dollars spent, and 0.5000 more may have "
        "been billed; 0.00300 a right one"
    )


def test_the_sentence_says_nothing_of_money_where_none_was_spent(tmp_path):
    work = work_of(tmp_path, problems_of(1), name="local:folder")
    with work.file as file:
        work.add(taken(work), Reply(text="none"), [], Decimal(0))
        assert summary(work) == f"{file.path}: 1 samples, 0 right (0.0 % [0.0, 79.3])"
