"""Step by step: two texts of a rationale, each task's mean over the global batch; alpha = 1 is answers_only."""

import json

import pytest
import torch

from kpod_lightning.__main__ import main
from kpod_lightning.data.arithmetic import generate
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_examples
from kpod_lightning.data.rationales import RationaleTable
from kpod_lightning.data.stages import Progress
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.students.nll import losses

EXPERIMENT = "experiments/arithmetic.yaml"
SMALL = [
    "data.num_train=16",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=1",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]


def method(*settings):
    return method_of(load_experiment(None, ["method=step_by_step", *settings]))


def data_of(student, rationales, made, batch_size=6):
    texts = [(rationale.key, text) for rationale in rationales for text in made.texts(rationale)]
    keys, texts = zip(*texts, strict=True)
    examples = make_examples(keys, texts, student.tokenizer, encoder_decoder=student.encoder_decoder)
    return ExampleDataModule(
        examples,
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=batch_size,
        draw=made.draw,
    )


def batches(data, **cut):
    return [data.dataset[each] for each in data.micro_batches(Progress(epoch=0), **cut)]


def test_a_rationale_becomes_a_label_and_an_explanation(rationales):
    label, explanation = method().texts(rationales[0])
    question = rationales[0].problem.question
    assert (label.prompt, explanation.prompt) == (f"predict: Q: {question} A:", f"explain: Q: {question} A:")
    assert (label.rationale, label.answer_phrase) == ("", f"Therefore, the answer is {rationales[0].problem.answer}")
    assert (explanation.rationale, explanation.answer_phrase) == (rationales[0].text, "")
    bare = [text.prompt for text in method("step_by_step.prefixes=false").texts(rationales[0])]
    assert bare == [f"Q: {question} A:", f"Q: {question} A: Let's think step by step."]
    assert method().prompt(rationales[0].problem) == label.prompt


def test_the_label_is_the_gold_answer_or_the_teachers(tmp_path, capsys):
    problems = [made.problem for made in generate("train", 16, max_steps=3)]
    ends = ["so the answer is 7.", *(f"so the answer is {problem.answer}." for problem in problems[1:15]), "who knows."]
    path = tmp_path / "teacher.jsonl"
    rows = ({"problem_id": p.id, "rationale": f"We count. {end}"} for p, end in zip(problems, ends, strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["rationales.source=recorded", f"rationales.teacher={path}", "rationales.correct_only=false"]
    run_to(tmp_path / "run", "rationales", "method=step_by_step", "step_by_step.label=teacher", *settings)
    table = RationaleTable(JsonLines(tmp_path / "run" / "rationales.jsonl"), problems)
    teacher = method("step_by_step.label=teacher", *settings)
    teacher.see(table)
    assert "1 rationales state no answer that can be read" in capsys.readouterr().out
    labels = [teacher.texts(rationale)[0].answer for rationale in table]
    assert labels == ["7", *(problem.answer for problem in problems[1:])]
    assert teacher.texts(next(iter(table)))[0].answer_phrase == "Therefore, the answer is 7"
    assert [method().texts(rationale)[0].answer for rationale in table] == [problem.answer for problem in problems]


def test_the_loss_is_alpha_times_the_labels_mean_and_the_rest_times_the_rationales(student, rationales):
    made = method("step_by_step.alpha=0.2")
    for batch in batches(data_of(student, rationales, made)):
        assert batch.kinds.count(0) == batch.kinds.count(1) == 6
        sums, nll = losses(student, batch)
        of_kind = [nll[[batch.kinds[i] == kind for i in batch.example_of.tolist()]].mean() for kind in (0, 1)]
        found = made.loss(student, batch)
        torch.testing.assert_close(found.weighted / batch.divisor, 0.2 * of_kind[0] + 0.8 * of_kind[1])
        torch.testing.assert_close(found.mass / batch.divisor, torch.tensor(1.0))
        assert found.nats == sums.nats


def test_ranks_and_accumulation_change_no_loss(student, rationales):
    made = method()
    data = data_of(student, rationales, made)
    whole = [made.loss(student, batch).weighted / batch.divisor for batch in batches(data)]
    parts = [batches(data, accumulate=2, rank=rank, world_size=2) for rank in (0, 1)]
    for i, loss in enumerate(whole):
        of_parts = [batch for of_rank in parts for batch in of_rank[2 * i : 2 * i + 2]]
        assert len(of_parts) == 4
        torch.testing.assert_close(sum(made.loss(student, part).weighted / part.divisor for part in of_parts), loss)


def run(folder, *settings):
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL, *settings]) == 0
    return (folder / "student" / "model.safetensors").read_bytes()


def run_to(folder, verb, *settings):
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL, *settings, "--until", verb]) == 0


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_with_alpha_1_and_no_prefixes_it_is_answers_only_step_for_step(name, tmp_path):
    ones = ["method=step_by_step", "step_by_step.alpha=1", "step_by_step.prefixes=false"]
    one, other = (
        run(tmp_path / kind, f"student.name={name}", *settings)
        for kind, settings in {"ones": ones, "answers": ["method=answers_only"]}.items()
    )
    assert one == other


def test_alpha_outside_0_to_1_is_one_line(capsys, tmp_path):
    words = ["run", EXPERIMENT, "--run", str(tmp_path / "run"), "method=step_by_step", "step_by_step.alpha=1.5"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "step_by_step.alpha lies in [0, 1], got 1.5" in error
