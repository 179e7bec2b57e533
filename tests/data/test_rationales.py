import pytest

from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Counts, Rationale, RationaleTable, as_row, select_rationales
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
            ['{"problem_id": "p0", "rationale": "x"}', '{"problem_id": "q", "rationale": "x"}'],
            r":2: .*unknown problem q",
        ),
        (['{"problem_id": "p0", "rationale": "x"}'] * 2, r":2: sample 0 of problem p0 stands here twice"),
        (['{"problem_id": "p0"}'], r":1: no field rationale"),
        (['{"problem_id": "p0", "rationale": "x", "sample": "b"}'], r":1: sample is a number from 0, not 'b'"),
        (['{"problem_id": "p0", "rationale": "x"}', '{"problem_id": '], r"2"),
    ],
)
def test_recorded_rationales_that_cannot_be_used_are_named_by_line(tmp_path, lines, message):
    path = tmp_path / "teacher.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        RecordedRationales(JsonLines(path), PROBLEMS)
