import pytest

from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import (
    Counts,
    Rationale,
    RationaleTable,
    as_row,
    select_rationales,
    sentence_on_losses,
)
from kpod_lightning.data.sources import RecordedRationales
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, save_jsonl

PROBLEMS = [
    Problem(id=f"p{i}", question=f"What is {i} + 1?", answer=str(i + 1), kind="number", split="train") for i in range(3)
]


def grouped(candidates: list[Rationale]) -> list[tuple[Problem, list[Rationale]]]:
    return [(problem, [c for c in candidates if c.problem is problem]) for problem in PROBLEMS]


def test_wrong_and_repeated_rationales_are_left_out_and_counted():
    texts = [(0, "0 + 1 = 1."), (0, "0  + 1 = 1."), (0, "0 + 1 = 7."), (1, "1 + 1 = 3."), (2, "2 + 1 = 3.")]
    candidates = [Rationale(problem=PROBLEMS[p], text=text, sample=i) for i, (p, text) in enumerate(texts)]
    counts = Counts()
    kept = select_rationales(grouped(candidates), counts)
    assert [r.key for r in kept] == [("p0", 0), ("p2", 4)]
    assert counts == Counts(
        num_problems=3, num_read=5, num_wrong=2, num_duplicate=1, num_without=1, num_kept=2, origins={"human": 2}
    )


def test_the_licence_of_a_teachers_text_goes_from_its_file_into_the_run(tmp_path):
    stated = {"problem_id": "p0", "rationale": "0 + 1 = 1.", "teacher": "a", "licence": "CC-BY-4.0"}
    silent = {"problem_id": "p1", "rationale": "1 + 1 = 2.", "teacher": "a"}
    save_jsonl(tmp_path / "a.jsonl", [stated, silent])
    recorded, counts = RecordedRationales(JsonLines(tmp_path / "a.jsonl"), PROBLEMS), Counts()
    save_jsonl(tmp_path / "run.jsonl", map(as_row, select_rationales(recorded.groups(PROBLEMS), counts)))
    assert counts.origins == {"a, CC-BY-4.0": 1, "a": 1}
    kept = RationaleTable(JsonLines(tmp_path / "run.jsonl"), PROBLEMS)
    assert [rationale.licence for rationale in kept] == ["CC-BY-4.0", None]


def test_the_choice_for_one_problem_does_not_depend_on_the_others():
    candidates = [
        Rationale(problem=PROBLEMS[p], text=f"Take {s}. {p} + 1 = {p + 1}.", sample=s)
        for p in range(3)
        for s in range(8)
    ]

    def chosen(groups: list, seed: int) -> set:
        return {r.key for r in select_rationales(groups, Counts(), seed=seed)}

    groups = grouped(candidates)
    assert chosen(groups, 3) == set().union(*(chosen([group], 3) for group in groups))
    assert chosen(groups, 4) != chosen(groups, 3)


