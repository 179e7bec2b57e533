"""How words on the command line are read, and that no verb loads more than it needs."""

import json
import resource
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from test_project import ROOT

from kpod_lightning.__main__ import main, parse
from kpod_lightning.commands import rationales, run
from kpod_lightning.distributed.console import console
from kpod_lightning.methods.base import load_experiment, method_of
from kpod_lightning.runs.verbs import STOPS

EXPERIMENT = "experiments/arithmetic.yaml"
HEAVY = ("torch", "transformers", "lightning", "plotly", "datasets", "scipy")


def loaded_by(words: list[str]) -> tuple[set[str], int, str]:
    """Heavy packages that a command imports, its exit code and what it prints on stderr."""
    code = (
        "import json, sys\n"
        "from kpod_lightning.__main__ import main\n"
        "try:\n"
        f"    code = main({words!r})\n"
        "except SystemExit as end:\n"
        "    code = end.code or 0\n"
        f"print(json.dumps([[name for name in {HEAVY!r} if name in sys.modules], code]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    names, exit_code = json.loads(ran.stdout.splitlines()[-1])
    return set(names), exit_code, ran.stderr


# ---- Fast answers ----


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["rationales", "report", "--help"],
        ["settings"],
        ["settings", "optim", "--experiment", EXPERIMENT, "optim.lr=1e-4"],
    ],
)
def test_help_and_settings_load_nothing_heavy(words):
    assert loaded_by(words)[:2] == (set(), 0)


@pytest.mark.parametrize(
    "words",
    [
        ["report", "nowhere"],
        ["export", "nowhere"],
        ["status", "nowhere"],
        ["run", "nowhere.yaml"],
        ["doctor", "no.yaml"],
    ],
)
def test_what_is_not_there_is_refused_in_one_line_before_anything_heavy_is_loaded(words):
    names, code, said = loaded_by(words)
    assert (names, code) == (set(), 2)
    assert said.startswith("kpod: ") and said.count("\n") == 1


def test_a_report_of_nothing_is_refused_within_a_second_of_computing():
    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began = seconds()
    subprocess.run([sys.executable, "-m", "kpod_lightning", "report", "nowhere"], cwd=ROOT, capture_output=True)
    assert seconds() - began < 1


# ---- Words ----


