"""Rationales of others, from a file: matched by problem and sample, graded here."""

import gzip
import json
import random
from pathlib import Path

import pytest

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers import recorded
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.prompts import load_prompt
from kpod_lightning.teachers.recorded import RecordedSamples
from kpod_lightning.teachers.requests import Wanted
from kpod_lightning.teachers.samples.file import SampleFile
from kpod_lightning.teachers.writing import Work

PROBLEMS = [
    Problem(id=f"p{i}", question=f"How much is {i} and 2?", answer=str(i + 2), kind="number", split="train")
    for i in range(3)
]


def row(name: str, answer: int, **more) -> dict:
    return {"problem_id": name, "rationale": f"We add. The answer is {answer}.", **more}


def written(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def ordered(source: Path, out: Path, **settings) -> tuple[Work, list[dict]]:
    """An order to a file, to its end."""
    teacher = TeacherConfig(name=f"recorded:{source}", **settings)
    prompt = load_prompt(teacher, "number")
    with SampleFile(out) as file:
        wanted = Wanted(PROBLEMS, prompt, teacher, 0, file.right_of, num_right=file.seen.num_right)
        work = Work(teacher, Prices(), wanted, file, licence="CC-BY-4.0")
        recorded.write(work)
    return work, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["theirs.jsonl", "theirs.jsonl.gz"])
def test_what_is_there_becomes_rows_and_what_is_not_stays_missing(tmp_path, name):
    rows = [row("p1", 3, model="model-a"), row("elsewhere", 1), row("p0", 2), row("p1", 9), row("p1", 3)]
    work, found = ordered(written(tmp_path / name, rows), tmp_path / "ours.jsonl", samples=2)
    expected = {("p0", 0): True, ("p1", 0): True, ("p1", 1): False}  # numbered as they stand there
    assert {(one["problem_id"], one["sample"]): one["correct"] for one in found} == expected
    assert work.given_up == 3 and work.stopped is None  # the second of p0, both of p2
    first = next(one for one in found if one["problem_id"] == "p1")
    assert first["rationale"] == rows[0]["rationale"] and first["model"] == "model-a"
    assert first["cost"] == 0 and first["usage"]["completion_tokens"] == 0 and first["licence"] == "CC-BY-4.0"


def test_numbered_rows_keep_their_numbers_and_what_was_cut_off_is_not_right(tmp_path):
    rows = [row("p0", 2, sample=1), row("p0", 5, sample=0), row("p1", 3, sample=0, finish_reason="length")]
    _, found = ordered(written(tmp_path / "t.jsonl", rows), tmp_path / "o.jsonl", samples=2)
    assert [(one["problem_id"], one["sample"], one["correct"]) for one in found] == [
        ("p0", 0, False),
        ("p0", 1, True),
        ("p1", 0, False),
    ]


def test_the_same_order_again_copies_only_what_is_new(tmp_path):
    source = written(tmp_path / "t.jsonl", [row("p0", 2)])
    ordered(source, tmp_path / "o.jsonl")
    written(source, [row("p0", 2), row("p2", 4)])
    work, found = ordered(source, tmp_path / "o.jsonl")
    assert [one["problem_id"] for one in found] == ["p0", "p2"] and work.given_up == 1
    ordered(source, tmp_path / "o.jsonl")  # nothing more: its rows are in it, so the file is no wrong one


def test_a_file_that_fits_none_of_the_problems_stops_it(tmp_path):
    source = written(tmp_path / "t.jsonl", [row("q0", 2), row("q1", 3)])
    with pytest.raises(InputError, match=r"t.jsonl: none of its 2 rationales is for one of the problems"):
        ordered(source, tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("p0", 2), {"problem_id": "p1"}], ":2: no field rationale"),
        ([row("p0", 2, sample=0), row("p1", 2)], ":2: some rows have a field sample and some have none"),
        ([row("p0", 2, sample=0), row("p1", 2, sample=0), row("p0", 4, sample=0)], ":3: sample 0 of problem p0"),
        ([row("p0", 2, sample="a")], ":1: sample is a whole number from 0, not the text 'a'"),
        ([row("p0", 2, sample=-1)], ":1: sample is a whole number from 0, not the number -1"),
        ([row("p0", 2) | {"rationale": ["We add."]}], ":1: rationale is a text, not the list"),
        ([row("p0", 2), row("p1", 2) | {"problem_id": True}], ":2: problem_id is a text, not the truth value"),
        ([row("p0", 2) | {"model": {"name": "m"}}], ":1: model is a text, not the object"),
        ([row("p0", 2) | {"finish_reason": 3}], ":1: finish_reason is a text, not the number 3"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        ordered(written(tmp_path / "t.jsonl", rows), tmp_path / "o.jsonl")


def test_an_answer_cannot_be_asked_of_a_file(tmp_path):
    with pytest.raises(InputError, match=r"teacher.answer_call=true"):
        ordered(tmp_path / "t.jsonl", tmp_path / "o.jsonl", answer_call=True)


def test_a_row_without_a_number_is_numbered_by_how_often_its_problem_stood_there_before(tmp_path):
    names = random.Random(0).choices([f"p{i}" for i in range(10)], k=200)
    rows = [{"problem_id": name, "rationale": f"row {i}"} for i, name in enumerate(names)]
    samples = RecordedSamples(written(tmp_path / "t.jsonl", rows))
    for i, name in enumerate(names):
        found = samples.reply((name, names[:i].count(name)))
        assert found is not None and found.text == f"row {i}"
    assert samples.reply(("p0", names.count("p0"))) is None and samples.reply(("p10", 0)) is None


def test_an_empty_file_has_no_sample(tmp_path):
    assert RecordedSamples(written(tmp_path / "t.jsonl", [])).reply(("p0", 0)) is None
