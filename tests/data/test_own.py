"""Own data: every usual format and spelling gives the same problems; what is not clear or broken is one line."""

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from kpod_lightning.config import DataConfig, RationalesConfig, RunConfig
from kpod_lightning.data.outputs import marked_answer
from kpod_lightning.data.own import read_own, understood
from kpod_lightning.data.problems import SPLITS, Choice, Problem
from kpod_lightning.data.sources import source_of
from kpod_lightning.store.errors import InputError

ROWS: list[dict[str, Any]] = [
    {
        "question": f"A hen lays {n} eggs, another 2. How many, [b]together[/b]?",
        "answer": str(n + 2),
        "rationale": f'"Add": {n} + 2,\nwhich is {n + 2}.',
    }
    for n in range(30, 42)
]


def problems(path: Path | str, split: str | None = None, **settings: Any) -> list[Problem]:
    """Problems of a file or folder, of one split or of all in the order of their ids."""
    splits = read_own(DataConfig(dataset="own", dir=str(path), **settings))
    return [*splits[split]] if split else sorted((p for found in splits.values() for p in found), key=lambda p: p.id)


def contents(found: list[Problem]) -> list[tuple[str, str, str | None]]:
    return [(p.question, p.answer, p.rationale) for p in found]


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def separated(rows: list[dict[str, Any]], mark: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=mark)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(path: Path, *rows: Any) -> Path:
    return write(path, lines([*rows]))


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows)


def refusal(path: Path | str, **settings: Any) -> str:
    """The one line with which data are refused."""
    with pytest.raises(InputError) as error:
        problems(path, **settings)
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------- formats

