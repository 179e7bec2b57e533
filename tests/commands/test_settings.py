"""`kpod settings` shows every setting, and of an experiment which value comes from where."""

from dataclasses import dataclass

import pytest
from test_project import ROOT

from kpod_lightning.__main__ import main
from kpod_lightning.commands import settings
from kpod_lightning.config import RunConfig
from kpod_lightning.distributed.console import PlainConsole
from kpod_lightning.methods.base import described_settings, load_with_sources, method_of
from kpod_lightning.store.described import described

EXPERIMENT = ROOT / "experiments" / "arithmetic.yaml"


def table(words: list[str], capsys) -> dict[str, str]:
    """What the command prints into a pipe: a line for each setting, by its name."""
    assert main(["settings", *words]) == 0
    return {line.split(None, 1)[0]: line.split(None, 1)[1].strip() for line in capsys.readouterr().out.splitlines()}


def test_every_setting_has_a_meaning_and_is_shown_in_one_line(capsys):
    assert [row.key for row in described_settings() if not row.meaning] == []
    assert [*table([], capsys)][1:] == [row.key for row in described_settings()]


def test_name_default_and_meaning_are_those_of_the_field():
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        """A block."""

        rate: float | None = None
        """Per step; ``null``
        has none."""
        bare: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Outer(Inner):
        inner: Inner = Inner()
        """A block is no setting."""

    Outer.__annotations__["inner"] = Inner
    found = [(row.key, row.default, row.meaning) for row in described(Outer, "x.")]
    inherited = [("x.rate", None, "Per step; null has none."), ("x.bare", 3, "")]
    assert found == [*inherited, *((key.replace("x.", "x.inner."), *rest) for key, *rest in inherited)]


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("optim.lr", {"optim.lr"}),
        ("CLIP_norm", {"weights.clip_norm", "optim.clip_norm"}),
        (
            "optim.*e",
            {"optim.name", "optim.schedule", "optim.loss_scale", "optim.batch_size", "optim.micro_batch_size"},
        ),
        ("warm-up", {"optim.schedule"}),
        ("learning_rate", {"optim.lr", "weights.model_lr", "weights.network_lr"}),
    ],
)
def test_a_pattern_is_part_of_a_name_or_has_a_star_or_stands_in_the_meaning(pattern, named, capsys):
    assert {*table([pattern], capsys)} - {"setting"} >= named


def test_a_pattern_that_names_nothing_is_told_the_nearest_setting(capsys):
    assert main(["settings", "optin.lr"]) == 2
    assert capsys.readouterr().err.endswith("did you mean optim.lr?\n")


def test_each_value_of_an_experiment_has_its_source(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 1\npaper: true\noptim: {lr: 1e-3, epochs: 4}\nweights: {answer_model: null}\n")
    words = ["--experiment", str(file), "optim.epochs=7", "schedule.glove_path=g.txt"]
    shown = table(["seed", "optim.", "weights.", "schedule.", *words], capsys)
    assert shown["optim.lr"].startswith("0.001 ") and "file; default 5e-05" in shown["optim.lr"]
    assert shown["optim.epochs"].startswith("7 ") and "command line; default 20" in shown["optim.epochs"]
    assert shown["optim.name"].startswith("adam ") and "paper; default adamw" in shown["optim.name"]
    assert shown["weights.answer_model"].startswith("null ") and " file " in shown["weights.answer_model"]
    assert shown["optim.patience"].startswith("null ") and " default " in shown["optim.patience"]


@pytest.mark.parametrize(
    ("words", "unused", "used"),
    [
        (["method=plain"], ["weights.share", "schedule.start", "curriculum", "weights.kind"], ["optim.lr", "seed"]),
        ([], [], ["weights.share", "schedule.start", "curriculum"]),
        (["weights.kind=uniform"], ["weights.share"], ["schedule.start", "weights.kind"]),
        (["curriculum=none"], ["schedule.start"], ["weights.share", "curriculum"]),
        (["schedule.progressive=false"], ["schedule.start"], ["weights.share", "schedule.progressive"]),
        (
            ["schedule.progressive=false", "weights.in_loss=false"],
            ["weights.share", "schedule.start"],
            ["weights.in_loss", "schedule.progressive"],
        ),
    ],
)
def test_what_the_experiment_does_not_read_is_unused(words, unused, used):
    method = method_of(load_with_sources(EXPERIMENT, words)[0])
    assert [key for key in unused if method.uses(key)] == []
    assert [key for key in used if not method.uses(key)] == []


def test_a_terminal_of_80_columns_cuts_nothing(monkeypatch, capsys):
    terminal = PlainConsole()
    terminal._force_terminal, terminal.width = True, 80
    monkeypatch.setattr(settings, "console", terminal)
    assert main(["settings"]) == 0
    wide = capsys.readouterr().out
    assert main(["settings", "--experiment", str(EXPERIMENT)]) == 0
    of_experiment = capsys.readouterr().out
    every = {row.key for row in described_settings() if row.key.count(".") <= 1}
    shared = {key for key in every if key.partition(".")[0] in RunConfig.__dataclass_fields__}
    for shown, keys in ((wide, every), (of_experiment, shared)):
        assert "…" not in shown
        assert keys <= {*shown.split()}
