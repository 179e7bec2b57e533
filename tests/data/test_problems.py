"""Readers: the folder layout, the hub's schemas, own files; bad input is one readable line."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kpod_lightning.data import benchmarks as readers
from kpod_lightning.data.benchmarks import BENCHMARKS, MANIFESTS
from kpod_lightning.data.problems import SPLITS, Choice, Problem, ProblemTable, check, contents_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines

PUBLISHED = Path(os.environ.get("KPOD_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(name: str, answer: str = "5") -> dict:
    return {
        "id": name,
        "question": f"Tom has two kites and gets three in {name}. How many has he?",
        "answer": answer,
    }


def folder(root: Path, **changes: list[dict]) -> Path:
    for split in SPLITS:
        jsonl(root / "svamp" / f"{split}.jsonl", changes.get(split, [row(f"{split}-0"), row(f"{split}-1")]))
    return root


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------ problems


def test_text_shows_the_choices():
    choices = (Choice(label="A", text="oven"), Choice(label="B", text="river"))
    problem = Problem(
        id="1", question="Where is bread baked?", answer="A", kind="choice", split="train", choices=choices
    )
    assert problem.text == "Where is bread baked? Answer Choices: (A) oven (B) river"


def test_text_is_the_question_where_there_are_no_choices():
    assert Problem(id="1", question="What is 2 + 3?", answer="5", kind="number", split="test").text == "What is 2 + 3?"


def test_hash_ignores_case_and_blanks_but_not_choices():
    def made(question: str, *choices: str) -> str:
        letters = tuple(Choice(label=label, text=text) for label, text in zip("ABC", choices, strict=False))
        return readers.question_hash(
            Problem(id="1", question=question, answer="A", kind="choice", split="train", choices=letters)
        )

    assert made("Where is  bread\nbaked?") == made("where is bread BAKED?")
    assert made("Where is bread baked?", "oven") != made("Where is bread baked?", "river")
    assert len(made("Where?")) == 16 and int(made("Where?"), 16) >= 0


def test_readers_do_without_torch():
    code = (
        "import sys, kpod_lightning.data.benchmarks, kpod_lightning.data.answers\n"
        "import kpod_lightning.evaluation.statistics\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------- JSON Lines


def test_plain_and_packed_files_read_alike(tmp_path):
    rows = [row("ü-1"), row("2")]
    jsonl(tmp_path / "plain.jsonl", rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress((tmp_path / "plain.jsonl").read_bytes()))
    assert list(JsonLines(tmp_path / "plain.jsonl")) == list(JsonLines(tmp_path / "packed.jsonl")) == rows


def test_plain_file_comes_before_the_packed_one(tmp_path):
    jsonl(tmp_path / "a.jsonl", [row("plain")])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(row("packed")).encode()))
    assert JsonLines(tmp_path / "a.jsonl")[0]["id"] == "plain"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        JsonLines(tmp_path / "train.jsonl")
    assert f"{tmp_path / 'train.jsonl'}: no such file" in one_line(error)


@pytest.mark.parametrize(
    "text, says",
    [
        ('{"id": 1}\n{"id": \n', ":2: broken JSON"),
        ('{"id": 1}\n[1, 2]\n', ":2: a line holds one JSON object, not a list"),
        ('"words"\n', ":1: a line holds one JSON object, not a text"),
        ('{"id": 1}\n{"id": "\xff"}\n', ":2: no UTF-8"),
    ],
)
def test_broken_line_is_named(tmp_path, text, says):
    (tmp_path / "a.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        list(JsonLines(tmp_path / "a.jsonl"))
    assert f"{tmp_path / 'a.jsonl'}:" in one_line(error) and says in one_line(error)


def packed(num_rows: int = 400) -> bytes:
    # Hex digits that do not repeat keep the packed file long enough to be cut anywhere.
    rows = (row(readers.question_hash(Problem(**row(str(n)), kind="number", split=""))) for n in range(num_rows))
    return gzip.compress("\n".join(map(json.dumps, rows)).encode())


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_truncated_gzip_is_named(tmp_path, share):
    whole = packed()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: max(5, int(share * len(whole)))])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:\d+: truncated or damaged") as error:
        list(JsonLines(tmp_path / "a.jsonl"))
    assert "fetch" in one_line(error)


def test_file_that_is_no_gzip_is_named(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"id": 1}\n')
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:1: truncated or damaged"):
        list(JsonLines(tmp_path / "a.jsonl"))


def test_gzip_damaged_in_the_middle_is_named(tmp_path):
    whole = bytearray(packed())
    whole[200:260] = bytes(byte ^ 0xFF for byte in whole[200:260])
    (tmp_path / "a.jsonl.gz").write_bytes(whole)
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:\d+: truncated or damaged"):
        list(JsonLines(tmp_path / "a.jsonl"))


# -------------------------------------------------------------------------------------------- folder


def test_folder_has_three_splits(tmp_path):
    read = readers.read_folder(folder(tmp_path), "svamp")
    assert list(read) == list(SPLITS)
    assert [[p.id for p in read[split]] for split in SPLITS] == [[f"{s}-0", f"{s}-1"] for s in SPLITS]
    assert all(p.split == split and p.kind == "number" for split in SPLITS for p in read[split])


def test_folder_keeps_choices_and_rationale(tmp_path):
    for split in SPLITS:
        choices = [{"label": "A", "text": "oven"}, {"label": "B", "text": "river"}]
        made = {**row(split, "A"), "choices": choices, "rationale": "Bread needs heat."}
        jsonl(tmp_path / "commonsenseqa" / f"{split}.jsonl", [made])
    (problem,) = readers.read_folder(tmp_path, "commonsenseqa")["test"]
    assert problem.kind == "choice" and problem.choices[1] == Choice(label="B", text="river")
    assert problem.rationale == "Bread needs heat."


@pytest.mark.parametrize("field", ["id", "question", "answer"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_incomplete_problem_is_named(tmp_path, field, value):
    folder(tmp_path, validation=[row("whole"), {**row("half"), field: value}])
    with pytest.raises(InputError) as error:
        readers.read_folder(tmp_path, "svamp")
    said = (
        "there is no answer" if field == "answer" else f"{field} is a text, not null" if value is None else "is empty"
    )
    assert "validation.jsonl:2: " in one_line(error) and said in one_line(error)


@pytest.mark.parametrize("field", ["question", "answer"])
def test_problem_without_a_field_is_named(tmp_path, field):
    lacking = {name: value for name, value in row("half").items() if name != field}
    folder(tmp_path, test=[lacking])
    with pytest.raises(InputError, match=rf"test\.jsonl:1: no field {field}"):
        readers.read_folder(tmp_path, "svamp")


@pytest.mark.parametrize("train", [[row("a"), row("b"), row("a")], [row("b"), row("c"), row("test-0")]])
def test_id_that_occurs_twice_is_named_with_both_places(tmp_path, train):
    folder(tmp_path, train=train)
    with pytest.raises(InputError, match=r"id (a|test-0) stands at \S+train\.jsonl:[13] already") as error:
        readers.read_folder(tmp_path, "svamp")
    one_line(error)


def test_missing_folder_or_split_is_named(tmp_path):
    with pytest.raises(InputError, match="gsm8k: no such folder"):
        readers.read_folder(tmp_path, "gsm8k")
    folder(tmp_path)
    (tmp_path / "svamp" / "test.jsonl").unlink()
    with pytest.raises(InputError, match=r"test\.jsonl: no such file"):
        readers.read_folder(tmp_path, "svamp")


@pytest.mark.parametrize("choices", [["oven", "river"], [{"text": "oven"}]])
def test_choices_of_another_form_are_named(tmp_path, choices):
    folder(tmp_path, train=[{**row("odd"), "choices": choices}])
    with pytest.raises(InputError, match=r"train\.jsonl:1(:|, a choice:)"):
        readers.read_folder(tmp_path, "svamp")


# --------------------------------------------------------------------------------------- gold answers


def gold_table(path: Path, answers: list[Any], kind: str = "yes_no", **more: Any) -> ProblemTable:
    rows = [{**row(f"p{i}"), "answer": answer, **more} for i, answer in enumerate(answers)]
    return ProblemTable(JsonLines(jsonl(path / "train.jsonl", rows), digest=True), {}, kind, "train")


def test_gold_answers_are_read_in_the_spelling_that_is_taught(tmp_path):
    table = gold_table(tmp_path, [True, False, "Yes", "no"])
    check([table])
    assert [problem.answer for problem in table] == ["yes", "no", "yes", "no"]


def test_labels_of_any_alphabet_are_graded_and_a_text_stands_for_its_label(tmp_path):
    choices = [{"label": 1, "text": "oven"}, {"label": 2, "text": "river"}]
    table = gold_table(tmp_path, ["2", 1, "river"], "choice", choices=choices)
    check([table])
    assert [problem.answer for problem in table] == ["2", "1", "2"] and table[0].labels == ("1", "2")


def test_problems_without_a_gold_answer_are_left_out_and_said_once_where_they_are_few(tmp_path, capsys):
    table = gold_table(tmp_path, [True] * 30 + ["perhaps"] + [False] * 29 + [None])
    before = contents_of(table)
    check([table])
    assert [problem.id for problem in table] == [f"p{i}" for i in range(60) if i != 30]
    assert table.where(30) == f"{tmp_path / 'train.jsonl'}:32" and contents_of(table) != before
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 61 train problems have no gold answer of kind yes_no" in said
    assert said.count("train.jsonl:31:") == said.count("train.jsonl:61: there is no answer") == 1


@pytest.mark.parametrize("answers", [["perhaps"], [True] * 9 + ["perhaps"], ["12", "13"]])
def test_many_problems_without_a_gold_answer_stop_with_the_first_place(tmp_path, answers):
    with pytest.raises(InputError, match=r"train\.jsonl:\d+: .*set data\.kind") as error:
        check([gold_table(tmp_path, answers)])
    one_line(error)


def test_a_split_of_a_published_size_is_read_whole_or_not_at_all(tmp_path):
    folder(tmp_path, train=[row(f"p{i}") for i in range(60)] + [row("odd", answer="a few")])
    with pytest.raises(InputError, match=r"train\.jsonl:61: "):
        readers.read_folder(tmp_path, "svamp")


def test_a_fingerprint_of_problems_tells_kind_and_fields(tmp_path):
    rows = JsonLines(jsonl(tmp_path / "a.jsonl", [row("p")]), digest=True)
    tables = [ProblemTable(rows, fields, kind, "train") for fields, kind in (({}, "number"), ({}, "choice"))]
    tables.append(ProblemTable(rows, {"rationale": "question"}, "number", "train"))
    assert len({json.dumps(contents_of(table)) for table in tables}) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rationale": ["1 + 2", "= 3"]}, "rationale is a text, not the list"),
        ({"rationale": 3}, "rationale is a text, not the number"),
        ({"question": 7}, "question is a text, not the number 7"),
        ({"question": {"text": "Why?"}}, "question is a text, not the object"),
        ({"id": ["p"]}, "id is a text, not the list"),
        ({"id": True}, "id is a text, not the truth value True"),
        ({"choices": {"A": "oven"}}, "choices are a list of objects"),
        ({"choices": [{"label": "A", "text": None}]}, "a choice: text is a text, not null"),
        ({"choices": [{"label": "a", "text": "x"}, {"label": "A", "text": "y"}]}, "two choices have one label"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_by_line(tmp_path, change, said):
    folder(tmp_path, test=[row("whole"), {**row("odd"), **change}])
    with pytest.raises(InputError, match=r"test\.jsonl:2") as error:
        readers.read_folder(tmp_path, "svamp")
    assert said in one_line(error)


# ----------------------------------------------------------------------------------------------- hub

HUB: dict[str, tuple[list[dict[str, Any]], list[str | None]]] = {
    "gsm8k": (
        [
            {
                "question": f"A jar holds {n} figs. Five jars?",
                "answer": f"5*{n} = <<5*{n}={5 * n}>>{5 * n} figs\n#### 1,{5 * n}",
            }
            for n in (100, 110, 120)
        ],
        ["A jar holds 100 figs. Five jars?", "1500", "5*100 = 500 figs"],
    ),
    "svamp": (
        [
            {
                "ID": f"chal-{n}",
                "Body": f"Ann has {n} pens. ",
                "Question": " How many in 2 bags?",
                "Answer": f"{2 * n}.0",
            }
            for n in (4, 5, 6)
        ],
        ["Ann has 4 pens. How many in 2 bags?", "8", None],
    ),
    "asdiv": (
        [
            {"body": f"A hen lays {n} eggs.", "question": "How many do two lay?", "answer": f"{2 * n} (eggs)"}
            for n in (3, 4, 7)
        ],
        ["A hen lays 3 eggs. How many do two lay?", "6", None],
    ),
    "commonsenseqa": (
        [
            {
                "id": f"q{n}",
                "question": f"Where does cook {n} bake?",
                "choices": {"label": ["A", "B"], "text": ["river", "oven"]},
                "answerKey": "B",
            }
            for n in (1, 2, 3)
        ],
        ["Where does cook 1 bake?", "B", None],
    ),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in the hub's format of three problems, and a manifest with one of them in each split."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    manifests = tmp_path / "splits"
    manifests.mkdir()
    monkeypatch.setattr(readers, "MANIFESTS", manifests)

    def make(dataset: str) -> Path:
        rows = HUB[dataset][0]
        source = tmp_path / f"hub-{dataset}"
        if dataset == "asdiv":  # one part on the hub
            jsonl(source / "validation.jsonl", rows)
        else:
            jsonl(source / "train.jsonl", rows[:2])
            jsonl(source / "test.jsonl", rows[2:])
        names = []
        for number, made in enumerate(rows):
            fields = readers._from_hub(dataset, made, "train", number)
            names.append(readers.question_hash(readers.problem_of(fields, "here", BENCHMARKS[dataset].kind, "")))
        # Our split is not the hub's: its train rows are spread over train and validation, in another order.
        manifest = {"train": [names[2]], "validation": [names[1]], "test": [names[0]]}
        (manifests / f"{dataset}.json").write_text(json.dumps(manifest))
        return source

    return make


@pytest.mark.parametrize("dataset", list(BENCHMARKS))
def test_hub_schema_is_mapped_and_cut_into_the_manifest(dataset, hub):
    read = readers.read_hub(dataset, str(hub(dataset)))
    assert {split: len(problems) for split, problems in read.items()} == dict.fromkeys(SPLITS, 1)
    assert all(p.split == split and p.kind == BENCHMARKS[dataset].kind for split in SPLITS for p in read[split])
    (first,) = read["test"]
    assert [first.question, first.answer, first.rationale] == HUB[dataset][1]
    assert len({p.id for split in SPLITS for p in read[split]}) == 3
    if dataset == "commonsenseqa":
        assert first.choices == (Choice(label="A", text="river"), Choice(label="B", text="oven"))


def test_problem_of_the_manifest_that_the_hub_lacks_is_counted(hub, tmp_path):
    source = hub("svamp")
    manifest = {"train": ["0" * 16, "1" * 16], "validation": [], "test": []}
    (tmp_path / "splits" / "svamp.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="2 of 2 train problems") as error:
        readers.read_hub("svamp", str(source))
    assert "DATA_DIR" in one_line(error)


def test_hash_that_is_listed_twice_takes_two_problems():
    twins = [Problem(**row("same"), kind="number", split=""), Problem(**row("same"), kind="number", split="")]
    assert len(readers.take({"h": twins}, ["h", "h"], "train", "asdiv")) == 2
    with pytest.raises(InputError, match="1 of 3 train"):
        readers.take({"h": twins}, ["h", "h", "h"], "train", "asdiv")


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ValueError("no such config")])
def test_hub_out_of_reach_names_the_ways_out(error, monkeypatch):
    import datasets

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match="openai/gsm8k cannot be had") as raised:
        readers.read_hub("gsm8k")
    assert "DATA_DIR=" in one_line(raised) and "DATASET=arithmetic" in one_line(raised)


def test_local_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere cannot be had"):
        readers.read_hub("gsm8k", str(tmp_path / "nowhere"))


def test_source_of_another_schema_is_named(hub, tmp_path):
    source = hub("gsm8k")
    jsonl(source / "train.jsonl", [{"prompt": "What is 2 + 3?", "gold": "5"}])
    (source / "test.jsonl").unlink()
    with pytest.raises(InputError, match="row 0"):
        readers.read_hub("gsm8k", str(source))


@pytest.mark.parametrize("dataset, first", [("gsm8k", "gsm8k-train-00000"), ("asdiv", "asdiv-nluds-0001")])
def test_ids_from_the_hub_are_those_of_the_folder(dataset, first, hub):
    (problem,) = readers.read_hub(dataset, str(hub(dataset)))["test"]
    assert problem.id == first


# ----------------------------------------------------------------------------------------- manifests


@pytest.mark.parametrize("dataset", list(BENCHMARKS))
def test_manifest_has_the_published_sizes(dataset):
    manifest = json.loads((MANIFESTS / f"{dataset}.json").read_text())
    assert tuple(len(manifest[split]) for split in SPLITS) == BENCHMARKS[dataset].sizes
    names = Counter(name for split in SPLITS for name in manifest[split])
    assert sorted(n for n in names.values() if n > 1) == ([2] if dataset == "asdiv" else [])
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


@pytest.mark.parametrize("dataset", list(BENCHMARKS))
def test_manifest_equals_the_folder(dataset):
    if not (PUBLISHED / dataset).is_dir():
        pytest.skip("the published data are not here; KPOD_DATA_DIR says where they are")
    manifest = json.loads((MANIFESTS / f"{dataset}.json").read_text())
    read = readers.read_folder(PUBLISHED, dataset)
    assert {split: [readers.question_hash(p) for p in read[split]] for split in SPLITS} == manifest
