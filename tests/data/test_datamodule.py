"""The data module where epochs differ in length: as many steps as there are, and no trainer that stops too early."""

from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch

from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.store.errors import InputError


class FirstFew(Stages):
    """The first epoch takes the first so many examples, the others take all."""

    def __init__(self, num_examples: int, num_first: int) -> None:
        super().__init__(num_examples)
        self.num_first = num_first

    def stage_of(self, progress: Progress) -> int:
        return min(progress.epoch, 1)

    def taken(self, stage: int) -> np.ndarray | None:
        return np.arange(self.num_first) if stage == 0 else None


class Counts(L.LightningModule):
    """Learns nothing and counts the examples of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        self.seen[self.current_epoch] = self.seen.get(self.current_epoch, 0) + len(batch.keys)
        return self.weight * 0.0

    def validation_step(self, batch, batch_idx):
        """Is not called: the data module has a loader for validation, and Lightning wants the step."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def datamodule(student, rationales):
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]

    def of(num_first: int) -> ExampleDataModule:
        return ExampleDataModule(
            examples,
            stages=FirstFew(len(examples), num_first),
            encoder_decoder=student.encoder_decoder,
            pad_token_id=student.pad_token_id,
            eos_token_id=student.tokenizer.eos_token_id,
            batch_size=4,
        )

    return of


def trainer(**settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checks = {"enable_checkpointing": False, "log_every_n_steps": 1, "limit_val_batches": 0}
    return L.Trainer(accelerator="cpu", devices=1, max_epochs=3, **quiet, **checks, **settings)


@pytest.mark.parametrize("num_first", [4, 6, 12])
def test_optimiser_steps_are_those_of_every_epoch(datamodule, num_first):
    module, examples = Counts(), datamodule(num_first)
    fitted = trainer(reload_dataloaders_every_n_epochs=1)
    fitted.fit(module, datamodule=examples)
    assert module.seen == {0: num_first, 1: 12, 2: 12}
    assert fitted.global_step == examples.num_optimizer_steps(3)


def test_a_trainer_that_keeps_a_loader_of_another_length_is_refused(datamodule):
    with pytest.raises(InputError, match=r"gives 3 micro-batches .* 1 when .*reload_dataloaders_every_n_epochs=1"):
        trainer().fit(Counts(), datamodule=datamodule(4))


def test_a_trainer_that_keeps_a_loader_of_the_same_length_is_not_refused(datamodule):
    module = Counts()
    trainer().fit(module, datamodule=datamodule(12))
    assert module.seen == {0: 12, 1: 12, 2: 12}


def test_a_stage_without_examples_is_refused(datamodule):
    with pytest.raises(InputError, match=r"epoch 1, stage 0: .* none of 12 examples"):
        datamodule(0).micro_batches(Progress(epoch=0))


def test_examples_that_go_together_are_trained_on_where_the_stage_takes_all_of_them(datamodule):
    data = datamodule(5)
    data.draw = lambda num_examples, epoch: [(i, i + 1) for i in range(0, num_examples, 2)]

    def seen(epoch: int) -> list[int]:
        return sorted(i for batch in data.micro_batches(Progress(epoch=epoch)) for i in batch.positions)

    assert seen(0) == [0, 1, 2, 3]  # of the first five examples the fifth has its partner outside
    assert seen(1) == list(range(len(data.examples)))


@pytest.mark.parametrize(("accumulate", "world_size"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_loss_of_a_global_batch_is_the_means_of_its_kinds_however_it_is_cut(
    student, rationales, accumulate, world_size
):
    family = {"encoder_decoder": student.encoder_decoder}
    whole = [make_example(r, student.tokenizer, **family) for r in rationales]
    examples = [replace(example, kind=kind) for example in whole for kind in (0, 1)]
    datamodule = ExampleDataModule(
        examples,
        token_weights=[np.arange(len(e.target_ids)) % 2 + e.kind for e in examples],
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        batch_size=8,
        **family,
    )
    parts = [
        datamodule.micro_batches(Progress(epoch=0), accumulate=accumulate, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    found = sums = masses = 0.0
    for i in range(accumulate):
        for part in parts:
            batch = datamodule.dataset[part[i]]
            losses = batch.targets.float()  # any numbers that differ
            weighted = batch.target_weights * losses
            found += (batch.means_of_kinds({0: 0.25, 1: 0.75}) * weighted).sum().item() / batch.divisor
            second = torch.tensor(batch.kinds)[batch.example_of] == 1
            sums += np.array([weighted[~second].sum().item(), weighted[second].sum().item()])
            masses += np.array([batch.target_weights[~second].sum().item(), batch.target_weights[second].sum().item()])
    assert found == pytest.approx(0.25 * sums[0] / masses[0] + 0.75 * sums[1] / masses[1], rel=1e-5)
