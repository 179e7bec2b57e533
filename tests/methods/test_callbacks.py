"""Which epoch's student is kept, and when a training stops; validation accuracies are given, not measured."""

import lightning as L
import pytest

from kpod_lightning import OptimConfig
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.stages import InputSteps
from kpod_lightning.distributed.checkpoints import KeptCheckpoint
from kpod_lightning.methods.callbacks import RANK, StopEarly, ValidateLastEpoch
from kpod_lightning.methods.module import DistillationModule
from kpod_lightning.methods.training import best_student
from kpod_lightning.students.student import load_student


class Given(DistillationModule):
    """Validates by a list: the accuracy after each epoch."""

    def __init__(self, student, accuracies):
        super().__init__(student, OptimConfig(lr=1e-4), method="plain", num_steps=10)
        self.accuracies, self.validated = accuracies, []

    def validation_step(self, batch, batch_idx):
        found = self.accuracies[self.current_epoch]
        self.validated.append(self.current_epoch)
        self.log("validation/accuracy", found, logger=False, batch_size=1)
        self.log(RANK, found + self.has_seen_whole, logger=False, batch_size=1)


def fit(tmp_path, accuracies, *, every=1, patience=None, stages=((1,), (1,), (0,)), resume=None, epochs=None):
    student = load_student("tiny-llama")
    problem = Problem(id="p", question="What is 1 + 2?", answer="3", kind="number", split="train")
    rationale = Rationale(problem=problem, text="1 + 2 = 3. It is 3.", steps=((0, 11), (11, 19)))
    datamodule = ExampleDataModule(
        [make_example(rationale, student.tokenizer, encoder_decoder=False)],
        encoder_decoder=False,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=1,
        stages=InputSteps(stages),
        validation=[problem],
    )
    best = best_student(tmp_path)
    last = KeptCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks = [ValidateLastEpoch(every), best, last]
    if patience is not None:
        callbacks.append(
            StopEarly("validation/accuracy", mode="max", patience=patience, check_on_train_epoch_end=False)
        )
    module = Given(student, accuracies)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs or len(accuracies),
        check_val_every_n_epoch=every,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True if resume else None)
    return best, module.validated


@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.9, 0.8, 0.1, 0.2, 0.1], 3),  # the first two have seen parts of rationales only
        ([0.9, 0.8, 0.3, 0.3, 0.2], 3),  # of equal ones the later
        ([1.0, 1.0, 0.0, 0.0], 3),
        ([0.1, 0.2], 1),
    ],
)
def test_the_best_student_has_seen_whole_rationales_and_of_equal_ones_is_the_later(tmp_path, accuracies, kept):
    best, _ = fit(tmp_path, accuracies)
    assert best.best_model_path.endswith(f"best-{kept}.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"best-{kept}.ckpt", "last.ckpt"]


@pytest.mark.parametrize(("every", "validated"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (5, [4])])
def test_the_last_epoch_is_always_validated(tmp_path, every, validated):
    assert fit(tmp_path, [0.1] * 5, every=every)[1] == validated


def test_patience_counts_from_the_stage_that_teaches_whole_rationales(tmp_path):
    falling = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert fit(tmp_path / "staged", falling, patience=2)[1] == [0, 1, 2, 3, 4]
    assert fit(tmp_path / "whole", falling, patience=2, stages=((0,),))[1] == [0, 1, 2]


def test_a_training_that_was_moved_still_knows_its_best_epoch(tmp_path):
    accuracies = [0.1, 0.2, 0.9, 0.3, 0.4]
    fit(tmp_path / "old", accuracies, epochs=4)
    (tmp_path / "old").rename(tmp_path / "new")
    best, validated = fit(tmp_path / "new", accuracies, resume=tmp_path / "new" / "last.ckpt")
    assert validated == [4]
    assert best.best_model_path == str(tmp_path / "new" / "best-2.ckpt")
    assert (tmp_path / "new" / "best-2.ckpt").is_file() and not (tmp_path / "old").exists()
