"""Another package's method, curriculum, weighting, data set and teacher, through the command that users type."""

from pathlib import Path

import apart
import pytest
from small_runs import EXPERIMENT, SMALL, run, student_of
from store.test_plugins import install

from kpod_lightning.__main__ import main
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.json_lines import load_jsonl

PLUGIN = str(Path(__file__).resolve().parents[1] / "plugin")
SHUFFLED = [*SMALL, "method=shuffled"]
KPOD = [*SMALL, "method=kpod", "weights.in_loss=false", "weights.in_difficulty=false"]
TAKES_HALF = [*KPOD, "curriculum=toy", "optim.epochs=3"]
WEIGHTED = [*SMALL, "method=kpod", "curriculum=none"]
STUDENTS = ["tiny-llama", "tiny-t5"]


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The package ``kpod_toy`` as if pip had installed it, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        patch.setenv("PYTHONPATH", PLUGIN)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def refused(capsys, *words):
    """The one line with which a command refuses its input."""
    assert main(["run", EXPERIMENT, *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def shuffled(runs):
    return run(runs / "shuffled", *SHUFFLED)


@pytest.fixture(scope="module")
def half(runs):
    return run(runs / "half", *TAKES_HALF)


# ---- A method ----


def test_a_method_runs_to_a_report_that_has_its_section(shuffled):
    rows = load_jsonl(shuffled / "shuffles.jsonl")
    moved = sum(row["order"] != sorted(row["order"]) for row in rows)
    report = (shuffled / "report.html").read_text()
    assert "<h2>Shuffled steps</h2>" in report
    assert f"{moved} of 24 rationales have their steps moved." in report
    assert load_run(shuffled).config.shuffled.smoothing == 0.1


@pytest.mark.parametrize(
    ("setting", "made_anew"),
    [
        ("shuffled.smoothing=0", []),
        ("shuffled.seed=1", ["shuffles"]),
        ("shuffled.answers=true", ["tokens", "shuffles"]),
    ],
)
def test_a_setting_of_a_method_changes_the_student_and_what_depends_on_it(shuffled, runs, setting, made_anew):
    other = run(runs / setting, *SHUFFLED, setting)
    assert student_of(other) != student_of(shuffled)
    orders, before = (load_jsonl(folder / "shuffles.jsonl") for folder in (other, shuffled))
    assert (orders != before) == ("shuffles" in made_anew)
    assert (len(orders) == 48) == ("tokens" in made_anew)


def test_a_run_takes_nothing_that_another_methods_run_beside_it_made(shuffled, runs, tmp_path):
    beside, alone = (run(folder / "plain", *SMALL, "method=plain") for folder in (runs, tmp_path))
    assert student_of(beside) == student_of(alone) != student_of(shuffled)
    assert not (beside / "shuffles.jsonl").exists()


@pytest.mark.parametrize("until", ["shuffles", "shuffles.jsonl"])
def test_a_run_stops_behind_an_artefact_of_the_method(until, tmp_path):
    folder = run(tmp_path / "run", *SHUFFLED, "--until", until)
    assert (folder / "shuffles.jsonl").is_file() and not (folder / "student").exists()


def test_a_killed_run_of_a_method_ends_as_the_unbroken_one(shuffled, tmp_path):
    folder = tmp_path / "killed"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *SHUFFLED], folder, "checkpoints/last.ckpt")
    assert student_of(folder) == student_of(shuffled)


@pytest.mark.slow
def test_two_ranks_train_by_a_method_as_one_does(shuffled, tmp_path):
    two = ["launch.strategy=ddp", "launch.devices=2", "launch.accelerator=cpu"]
    folder = run(tmp_path / "two", *SHUFFLED, *two)
    assert (folder / "shuffles.jsonl").read_bytes() == (shuffled / "shuffles.jsonl").read_bytes()
    losses, of_one = (
        [row["train/nats_per_token"] for row in load_run(made).metrics if "train/nats_per_token" in row]
        for made in (folder, shuffled)
    )
    assert losses == pytest.approx(of_one, rel=1e-4)


def test_a_method_trains_an_encoder_decoder(runs):
    one, other = (
        run(runs / f"t5-{smoothing}", *SHUFFLED, "student.name=tiny-t5", f"shuffled.smoothing={smoothing}")
        for smoothing in (0, 0.1)
    )
    assert student_of(one) != student_of(other)


# ---- A curriculum ----


def test_a_curriculum_trains_on_the_examples_that_it_takes(half, runs):
    rows = [row for row in load_run(half).metrics if "train/tokens_seen" in row]
    whole = run(runs / "whole", *KPOD, "curriculum=none", "optim.epochs=1")
    (all_tokens,) = [row["train/tokens_seen"] for row in load_run(whole).metrics if "train/tokens_seen" in row]
    first, second, third = (row["train/tokens_seen"] for row in rows)
    assert [row["toy/examples"] for row in rows] == [12, 24, 24]
    assert [row["train/stage"] for row in rows] == [0, 1, 1]
    assert 0 < first < all_tokens
    assert [second - first, third - second] == [all_tokens, all_tokens]


@pytest.mark.slow
def test_a_killed_run_of_a_curriculum_ends_as_the_unbroken_one(half, tmp_path):
    folder = tmp_path / "killed"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *TAKES_HALF], folder, "checkpoints/last.ckpt")
    assert student_of(folder) == student_of(half)