FORMATS = {
    "mine.jsonl": lines(ROWS),
    "mine.ndjson": lines(ROWS),
    "mine.jsonl.gz": gzip.compress(lines(ROWS).encode()),
    "bom-blank.jsonl": b"\xef\xbb\xbf" + lines(ROWS).encode() + b"\n\n",
    "mine.json": json.dumps(ROWS, indent=2),
    "lines.json": lines(ROWS),
    "data.json": json.dumps({"version": "1", "data": ROWS}),
    "mine.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "mine.csv": separated(ROWS, ","),
    "bom.csv": b"\xef\xbb\xbf" + separated(ROWS, ",").encode() + b"\r\n",
    "european.csv": separated(ROWS, ";"),
    "mine.csv.gz": gzip.compress(separated(ROWS, ",").encode()),
    "mine.TSV": separated(ROWS, "\t"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_text_format_gives_the_same_problems(tmp_path, name):
    found = problems(write(tmp_path / name, FORMATS[name]))
    assert contents(found) == [(row["question"], row["answer"], row["rationale"]) for row in ROWS]
    assert [p.id.rsplit("-", 1)[1] for p in found] == [f"{n:05d}" for n in range(1, 13)]


def test_parquet_with_several_groups_of_rows_gives_the_same_problems(tmp_path):
    pyarrow.parquet.write_table(table(ROWS), tmp_path / "mine.parquet", row_group_size=5)
    expected = [(row["question"], row["answer"], row["rationale"]) for row in ROWS]
    assert contents(problems(tmp_path / "mine.parquet")) == expected


def test_folder_of_save_to_disk_gives_the_same_problems_and_the_names_of_labels(tmp_path):
    labels = datasets.Features(
        {"question": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = [{"question": f"Does stone {n} float?", "label": n % 2} for n in range(6)]
    whole = datasets.Dataset.from_list(rows, features=labels)
    datasets.DatasetDict({"train": whole, "dev": whole.select([1]), "test": whole.select([0])}).save_to_disk(
        str(tmp_path / "saved")
    )
    found = problems(tmp_path / "saved", "train", kind="yes_no")
    assert [(p.id, p.answer) for p in found[:2]] == [("train-00001", "no"), ("train-00002", "yes")]
    assert [p.answer for p in problems(tmp_path / "saved", "validation", kind="yes_no")] == ["yes"]


def test_folder_in_the_hub_s_format_gives_the_same_problems(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part, rows in {
        "train-00000-of-00002": ROWS[:5],
        "train-00001-of-00002": ROWS[5:],
        "test-00000-of-00001": ROWS,
    }.items():
        pyarrow.parquet.write_table(table(rows), tmp_path / "hub" / "data" / f"{part}.parquet")
    expected = [(row["question"], row["answer"], row["rationale"]) for row in ROWS]
    assert contents(problems(tmp_path / "hub", "test")) == expected
    assert len(problems(tmp_path / "hub", "train")) + len(problems(tmp_path / "hub", "validation")) == 12


def test_missing_values_of_arrow_tables_are_missing_and_whole_floats_are_whole(tmp_path):
    rows = [
        {"question": f"What is {n} + 1?", "answer": float(n + 1), "rationale": None if n else "One."} for n in range(3)
    ]
    pyarrow.parquet.write_table(table(rows), tmp_path / "mine.parquet")
    assert [(p.answer, p.rationale) for p in problems(tmp_path / "mine.parquet")] == [
        ("1", "One."),
        ("2", None),
        ("3", None),
    ]


# -------------------------------------------------------------------------------------------- fields

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 + 3 = 5.\n#### 5"},
]


@pytest.mark.parametrize(
    "record, expected",
    [
        ({"Problem": "What is 2 + 3?", "Final Answer": 5, "CoT": "2 + 3 = 5."}, "2 + 3 = 5."),
        ({"instruction": "What is 2 + 3?", "input": "", "output": "2 + 3 = 5.\n#### 5"}, "2 + 3 = 5."),
        ({"instruction": "What is", "input": "2 + 3?", "output": "5"}, None),
        ({"prompt": "What is 2 + 3?", "answerKey": "5", "solution": "2 + 3 = 5."}, "2 + 3 = 5."),
        ({"problem": "What is 2 + 3?", "solution": "It is $\\boxed{5}$."}, "It is $\\boxed{5}$."),
        ({"query": "What is 2 + 3?", "response": "It is 5.\n#### 5\nThe answer is: 5"}, "It is 5."),
        ({"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5.\n#### 5"}, "2 + 3 = 5."),
        ({"passage": "What is", "question": "2 + 3?", "target": "5"}, None),
        ({"messages": CHAT}, "2 + 3 = 5."),
        ({"conversations": [{"from": "human", "value": "What is 2 + 3?"}, {"from": "gpt", "value": "5"}]}, None),
        ({"prompt": CHAT[:2], "completion": CHAT[2:]}, "2 + 3 = 5."),
        ({"messages": CHAT[:2], "answer": "5", "cot": "2 + 3 = 5."}, "2 + 3 = 5."),
        ({"messages": CHAT, "answer": "5"}, "2 + 3 = 5."),
        ({"problem": "What is 2 + 3?", "answer": "5", "solution": "2 + 3 = 5.\n#### 5"}, "2 + 3 = 5."),
        (
            {"question": "What is 2 + 3?", "answer": "5", "solution": "#### One\n2 + 3\n#### Two\n5"},
            "#### One\n2 + 3\n#### Two\n5",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is 2 + 3?"}]}, CHAT[2]]},
            "2 + 3 = 5.",
        ),
    ],
)
def test_fields_are_found_by_their_usual_names(tmp_path, record, expected):
    jsonl(tmp_path / "train.jsonl", record)
    for split in ("validation", "test"):
        jsonl(tmp_path / f"{split}.jsonl", record)
    (found,) = problems(tmp_path, "train")
    assert (" ".join(found.question.split()), found.answer, found.rationale) == ("What is 2 + 3?", "5", expected)


def test_fields_are_those_that_are_named_also_inside_objects_and_joined(tmp_path):
    row = {"uid": 7, "Story": "Ann has 2 pens.", "prompt": "How many in 3 bags?", "gold": "no", "meta": {"truth": "6"}}
    for split in SPLITS:
        jsonl(tmp_path / f"{split}.jsonl", row | {"uid": split})
    fields = {"question": "Story+prompt", "answer": "meta.truth", "id": "uid"}
    (found,) = problems(tmp_path, "test", fields=fields)
    assert (found.id, found.question, found.answer) == ("test", "Ann has 2 pens.\nHow many in 3 bags?", "6")
    assert "data.fields names; there are uid" in refusal(tmp_path, fields=fields | {"rationale": "why"})


def test_ids_of_records_are_kept_unless_rows_are_asked_for(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", *({**row, "id": 100 + i} for i, row in enumerate(ROWS)))
    assert [p.id for p in problems(path)][:2] == ["100", "101"]
    assert [p.id for p in problems(path, fields={"id": "row"})][:2] == ["mine-00001", "mine-00002"]


@pytest.mark.parametrize(
    "record, says",
    [
        ({"question": "Why?", "prompt": "Why so?", "answer": "5"}, "question and prompt could each be the question"),
        ({"question": "Why?", "answer": "5", "label": "6"}, "answer and label could each be the answer"),
        ({"question": "Why?", "solution": "5", "response": "6"}, "solution and response could each be the answer"),
        ({"question": "Why?", "answer": "5", "cot": "a", "explanation": "b"}, "cot and explanation could each be"),
        ({"text": "Why?", "answer": "5"}, "known as the question (question, problem, .*there are text, answer"),
        ({"question": "Why?", "gut": "5"}, "known as the answer .*there are question, gut: data.fields.answer=NAME"),
    ],
)
def test_fields_that_are_not_clear_are_refused_with_those_that_are_there(tmp_path, record, says):
    message = refusal(jsonl(tmp_path / "train.jsonl", record))
    assert re.search(says.replace("(", r"\("), message) and "train.jsonl" in message and "there are" in message


def test_field_of_ours_that_there_is_not_is_refused(tmp_path):
    assert "data.fields.gold: our fields are" in refusal(jsonl(tmp_path / "a.jsonl", *ROWS), fields={"gold": "answer"})


# ------------------------------------------------------------------------------------------ outputs

THOUGHT = "<think>First 2 + 3.</think>\nIt is 2 + 3 = 5.\n#### 5"


@pytest.mark.parametrize(
    "thinking, expected",
    [
        ("drop", "It is 2 + 3 = 5."),
        ("distil", "First 2 + 3."),
        ("keep", "<think>First 2 + 3.</think>\nIt is 2 + 3 = 5."),
    ],
)
def test_thought_of_an_output_is_dropped_kept_or_the_rationale(tmp_path, thinking, expected):
    rows = [{"question": f"What is {n}?", "output": THOUGHT} for n in range(3)]
    found = problems(jsonl(tmp_path / "mine.jsonl", *rows), thinking=thinking)
    assert {(p.answer, p.rationale) for p in found} == {("5", expected)}


@pytest.mark.parametrize(
    "output, expected",
    [
        ("So it is 5. <answer>5</answer>", ("So it is 5.", "5")),
        ("<answer>It is \\boxed{5}.</answer>", ("It is \\boxed{5}.", "5")),
        ("Both \\boxed{4} and \\boxed{\\frac{1}{2}}", ("Both \\boxed{4} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}")),
        ("\\boxed{5}", ("", "5")),
        ("It is 5.\n**Answer:** 5", ("It is 5.\n**Answer:** 5", "5")),
        ("We ask what the answer is if 3 double.\nThey are 6.", None),
        ("", None),
        ("####", None),
        ("#### Step 1\nAdd.\n#### Step 2\nSo.", None),
        ("#### Step 1\nAdd and get 5.", None),
        ("Write a <<b>> c.\n####5", ("Write a <<b>> c.", "5")),
    ],
)
def test_marked_answer_is_told_from_its_rationale(output, expected):
    assert marked_answer(output) == expected


def test_chat_may_stand_in_a_field_of_another_name(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", *({"turns": CHAT, "n": n} for n in range(3)), {"turns": "Why?", "n": 3})
    assert "a.jsonl:4: none of its fields is known as the answer; there are turns, n" in refusal(
        path, fields={"question": "turns"}
    )
    for split in SPLITS:
        jsonl(tmp_path / "d" / f"{split}.jsonl", {"turns": CHAT})
    assert [p.answer for p in problems(tmp_path / "d", "train", fields={"question": "turns"})] == ["5"]


def test_output_without_a_marked_answer_is_refused_with_its_row(tmp_path):
    rows = [{"question": f"What is {n}?", "output": "#### 5"} for n in range(4)]
    rows[2]["output"] = "He first takes 2 of them and then again 3 of them and so has 5 of the 9."
    assert "mine.jsonl:3: output is a text without a marked answer" in refusal(jsonl(tmp_path / "mine.jsonl", *rows))


# ------------------------------------------------------------------------------------------ choices


@pytest.mark.parametrize(
    "record",
    [
        {"choices": [{"label": "A", "text": "oven"}, {"label": "B", "text": "river"}], "answer": "B"},
        {"options": ["oven", "river"], "answer": "(B)"},
        {"options": ["A) oven", "B) river"], "correct": "b"},
        {"choices": {"A": "oven", "B": "river"}, "answer": "river"},
        {"choices": {"label": ["A", "B"], "text": ["oven", "river"]}, "answerKey": "B. river"},
        {"A": "oven", "B": "river", "answer": "B"},
        {"option_a": "oven", "option_b": "river", "answer": "B"},
        {"choices": '["oven", "river"]', "answer": "The answer is B."},
    ],
)
def test_every_form_of_choices_is_read(tmp_path, record):
    rows = [{"question": f"Where does cook {n} fish?", **record} for n in range(3)]
    for found in problems(jsonl(tmp_path / "mine.jsonl", *rows), kind="choice"):
        assert (found.choices, found.answer) == ((Choice(label="A", text="oven"), Choice(label="B", text="river")), "B")


@pytest.mark.parametrize("answers, expected", [([0, 1, 2], "ABC"), ([1, 3, 2], "ACB"), (["2", "0", "1"], "CAB")])
def test_answer_that_is_a_position_is_read_where_a_0_or_the_last_tells_how_they_count(tmp_path, answers, expected):
    rows = [{"question": f"Where is {a}?", "options": ["sea", "sky", "sand"], "answer": a} for a in answers]
    assert "".join(p.answer for p in problems(jsonl(tmp_path / "a.jsonl", *rows), kind="choice")) == expected


@pytest.mark.parametrize("answers", [[1, 2, 2], [0, 3, 1], [1, 4, 2]])
def test_answer_that_is_an_unclear_position_is_refused_with_its_row(tmp_path, answers):
    rows = [
        {"question": f"Where is {n}?", "options": ["sea", "sky", "sand"], "answer": a} for n, a in enumerate(answers)
    ]
    assert re.search(
        r"a\.jsonl:\d: answer \d is none of the choices A, B, C, and whether positions count from 0 or 1 is not clear",
        refusal(jsonl(tmp_path / "a.jsonl", *rows), kind="choice"),
    )


def test_label_that_is_a_digit_is_no_position(tmp_path):
    rows = [{"question": f"Where is {n}?", "choices": {"1": "sea", "2": "sky"}, "answer": 1} for n in range(3)]
    assert {p.answer for p in problems(jsonl(tmp_path / "a.jsonl", *rows), kind="choice")} == {"1"}


@pytest.mark.parametrize(
    "settings, answers, best",
    [
        ({}, ["yes", "no", "no"], "yes_no"),
        ({"kind": "yes_no"}, ["5", "17", "3"], "number"),
        ({}, ["A", "B", "A"], "choice"),
    ],
)
def test_kind_that_does_not_fit_is_refused_with_the_one_that_does(tmp_path, settings, answers, best):
    rows = [{"question": f"Is {n} even?", "answer": answer} for n, answer in enumerate(answers)]
    message = refusal(jsonl(tmp_path / "a.jsonl", *rows), **settings)
    assert f"fits 0 of 3 answers, data.kind={best} 3: set data.kind={best}" in message


# ------------------------------------------------------------------------------------------- splits


def test_missing_splits_are_split_off_by_seed_and_a_question_stays_on_one_side(tmp_path):
    twice = [{**row, "id": f"{copy}{i}"} for i, row in enumerate(ROWS) for copy in "ab"]
    path = jsonl(tmp_path / "mine.jsonl", *twice)
    one, again, other = ([[*problems(path, split, seed=seed)] for split in SPLITS] for seed in (0, 0, 1))
    assert one == again != other
    sides = [{p.question for p in split} for split in one]
    assert sum(map(len, sides)) == 12 and [len(split) for split in one] == [20, 2, 2]
    assert [len(problems(path, s, num_test=6, num_validation=4)) for s in SPLITS] == [14, 4, 6]


def test_validation_is_split_off_the_train_set_where_a_test_set_is_there(tmp_path):
    jsonl(tmp_path / "train.jsonl", *ROWS)
    jsonl(tmp_path / "test.jsonl", *({**row, "question": "Now: " + row["question"]} for row in ROWS))
    assert len(problems(tmp_path, "test")) == 12
    assert {p.id[:5] for p in problems(tmp_path, "validation")} == {"train"}


def test_question_that_is_added_moves_few_others(tmp_path):
    more = [{"question": f"What is {n}?", "answer": "1"} for n in range(400)]
    before = {p.question for p in problems(jsonl(tmp_path / "a.jsonl", *more[:-4]), "test")}
    after = {p.question for p in problems(jsonl(tmp_path / "a.jsonl", *more), "test")}
    assert len(before & after) >= 38


def test_one_json_object_may_hold_all_splits_and_their_names_may_be_others(tmp_path):
    path = write(tmp_path / "all.json", json.dumps({"training": ROWS[:8], "val": ROWS[8:9], "test": ROWS[9:]}))
    assert [len(problems(path, split)) for split in SPLITS] == [8, 1, 3]


def test_too_few_questions_to_split_are_refused(tmp_path):
    assert "2 problems with 2 different questions are too few" in refusal(jsonl(tmp_path / "mine.jsonl", *ROWS[:2]))


@pytest.mark.parametrize(
    "names, says",
    [
        (["train.jsonl", "train.csv"], "train.csv and train.jsonl are both the train split"),
        (["dev.jsonl", "valid.jsonl", "train.jsonl"], "dev.jsonl and valid.jsonl are both the validation split"),
        (["a.jsonl", "b.jsonl"], "nor one such file alone; there is a.jsonl, b.jsonl"),
        (["test.jsonl"], "no train split, e.g. train.jsonl; there are test"),
        (["notes.txt"], "there is notes.txt"),
        ([], "there is nothing"),
    ],
)
def test_folder_that_is_not_clear_is_refused_with_what_is_there(tmp_path, names, says):
    for name in names:
        write(tmp_path / "data" / name, separated(ROWS, ",") if name.endswith(".csv") else lines(ROWS))
    (tmp_path / "data").mkdir(exist_ok=True)
    assert says in refusal(tmp_path / "data")


# -------------------------------------------------------------------------------------------- broken


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("a.jsonl", b'{"question": "Why?", "answer": "5"}\n{"question": \n', r"a\.jsonl:2: broken JSON"),
        ("a.jsonl", b'{"question": "W\xe4r?", "answer": "5"}\n', r"a\.jsonl:1: "),
        ("a.jsonl", lines(ROWS).encode("utf-16"), r"a\.jsonl:1: .*UTF-16"),
        ("a.jsonl", b"", r"a\.jsonl: there is no record"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS).encode(), mtime=0)[:60], r"a\.jsonl\.gz:\d+: truncated or damaged"),
        ("a.jsonl", b"[1, 2]\n", r"a\.jsonl:1: a line holds one JSON object"),
        ("a.json", b'[{"question": "Why?"', r"a\.json: broken JSON"),
        (
            "a.json",
            b'[{"question": "Why?", "answer": "5"}, 7]',
            r"a\.json, record 2: a record is an object, not a number",
        ),
        ("a.json", b'{"question": "Why?"}', r"a\.json: one object, where an array of records is expected"),
        ("a.json", b"", r"a\.json: empty"),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)[:60], r"a\.json\.gz: truncated or damaged"),
        ("a.csv", b"question,answer\nWhy?,5\nWhy, then?,6\n", r"a\.csv:3: 3 columns, where 2 have a name"),
        ("a.csv", b'question,answer\n"Why\nso?",5\n"Why?,6\n', r"a\.csv:4: broken quotes"),
        ("a.csv", b"question,answer,answer\nWhy?,5,6\n", r"a\.csv:1: two columns are named answer"),
        ("a.csv", "question,answer\nWär?,5\n".encode("latin-1"), r"a\.csv: no UTF-8 in line 2"),
        ("a.csv", separated(ROWS, ",").encode("utf-16"), r"a\.csv: the text is UTF-16"),
        ("a.csv", separated(ROWS, ",").encode("utf-16-le"), r"a\.csv: no text: NUL characters"),
        ("a.csv", b"", r"a\.csv: empty"),
        ("a.csv", b"question,answer\n", r"a\.csv: there is no record"),
        ("a.csv", b"question,answer\nWhy?,5\nWhy so?,\nWho?,1\n", r"a\.csv:3: .*no answer"),
        ("a.parquet", b"PAR1 and then nothing", r"a\.parquet: damaged, or no Parquet file"),
        ("a.txt", lines(ROWS).encode(), r"a\.txt: no known format; .* ends in \.jsonl"),
    ],
)
def test_broken_file_is_refused_with_its_place(tmp_path, name, content, says):
    assert re.search(says, refusal(write(tmp_path / name, content)))


