"""Specialized: four formats that never meet in a batch, demonstrations drawn by seed; formats=[cot] is plain."""

import json
import random
from dataclasses import replace

import pytest
import small_runs
import torch
from small_runs import EXPERIMENT, student_of, write_distributions

from kpod_lightning.__main__ import main
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.methods.specialized import divergence
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.provenance import read_provenance
from kpod_lightning.students.nll import weighted_token_nll

SMALL = [*small_runs.SMALL, "data.num_train=16", "optim.epochs=1"]


def method(rationales, *settings):
    made = method_of(load_experiment(None, ["method=specialized", *settings]))
    made.see(rationales)
    return made


@pytest.fixture(scope="module")
def two_each(rationales) -> list[Rationale]:
    """Two rationales a question; the first sample that was kept is no. 1."""
    return [replace(r, sample=sample) for r in rationales for sample in (1, 3)]


def test_a_rationale_becomes_four_formats_and_answers_alone_are_asked_once_a_question(two_each):
    made = method(two_each)
    first, second = made.texts(two_each[0]), made.texts(two_each[1])
    assert [text.kind for text in first] == [0, 1, 2, 3] and [text.kind for text in second] == [1, 3]
    question, answer = two_each[0].problem.question, two_each[0].problem.answer
    asked = f"Q: {question} A:"
    assert [text.prompt for text in first[:2]] == [asked, f"{asked} Let's think step by step."]
    assert [text.rationale for text in first] == ["", two_each[0].text, "", two_each[0].text]
    assert {text.answer_phrase for text in first} == {f"Therefore, the answer is {answer}"}


def test_demonstrations_are_other_questions_none_twice_and_follow_from_seed_and_example(two_each):
    by_question = {r.problem.question: r for r in reversed(two_each)}
    drawn = {}
    for seed in (0, 0, 1):
        made = method(two_each, f"seed={seed}")
        for rationale in two_each:
            *_, text = made.texts(rationale)
            *demos, query = text.prompt.split("\n\n")
            assert query == f"Q: {rationale.problem.question} A: Let's think step by step."
            shown = [by_question[demo.partition(" A: ")[0].removeprefix("Q: ")] for demo in demos]
            assert len({r.problem.id for r in shown} | {rationale.problem.id}) == 5
            for demo, r in zip(demos, shown, strict=True):
                end = f"A: Let's think step by step. {r.text} Therefore, the answer is {r.problem.answer}"
                assert demo == f"Q: {r.problem.question} {end}"
            assert drawn.setdefault((seed, rationale.key), demos) == demos
    assert len({tuple(demos) for demos in drawn.values()}) == 2 * len(two_each)  # each its own, in both seeds
    alone = method(random.Random(0).sample(two_each, len(two_each))[::2] + two_each, "specialized.formats=[cot]")
    assert not alone.demos


def test_answers_alone_are_demonstrated_without_rationales(rationales):
    made = method(rationales, "specialized.formats=[in_context_answer]", "specialized.num_demos=2")
    (text,) = made.texts(rationales[0])
    assert len(text.prompt.split("\n\n")) == 3
    assert "think" not in text.prompt and text.prompt.count("Therefore, the answer is") == 2


def test_a_question_that_stands_in_the_set_twice_is_no_demonstration_of_itself(rationales):
    few = rationales[:3]
    again = replace(few[0], problem=replace(few[0].problem, id="again"))
    made = method([*few, again], "specialized.num_demos=2")
    for rationale in (few[0], again):
        prompt = made.texts(rationale)[3].prompt
        assert prompt.count(few[0].problem.question) == 1


def test_the_prompt_of_an_evaluation_is_zero_shot_or_has_the_same_demonstrations_for_all(rationales):
    problems = [rationale.problem for rationale in rationales]
    assert method(rationales).prompt(problems[0]) == f"Q: {problems[0].question} A: Let's think step by step."
    shots = method(rationales, "specialized.evaluate=in_context")
    prompts = [shots.prompt(problem).rsplit("\n\n", 1) for problem in problems]
    assert len({demos for demos, _ in prompts}) == 1 and prompts[0][0].count("Therefore") == 4
    assert prompts[5][1] == f"Q: {problems[5].question} A: Let's think step by step."
    with pytest.raises(InputError, match="give the module the method of the data module"):
        method_of(load_experiment(None, ["method=specialized", "specialized.evaluate=in_context"])).prompt(problems[0])


def run(folder, *settings):
    return small_runs.run(folder, *SMALL, *settings)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_with_the_format_cot_alone_it_is_plain_step_for_step(name, tmp_path):
    ways = {"plain": ["method=plain"], "cot": ["method=specialized", "specialized.formats=[cot]"]}
    one, other = (student_of(run(tmp_path / w, f"student.name={name}", *settings)) for w, settings in ways.items())
    assert one == other


