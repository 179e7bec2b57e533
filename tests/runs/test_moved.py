"""A run folder may be moved or copied: it uses what lies in it, and nothing of where it came from."""

import shutil

from kpod_lightning.__main__ import main

EXPERIMENT = "experiments/arithmetic.yaml"
SMALL = [
    "method=plain",
    "data.num_train=16",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=2",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]


def test_a_copied_run_makes_its_student_from_its_own_checkpoint_and_the_original_stays(tmp_path, capsys):
    original, copied = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert main(["run", EXPERIMENT, "--run", str(original), *SMALL]) == 0
    weights = (original / "student" / "model.safetensors").read_bytes()
    shutil.copytree(original, copied)
    (best,) = (original / "checkpoints").glob("best-*.ckpt")
    best.write_bytes(b"another training's")  # what a path of the original leads to
    shutil.rmtree(copied / "student")
    assert main(["run", EXPERIMENT, "--run", str(copied), *SMALL]) == 0
    assert (copied / "student" / "model.safetensors").read_bytes() == weights
    assert best.read_bytes() == b"another training's"
    shutil.rmtree(copied / "student")
    (copied / "checkpoints" / best.name).unlink()
    capsys.readouterr()
    assert main(["run", EXPERIMENT, "--run", str(copied), *SMALL]) == 2
    error = capsys.readouterr().err
    assert best.name in error and str(copied) in error and error.count("\n") == 1