def test_parquet_file_that_is_torn_inside_is_refused(tmp_path):
    rows = [
        {"question": f"What is {n}?", "answer": str(n), "rationale": f"{n * 7919 % 1000003} " * 20} for n in range(200)
    ]
    pyarrow.parquet.write_table(table(rows), tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[40:400] = b"\xff" * 360
    assert "a.parquet" in refusal(write(tmp_path / "a.parquet", bytes(content)))
    assert "a.parquet: damaged" in refusal(write(tmp_path / "a.parquet", bytes(content[: len(content) // 2])))


@pytest.mark.parametrize("damage", ["state.json", "data-00000-of-00001.arrow"])
def test_folder_of_save_to_disk_that_is_damaged_is_refused(tmp_path, damage):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    content = (tmp_path / "saved" / damage).read_bytes()
    write(tmp_path / "saved" / damage, content[: len(content) // 2])
    assert "saved" in refusal(tmp_path / "saved")


@pytest.mark.parametrize(
    "messages",
    [
        [*CHAT, *CHAT[1:]],
        CHAT[:2],
        [{"role": "critic", "content": "Hm."}],
        [{"role": "user", "content": None}, CHAT[2]],
        ["Why?"],
        [],
    ],
)
def test_chat_of_another_form_than_question_and_reply_is_refused_with_its_row(tmp_path, messages):
    rows = [{"messages": CHAT}] * 3
    assert "a.jsonl:4: " in refusal(jsonl(tmp_path / "a.jsonl", *rows, {"messages": messages}))


def test_path_that_is_not_there_is_refused_without_a_look_at_the_hub(tmp_path):
    assert "nowhere.jsonl: no such file" in refusal(tmp_path / "nowhere.jsonl")
    assert "nowhere: no such file" in refusal(tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------- understood


def test_three_lines_say_what_was_understood(tmp_path):
    rows = [{**row, "topic": "hens"} for row in ROWS]
    data = DataConfig(dataset="own", dir=str(jsonl(tmp_path / "mine.jsonl", *rows, rows[0])))
    sizes, fields, sample = understood(read_own(data), data)
    assert sizes.endswith(
        "train, 1 validation, 1 test, kind number; validation and test split off the train set by data.seed=0"
    )
    assert "question is question, answer is answer, rationale is rationale" in fields and "not used: topic" in fields
    assert 'question "A hen lays' in sample and "[b]together[/b]" in sample and "\n" not in sample


def test_questions_of_the_test_set_that_stand_in_train_are_counted(tmp_path):
    jsonl(tmp_path / "train.jsonl", *ROWS[:8])
    jsonl(tmp_path / "validation.jsonl", *ROWS[8:10])
    jsonl(tmp_path / "test.jsonl", *ROWS[6:])
    data = DataConfig(dataset="own", dir=str(tmp_path))
    assert "2 questions of test stand in train too" in understood(read_own(data), data)[0]


def test_rationales_of_a_named_teacher_lie_beside_the_file_or_in_the_folder(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", *({k: v for k, v in row.items() if k != "rationale"} for row in ROWS))
    jsonl(tmp_path / "rationales" / "me.jsonl", {"problem_id": "mine-00001", "rationale": "So it is 32."})
    for where in (path, tmp_path):
        config = RunConfig(
            seed=0,
            data=DataConfig(dataset="own", dir=str(where), num_test=1, num_validation=1),
            rationales=RationalesConfig(source="recorded", teacher="me"),
        )
        train = read_own(config.data)["train"]
        groups = source_of(config, train).groups(train)
        assert [rationale.text for _, found in groups for rationale in found] == ["So it is 32."]


def test_positions_of_choices_count_alike_in_all_splits(tmp_path):
    def rows(answers: list[int]) -> list[dict[str, Any]]:
        return [{"question": f"Where is {a}?", "options": ["sea", "sky", "sand"], "answer": a} for a in answers]

    for split, answers in {"train": [0, 1, 2], "validation": [1], "test": [2]}.items():
        jsonl(tmp_path / f"{split}.jsonl", *rows(answers))
    assert [p.answer for p in problems(tmp_path, "validation", kind="choice", fields={"id": "row"})] == ["B"]


def test_chat_of_an_arrow_table_may_be_lists_of_roles_and_contents(tmp_path):
    chat = {"role": ["user", "assistant"], "content": ["What is 2 + 3?", "5"]}
    rows = [{"messages": chat, "topic": str(n)} for n in range(3)]
    for split in SPLITS:
        jsonl(tmp_path / f"{split}.jsonl", *rows)
    assert {(p.question, p.answer) for p in problems(tmp_path)} == {("What is 2 + 3?", "5")}


def test_columns_without_a_name_are_left_out(tmp_path):
    text = ",question,answer,,\n" + "".join(f"{n},What is {n}?,{n},,\n" for n in range(4))
    assert [p.answer for p in problems(write(tmp_path / "a.csv", text))] == ["0", "1", "2", "3"]


def test_id_that_stands_twice_is_refused_with_both_places_and_a_way_out(tmp_path):
    rows = [{"id": n % 3, "question": f"What is {n}?", "answer": "5"} for n in range(4)]
    message = refusal(jsonl(tmp_path / "a.jsonl", *rows))
    assert re.search(r"a\.jsonl:[14]: id 0 stands at \S+a\.jsonl:[14] already; .*data\.fields\.id=row", message)


@pytest.mark.parametrize("path", ["x" * 300 + "/y", "x" * 300, "/dev/null"])
def test_path_that_cannot_be_read_is_refused(path):
    assert re.search("cannot be read|a device or a pipe|no known format", refusal(path))


def test_configuration_of_a_folder_in_the_hub_s_format_is_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    jsonl(tmp_path / "hub" / "short" / "a.jsonl", *ROWS[:4])
    jsonl(tmp_path / "hub" / "long" / "a.jsonl", *ROWS)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/a.jsonl\n" for name in ("short", "long"))
    write(tmp_path / "hub" / "README.md", f"---\nconfigs:\n{configs}---\n")
    assert len(problems(tmp_path / "hub", subset="short")) == 4
    assert len(problems(tmp_path / "hub", subset="long")) == 12
    assert re.search("Config name is missing.*short.*long.*data.subset", refusal(tmp_path / "hub"))


def test_configuration_that_a_folder_of_the_hub_s_format_does_not_have_is_refused(tmp_path):
    jsonl(tmp_path / "train.jsonl", *ROWS)
    assert "data.subset names one of several configurations" in refusal(tmp_path, subset="socratic")


def test_pictures_of_a_data_set_are_left_out_and_need_no_package(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = {
        "question": {"dtype": "string", "_type": "Value"},
        "answer": {"dtype": "string", "_type": "Value"},
        "picture": {"_type": "Image"},
    }
    rows = [{"question": f"What is {n}?", "answer": str(n), "picture": {"bytes": b"?", "path": None}} for n in range(4)]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema({"question": pyarrow.string(), "answer": pyarrow.string(), "picture": kind})
    made = pyarrow.Table.from_pylist(rows, schema=schema)
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pyarrow.parquet.write_table(made, tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    assert [p.answer for p in problems(tmp_path / "hub")] == ["0", "1", "2", "3"]
