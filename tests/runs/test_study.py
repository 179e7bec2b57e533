"""Study files: which runs they come to, and what is wrong with one, in a line."""

from pathlib import Path

import pytest
import yaml

from kpod_lightning.methods.base import load_experiment
from kpod_lightning.runs.study import load_study
from kpod_lightning.store.errors import InputError

FILE = {
    "experiment": "../arithmetic.yaml",
    "seeds": [0, 1],
    "settings": ["optim.epochs=3", "schedule.num_stages=1"],
    "arms": {"plain": ["method=plain"], "kpod": ["method=kpod", "optim.epochs=4"]},
    "family": [["plain", "kpod"]],
}


def studied(folder: Path, settings: list[str] | None = None, **changed):
    """The study of ``FILE`` with some keys changed; None leaves one out."""
    path = folder / "experiments" / "studies" / "mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent.parent / "arithmetic.yaml").write_text("seed: 7\n")
    written = {key: value for key, value in (FILE | changed).items() if value is not None}
    path.write_text(yaml.safe_dump(written, sort_keys=False))
    return load_study(path, settings or [], folder / "runs")


def test_runs_are_every_arm_with_every_seed_seed_by_seed(tmp_path):
    study = studied(tmp_path)
    assert [run.folder.name for run in study.runs] == ["plain-s0", "kpod-s0", "plain-s1", "kpod-s1"]
    assert study.family == (("plain", "kpod"),) and study.name == "mine"


def test_later_settings_win_arm_over_study_and_command_line_over_arm(tmp_path):
    def epochs(*settings: str) -> list[int]:
        runs = studied(tmp_path, list(settings), seeds=[5]).runs
        configs = [load_experiment(run.arm.experiment, run.words[4:]) for run in runs]
        assert {config.seed for config in configs} == {5}
        return [config.optim.epochs for config in configs]

    assert epochs() == [3, 4]
    assert epochs("optim.epochs=2") == [2, 2]


def test_a_grid_gives_every_arm_every_combination_and_compares_within_each(tmp_path):
    study = studied(tmp_path, seeds=[0], grid={"student.name": ["tiny-llama", "tiny-t5"], "optim.lr": [0.001, 0.01]})
    names = [arm.name for arm in study.arms]
    assert len(names) == 8 and names[:2] == ["plain-tiny-llama-lr=0.001", "kpod-tiny-llama-lr=0.001"]
    assert study.family[3] == ("plain-tiny-t5-lr=0.01", "kpod-tiny-t5-lr=0.01") and len(study.family) == 4
    config = load_experiment(study.arms[-1].experiment, [*study.arms[-1].settings])
    assert (config.student.name, config.optim.lr) == ("tiny-t5", 0.01)


def test_a_grid_may_have_several_experiments(tmp_path):
    study = studied(tmp_path, experiment=None, grid={"experiment": ["../arithmetic.yaml"]})
    assert [arm.name for arm in study.arms] == ["plain-arithmetic", "kpod-arithmetic"]
    assert study.arms[0].experiment == tmp_path / "experiments" / "arithmetic.yaml"


def test_a_grid_may_name_settings_that_go_together(tmp_path):
    own = {"short": ["experiment=../arithmetic.yaml", "optim.epochs=3"], "long": ["optim.epochs=9"]}
    study = studied(tmp_path, settings=[], arms={"plain": ["method=plain"]}, family=[], grid={"length": own})
    assert [arm.name for arm in study.arms] == ["plain-short", "plain-long"]
    epochs = [load_experiment(arm.experiment, [*arm.settings]).optim.epochs for arm in study.arms]
    assert epochs == [3, 9]


@pytest.mark.parametrize("path", sorted(Path("experiments/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_can_be_read(path):
    study = load_study(path, [])
    assert study.runs and study.about


def test_a_shipped_study_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study(Path("quick"), [])
    assert study.folder == Path("runs/quick") and study.arms[0].experiment.is_file()
    with pytest.raises(InputError, match=r"quikc: no such study; .*quick"):
        load_study(Path("quikc"), [])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"arms": None}, "arms are missing"),
        ({"experiment": None}, "experiment is missing"),
        ({"seeds": [0, 0]}, "seeds are a list of different numbers"),
        ({"seeds": []}, "seeds are a list of different numbers"),
        ({"seeds": [-1]}, "is not from 0 to"),
        ({"seeds": "0"}, "seeds is a list"),
        ({"famly": []}, "famly: there is no such setting; did you mean family?"),
        ({"arms": {"a/b": []}}, "a name has letters"),
        ({"arms": {"plain": ["method=plian"]}, "family": []}, "arm plain: method=plian is none of"),
        ({"arms": {"plain": ["optim.epochs=0"]}, "family": []}, "arm plain: optim.epochs"),
        ({"family": [["plain", "kpdo"]]}, "kpdo is none of the arms plain, kpod"),
        ({"family": [["plain"]]}, "a pair of two arms"),
        ({"published": {"kpdo": "kpod"}}, "published: kpdo is none of the arms plain, kpod"),
        ({"published": {"kpod": "kpdo"}}, "published: kpdo is none of the paper's rows none, scotd"),
        ({"family": {"method": ["plain", "kpod"]}}, "a list of pairs of arms"),
        ({"family": [["plain", "kpod"], ["kpod", "plain"]]}, "are compared twice"),
        ({"grid": {"optim.lr": []}}, "needs a value"),
        ({"grid": {"optim.lr": 3}}, "grid.optim.lr is a list of values, or a mapping"),
        ({"grid": {"cell": {"a/b": []}}}, "grid.cell.a/b: a name has letters"),
        ({"grid": {"cell": {"a": ["optim.epochs=0"]}}}, "arm plain-a: optim.epochs"),
        ({"grid": {"student.name": ["a/b", "a-b"]}}, "two combinations are named a-b"),
        (
            {"arms": {"a": [], "a-b": []}, "grid": {"student.name": ["b-b", "b"]}, "family": []},
            "two arms are named a-b-b",
        ),
    ],
)
def test_what_is_wrong_with_a_study_file_is_one_line_with_its_place(tmp_path, changed, words):
    with pytest.raises(InputError) as error:
        studied(tmp_path, **changed)
    assert words in str(error.value) and "mine.yaml" in str(error.value)
