import pytest
import torch

from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.problems import Problem
from kpod_lightning.evaluation.generate import Output, generate, pad_prompts
from kpod_lightning.evaluation.grade import accuracy, grade, majority
from kpod_lightning.store.errors import InputError

PROBLEMS = [Problem(id=f"p{i}", question="What is it?", answer=str(i), kind="number", split="test") for i in range(4)]


def output(text: str, at_limit: bool = False) -> Output:
    return Output(text=text, num_tokens=3, at_limit=at_limit)


def test_an_output_without_an_answer_is_wrong_and_counted():
    texts = ["The answer is 0", "no idea", "The answer is 7", "so 3"]
    records = grade(PROBLEMS, {p.id: [output(text)] for p, text in zip(PROBLEMS, texts, strict=True)})
    assert [record["right"] for record in records] == [True, False, False, True]
    result = accuracy(records)
    assert (result.num_right, result.num_problems, result.num_unparsable) == (2, 4, 1)
    assert [record["text"] for record in records] == texts


def test_a_missing_or_repeated_problem_stops_the_count():
    outputs = {p.id: [output("1")] for p in PROBLEMS}
    with pytest.raises(InputError, match="every problem counts once"):
        grade(PROBLEMS[:3], outputs)
    with pytest.raises(InputError, match="every problem counts once"):
        grade([*PROBLEMS[:3], PROBLEMS[0]], outputs)


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [(["1", "2", "2"], 1), (["1", "2"], 0), ([None, None, "5"], 2), ([None, None], 0), (["3"], 0)],
)
def test_the_majority_answers_and_silence_has_no_vote(answers, chosen):
    assert majority(answers) == chosen


def test_samples_are_voted_on_and_all_kept():
    samples = [output("The answer is 5"), output("The answer is 0"), output("answer: 0")]
    (record,) = grade(PROBLEMS[:1], {"p0": samples})
    assert record["right"] and record["text"] == "The answer is 0"
    assert record["samples"] == [sample.text for sample in samples]


def test_sampling_repeats_with_its_seed_and_leaves_the_global_state_alone(student):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs = [
        generate(PROBLEMS, student, num_samples=3, temperature=1.5, max_new_tokens=12, seed=seed) for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.rand(3), expected)
    assert runs[0] == runs[1] != runs[2]
    assert all(len(samples) == 3 for samples in runs[0].values())


def test_greedy_outputs_do_not_depend_on_the_batches(student, rationales):
    problems = [r.problem for r in rationales]
    double = student.model.double()
    try:
        one = generate(problems, student, batch_size=1, max_new_tokens=30)
        assert generate(problems, student, batch_size=5, max_new_tokens=30) == one
    finally:
        double.float()


def test_batches_hold_every_position_once_and_come_longest_first():
    batches = batches_by_length([3, 9, 1, 9, 4], 2, longest_first=True)
    assert [batch.tolist() for batch in batches] == [[1, 3], [4, 0], [2]]
    assert batches_by_length([], 2, longest_first=True) == []


def test_prompts_are_padded_on_the_asked_side():
    ids, mask = pad_prompts([[1, 2], [3]], 0, left=True)
    assert ids.tolist() == [[1, 2], [0, 3]] and mask.tolist() == [[1, 1], [0, 1]]
    ids, mask = pad_prompts([[1, 2], [3]], 0, left=False)
    assert ids.tolist() == [[1, 2], [3, 0]] and mask.tolist() == [[1, 1], [1, 0]]