def test_several_rationales_a_problem_are_kept_in_order():
    candidates = [Rationale(problem=PROBLEMS[0], text=f"Take {s}. So 1.", sample=s) for s in range(4)]
    kept = select_rationales(grouped(candidates), Counts(), num_per_problem=3)
    assert [r.sample for r in kept] == [0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ['{"problem_id": "p0", "rationale": "x"}', *['{"problem_id": "q", "rationale": "x"}'] * 2],
            r":2: .*unknown problem q",
        ),
        (['{"problem_id": "p0", "rationale": "x"}'] * 2, r":2: sample 0 of problem p0 stands here twice"),
        (['{"problem_id": "p0"}'], r":1: no field rationale"),
        (
            ['{"problem_id": "p0", "rationale": "x", "sample": "b"}'],
            r":1: sample is a whole number from 0, not the text 'b'",
        ),
        (['{"problem_id": "p0", "rationale": "x"}', '{"problem_id": '], r"2"),
    ],
)
def test_recorded_rationales_that_cannot_be_used_are_named_by_line(tmp_path, lines, message):
    path = tmp_path / "teacher.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        RecordedRationales(JsonLines(path), PROBLEMS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sample": None}, "sample is a whole number from 0, not null"),
        ({"sample": 1e30}, "sample is a whole number from 0"),
        ({"rationale": ["1 + 2", "= 3"]}, "rationale is a text, not the list"),
        ({"teacher": 5}, "teacher is a text"),
        ({"correct": "yes"}, "correct is true, false or null"),
        ({"problem_id": None}, "problem_id is a text, not null"),
    ],
)
def test_a_field_of_a_rationale_of_the_wrong_type_is_named_by_line(tmp_path, change, said):
    save_jsonl(tmp_path / "a.jsonl", [{"problem_id": "p0", "rationale": "0 + 1 = 1.", **change}])
    with pytest.raises(InputError, match=rf"a\.jsonl:1: {said}"):
        RecordedRationales(JsonLines(tmp_path / "a.jsonl"), PROBLEMS)


def test_rows_of_other_splits_are_skipped_and_said(tmp_path, capsys):
    save_jsonl(tmp_path / "a.jsonl", [{"problem_id": f"p{i}", "rationale": f"{i} + 1 = {i + 1}."} for i in range(3)])
    recorded = RecordedRationales(JsonLines(tmp_path / "a.jsonl"), PROBLEMS[:2], PROBLEMS[2:])
    assert [len(found) for _, found in recorded.groups(PROBLEMS[:2])] == [1, 1]
    assert "of 3 rows 0 are for problems of no split and 1 for those of validation" in capsys.readouterr().out
    with pytest.raises(InputError, match="belongs to another dataset or split"):
        RecordedRationales(JsonLines(tmp_path / "a.jsonl"), [], PROBLEMS)


def test_no_answer_is_counted_apart_from_a_wrong_one_and_many_losses_name_the_setting():
    texts = ["0 + 1 = 2.", "That is easy.", "Nobody knows."]
    candidates = [Rationale(problem=PROBLEMS[p], text=text) for p, text in enumerate(texts)]
    counts = Counts()
    assert not list(select_rationales(grouped(candidates), counts))
    assert (counts.num_wrong, counts.num_unread, counts.num_missing, counts.num_without) == (1, 2, 0, 3)
    assert "2 rationales state no answer that can be read: set data.kind" in str(sentence_on_losses(counts.named()))
    assert sentence_on_losses(Counts(num_problems=10, num_without=3, num_wrong=3).named()) is None
    assert "3 problems have no rationale at all" in str(
        sentence_on_losses(Counts(num_problems=4, num_without=3, num_missing=3).named())
    )


def test_a_recorded_verdict_keeps_what_the_text_does_not_say(tmp_path):
    rows = [
        {"problem_id": "p0", "rationale": "Easy.", "correct": True},
        {"problem_id": "p1", "rationale": "Easy.", "predicted_answer": 2},
        {"problem_id": "p2", "rationale": "2 + 1 = 3.", "correct": False, "predicted_answer": "4"},
    ]
    save_jsonl(tmp_path / "a.jsonl", rows)
    recorded, counts = RecordedRationales(JsonLines(tmp_path / "a.jsonl"), PROBLEMS, needs_verdict=True), Counts()
    kept = select_rationales(recorded.groups(PROBLEMS), counts, verdict="recorded")
    assert [r.problem.id for r in kept] == ["p0", "p1"] and (counts.num_wrong, counts.num_unread) == (1, 0)
    save_jsonl(tmp_path / "b.jsonl", [{"problem_id": "p0", "rationale": "Easy."}])
    with pytest.raises(InputError, match=r"b\.jsonl:1: neither correct nor predicted_answer"):
        RecordedRationales(JsonLines(tmp_path / "b.jsonl"), PROBLEMS, needs_verdict=True)
