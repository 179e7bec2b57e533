"""W&B without its server: what the offline files hold after whole, stopped and resumed runs."""

import json
import shutil
import time
from pathlib import Path

import apart
import plotly.graph_objects as go
import pytest
import wandb
import wandb_offline
from lightning.pytorch.utilities import rank_zero_only

from kpod_lightning.__main__ import main
from kpod_lightning.config import load_config
from kpod_lightning.evaluation.grade import accuracy
from kpod_lightning.evaluation.sections import Section, Table
from kpod_lightning.runs import tracking
from kpod_lightning.runs.folder import load_run, open_run
from kpod_lightning.runs.metrics import UNITS
from kpod_lightning.runs.tracking import OUTCOMES, Tracker, has_key, panels
from kpod_lightning.runs.wandb_log import offline_rows

EXPERIMENT = "experiments/arithmetic.yaml"
SMALL = [
    "method=plain",
    "data.num_train=24",
    "data.num_validation=6",
    "data.num_test=6",
    "optim.epochs=3",
    "optim.batch_size=8",
    "optim.checkpoint_every=2",
    "evaluation.max_new_tokens=24",
    "logging.wandb=offline",
    "logging.group=first-study",
    "logging.artifacts=true",
]
KEY = "0123456789abcdef" * 2 + "01234567"  # of the form that W&B gives out


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, made where a key is set."""
    folder = tmp_path_factory.mktemp("runs") / "tracked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def logged(finished):
    return wandb_offline.read(finished)


def test_the_wandb_run_has_the_names_settings_and_units_of_the_run(finished, logged):
    assert (logged.name, logged.group, logged.project) == ("tracked", "first-study", "kpod_lightning")
    assert set(logged.tags) == {"arithmetic", "tiny-llama", "plain"}
    assert logged.config["optim"]["batch_size"] == 8 and logged.config["units"] == UNITS
    assert logged.exit_codes == [0]


def test_every_number_is_defined_over_optimiser_steps_and_has_a_unit(finished, logged):
    numbers = {name for row in logged.history for name, value in row.items() if isinstance(value, int | float)}
    numbers -= {"epoch", "trainer/global_step"} | {name for name in numbers if name.startswith("_")}
    assert numbers and numbers <= set(UNITS)
    assert {logged.metrics[name].step_metric for name in numbers} == {"trainer/global_step"}
    assert logged.metrics["validation/accuracy"].summary.max
    assert {name for name in logged.summary if name.startswith("test/")} <= set(UNITS)


def test_wandb_has_one_row_an_epoch_and_the_numbers_of_metrics_jsonl(finished, logged):
    by_step = {}
    for row in load_run(finished).metrics:
        by_step.setdefault(row["step"], {}).update(row)
    assert logged.steps("train/nats_per_token") == logged.steps("validation/accuracy") == list(by_step) == [2, 5, 8]
    for row in logged.history[:3]:
        expected = by_step[row["trainer/global_step"]]
        assert {name: row[name] for name in expected if name != "step"} == pytest.approx(
            {name: value for name, value in expected.items() if name != "step"}
        )


def test_the_summary_and_the_tables_say_what_the_records_say(finished, logged):
    run = load_run(finished)
    before, after = run.records("test-before"), run.records("test")
    for name, graded in {
        "test/accuracy_before": before,
        "test/accuracy": after,
        "ood/accuracy": run.records("ood"),
    }.items():
        found = accuracy(graded)
        shown = [logged.summary[name + end] for end in ("", "_low", "_high")]
        assert shown == pytest.approx([found.value, *found.interval])
    pairs = [(old["right"], new["right"]) for old, new in zip(before, after, strict=True)]
    assert logged.summary["test/gained"] == pairs.count((False, True))
    assert logged.summary["test/lost"] == pairs.count((True, False))
    assert logged.summary["validation/kept_accuracy"] == accuracy(run.records("validation")).value
    outcomes, problems = (
        wandb_offline.table(finished, logged.history[-1][f"tables/{n}"]) for n in ("outcomes", "test")
    )
    assert outcomes == [{"outcome": name, "problems": pairs.count(pair)} for pair, name in OUTCOMES.items()]
    assert [row["outcome"] for row in problems] == [OUTCOMES[pair] for pair in pairs]
    assert [row["text after"] for row in problems] == [record["text"] for record in after]


def test_student_and_predictions_are_artifacts_where_asked(finished, logged):
    assert {"model", "predictions"} <= set(logged.artifacts.values())


def test_a_key_stands_in_no_file_of_the_run(finished):
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_same_command_again_adds_nothing_to_wandb(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert main(["run", EXPERIMENT, "--run", str(finished), *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_result_that_wandb_lacks_is_logged_without_training_again(finished, tmp_path, capsys):
    folder = tmp_path / "tracked"
    shutil.copytree(finished, folder, symlinks=True)
    state = json.loads((folder / "wandb.json").read_text())
    (folder / "wandb.json").write_text(json.dumps({name: state[name] for name in ("id", "training")}))
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    assert f"wandb sync {folder}/wandb/offline-run-*" in capsys.readouterr().out
    both = wandb_offline.read(folder)
    assert both.ids == [state["id"]] * 2
    assert both.steps("train/nats_per_token") == [2, 5, 8]
    assert "test/accuracy" in both.summary


def test_a_run_without_wandb_reaches_it_later_whole(finished, tmp_path):
    folder = tmp_path / "later"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("wandb", "wandb.json"))
    assert main(["run", EXPERIMENT, "--run", str(folder), *SMALL]) == 0
    assert wandb_offline.read(folder).steps("train/nats_per_token") == [2, 5, 8]


@pytest.mark.parametrize("moment", ["checkpoints/step.ckpt", "student"])  # inside an epoch, and behind the training
def test_a_killed_run_goes_on_in_its_wandb_run_without_gap_or_repeat(tmp_path, moment, monkeypatch):
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # a child would share the service of this process
    folder = tmp_path / "killed"
    apart.killed_and_continued(["run", EXPERIMENT, "--run", str(folder), *SMALL], folder, moment)
    logged = wandb_offline.read(folder)
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2
    assert set(logged.ids) == {json.loads((folder / "wandb.json").read_text())["id"]}
    assert logged.steps("train/nats_per_token") == logged.steps("validation/accuracy") == [2, 5, 8]
    assert [row["_step"] for row in logged.history] == sorted({row["_step"] for row in logged.history})
    assert "test/accuracy" in logged.summary


def row_of(step):
    return [
        {"validation/accuracy": step / 100, "epoch": step // 3},
        {"train/nats_per_token": 1 / (step + 1), "epoch": step // 3},
    ]


def follow(run, steps, resume=0, training="training", figures=None):
    """A training that goes on from an optimiser step and logs some steps, then ends in order."""
    if list(run.folder.glob("wandb/offline-run-*")):
        time.sleep(1)  # W&B names its folders by the second
    with Tracker(run, lambda: [Section("part", figures=figures or {})]) as tracker:
        loggers = tracker.loggers(training, resume)
        for step in steps:
            for part in row_of(step):
                for logger in loggers:
                    logger.log_metrics(part, step)
    return loggers


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "run", load_config(Path(EXPERIMENT), ["logging.wandb=offline"]))


def log_of(run):
    (path,) = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    return path


def test_a_row_that_was_logged_before_a_kill_without_its_checkpoint_is_not_logged_twice(run):
    follow(run, [2, 5, 8])
    follow(run, [5, 8, 11], resume=4)
    assert [row["step"] for row in run.metrics] == [2, 2, 5, 5, 8, 8, 11, 11]
    logged = wandb_offline.read(run.folder)
    assert logged.steps("train/nats_per_token") == logged.steps("validation/accuracy") == [2, 5, 8, 11]
    assert len(set(logged.ids)) == 1 and len(logged.ids) == 2


@pytest.mark.parametrize("kept", [7, 0.5, 0.8, 1.0])
def test_rows_that_a_kill_tore_off_wandbs_log_are_logged_on_resume(run, kept):
    follow(run, [2, 5, 8])
    path = log_of(run)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    follow(run, [11], resume=9)
    assert wandb_offline.read(run.folder).steps("train/nats_per_token") == [2, 5, 8, 11]


@pytest.mark.parametrize("kept", [7, 1.0])
def test_pictures_are_logged_once_and_again_if_a_kill_took_them(run, kept):
    figures = {"asked": go.Figure(go.Bar(y=[1, 2]))}
    follow(run, [2], figures=figures)
    path = log_of(run)
    path.write_bytes(path.read_bytes()[: kept if isinstance(kept, int) else None])
    follow(run, [5], resume=3, figures=figures)
    history = wandb_offline.read(run.folder).history
    assert ["pictures/asked" in row for row in history] == [True, False, False]


def test_wandb_shows_figures_html_and_tables_of_sections_by_their_names():
    table = Table("schedule", {"stage": "d", "value / upper bound": ".5f"}, ((0, 0.5), (1, None)))
    shown = panels(
        [Section("one", table=table, figures={"asked": go.Figure()}), Section("two", html={"rationales": "<p>x</p>"})]
    )
    assert set(shown) == {"pictures/asked", "pictures/rationales", "tables/schedule"}
    assert shown["tables/schedule"].columns == list(table.columns)
    assert shown["tables/schedule"].data == [[0, 0.5], [1, None]]


def test_half_a_row_before_a_kill_is_made_whole(run):
    """A checkpoint may come between validation and the end of its epoch (``evaluation.every`` above 1)."""
    follow(run, [2])
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, **row_of(5)[0]}) + "\n")
    time.sleep(1)
    with Tracker(run, list) as tracker:
        for logger in tracker.loggers("training", 6):
            logger.log_metrics(row_of(5)[1], 5)
    logged = wandb_offline.read(run.folder)
    assert logged.steps("train/nats_per_token") == logged.steps("validation/accuracy") == [2, 5]


def test_another_training_in_the_folder_gets_a_wandb_run_of_its_own(run):
    follow(run, [2, 5])
    follow(run, [2, 5], training="another")
    logged = wandb_offline.read(run.folder)
    assert len(set(logged.ids)) == 2
    assert logged.steps("train/nats_per_token") == [2, 5, 2, 5]


def test_a_training_that_fails_is_marked_so(run):
    with pytest.raises(FloatingPointError), Tracker(run, list) as tracker:
        tracker.loggers("training", 0)
        raise FloatingPointError
    assert wandb_offline.read(run.folder).exit_codes == [1]


def test_only_rank_zero_talks_to_wandb(run, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(tracking, "is_first", lambda: False)
    assert [logger.name for logger in follow(run, [2])] == ["jsonl"]
    assert {path.name for path in run.folder.iterdir()} == {"config.yaml"}


def test_where_the_server_does_not_answer_the_run_is_logged_offline(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    wandb.teardown()  # reads the environment anew
    run = open_run(tmp_path / "run", load_config(Path(EXPERIMENT), []))
    follow(run, [2])
    wandb.teardown()
    assert "W&B cannot be reached" in capsys.readouterr().out
    assert wandb_offline.read(run.folder).steps("train/nats_per_token") == [2]


def test_a_key_is_looked_for_where_wandb_keeps_it(tmp_path, monkeypatch):
    assert not has_key()
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key()


def test_the_packages_reader_sees_the_rows_that_the_tests_reader_sees(finished, logged):
    rows = list(offline_rows(finished, logged.ids[0]))
    assert [sorted(row) for row in rows] == [sorted(row) for row in logged.history]
    assert [row["trainer/global_step"] for row in rows if "epoch" in row] == logged.steps("epoch")