def test_version_names_this_package_and_those_that_change_a_run(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--version"])
    assert ended.value.code == 0
    own, others = capsys.readouterr().out.splitlines()
    assert own == f"kpod_lightning {metadata.version('kpod_lightning')}"
    for name in ("torch", "lightning", "transformers", "peft"):
        assert f"{name} {metadata.version(name)}" in others


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    verbs = [stop.name for stop in STOPS if stop.has_command]
    verbs += [
        "run",
        "rationales report",
        "rationales filter",
        "rationales merge",
        "weights export",
        "prepare",
        "submit",
        "status",
        "settings",
    ]
    for verb in [*verbs, "export", "doctor", "report", "dashboard"]:
        assert f"\n    {verb} " in shown or f"\n    {verb}\n" in shown, verb


@pytest.mark.parametrize(
    "words",
    [
        ["seed=1", "optim.lr=-1", "--run", "r"],
        ["seed=1", "--run", "r", "optim.lr=-1"],
        ["--run", "r", "seed=1", "optim.lr=-1"],
        ["--run=r", "seed=1", "--redo", "optim.lr=-1"],
    ],
)
def test_settings_stand_before_between_and_behind_options(words):
    arguments = parse(["train", EXPERIMENT, *words])
    assert (arguments.settings, str(arguments.run), arguments.until) == (["seed=1", "optim.lr=-1"], "r", "train")


def test_options_may_stand_before_the_experiment():
    arguments = parse(["run", "--run", "r", EXPERIMENT, "seed=1"])
    assert (str(arguments.experiment), arguments.settings) == (EXPERIMENT, ["seed=1"])


@pytest.mark.parametrize(
    ("words", "reads"),
    [
        (["rationales", EXPERIMENT], rationales.main),
        (["rationales", "report", EXPERIMENT, "f.jsonl"], rationales.report),
        (["rationales", "filter", EXPERIMENT, "f.jsonl", "--out", "g.jsonl"], rationales.keep),
        (["rationales", "merge", "f.jsonl", "f-1of2.jsonl", "f-2of2.jsonl"], rationales.merge),
        (["evaluate", EXPERIMENT], run.main),
    ],
)
def test_a_verb_of_one_or_two_words_finds_its_function(words, reads):
    assert parse(words).main is reads


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "VERB"),
        (["no-such-verb"], "no-such-verb"),
        (["run"], "required: experiment; see kpod run --help\n"),
        (["run", EXPERIMENT, "--no-such"], "unrecognized arguments: --no-such"),
        (["run", EXPERIMENT, "--run", "r", "word"], "word is no setting"),
        (["weights", EXPERIMENT, "--until", "train"], "unrecognized arguments"),
        (["export", "r", "seed=1"], "unrecognized arguments: seed=1"),
        (["submit", EXPERIMENT], "required: --time"),
        (["rationales", "filter", EXPERIMENT, "f.jsonl"], "required: --out"),
    ],
)
def test_words_that_cannot_be_read_end_with_2_and_a_reason(words, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "is_order"),
    [
        ([], False),
        (["rationales.teacher=x.jsonl", "teacher.samples=2"], False),
        (["teacher=openai:m"], True),
        (["teacher.name=openai:m"], True),
        (["--out", "x.jsonl"], True),
        (["--dry-run"], True),
        (["--shard", "1/2"], True),
    ],
)
def test_rationales_is_an_order_where_a_teacher_or_its_file_is_named(words, is_order):
    assert rationales.is_order(parse(["rationales", EXPERIMENT, *words])) == is_order


# ---- Stops of the pipeline ----


def test_the_stops_are_those_of_the_pipeline_in_its_order():
    from kpod_lightning.runs.pipeline import arrows_of

    config = load_experiment(ROOT / EXPERIMENT, [])
    method = method_of(config)
    splits = {name: [] for name in ("train", "validation", "test")}
    arrows = arrows_of(SimpleNamespace(config=config), method, splits, SimpleNamespace(contents=""), None)
    assert list(dict.fromkeys(arrow.verb for arrow in arrows)) == [stop.name for stop in STOPS]


@pytest.mark.parametrize(
    ("words", "until"), [([], "report"), (["--until", "tokens"], "tokens"), (["--until", "student"], "student")]
)
def test_run_goes_on_until_the_report_or_what_is_named(words, until, monkeypatch):
    asked = {}
    monkeypatch.setattr("kpod_lightning.runs.run.run_pipeline", lambda *_, **settings: asked.update(settings))
    assert main(["run", str(ROOT / EXPERIMENT), *words]) == 0
    assert asked == {"redo": False, "until": until}


def test_a_run_stops_behind_the_artefact_that_is_named(tmp_path, capsys):
    sizes = ["data.num_train=8", "data.num_validation=2", "data.num_test=2", "method=plain", "logging.wandb=disabled"]
    words = ["run", str(ROOT / EXPERIMENT), "--run", str(tmp_path / "r"), *sizes, "--until"]
    assert main([*words, "rationales.jsonl"]) == 0
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"config.yaml", "provenance.json", "rationales.jsonl"}
    assert main([*words, "weights"]) == 2
    assert "makes no weights; it stops at one of" in capsys.readouterr().err


# ---- The console ----


def test_only_the_first_rank_has_a_console_that_prints(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):  # the last one leaves the console as it was
        monkeypatch.setenv("RANK", rank)
        assert main(["status", str(tmp_path / "nowhere")]) == 2
        assert console.quiet == (rank != "0")
