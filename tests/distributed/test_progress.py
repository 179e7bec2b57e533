"""What a log without a terminal says of a run that takes long: a line a minute, with how long the rest will take."""

import lightning as L
import pytest
import torch

from kpod_lightning.distributed import progress
from kpod_lightning.distributed.bars import Bar, MinuteLines
from kpod_lightning.distributed.progress import Pace, duration, shown


class Clock:
    """A clock whose hand the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_a_minute_says_what_is_done_and_what_is_left(clock, capsys):
    for _ in shown(range(10), "reading", 10):
        clock.now += 30
    # After 2, 4, 6 and 8 of 10 rows; each takes half a minute.
    assert capsys.readouterr().out.splitlines() == [
        "reading: 2 of 10, 20% done, about 4 min left",
        "reading: 4 of 10, 40% done, about 3 min left",
        "reading: 6 of 10, 60% done, about 2 min left",
        "reading: 8 of 10, 80% done, about 1 min left",
    ]


def test_what_takes_less_than_a_minute_says_nothing(clock, capsys):
    for _ in shown(range(10), "reading", 10):
        clock.now += 5.9
    assert capsys.readouterr().out == ""


def test_other_ranks_say_nothing(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "is_first", lambda: False)
    for _ in shown(range(10), "reading", 10):
        clock.now += 30
    assert capsys.readouterr().out == ""


def test_what_was_done_before_a_start_does_not_shorten_the_rest(clock, capsys):
    pace = Pace("training", share=0.5)
    clock.now += 60
    pace.at(0.5, "here")  # nothing is known of the speed yet
    clock.now += 60
    pace.at(0.75, "there")
    assert capsys.readouterr().out.splitlines() == [
        "training: here, 50% done",
        "training: there, 75% done, about 2 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3570, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_are_in_the_unit_that_fits(seconds, shown):
    assert duration(seconds) == shown


class Slow(L.LightningModule):
    """One parameter; every batch takes 20 s of the clock."""

    def __init__(self, clock) -> None:
        super().__init__()
        self.layer, self.clock = torch.nn.Linear(1, 1), clock

    def training_step(self, batch, batch_idx):
        self.clock.now += 20
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.clock.now += 20

    def predict_step(self, batch, batch_idx):
        self.clock.now += 20
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer_with(callback):
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=isinstance(callback, Bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_training_says_its_epoch_from_1_and_the_time_that_is_left_also_while_it_validates(clock, capsys):
    loader = torch.utils.data.DataLoader(torch.ones(4, 1))
    trainer = trainer_with(MinuteLines("training"))
    trainer.fit(Slow(clock), loader, torch.utils.data.DataLoader(torch.ones(2, 1)))
    # An epoch has 4 batches of training and 2 of validation, 20 s each.
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("training")] == [
        "training: epoch 1 of 2, batch 3 of 4, 38% done, about 2 min left",
        "training: epoch 1 of 2, batch 2 of 2 of the validation, 50% done, about 2 min left",
        "training: epoch 2 of 2, batch 3 of 4, 88% done, about 26 s left",
        "training: epoch 2 of 2, batch 2 of 2 of the validation, 100% done, about 0 s left",
    ]
    trainer.callbacks[0].what = "predicting"
    trainer.predict(Slow(clock), loader)
    assert "predicting: batch 3 of 4, 75% done, about 20 s left" in capsys.readouterr().out


def test_the_bar_counts_epochs_from_1():
    bar = Bar()
    trainer_with(bar)
    bar.setup(trainer := trainer_with(bar), Slow(None), "fit")
    assert bar.trainer is trainer
    assert [bar._get_train_description(epoch).strip() for epoch in (0, 1)] == ["Epoch 1/2", "Epoch 2/2"]
