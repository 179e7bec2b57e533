"""The package's modules as a Lightning user uses them: a Trainer of one's own, and nothing that it must be told."""

import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from kpod_lightning import DataConfig, KPODModule, OptimConfig, RationaleDataModule, StudentConfig
from kpod_lightning.__main__ import main
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.methods.module import DistillationModule
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student, load_student

ROOT = Path(__file__).resolve().parents[2]
DATA = DataConfig(num_train=24, num_validation=4, num_test=4)
QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
}
SMALL = [
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=4",
    "optim.epochs=3",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
    "weights.num_train=null",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=8",
    "weights.if_not_found=uniform",
]


class Stages(Callback):
    def __init__(self) -> None:
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.seen.append((trainer.current_epoch, batch.stage))


def datamodule(tmp_path, **settings):
    return RationaleDataModule(DATA, batch_size=8, cache=str(tmp_path / "cache"), **settings)


def test_a_trainer_of_a_users_own_distils_by_settings_alone(tmp_path):
    trainer = L.Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    module = DistillationModule(StudentConfig(), OptimConfig(lr=1e-3), method="plain")
    trainer.fit(module, datamodule=datamodule(tmp_path))
    assert trainer.global_step == 6
    assert 0 <= trainer.callback_metrics["validation/accuracy"] <= 1


def test_prepared_data_are_read_again_and_not_made_again(tmp_path, monkeypatch):
    datamodule(tmp_path).prepare_data()
    monkeypatch.setattr("kpod_lightning.methods.context.tokenise", None)  # who tokenised again would fail
    monkeypatch.setattr("kpod_lightning.data.selection.select_rationales", None)
    again = datamodule(tmp_path)
    again.prepare_data()
    again.setup("fit")
    assert len(again.examples) == 24


def test_a_checkpoint_builds_the_same_module_again(tmp_path):
    keep = ModelCheckpoint(dirpath=tmp_path, filename="end")
    module = KPODModule(StudentConfig(), OptimConfig(lr=1e-3), method="plain", seed=3)
    L.Trainer(max_epochs=1, limit_val_batches=0, callbacks=[keep], **QUIET).fit(module, datamodule=datamodule(tmp_path))
    loaded = KPODModule.load_from_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    assert loaded.optim == module.optim and loaded.seed == 3 and isinstance(loaded.student, Student)
    for name, value in module.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def test_a_method_that_makes_artefacts_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(InputError, match=r"weights.safetensors, difficulties.jsonl, schedule.npz .* run=FOLDER"):
        datamodule(tmp_path, method="kpod").prepare_data()


def test_a_module_of_another_method_than_its_data_is_refused(tmp_path):
    trainer = L.Trainer(max_epochs=1, enable_checkpointing=False, **QUIET)
    with pytest.raises(InputError, match="method=plain and the module method=answers_only"):
        trainer.fit(DistillationModule(StudentConfig(), method="answers_only"), datamodule=datamodule(tmp_path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "kpod"
    assert main(["run", "experiments/arithmetic.yaml", "--run", str(folder), *SMALL]) == 0
    return folder


def test_kpod_from_a_run_folder_follows_its_schedule_and_trains_the_same_student(finished, tmp_path):
    config = load_run(finished).config
    data = RationaleDataModule(run=str(finished), batch_size=8, group_by_length=config.optim.group_by_length)
    data.setup("fit")
    module = KPODModule(data.context.student, config.optim, method=data.method)
    stages = Stages()
    trainer = L.Trainer(
        max_epochs=3,
        limit_val_batches=0,
        gradient_clip_val=config.optim.clip_norm,
        enable_checkpointing=False,
        callbacks=[stages],
        **QUIET,
    )
    trainer.fit(module, datamodule=data)
    assert sorted(set(stages.seen)) == [(0, 0), (1, 1), (2, 2)]
    assert module.weight_network is not None and not any(p.requires_grad for p in module.weight_network.parameters())
    assert module.stages is data.stages
    last = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, last[name], msg=name)


def test_weight_network_is_the_learned_one_on_the_student_before_distillation(finished):
    data = RationaleDataModule(run=str(finished), batch_size=8)
    data.setup("fit")
    before = WeightNetwork(load_student("tiny-llama")).state_dict()
    with torch.no_grad():
        for parameter in data.context.student.model.parameters():
            parameter.add_(1.0)  # as if it had learned since
    network = data.method.weighting.network(data.context)
    frozen = {name for name in before if name not in data.method.weighting.loaded(finished).network}
    assert frozen
    for name in frozen:
        assert torch.equal(network.state_dict()[name], before[name]), name
    table = data.method.weighting.loaded(finished)
    learned = network.learned() | {n: p.detach().numpy() for n, p in network.named_parameters() if n in table.network}
    for name, values in table.network.items():
        assert (learned[name] == values).all(), name


@pytest.mark.filterwarnings("ignore:.*tensorboardX")
def test_lightnings_command_line_builds_both_from_settings(tmp_path, monkeypatch):
    from lightning.pytorch.cli import LightningCLI

    words = [
        "--data.batch_size=8",
        "--data.data.num_train=24",
        "--data.student.name=tiny-llama",
        f"--data.cache={tmp_path / 'cache'}",
        "--model.method=plain",
        "--model.optim.lr=1e-3",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
    ]
    # Lightning 2.6 builds its parser as jsonargparse before 4.49 wanted.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setattr("sys.argv", ["train.py"])
    cli = LightningCLI(
        KPODModule, RationaleDataModule, args=words, run=False, save_config_callback=None, seed_everything_default=0
    )
    assert cli.model.optim.lr == 1e-3 and cli.model.settings == StudentConfig()
    assert cli.datamodule.config.data.num_train == 24


TWO_RANKS = """
import sys

import lightning as L
from parity import without_dropout

from kpod_lightning import DataConfig, DistillationModule, OptimConfig, RationaleDataModule
from kpod_lightning.students.student import load_student

devices, cache = int(sys.argv[1]), sys.argv[2]
student = load_student("tiny-llama")
without_dropout(student.model)
data = RationaleDataModule(DataConfig(num_train=32, num_validation=4), batch_size=8, cache=cache)
module = DistillationModule(student, OptimConfig(lr=1e-3), method="plain")
trainer = L.Trainer(
    max_epochs=2,
    accelerator="cpu",
    devices=devices,
    strategy="ddp" if devices > 1 else "auto",
    logger=False,
    enable_progress_bar=False,
    enable_checkpointing=False,
)
trainer.fit(module, datamodule=data)
print("RESULT", trainer.global_step, float(sum(p.double().abs().sum() for p in module.parameters())))
"""


def test_two_ranks_of_a_trainer_of_a_users_own_train_as_one_does(tmp_path):
    (tmp_path / "train.py").write_text(TWO_RANKS)
    results = {}
    for devices in (1, 2):
        command = [sys.executable, "train.py", str(devices), str(tmp_path / f"cache-{devices}")]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300)
        assert ran.returncode == 0, ran.stderr
        results[devices] = {tuple(line.split()[1:]) for line in ran.stdout.splitlines() if line.startswith("RESULT")}
    ((steps, one),) = results[1]
    ((steps_of_two, two),) = results[2]  # both ranks print the same
    assert steps == steps_of_two == "8"
    assert float(two) == pytest.approx(float(one), rel=1e-6)
