"""Train sets larger than the memory: flat arrays and files give what lists would, and do not grow with the texts."""

import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpod_lightning.data.problems import Problem, ProblemTable, check
from kpod_lightning.data.rationales import Counts, RationaleTable, Texts, as_row, select_rationales
from kpod_lightning.data.sources import RecordedRationales
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, save_jsonl
from kpod_lightning.store.keys import Keys, Positions, repeated
from kpod_lightning.store.ragged import Ragged

KEYS = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 3)), unique=True, max_size=12)


@given(KEYS)
def test_keys_are_found_where_a_list_has_them(keys):
    made = Keys.of(keys)
    assert list(made) == keys and made == keys and made[1:3] == keys[1:3]
    for near in range(len(keys) + 1):
        assert [made.find(key, near) for key in keys] == list(range(len(keys)))
    assert made.find(("no such problem", 7)) is None


@given(st.lists(st.lists(st.floats(-1, 1), max_size=4), max_size=8))
def test_ragged_rows_come_back_as_they_went_in(rows):
    made = Ragged.stored((np.array(row) for row in rows), np.float64)
    assert [row.tolist() for row in made] == rows and len(made) == len(rows)
    assert [row.tolist() for row in made[1:]] == rows[1:]


@given(st.lists(st.integers(0, 5), max_size=12))
def test_each_repeated_name_is_paired_with_the_one_before_it(names):
    expected = [(max(j for j in range(i) if names[j] == n), i) for i, n in enumerate(names) if n in names[:i]]
    assert [tuple(pair) for pair in repeated(np.array(names, np.int64)).tolist()] == expected
    positions = Positions(names)
    for name in range(6):
        assert positions.of(name) == [i for i, n in enumerate(names) if n == name]


def problem_row(i: int) -> dict:
    return {"id": f"p{i}", "question": f"What is {i} + 1?" + " Think well." * 20, "answer": str(i + 1)}


def rationale_row(i: int, sample: int) -> dict:
    text = f"In way {sample}: " + "One adds one. " * 20 + f"So {i} + 1 = {i + 1 + (sample == 1)}."
    return {"problem_id": f"p{i}", "sample": sample, "rationale": text}


def table(folder, num_problems: int) -> ProblemTable:
    save_jsonl(folder / "train.jsonl", (problem_row(i) for i in range(num_problems)))
    table = ProblemTable(JsonLines(folder / "train.jsonl"), {}, "number", "train")
    check([table])
    return table


def test_candidates_of_a_shuffled_file_are_those_of_each_problem_in_the_files_order(tmp_path):
    problems = table(tmp_path, 30)
    rows = [rationale_row(i, sample) for i in range(0, 30, 2) for sample in range(3)]
    random.Random(0).shuffle(rows)
    save_jsonl(tmp_path / "teacher.jsonl", rows)
    recorded = RecordedRationales(JsonLines(tmp_path / "teacher.jsonl"), problems)
    for problem, rationales in recorded.groups(problems[:20]):
        expected = [row for row in rows if row["problem_id"] == problem.id]
        assert [(r.text, r.sample, r.teacher) for r in rationales] == [
            (row["rationale"], row["sample"], "teacher") for row in expected
        ]


def test_kept_rationales_are_read_back_from_their_file(tmp_path):
    problems = table(tmp_path, 12)
    save_jsonl(tmp_path / "teacher.jsonl", (rationale_row(i, s) for i in (1, 4, 5, 11) for s in range(3)))
    recorded = RecordedRationales(JsonLines(tmp_path / "teacher.jsonl"), problems)
    kept = list(select_rationales(recorded.groups(problems), Counts(), num_per_problem=2))
    save_jsonl(tmp_path / "rationales.jsonl", map(as_row, kept))
    rows = JsonLines(tmp_path / "rationales.jsonl")
    again = RationaleTable(rows, problems)
    assert list(again) == list(again) == kept and len(again) == 8
    assert list(Texts(rows, np.array([0, 3]))) == [kept[0].text, kept[3].text]


def peak_bytes(folder, num_problems: int) -> int:
    folder.mkdir()
    problems = table(folder, num_problems)
    save_jsonl(folder / "teacher.jsonl", (rationale_row(i, s) for i in range(num_problems) for s in range(2)))
    tracemalloc.start()
    recorded = RecordedRationales(JsonLines(folder / "teacher.jsonl"), problems)
    counts = Counts()
    save_jsonl(folder / "kept.jsonl", map(as_row, select_rationales(recorded.groups(problems), counts)))
    for _ in RationaleTable(JsonLines(folder / "kept.jsonl"), problems):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (counts.num_kept, counts.num_wrong) == (num_problems, num_problems)
    return peak


def test_selecting_holds_a_few_numbers_a_rationale_and_no_text(tmp_path):
    more = 2000
    grown = peak_bytes(tmp_path / "large", 200 + more) - peak_bytes(tmp_path / "small", 200)
    assert len(json.dumps(rationale_row(0, 0))) > 300
    assert grown / (2 * more) < 100  # bytes a rationale


def test_problems_cut_to_a_number_are_still_read_from_the_file(tmp_path):
    problems = table(tmp_path, 9)
    assert isinstance(problems[:4], ProblemTable) and [p.id for p in problems[:4]] == ["p0", "p1", "p2", "p3"]
    assert (
        problems[:4][1:][-1]
        == problems[3]
        == Problem(id="p3", question=problem_row(3)["question"], answer="4", kind="number", split="train")
    )


def test_a_row_that_is_cut_short_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    rows = JsonLines(path)
    assert rows[0] == {"a": 1}
    with pytest.raises(InputError, match=r"a\.jsonl:2: broken JSON"):
        rows[-1]
