"""What looks odd and is right: paths with blanks and accents, quotes, byte order marks, numbers in any usual form."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import EXPERIMENT, FOLDER, Link, put

from kpod_lightning.__main__ import main
from kpod_lightning.commands.status import print_status
from kpod_lightning.distributed.console import console


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs a command in an empty folder, up to the pipeline; returns its settings and its run folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        "kpod_lightning.runs.run.run_pipeline",
        lambda config, folder, **_: found.update(config=config, folder=folder),
    )

    def run(*words: str, files: dict[str, Any] | None = None) -> tuple[Any, Path]:
        put(tmp_path, files or {})
        assert main(["run", *words]) == 0
        return found["config"], found["folder"]

    return run


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optim.lr=1e-4", 1e-4),
        ("optim.lr=1E-4", 1e-4),
        ("optim.lr=.5", 0.5),
        ("optim.lr='1e-4'", 1e-4),
        ('optim.lr="0.25"', 0.25),
        ("optim.lr=+1e-4", 1e-4),
        ("optim.lr=1", 1.0),
        ("optim.lr=${optim.weight_decay}", None),
        ("optim.epochs=7", 7),
        ("optim.epochs=1e1", 10),
        ("optim.epochs=8.0", 8),
        ("optim.epochs=010", 10),  # not the eight that YAML 1.1 takes it for
        ("data.num_train=4_000", 4000),
        ("data.num_train=null", None),
        ("data.num_train=~", None),
        ("optim.group_by_length=True", True),
        ("optim.group_by_length=off", False),
        ("optim={lr: 0.5}", None),
        ("data.dir=données/été 2024", "données/été 2024"),
        ("data.dir='with blank'", "with blank"),
        ('data.dir="with blank"', "with blank"),
        ("data.dir=a=b", "a=b"),
        ("data.dir=a: b # c", "a: b # c"),
        ("data.dir=[x]", "[x]"),
        ("data.dir=数据", "数据"),
        ("logging.group=1.10", "1.10"),
        ("logging.group=007", "007"),
        ("logging.group=1e5", "1e5"),
        ("logging.group=no", "no"),
        ("logging.group='null'", "null"),
        ("logging.group=null", None),
        ("logging.group=[red]x[/red]", "[red]x[/red]"),
        ("logging.group=2024-01-01", "2024-01-01"),
        ("rationales.step_rule=[.!?]", "[.!?]"),
        ("rationales.step_rule=\\n{2}", "\\n{2}"),
        ("seed=4294967295", 4294967295),
        ("weights.floor=0", 0.0),
        ("teacher.name=openai:a:b", "openai:a:b"),
        ("teacher.stop=['\\n\\n', Q]", ["\\n\\n", "Q"]),
        ("teacher.extra.reasoning_effort=low", None),
        ("teacher.extra={a: [1, {b: null}]}", None),
    ],
)
def test_a_word_means_what_it_says(word, value, asked):
    more = ["optim.weight_decay=0.01"] if "${" in word else []
    config, _ = asked(EXPERIMENT, word, *more)
    if value is not None or word.endswith(("=null", "=~")):
        found = attrgetter(word.partition("=")[0])(config)
        assert found == value and type(found) is type(value)


def test_values_within_a_mapping_and_of_another_setting_are_taken(asked):
    words = ["optim={lr: 0.5}", "weights.model_lr=${optim.lr}", "teacher.extra.a.b=1", "optim.epochs=3"]
    config, _ = asked(EXPERIMENT, *words, "optim.epochs=5")
    assert (config.optim.lr, config.weights.model_lr, config.teacher.extra) == (0.5, 0.5, {"a": {"b": 1}})
    assert config.optim.epochs == 5  # the last one counts


SOUND = "seed: 3\noptim:\n  lr: 1e-4\n"


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        SOUND.replace("\n", "\r\n"),
        "\ufeff" + SOUND,
        "# Überschrift\n" + SOUND,
        "---\n" + SOUND,
        SOUND + "...\n",
        SOUND.rstrip(),
        "{seed: 3, optim: {lr: 1e-4}}",
        '{"seed": 3, "optim": {"lr": 0.0001}}',
        "seed: '3'\noptim:\n  lr: '1e-4'\n",
        "optim: &o\n  lr: 1e-4\nseed: 3\n",
        "seed: 3\noptim:\n  <<: {lr: 5}\n  lr: 1e-4\n",
    ],
)
def test_an_experiment_file_may_be_of_any_editor(text, asked):
    config, folder = asked("e.yaml", files={"e.yaml": text.encode()})
    assert (config.seed, config.optim.lr, folder) == (3, 1e-4, Path("runs/e"))


def test_a_value_of_the_environment_stands_in_a_file(asked, monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    config, _ = asked("e.yaml", files={"e.yaml": "seed: 0\ndata:\n  dir: ${oc.env:DATA}/x\n"})
    assert config.data.dir == "/data/x"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("été", {}),
        ("two words", {}),
        ("[red]x[/x]", {}),
        (":smile: %s {x} $HOME #1", {}),
        ("a/b/../c", {}),
        ("./r", {}),
        ("-r", {}),
        ("l", {"target": FOLDER, "l": Link("target")}),
        ("l/r", {"target": FOLDER, "l": Link("target")}),
        ("empty", {"empty": FOLDER}),
        ("数据/" + "x" * 200, {}),
    ],
)
def test_a_run_folder_may_have_any_name(name, files, asked):
    _, folder = asked(EXPERIMENT, f"--run={name}", files=files)
    assert folder == Path(name)


def test_a_tilde_is_the_home_folder_where_the_shell_leaves_it(asked, tmp_path):
    config, folder = asked(EXPERIMENT, "--run=~/r", "data.dir=~/data", "student.name=~/s")
    home = tmp_path / "home"
    assert (folder, config.data.dir, config.student.name) == (home / "r", f"{home}/data", f"{home}/s")


def test_a_link_to_an_experiment_and_a_path_with_blanks_are_read(asked):
    _, folder = asked("my exp.yaml", "--run", "r", files={"e.yaml": SOUND, "my exp.yaml": Link("e.yaml")})
    assert folder == Path("r")
    config, folder = asked("l", files={"l": Link("e.yaml")})
    assert (config.seed, folder) == (3, Path("runs/l"))


def test_one_epoch_of_the_command_line_shrinks_the_stages_of_the_file_and_says_so(asked, capsys):
    config, _ = asked(EXPERIMENT, "optim.epochs=1")
    assert config.schedule.num_stages == 1
    assert capsys.readouterr().err == (
        "kpod: schedule.num_stages=1 instead of the file's 2: a stage is an epoch, and optim.epochs=1\n"
    )
    asked(EXPERIMENT, "optim.epochs=1", "method=plain")
    assert capsys.readouterr().err == ""  # which has no stages
    files = {"e.yaml": "seed: 0\nschedule:\n  num_stages: 9\n"}
    config, _ = asked("e.yaml", "optim.epochs=4", files=files)
    assert config.schedule.num_stages == 3  # so that the last epoch trains whole rationales
    config, _ = asked("e.yaml", "optim.epochs=9")
    assert config.schedule.num_stages == 9 and "2: a stage" not in capsys.readouterr().err


def test_names_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    name = "[red]x[/x]"
    put(tmp_path, {f"{name}/config.yaml": "seed: 0\n", "[bold]/config.yaml": "seed: 0\n"})
    console.print(f"report: {name} :smile:")
    print_status(tmp_path)
    assert f"{name} :smile:" in (shown := capsys.readouterr().out) and "[bold]" in shown
