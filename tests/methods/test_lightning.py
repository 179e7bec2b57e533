"""The package's modules as a Lightning user uses them: a Trainer of one's own, and nothing that it must be told."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from kpod_lightning import DataConfig, KPODModule, OptimConfig, RationaleDataModule, StudentConfig
from kpod_lightning.__main__ import main
from kpod_lightning.methods.module import DistillationModule
from kpod_lightning.runs.folder import load_run
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.student import Student

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
    loaded = KPODModule.load_from_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    assert loaded.optim == module.optim and loaded.seed == 3 and isinstance(loaded.student, Student)
    for name, value in module.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def test_a_method_that_makes_artefacts_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(InputError, match=r"weights.safetensors, difficulties.jsonl, schedule.npz .* run=FOLDER"):
        datamodule(tmp_path, method="kpod").prepare_data()


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
    last = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, last[name], msg=name)


def test_weight_network_gives_back_the_tables_logits(finished):
    data = RationaleDataModule(run=str(finished), batch_size=8)
    data.setup("fit")
    network = data.method.weighting.network(data.context)
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
