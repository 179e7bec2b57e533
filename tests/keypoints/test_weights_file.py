"""A file of weights by the characters of rationales: read strictly, written from any table, for any tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
from keypoints.test_tables import EXPERIMENT, context_of, weighting_of

from kpod_lightning.__main__ import main
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.rationales import as_row
from kpod_lightning.keypoints.table import WeightTable
from kpod_lightning.keypoints.weights_file import WeightRows, rows_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, load_jsonl, save_jsonl
from kpod_lightning.students.student import load_student

TEXT = "Two and 3 é 🙂 make six."
RATIONALES = [
    {"problem_id": "a", "sample": 0, "rationale": TEXT},
    {"problem_id": "a", "sample": 2, "rationale": "Six."},
    {"problem_id": "7", "sample": 0, "rationale": "One."},
]
SMALL = [
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=1",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
    "method=kpod",
    "curriculum=none",
]


def of(**fields):
    return {"problem_id": "a", "sample": 0, "start": 0, "end": 3, "weight": 1.5} | fields


def read(tmp_path, rows, others="stop", name="w.jsonl"):
    path = tmp_path / name
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return WeightRows(JsonLines(path), RATIONALES, others)


def test_characters_without_a_row_weigh_the_default_and_an_answer_without_one_weighs_one(tmp_path):
    answer = {"problem_id": 7, "part": "answer", "weight": 0.5}
    rows = [of(start=12, end=13, weight=3, text="🙂"), "", answer, of(), of(sample=2, start=1, end=4, weight=0)]
    table = read(tmp_path, rows).table(0.25, {})
    assert [row.tolist() for row in table.spans] == [
        [[0, 3], [3, 12], [12, 13], [13, len(TEXT)]],
        [[0, 1], [1, 4]],
        [[0, 4]],
    ]
    assert [row.tolist() for row in table.values] == [[1.5, 0.25, 3, 0.25], [0.25, 0], [0.25]]
    assert table.answers.tolist() == [1, 1, 0.5]


def test_a_token_takes_the_mean_over_its_characters(tmp_path, student, rationales):
    context = context_of(student, rationales[:1])
    (example,), text = context.examples, rationales[0].text
    by_character = np.linspace(0, 2, len(text))
    name, sample = rationales[0].key
    rows = [
        {"problem_id": name, "sample": sample, "start": i, "end": i + 1, "weight": float(weight)}
        for i, weight in enumerate(by_character)
    ]
    save_jsonl(tmp_path / "w.jsonl", rows[::-1])
    found = WeightRows(JsonLines(tmp_path / "w.jsonl"), [as_row(rationales[0])], "stop").table(1, {}).of(example, text)
    spans = example.spans[: example.num_rationale_tokens]
    expected = [by_character[start : max(stop, start + 1)].mean() for start, stop in spans]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([of(), of(problem_id="b", start=5, end=6)], "w.jsonl:2: sample 0 of problem b is not among the run's rat"),
        (
            [of(sample=1)],
            "w.jsonl:1: sample 1 of problem a is not among the run's rationales, its samples there are 0, 2",
        ),
        ([of(sample="x")], "w.jsonl:1: sample is a whole number"),
        ([of(end=len(TEXT) + 1)], f"w.jsonl:1: end is at most {len(TEXT)}, the characters of the rationale"),
        ([of(start=-1)], "w.jsonl:1: start is a whole number from 0"),
        ([of(start=3)], "w.jsonl:1: start is below end, not 3 and 3"),
        ([of(end=1.5)], "w.jsonl:1: end is a whole number"),
        ([{"problem_id": "a", "start": 0, "weight": 1}], "w.jsonl:1: end is a whole number from 0, not null"),
        (
            [of(), "", of(start=2, end=5)],
            "w.jsonl:3: characters of sample 0 of problem a overlap those of another row, see ",
        ),
        ([of(), of(start=5, end=6), of()], "w.jsonl:3: characters of sample 0 of problem a stand here twice, see "),
        ([of(start=0, end=0), of(start=0, end=0)], "w.jsonl:2: characters of sample 0 of problem a stand here twice"),
        ([of(weight=-0.1)], "w.jsonl:1: weight is a number from 0 to 1e+06, not the number -0.1"),
        ([of(weight="1")], "w.jsonl:1: weight is a number from 0 to 1e+06, not the text '1'"),
        ([of(weight=True)], "w.jsonl:1: weight is a number"),
        ([of(weight=None)], "w.jsonl:1: weight is a number from 0 to 1e+06, not null"),
        ([of(weight=1e30)], "w.jsonl:1: weight is a number"),
        (['{"problem_id": "a", "start": 0, "end": 1, "weight": NaN}'], "w.jsonl:1"),
        (['{"problem_id": "a", "start": 0, "end": 1, "weight": 1e999}'], "w.jsonl:1"),
        (['{"problem_id": "a", "sta'], "w.jsonl:1"),
        (["[1]"], "w.jsonl:1: a line holds one JSON object, not a list"),
        ([of(wieght=1)], "w.jsonl:1: no field wieght; a row of weights has problem_id, sample, part"),
        (
            [of(start=11, end=15, text="🙂")],
            "w.jsonl:1: characters 11 to 15 of the rationale are ' 🙂 m', not the row's text",
        ),
        ([of(part="thought")], "w.jsonl:1: part is rationale or answer, not thought"),
        ([of(part="answer")], "w.jsonl:1: the answer is weighed whole, so its row has no start"),
        (
            [{"problem_id": "a", "part": "answer", "weight": 1}] * 2,
            "w.jsonl:2: the answer of sample 0 of problem a stands ",
        ),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_with_its_line(rows, words, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, rows)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_rows_for_other_rationales_are_skipped_and_counted_where_that_is_asked_for(tmp_path):
    rows = read(tmp_path, [of(problem_id="b"), of(sample=5), of()], others="skip")
    assert (len(rows), rows.num_skipped) == (1, 2)


def test_tokens_that_share_a_character_give_it_their_mean_and_gaps_go_with_what_follows():
    spans = [(0, 0), (0, 1), (2, 3), (2, 3), (3, 4)]
    rows = list(rows_of(("a", 1), "ab🙂d ", spans, [0.5, 1, 2, 4, 5], 0.75))
    assert [(row.get("start"), row.get("end"), row["weight"], row.get("text")) for row in rows] == [
        (0, 0, 0.5, ""),
        (0, 1, 1, "a"),
        (1, 3, 3, "b🙂"),
        (3, 5, 5, "d "),
        (None, None, 0.75, None),
    ]


@pytest.mark.parametrize("kind", ["numbers", "random"])
def test_a_written_file_gives_the_same_tokenizer_its_weights_and_another_one_like_ones(
    kind, student, rationales, tmp_path
):
    context = context_of(student, rationales)
    table = weighting_of(kind).loss_table(context)
    sizes = [e.num_rationale_tokens for e in context.examples]
    save_jsonl(
        tmp_path / "w.jsonl",
        (
            row
            for e, text, weights, n in zip(context.examples, context.texts, table, sizes, strict=True)
            for row in rows_of(e.key, text, e.spans[:n], weights[:n].tolist(), 2.0)
        ),
    )
    context.folder = tmp_path
    weighting = weighting_of("file", f"file.path={tmp_path / 'w.jsonl'}")
    read = WeightRows(weighting.rows, [as_row(r) for r in rationales], "stop").table(7.0, {})
    read.save(tmp_path / "weights.safetensors")
    for before, after, n in zip(table, weighting.table(context), sizes, strict=True):
        np.testing.assert_allclose(after[:n], before[:n], atol=1e-6)
        assert set(after[n:]) == {2.0}
    other = load_student("tiny-t5" if not student.encoder_decoder else "tiny-llama")
    beside = context_of(other, rationales)
    beside.folder = tmp_path
    least, most = min(row.min() for row in table), max(row.max() for row in table)
    for row, e, text in zip(weighting.table(beside), beside.examples, beside.texts, strict=True):
        n = e.num_rationale_tokens
        assert (row[:n] >= least - 1e-6).all() and (row[:n] <= most + 1e-6).all()
        if kind == "numbers":  # a token of one number alone weighs what numbers weigh
            digits = [j for j, (start, stop) in enumerate(e.spans[:n]) if text[start:stop].isdigit()]
            np.testing.assert_allclose(row[digits], most, atol=1e-6)


def test_thinking_and_answer_keep_the_ratio_of_the_file(tmp_path, student, rationales):
    """A file that only says what answers weigh: the rationale has the default."""
    path = tmp_path / "w.jsonl"
    save_jsonl(path, ({"problem_id": r.key[0], "part": "answer", "weight": 1.0} for r in rationales))
    context = context_of(student, rationales)
    context.folder = tmp_path
    for rescale, rationale in (("none", 0.8), ("mean", None)):
        weighting = weighting_of("file", f"file.path={path}", "file.default=0.8", f"weights.rescale={rescale}")
        WeightRows(weighting.rows, [as_row(r) for r in rationales], "stop").table(0.8, {}).save(
            tmp_path / "weights.safetensors"
        )
        for row in weighting.loss_table(context):
            assert row[-1] / row[0] == pytest.approx(1 / 0.8)
            assert rationale is None or row[0] == pytest.approx(rationale)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "weights.kind=file needs file.path=FILE"),
        (["file.path=no-such.jsonl"], "no-such.jsonl: no such file (nor no-such.jsonl.gz); check file.path"),
        (["file.path=."], "a folder, where a file is expected"),
        (["file.path=x", "file.others=keep"], "file.others=keep is none of stop, skip"),
        (["file.path=x", "file.default=-1"], "file.default is at least 0, got -1"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_before_anything_is_made(settings, words, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["run", str(EXPERIMENT), "--run", str(folder), *SMALL, "weights.kind=file", *settings]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not folder.exists()


def test_a_changed_file_stops_the_run_until_it_is_made_again_and_then_retrains(tmp_path, capsys):
    path, folder, out = tmp_path / "w.jsonl", tmp_path / "run", tmp_path / "out.jsonl"
    row = {"problem_id": "arithmetic-train-00003", "start": 0, "end": 4, "weight": 9}
    save_jsonl(path, [row])
    words = ["train", str(EXPERIMENT), "--run", str(folder), *SMALL, "weights.kind=file", f"file.path={path}"]
    assert main(words) == 0
    student = (folder / "student" / "model.safetensors").read_bytes()
    assert main(["weights", "export", str(folder), "--out", str(out)]) == 0
    assert load_jsonl(out)[-1]["part"] == "answer"
    save_jsonl(path, [row | {"weight": 0}])
    capsys.readouterr()
    assert main(words) == 2
    assert "have changed since" in capsys.readouterr().err
    assert main([*words, "--redo"]) == 0
    assert (folder / "student" / "model.safetensors").read_bytes() != student
    assert WeightTable.load(folder / "weights.safetensors").values.values[:].min() == 0
    save_jsonl(path, [row | {"end": 4000}])
    assert main([*words, "--redo"]) == 2
    error = capsys.readouterr().err
    assert "w.jsonl:1: end is at most" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method=plain"], "every token weighs 1 in this run's loss"),
        (["weights.kind=uniform"], "every token weighs 1 in this run's loss"),
    ],
)
def test_a_run_without_weights_has_none_to_export(settings, words, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["run", str(EXPERIMENT), "--run", str(folder), *SMALL, *settings, "--until", "tokens"]) == 0
    assert main(["weights", "export", str(folder), "--out", str(tmp_path / "w.jsonl")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "w.jsonl").exists()
    assert main(["weights", "export", str(tmp_path), "--out", str(tmp_path / "w.jsonl")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_the_example_of_the_page_is_read_with_the_data_of_the_shipped_experiment(tmp_path):
    example = Path("docs/weights-file.md").read_text().split("```json\n")[1].split("```")[0]
    (tmp_path / "w.jsonl").write_text(example)
    made = generate("train", 4, max_steps=3)
    rationales = [{"problem_id": m.problem.id, "sample": 0, "rationale": m.problem.rationale} for m in made]
    assert len(WeightRows(JsonLines(tmp_path / "w.jsonl"), rationales, "stop")) == 1
