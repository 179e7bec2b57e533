from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from omegaconf import OmegaConf

from kpod_lightning.config import PAPER, RunConfig, differences, load_config, to_dict
from kpod_lightning.curricula.base import SHIPPED as curricula
from kpod_lightning.curricula.base import find_curriculum
from kpod_lightning.keypoints.base import SHIPPED as weightings
from kpod_lightning.keypoints.base import find_weighting
from kpod_lightning.methods.base import SHIPPED as methods
from kpod_lightning.methods.base import find_method, load_experiment
from kpod_lightning.store.bounds import at_least, bound_of, check, choices_of, one_of, positive, within
from kpod_lightning.store.errors import InputError

EXPERIMENT = "seed: 0\ndata:\n  dataset: arithmetic\n"


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return path


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.lrr=1", "optim.lrr"),
        ("optim.epochs=many", "optim.epochs"),
        ("optim.epochs=0", "optim.epochs"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.batch_size=0", "optim.batch_size"),
        ("optim.micro_batch_size=3", "optim.micro_batch_size"),
        ("optim.precision=fp16", "optim.precision"),
        ("student.lora_rank=0", "student.lora_rank"),
        ("student.lora_alpha=4", "student.lora_alpha"),
        ("rationales.source=human", "rationales.source"),
        ("rationales.source=oracle", "rationales.source"),
        ("data.num_train=0", "data.num_train"),
        ("data.min_steps=9", "data.min_steps"),
        ("evaluation.variant=best", "evaluation.variant"),
        ("method=magic", "method"),
        ("lr", "key=value"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_key_in_one_line(experiment, override, named):
    with pytest.raises(InputError) as caught:
        load_experiment(experiment, [override])
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_overrides_win_over_the_file_and_the_file_over_defaults(experiment):
    assert load_config(experiment, []).optim.lr == 5e-5
    experiment.write_text(EXPERIMENT + "optim:\n  lr: 0.5\n")
    assert load_config(experiment, []).optim.lr == 0.5
    assert load_config(experiment, ["optim.lr=0.25"]).optim.lr == 0.25


def test_paper_changes_what_it_names_and_yields_to_file_and_command_line(experiment):
    experiment.write_text(EXPERIMENT + "paper: true\noptim:\n  loss_scale: mass\n")
    config = load_config(experiment, ["schedule.glove_path=glove.txt", "weights.prefixes=step_ends"])
    assert config.optim.loss_scale == "mass" and config.weights.prefixes == "step_ends"
    changed = {
        line.split(":")[0] for line in differences(to_dict(config), to_dict(load_config(experiment, ["paper=false"])))
    }
    named = {f"{block}.{key}" for block, settings in PAPER.items() for key in settings}
    assert changed == named - {"optim.loss_scale"} | {"paper", "schedule.glove_path"}
    with pytest.raises(InputError, match=r"schedule\.glove_path"):
        load_config(experiment, [])


@pytest.mark.parametrize("text", ["optim: [", "seed: 0\noptim:\n  unknown: 1\n", "- 1\n"])
def test_a_broken_experiment_file_is_named(experiment, text):
    experiment.write_text(text)
    with pytest.raises(InputError, match=r"experiment\.yaml"):
        load_config(experiment, [])


def test_a_missing_experiment_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such experiment file"):
        load_config(tmp_path / "none.yaml", [])


def test_a_name_that_is_no_file_is_a_shipped_experiment(tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(tmp_path)
    file = pytestconfig.rootpath / "experiments" / "asdiv_tiny.yaml"
    assert load_config(Path("asdiv_tiny"), []) == load_config(file, [])
    with pytest.raises(InputError, match=r"^asdiv_small: no such experiment file; .* arithmetic, .* asdiv_tiny"):
        load_config(Path("asdiv_small"), [])


def test_differences_name_nested_settings(experiment):
    one, other = (to_dict(load_config(experiment, [f"optim.lr={lr}"])) for lr in (0.5, 0.25))
    assert differences(one, other) == ["optim.lr: 0.5, was 0.25"]
    assert differences(one, one) == []


def test_every_experiment_file_loads(pytestconfig):
    files = sorted((pytestconfig.rootpath / "experiments").glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        load_config(file, [])


BLOCKS = [entry for entry in fields(RunConfig) if is_dataclass(entry.type)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_every_bound_of_a_block_allows_its_default_and_refuses_what_lies_outside(block):
    block.type()
    for setting in fields(block.type):
        if not setting.metadata:
            continue
        refused = "neither" if choices_of(block.type, setting.name) else -1
        with pytest.raises(InputError, match=rf"^{block.name}\.{setting.name}\b.*{refused}"):
            block.type(**{setting.name: refused})


def numbers(block: type, prefix: str = "") -> Iterator[tuple[type, str, str]]:
    """Every field that is a number: its dataclass, its name, its name with dots."""
    for name, kind in get_type_hints(block).items():
        if is_dataclass(kind):
            yield from numbers(kind, f"{prefix}{name}.")
        elif {int, float} & {kind, *get_args(kind)} and get_origin(kind) is not dict:
            yield block, name, f"{prefix}{name}"


def shipped_blocks() -> list[type]:
    """All settings: those of every run, and the blocks of shipped methods, curricula and weightings."""
    parts = [*map(find_method, methods), *map(find_curriculum, curricula), *map(find_weighting, weightings)]
    return [RunConfig, *(part.Settings for part in parts if part.Settings is not None)]


def test_every_number_of_every_block_has_a_bound():
    found = [each for block in shipped_blocks() for each in numbers(block)]
    assert len(found) > 60
    assert [dotted for block, name, dotted in found if bound_of(block, name) is None] == []


@dataclass(frozen=True, kw_only=True)
class OwnSettings:
    """As a method of another package declares them."""

    pairs: int = field(default=2, metadata=at_least(2))
    ratio: float | None = field(default=None, metadata=within("(0, 1]"))
    form: str = field(default="kl", metadata=one_of("kl", "js"))
    lr: float = field(default=1.0, metadata=positive())

    def __post_init__(self) -> None:
        check(self, "own")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 1}, "own.pairs is at least 2, got 1"),
        ({"pairs": None}, "own.pairs is at least 2, got None"),
        ({"ratio": 0.0}, "own.ratio lies in (0, 1] or null, got 0.0"),
        ({"ratio": float("nan")}, "own.ratio lies in (0, 1] or null, got nan"),
        ({"form": "l2"}, "own.form=l2 is none of kl, js"),
        ({"lr": 0.0}, "own.lr is positive, got 0.0"),
    ],
)
def test_a_bound_names_key_value_and_what_is_allowed(settings, message):
    with pytest.raises(InputError) as caught:
        OwnSettings(**settings)
    assert str(caught.value) == message


def test_settings_with_bounds_are_read_by_omegaconf():
    own = OmegaConf.merge(OmegaConf.structured(OwnSettings), {"pairs": 3, "ratio": 1.0})
    assert OmegaConf.to_object(own) == OwnSettings(pairs=3, ratio=1.0)
    assert choices_of(OwnSettings, "form") == ("kl", "js") and choices_of(OwnSettings, "lr") == ()