def test_a_curriculum_that_takes_nothing_is_one_line(capsys, tmp_path):
    error = refused(capsys, "--run", str(tmp_path / "run"), *TAKES_HALF, "toy.first_share=0")
    assert "epoch 1, stage 0: the curriculum or the method trains on none of 24 examples" in error


# ---- A weighting ----


@pytest.mark.parametrize("name", STUDENTS)
def test_a_weighting_in_the_step_changes_the_student_and_with_weights_of_one_is_uniform(name, tmp_path):
    kinds = {
        "uniform": ["weights.kind=uniform"],
        "nothing": ["weights.kind=p_alpha", "p_alpha.alpha=0"],
        "weighted": ["weights.kind=p_alpha"],
    }
    made = {
        kind: student_of(run(tmp_path / kind, *WEIGHTED, f"student.name={name}", *settings))
        for kind, settings in kinds.items()
    }
    assert made["nothing"] == made["uniform"] != made["weighted"]


# ---- A data set and a teacher ----


def test_a_data_set_runs_and_its_own_test_split_is_evaluated(tmp_path):
    settings = [*SMALL, "method=plain", "data.dataset=toy", "rationales.source=human"]
    folder = run(tmp_path / "run", *settings)
    assert [row["problem_id"] for row in load_jsonl(folder / "rationales.jsonl")][:2] == [
        "legs-train-2-2",
        "legs-train-2-3",
    ]
    assert len(load_jsonl(folder / "predictions" / "large.jsonl")) == 4


def test_an_unknown_data_set_lists_those_that_there_are(capsys, tmp_path):
    error = refused(capsys, "--run", str(tmp_path / "run"), *SMALL, "data.dataset=farm", "rationales.source=human")
    assert "data.dataset=farm is none of arithmetic, gsm8k, asdiv, svamp, commonsenseqa, own, toy;" in error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("PROBLEMS = {'train': [one]}", "the validation split is empty"),
        ("PROBLEMS = dict.fromkeys(['train', 'validation', 'test'], [one])", "the id a of a validation problem"),
    ],
)
def test_a_data_set_without_a_split_or_with_an_id_twice_is_one_line(code, words, capsys, tmp_path, monkeypatch):
    name = f"bad_data_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(
        "from kpod_lightning.data.problems import Problem\n"
        "one = Problem(id='a', question='?', answer='1', kind='number', split='train')\n"
        f"{code}\ndef read(data):\n    return PROBLEMS\n"
    )
    install(tmp_path, "farm", {"farm": f"{name}:read"}, group="kpod_lightning.datasets")
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["data.dataset=farm", "rationales.source=human"]
    error = refused(capsys, "--run", str(tmp_path / "run"), *SMALL, *settings)
    assert f"data.dataset=farm: {words}" in error


def test_a_teacher_writes_samples_that_a_run_trains_on(tmp_path):
    out = tmp_path / "samples.jsonl"
    free = ["teacher.prices.input=0", "teacher.prices.output=0"]
    assert main(["rationales", EXPERIMENT, "teacher=toy:x", "--out", str(out), *SMALL, *free]) == 0
    assert len(load_jsonl(out)) == 24
    recorded = ["method=plain", "rationales.source=recorded", f"rationales.teacher={out}"]
    folder = run(tmp_path / "run", *SMALL, *recorded, "--until", "rationales")
    assert {row["teacher"] for row in load_jsonl(folder / "rationales.jsonl")} == {"toy:x"}


# ---- What is refused ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method=shuffled", "shuffled.smothing=0"], "shuffled.smothing"),
        (["method=shuffled", "shuffled.smoothing=1"], "shuffled.smoothing"),
        (["method=plain", "shuffled.smoothing=0"], "shuffled"),
        (["method=kpod", "weights.kind=p_alpha", "p_alpha.alpha=-1"], "p_alpha.alpha"),
        (["method=kpod", "weights.kind=p_alpha", "optim.loss_scale=mass"], "optim.loss_scale=mass divides by"),
        (["method=kpod", "weights.kind=p_alpha", "weights.permuted=true"], "weights.kind=p_alpha has none"),
        (["method=suffled"], "method=suffled is none of answers_only, kpod, "),
    ],
)
def test_a_wrong_setting_of_a_plugin_is_one_line(settings, words, capsys, tmp_path):
    assert words in refused(capsys, "--run", str(tmp_path / "run"), *SMALL, *settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("points", "group", "setting", "words"),
    [
        ({"plain": "rival:Rival"}, "methods", "method=plain", "the package rival gives a name that kpod_lightning has"),
        ({"other": "no_such_rival:Rival"}, "methods", "method=other", "the package rival does not import"),
        (
            {"other": "fractions:Fraction"},
            "methods",
            "method=other",
            "no subclass of kpod_lightning.methods.base.Method",
        ),
        ({"other": "fractions"}, "curricula", "curriculum=other", "no subclass of kpod_lightning.curricula.base.Curr"),
        ({"shuffled": "kpod_toy.toy_curriculum:FirstFew"}, "curricula", "curriculum=shuffled", "rename an entry point"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_line(points, group, setting, words, capsys, tmp_path, monkeypatch):
    install(tmp_path, "rival", points, group=f"kpod_lightning.{group}")
    monkeypatch.syspath_prepend(tmp_path)
    assert words in refused(capsys, "--run", str(tmp_path / "run"), *SHUFFLED, setting)