def test_a_run_is_evaluated_behind_demonstrations_and_its_prompts_follow_the_train_set(tmp_path):
    settings = ["method=specialized", "specialized.formats=[answer,in_context_answer]", "specialized.num_demos=1"]
    settings.append("evaluation.max_new_tokens=60")
    ways = {
        "zero": [],
        "one": ["specialized.evaluate=in_context"],
        "other": ["specialized.evaluate=in_context", "seed=1"],
    }
    before = {}
    for name, own in ways.items():
        folder = run(tmp_path / name, *settings, *own, "--until", "before")
        before[name] = (folder / "predictions" / "test-before.jsonl").read_bytes()
    assert len(set(before.values())) == 3


def test_formats_that_are_too_long_are_left_out_alone_and_counted(tmp_path):
    settings = ["method=specialized", "student.max_length=600", "--until", "before"]
    folder = run(tmp_path / "run", *settings)
    counts = read_provenance(folder)["counts"]
    assert counts["answer: too long"] == counts["cot: too long"] == counts["in_context_answer: too long"] == 0
    assert 0 < counts["in_context_cot: too long"] < 16
    assert counts["trained on"] == 64 - counts["in_context_cot: too long"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["specialized.formats=[cott]"], "specialized.formats: cott is none of answer, cot, in_context_answer, in_"),
        (["specialized.formats=[]"], "name each format once"),
        (["specialized.formats=[cot,cot]"], "name each format once"),
        (["specialized.match=distribution"], "needs a teacher's recorded top_logprobs: set rationales.source=recorded"),
        (["specialized.num_demos=16"], "specialized.num_demos=16 needs 17 different questions, and the train set has"),
        (["student.max_length=512"], "student.max_length=512 tokens leaves none of 16 in_context_cot examples"),
    ],
)
def test_formats_that_cannot_be_had_are_one_line(settings, words, capsys, tmp_path):
    assert main(["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "method=specialized", *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


# ---- match=distribution ----


def test_the_loss_is_the_divergence_from_a_distribution_that_may_lack_mass():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.25], [1.0, 0.0]], dtype=torch.float64)
    ids, targets, weights = torch.tensor([[1, 2], [2, 0]]), torch.tensor([1, 2]), torch.tensor([1.0, 3.0])
    found = divergence(p.log(), targets, weights, ids, q)
    # 0.5 log(0.5 / 0.25) + 0.25 log(0.25 / 0.25) = 0.346574; 3 (-log 0.7) = 1.070025; nats: -log 0.25 - log 0.7
    assert found.weighted.item() == pytest.approx(0.346574 + 1.070025, abs=1e-6)
    assert found.nats.item() == pytest.approx(1.386294 + 0.356675, abs=1e-6)
    assert (found.mass.item(), found.squares.item()) == (4.0, 10.0)


def test_where_the_target_has_probability_1_loss_and_gradient_are_those_of_the_sample():
    torch.manual_seed(0)
    logits = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(11, (7,)), torch.rand(7)
    q = torch.tensor([[1.0, 0.0]]).expand(7, 2)
    one = divergence(logits, targets, weights, torch.stack([targets, torch.zeros_like(targets)], 1), q)
    other = weighted_token_nll(logits, targets, weights)
    torch.testing.assert_close(one.weighted, other.weighted, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(sums.weighted, logits)[0] for sums in (one, other)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-15)


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "teacher.jsonl"
    write_distributions(path, 16)
    return path


def test_a_run_learns_the_recorded_distributions(recorded, tmp_path, capsys):
    settings = ["method=specialized", "specialized.formats=[answer,cot]"]
    settings += ["rationales.source=recorded", f"rationales.teacher={recorded}"]
    sample = run(tmp_path / "sample", *settings)
    matched = run(tmp_path / "matched", *settings, "specialized.match=distribution")
    assert "targets of chain-of-thought texts have the teacher's distribution" in capsys.readouterr().out
    assert student_of(sample) != student_of(matched)


def test_a_file_without_distributions_is_one_line(recorded, tmp_path, capsys):
    rows = [json.loads(line) for line in recorded.read_text().splitlines()]
    recorded.write_text("".join(json.dumps({n: row[n] for n in ("problem_id", "rationale")}) + "\n" for row in rows))
    words = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), *SMALL, "method=specialized"]
    words += ["specialized.match=distribution", "rationales.source=recorded", f"rationales.teacher={recorded}"]
    assert main(words) == 2
    assert "no row has logprobs and top_logprobs" in capsys.readouterr().err
