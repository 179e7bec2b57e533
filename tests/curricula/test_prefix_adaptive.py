"""Adaptive prefixes: intervals and draws by hand, continuations from shown steps, and runs."""

from dataclasses import replace

import apart
import numpy as np
import pytest
import torch
from small_runs import EXPERIMENT, refusal, run, student_of

from kpod_lightning.config import EvaluationConfig
from kpod_lightning.curricula.prefix_adaptive import (
    PrefixAdaptiveSettings,
    PrefixStages,
    moved_intervals,
    steps_shown,
)
from kpod_lightning.curricula.successes import shown_ids, successes
from kpod_lightning.data.answers import extract_answer
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import first_asked, make_example
from kpod_lightning.data.stages import Progress
from kpod_lightning.data.views import IGNORE, view
from kpod_lightning.evaluation.generate import continued, decoding, decoding_with, output_of, pad_prompts
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.runs.folder import load_run

SMALL = [
    "method=kpod",
    "weights.kind=uniform",
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.batch_size=4",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]
PREFIXES = [
    *SMALL,
    "curriculum=prefix_adaptive",
    "prefix_adaptive.num_measured=8",
    "optim.epochs=3",
    "prefix_adaptive.whole_from=0.7",
    "optim.checkpoint_every=1",
]


def stages_of(num_steps, num_stages=4, seed=0, **settings):
    return PrefixStages(np.array(num_steps), num_stages, PrefixAdaptiveSettings(**settings), seed)


def examples_of(student, rationales):
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


# ---- Intervals and draws ----


@pytest.mark.parametrize(
    ("interval", "share", "num_steps", "is_right", "moved"),
    [
        ((0.0, 1.0), 0.5, 4, True, (0.0, 0.5)),  # it needs no more: next time less
        ((0.3, 0.8), 0.5, 4, True, (0.0, 0.5)),
        ((0.0, 1.0), 0.5, 4, False, (0.5, 1.0)),  # 2 of at most 3 steps: next time more
        ((0.0, 0.9), 0.5, 4, False, (0.5, 0.9)),
        ((0.0, 0.7), 0.5, 4, False, (0.5, 1.0)),  # below 0.7 no more than 2 steps can be shown, and 2 were too few
        ((0.0, 0.5), 0.3, 4, False, (0.3, 1.0)),  # below 0.5 no more than 1
        ((0.9, 1.0), 0.95, 4, False, (0.95, 1.0)),  # all but the last step are too few: it stays at the most help
        ((0.5, 0.9), 0.0, 4, False, (0.5, 0.9)),  # whole by chance: known already
        ((0.5, 0.9), 0.0, 4, True, (0.0, 0.0)),  # whole by chance, and right
        ((0.0, 0.0), 0.0, 4, True, (0.0, 0.0)),
        ((0.0, 0.0), 0.0, 4, False, (0.0, 1.0)),  # it was right once, and has forgotten
        ((0.0, 1.0), 0.5, 1, False, (0.5, 1.0)),  # a single step is never shown
    ],
)
def test_intervals_by_hand(interval, share, num_steps, is_right, moved):
    given = np.array([interval]), np.array([share]), np.array([num_steps]), np.array([is_right])
    assert moved_intervals(*given).tolist() == [list(moved)]


def test_no_sequence_of_outcomes_makes_an_interval_empty_or_holds_it():
    rng, num_steps = np.random.default_rng(0), np.arange(1, 41)
    stages = stages_of(num_steps, num_stages=10_000, whole=0.2)
    for stage in range(300):
        stages.learn(stage, np.arange(40), rng.random(40) < 0.5)
        assert (stages.intervals[:, 0] <= stages.intervals[:, 1]).all()
        assert (stages.intervals >= 0).all() and (stages.intervals <= 1).all()
    for stage in range(300, 500):
        stages.learn(stage, np.arange(40), np.zeros(40, bool))
    assert (stages.intervals[:, 1] == 1).all()  # whoever fails again and again is shown all but the last step
    assert (stages.in_use()[:, 0] * num_steps >= num_steps - 1).all()
    for stage in range(500, 700):
        stages.learn(stage, np.arange(40), np.ones(40, bool))
    assert not stages.input_steps(700).any()


def test_steps_are_rounded_down_and_the_last_one_is_always_asked():
    shares = np.array([0.0, 0.24, 0.25, 0.74, 0.75, 0.9999, 1.0])
    assert steps_shown(shares, np.full(7, 4)).tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert steps_shown(shares, np.ones(7, int)).tolist() == [0] * 7


def test_a_draw_depends_on_seed_epoch_and_example_alone():
    few, many = stages_of([5] * 3), stages_of([5] * 1000)
    assert few.shares(1).tolist() == stages_of([5] * 3).shares(1).tolist() == many.shares(1)[:3].tolist()
    many.shares(2)
    assert many.shares(1)[:3].tolist() == few.shares(1).tolist() != few.shares(2).tolist()
    assert few.shares(1).tolist() != stages_of([5] * 3, seed=1).shares(1).tolist()
    assert few.to_measure(0).tolist() == [0, 1, 2]
    drawn = many.to_measure(1)
    assert len(set(drawn.tolist())) == 256 and drawn.tolist() == sorted(drawn.tolist())
    assert drawn.tolist() == stages_of([5] * 1000).to_measure(1).tolist() != many.to_measure(2).tolist()


def test_draws_are_uniform_over_each_interval_and_whole_with_a_probability():
    stages = stages_of([5] * 20_000, whole=0.1)
    stages.intervals[:10_000], stages.is_measured[:10_000] = (0.2, 0.6), True
    shares = stages.shares(0)
    assert (shares == 0).mean() == pytest.approx(0.1, abs=0.01)
    own, others = (part[part > 0] for part in (shares[:10_000], shares[10_000:]))
    assert 0.2 <= own.min() < 0.21 and 0.59 < own.max() < 0.6 and own.mean() == pytest.approx(0.4, abs=0.01)
    assert others.max() > 0.99 and others.mean() == pytest.approx(0.5, abs=0.01)


def test_examples_that_were_never_measured_draw_from_the_moving_averages():
    stages = stages_of([4, 4, 4], whole=0.0, smoothing=0.25)
    first, second, _ = stages.shares(0)
    stages.learn(0, np.array([0, 1]), np.array([True, False]))
    low, high = second / 2, (first + 1) / 2  # [0, first] and [second, 1]
    assert stages.in_use().tolist() == pytest.approx(
        np.array([[0, first], [second, 1], [0.25 * low, 0.75 + 0.25 * high]])
    )
    assert stages.success == 0.5


def test_all_rationales_are_whole_from_stage_t_on_and_the_state_is_restored():
    stages = stages_of([4] * 50, num_stages=2)
    stages.learn(0, np.arange(30), np.arange(30) % 2 == 0)
    assert [stages.stage_of(Progress(epoch=epoch)) for epoch in range(4)] == [0, 1, 2, 2]
    assert [stages.is_whole(stage) for stage in range(3)] == [False, False, True]
    assert stages.input_steps(1).any() and not stages.input_steps(2).any()
    low, high = stages.in_use().mean(0)
    assert stages.metrics(1) == {
        "prefix_adaptive/mean_shown": (stages.input_steps(1) / 4).mean(),
        "prefix_adaptive/mean_low": pytest.approx(low),
        "prefix_adaptive/mean_high": pytest.approx(high),
        "prefix_adaptive/success": 0.5,
    }
    assert stages.metrics(2) == {"prefix_adaptive/mean_shown": 0.0}
    other = stages_of([4] * 50, num_stages=2)
    assert other.shares(1).tolist() != stages.shares(1).tolist()
    other.load_state_dict(stages.state_dict())
    assert other.shares(1).tolist() == stages.shares(1).tolist() and other.metrics(1) == stages.metrics(1)


@pytest.mark.parametrize(
    ("settings", "num_stages"),
    [
        (["optim.epochs=5"], 2),
        (["optim.epochs=1"], 1),
        (["optim.epochs=10", "prefix_adaptive.whole_from=0.3"], 3),
        (["optim.epochs=4", "prefix_adaptive.whole_from=1"], 4),
        (["prefix_adaptive.whole_from=0"], 0),
        (["prefix_adaptive.whole=1"], 0),
    ],
)
def test_epochs_before_whole_rationales(settings, num_stages):
    curriculum = method_of(load_experiment(None, ["curriculum=prefix_adaptive", *settings])).curriculum
    assert curriculum.num_stages == num_stages


def test_steps_before_whole_rationales_are_known_beforehand(student, rationales):
    examples = examples_of(student, rationales)
    data = ExampleDataModule(
        examples,
        stages=stages_of([example.num_steps for example in examples], num_stages=2),
        encoder_decoder=student.encoder_decoder,
        pad_token_id=0,
        eos_token_id=1,
        batch_size=5,
    )
    assert data.before_whole(4).step == 2 * 3  # twelve examples in batches of four


# ---- Continuations ----


def test_what_is_shown_is_what_a_training_shows(student, rationales):
    eos = student.tokenizer.eos_token_id
    for example in examples_of(student, rationales[:4]):
        for c in range(example.num_steps + 1):
            seen = view(example, c, encoder_decoder=student.encoder_decoder, eos_token_id=eos)
            num_asked = 0 if student.encoder_decoder else sum(label != IGNORE for label in seen.labels)
            assert shown_ids(example, c, student) == seen.input_ids[: len(seen.input_ids) - num_asked]


def test_continuations_of_a_batch_are_those_of_the_library_one_by_one(student, rationales):
    examples = examples_of(student, rationales[:7])
    rows = [shown_ids(example, i % example.num_steps, student) for i, example in enumerate(examples)]
    assert len(set(map(len, rows))) > 4
    found = continued(rows, student, batch_size=4, max_new_tokens=12)
    student.model.eval()
    for i, row in enumerate(rows):
        ids, mask = pad_prompts([row], student.pad_token_id, left=True)
        with torch.no_grad(), decoding_with(student.model, decoding(student, 12)):
            whole = student.model.generate(input_ids=ids, attention_mask=mask)[0]
        assert found[i] == [whole[1 if student.encoder_decoder else len(row) :].tolist()]


def test_an_answer_is_read_from_shown_steps_and_continuation_together(student, rationales):
    examples, evaluation = examples_of(student, rationales[:6]), EvaluationConfig(max_new_tokens=8, batch_size=4)
    input_steps = [i % (example.num_steps + 1) for i, example in enumerate(examples)]
    new = continued(
        [shown_ids(*each, student) for each in zip(examples, input_steps, strict=True)], student, max_new_tokens=8
    )
    problems, has_answer = [], []
    for i, (example, c) in enumerate(zip(examples, input_steps, strict=True)):
        shown = example.target_ids[: first_asked(example, c)]
        text = output_of(new[i][0], student, shown).text
        assert text.startswith(student.tokenizer.decode(shown))
        found, problem = extract_answer(text, kind="number", variant="flexible"), rationales[i].problem
        problems.append(problem if found is None else replace(problem, answer=found))
        has_answer.append(found is not None)
    student.model.train()
    assert successes(student, examples, problems, input_steps, evaluation).tolist() == has_answer
    assert student.model.training and sum(has_answer) > 2
    never = [replace(problem, answer="-12345") for problem in problems]
    assert not successes(student, examples, never, input_steps, evaluation).any()


def test_two_rationales_of_a_problem_are_graded_each_by_itself(student, rationales):
    (example,), problem = examples_of(student, rationales[:1]), rationales[0].problem
    short = EvaluationConfig(max_new_tokens=1)
    # The last number of all steps is the answer, whatever one token adds; that of none is none.
    right = successes(student, [example] * 2, [problem] * 2, [example.num_steps, 0], short)
    assert right.tolist() == [True, False]


# ---- Runs ----


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs") / "unbroken", *PREFIXES)


def rows_of(folder):
    rows = [row for row in load_run(folder).metrics if "prefix_adaptive/mean_shown" in row]
    return [{name: value for name, value in row.items() if name.startswith("prefix_adaptive/")} for row in rows]


def losses_of(folder):
    return [row["train/nats_per_token"] for row in load_run(folder).metrics if "train/nats_per_token" in row]


def test_a_run_shows_prefixes_measures_and_ends_with_whole_rationales(unbroken):
    first, second, third = rows_of(unbroken)
    assert first["prefix_adaptive/mean_low"] == 0 and first["prefix_adaptive/mean_high"] == 1
    assert "prefix_adaptive/success" not in first and second["prefix_adaptive/mean_shown"] > 0
    # Of eight tokens a student of one epoch writes no answer: failures alone, which raise the lower ends.
    assert second["prefix_adaptive/success"] < 0.5 and second["prefix_adaptive/mean_low"] > 0
    assert third == {"prefix_adaptive/mean_shown": 0.0}
    assert "## Adaptive prefixes" in (unbroken / "report.md").read_text()
    assert "| 2 " in (unbroken / "report.md").read_text()


@pytest.mark.slow
def test_a_killed_run_ends_as_the_unbroken_one(unbroken, tmp_path):
    folder = tmp_path / "killed"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *PREFIXES], folder, "checkpoints/last.ckpt")
    assert student_of(folder) == student_of(unbroken) and rows_of(folder) == rows_of(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_measure_and_show_what_one_does(unbroken, strategy, tmp_path):
    two = [f"launch.strategy={strategy}", "launch.devices=2", "launch.accelerator=cpu"]
    folder = run(tmp_path / "two", *PREFIXES, *two)
    for of_one, of_two in zip(rows_of(unbroken), rows_of(folder), strict=True):
        assert of_two == pytest.approx(of_one)
    assert losses_of(folder) == pytest.approx(losses_of(unbroken), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_whole_rationales_from_the_start_are_no_curriculum(name, tmp_path):
    words = [*SMALL, "optim.epochs=2", f"student.name={name}"]
    none = run(tmp_path / "none", *words, "curriculum=none")
    made = {
        setting: student_of(run(tmp_path / setting, *words, "curriculum=prefix_adaptive", f"prefix_adaptive.{setting}"))
        for setting in ("whole_from=0", "whole=1", "num_measured=4")
    }
    assert made["whole_from=0"] == made["whole=1"] == student_of(none) != made["num_measured=4"]


@pytest.mark.slow
def test_a_rate_waits_for_whole_rationales_and_a_budget_of_steps_ends_before_them(tmp_path, capsys):
    run(tmp_path / "waits", *PREFIXES, "optim.decay_from=whole")
    run(tmp_path / "ends", *PREFIXES, "optim.steps=9")  # six steps an epoch
    assert "the training ends before rationales are whole" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "ends")) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("prefix_adaptive.whole=1.1", "prefix_adaptive.whole lies in [0, 1], got 1.1"),
        ("prefix_adaptive.num_measured=0", "prefix_adaptive.num_measured is at least 1 or null, got 0"),
        ("optim.decay_from=whole optim.tokens=5000", "optim.decay_from=whole needs the target tokens before"),
    ],
)
def test_a_wrong_setting_is_one_line(settings, words, capsys, tmp_path):
    assert words in refusal(capsys, tmp_path / "run", *PREFIXES, *settings.split())
