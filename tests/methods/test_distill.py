"""Runs that must agree, compared parameter by parameter."""

import copy
import math

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from parity import norm_in_float64, without_dropout

from kpod_lightning.config import OptimConfig
from kpod_lightning.data.batches import global_batches
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import make_example
from kpod_lightning.data.stages import InputSteps, Progress
from kpod_lightning.data.views import IGNORE, collate, view
from kpod_lightning.methods.module import DistillationModule, learning_rate_factor
from kpod_lightning.store.errors import InputError
from kpod_lightning.students.nll import logits_and_targets, weighted_token_nll
from kpod_lightning.students.student import add_lora, load_student


def examples_of(student, rationales):
    return [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]


def datamodule_of(student, rationales, **kwargs):
    settings = {"batch_size": 4, "seed": 1} | kwargs
    return ExampleDataModule(
        examples_of(student, rationales),
        encoder_decoder=student.encoder_decoder,
        pad_token_id=student.pad_token_id,
        eos_token_id=student.tokenizer.eos_token_id,
        **settings,
    )


TOLD = {"reload_dataloaders_every_n_epochs": 1, "use_distributed_sampler": False}
"""What a run tells its trainer. A trainer of a user's own need not be told."""


def fit(
    name,
    rationales,
    *,
    epochs=3,
    accumulate=1,
    dropout=True,
    ckpt_path=None,
    callbacks=(),
    dtype=torch.float64,
    logger=False,
    told=True,
    precision=None,
    **kwargs,
):
    student = load_student(name, dtype=dtype)
    if not dropout:
        without_dropout(student.model)
        norm_in_float64(student.model)
    precision = precision or ("64-true" if dtype == torch.float64 else "32-true")
    optim = OptimConfig(lr=1e-3, epochs=epochs, **({} if precision == "64-true" else {"precision": precision}))
    module = DistillationModule(student, optim, num_steps=3 * epochs, seed=1)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        limit_val_batches=0,
        precision=precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        **(TOLD if told else {}),
    )
    datamodule = datamodule_of(student, rationales, **kwargs)
    trainer.fit(module, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return {name: value.detach().clone() for name, value in module.model.state_dict().items()}


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance)


EXACT = {"rtol": 0, "atol": 0}


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_a_mixed_training_clips_its_gradient_and_ends_near_the_float32_one(name, rationales):
    runs = {
        precision: fit(name, rationales[:4], epochs=1, dropout=False, dtype=torch.float32, precision=precision)
        for precision in ("32-true", "bf16-mixed")
    }
    for parameter, wide in runs["32-true"].items():
        # Adam's first step is lr times the sign of the gradient, which 16 bits can turn where it is near 0.
        assert (wide - runs["bf16-mixed"][parameter]).abs().mean() < 5e-4, parameter


def test_loss_is_the_sum_over_a_hand_computed_table():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]]))
    sums = weighted_token_nll(logits, torch.tensor([[0, 1, IGNORE]]), torch.tensor([[2.0, 0.5, 9.0]]))
    assert sums.weighted.item() == pytest.approx(2 * math.log(2) - 0.5 * math.log(0.8))
    assert sums.mass.item() == 2.5
    assert sums.nats.item() == pytest.approx(math.log(2) - math.log(0.8))


def test_loss_of_bfloat16_logits_is_summed_in_float32():
    logits = torch.zeros(1, 3000, 4, dtype=torch.bfloat16)
    sums = weighted_token_nll(logits, torch.zeros(1, 3000, dtype=torch.long), torch.ones(1, 3000))
    assert sums.weighted.item() == sums.nats.item() == pytest.approx(3000 * math.log(4), rel=1e-6)
    assert sums.mass.item() == 3000


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 3), (1, 1, 1, 1)])
def test_gradient_does_not_depend_on_how_a_batch_is_split(sizes):
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 5, (4, 6))
    targets[0, 2:] = IGNORE
    weights = torch.rand(4, 6, dtype=torch.float64)
    total, mass, *_ = weighted_token_nll(logits, targets, weights)
    (whole,) = torch.autograd.grad(total / mass, logits, retain_graph=True)
    parts = zip(logits.split(sizes), targets.split(sizes), weights.split(sizes), strict=True)
    (split,) = torch.autograd.grad(sum(weighted_token_nll(*part)[0] for part in parts) / mass, logits)
    torch.testing.assert_close(split, whole)


def test_weights_of_one_and_no_input_steps_give_the_hugging_face_loss(student, rationales):
    student = copy.deepcopy(student)
    student.model.eval()
    eos = student.tokenizer.eos_token_id
    examples = examples_of(student, rationales)
    views = [view(e, 0, encoder_decoder=student.encoder_decoder, eos_token_id=eos) for e in examples]
    batch = collate(views, [e.key for e in examples], pad_token_id=student.pad_token_id, divisor=1)
    with torch.no_grad():
        total, mass, *_ = weighted_token_nll(*logits_and_targets(student, batch))
        theirs = student.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert mass == batch.num_targets
    torch.testing.assert_close(total / batch.num_targets, theirs)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_accumulated_micro_batches_equal_one_batch(name, rationales):
    one = fit(name, rationales, dropout=False)
    four = fit(name, rationales, dropout=False, accumulate=4)
    assert_same(one, four, rtol=0, atol=1e-6)  # norms and softmax are float32 inside; a step is 1e-3


class Killed(Exception):
    pass


class Stop(Callback):
    """Ends a training after so many optimiser steps, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("step", "told"), [(3, True), (5, True), (5, False), (2, False)]
)  # at the end of an epoch of three steps, and inside one
def test_a_resumed_training_equals_the_unbroken_one_bit_by_bit(name, workers, step, told, rationales, tmp_path):
    stages = [[2] * len(rationales), [1] * len(rationales), [0] * len(rationales)]
    unbroken = fit(name, rationales, dtype=torch.float32, stages=InputSteps(stages))

    def checkpoint(folder):
        return ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")

    with pytest.raises(Killed):
        fit(
            name,
            rationales,
            dtype=torch.float32,
            callbacks=[checkpoint(tmp_path), Stop(step + 1)],
            num_workers=workers,
            stages=InputSteps(stages),
        )
    resumed = fit(
        name,
        rationales,
        dtype=torch.float32,
        ckpt_path=tmp_path / f"step={step}.ckpt",
        callbacks=[checkpoint(tmp_path)],
        num_workers=workers,
        told=told,
        stages=InputSteps(stages),
    )
    assert_same(resumed, unbroken, **EXACT)


class Seen(Callback):
    def __init__(self) -> None:
        self.batches = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.batches.append((trainer.current_epoch, batch.keys, batch.num_targets))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_sees_its_own_stage_and_its_own_order(workers, told, rationales):
    student = load_student("tiny-llama")
    stages = [[2] * len(rationales), [1] * len(rationales), [0] * len(rationales)]
    seen = Seen()
    fit("tiny-llama", rationales, callbacks=[seen], num_workers=workers, told=told, stages=InputSteps(stages))
    datamodule = datamodule_of(student, rationales, stages=InputSteps(stages))
    expected = []
    for epoch in range(3):
        for positions, _, stage, *_ in datamodule.micro_batches(Progress(epoch=epoch)):
            assert stage == epoch
            keys = tuple(datamodule.examples[i].key for i in positions)
            asked = [sum(s >= stages[epoch][i] for s in datamodule.examples[i].step_of) for i in positions]
            expected.append((epoch, keys, sum(asked)))
    assert seen.batches == expected
    assert len({keys for _, keys, _ in expected}) == len(expected)  # no two epochs in one order


class Written(Logger):
    """Remembers what it was given, and what of it stood when each checkpoint was written."""

    name, version = "written", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.at_checkpoints = [], []

    def log_hyperparams(self, *args, **kwargs) -> None:
        pass

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append((step, set(metrics)))

    def after_save_checkpoint(self, checkpoint_callback) -> None:
        self.at_checkpoints.append(list(self.rows))


def test_the_row_of_an_epoch_is_written_before_its_checkpoint(rationales, tmp_path):
    logger = Written()
    fit("tiny-llama", rationales, callbacks=[ModelCheckpoint(dirpath=tmp_path)], logger=logger)
    assert len(logger.at_checkpoints) == 3
    for epoch, rows in enumerate(logger.at_checkpoints):
        steps = [step for step, names in rows if "train/nats_per_token" in names]
        assert steps == [3 * e + 2 for e in range(epoch + 1)]


class Aligned(Callback):
    """Finds for every batch the weights that belong to its targets, by key and position in the rationale."""

    def __init__(self, examples, weights) -> None:
        self.known = {example.key: (example, row) for example, row in zip(examples, weights, strict=True)}
        self.num_batches = 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.num_batches += 1
        order = [example.key for example in trainer.datamodule.examples]
        lengths = list(batch.lengths.targets)  # both shipped students are packed
        rows = (batch.labels[0].split(lengths), batch.weights[0].split(lengths))
        for key, labels, weights in zip(batch.keys, *rows, strict=True):
            example, row = self.known[key]
            c = trainer.datamodule.stages.input_steps(batch.stage)[order.index(key)]
            asked = [j for j, step in enumerate(example.step_of) if step >= c]
            assert labels[labels != IGNORE].tolist() == [example.target_ids[j] for j in asked]
            expected = [row[j] for j in asked]
            assert weights[labels != IGNORE].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
@pytest.mark.parametrize("workers", [0, 2])
def test_weights_belong_to_their_targets_at_every_stage_shuffled_and_resumed(name, workers, rationales, tmp_path):
    examples = examples_of(load_student(name), rationales)
    weights = [[0.5 + i / 100 + j / 10_000 for j in range(len(e.target_ids))] for i, e in enumerate(examples)]
    stages = [[min(c + i % 2, e.num_steps) for i, e in enumerate(examples)] for c in (4, 3, 2, 1)]
    stages.append([0] * len(examples))
    settings = {"stages": InputSteps(stages), "token_weights": weights, "num_workers": workers, "epochs": 5}
    aligned = Aligned(examples, weights)
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    with pytest.raises(Killed):
        fit(name, rationales, callbacks=[aligned, keep, Stop(5)], **settings)
    fit(name, rationales, callbacks=[aligned, keep], ckpt_path=tmp_path / "step=4.ckpt", **settings)
    assert aligned.num_batches == 5 + 11


@pytest.mark.parametrize(("num_examples", "batch_size"), [(12, 4), (13, 4), (3, 4), (7473, 4)])
def test_an_epoch_holds_every_example_once_in_batches_of_even_size(num_examples, batch_size):
    batches = global_batches(num_examples, batch_size, seed=0, epoch=1)
    assert sorted(i for batch in batches for i in batch) == list(range(num_examples))
    assert max(map(len, batches)) <= batch_size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_batches_of_like_length_hold_every_example_once_and_pad_less():
    lengths = np.random.default_rng(0).integers(50, 300, size=1000)
    mixed = global_batches(1000, 16, seed=0, epoch=1)
    grouped = global_batches(1000, 16, seed=0, epoch=1, lengths=lengths)
    assert sorted(np.concatenate(grouped)) == list(range(1000))
    assert sorted(map(len, grouped)) == sorted(map(len, mixed))

    def padded(batches):
        return sum(len(batch) * max(lengths[batch]) for batch in batches)

    assert sum(lengths) <= padded(grouped) < 1.1 * sum(lengths) < padded(mixed)
    first, again, other = (global_batches(1000, 16, 0, epoch, lengths) for epoch in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True) if len(a) == len(b))


def test_ranks_together_train_on_what_one_rank_does(rationales):
    student = load_student("tiny-llama")
    datamodule = datamodule_of(student, rationales)
    first = Progress(epoch=0)
    shares = [datamodule.micro_batches(first, accumulate=2, rank=rank, world_size=2) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    together = sorted(i for share in shares for positions, *_ in share for i in positions)
    assert together == list(range(len(rationales)))
    for (mine, total, *_), (theirs, other, *_) in zip(*shares, strict=True):
        assert total == other and not set(mine) & set(theirs)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_every_micro_batch_is_divided_by_the_scale_of_its_global_batch(name, rationales):
    student = load_student(name)
    examples = examples_of(student, rationales)
    weights = [[0.25] * e.num_rationale_tokens + [1.0] * (len(e.target_ids) - e.num_rationale_tokens) for e in examples]
    stage = [[1] * len(examples)]
    found = {}
    for scale in ("tokens", "mass", "sum"):
        datamodule = datamodule_of(
            student, rationales, loss_scale=scale, token_weights=weights, stages=InputSteps(stage)
        )
        micro = datamodule.micro_batches(Progress(epoch=0), accumulate=2)
        for (left, whole, *_), (right, other, *_) in zip(micro[::2], micro[1::2], strict=True):
            asked = [(i, j) for i in (*left, *right) for j, step in enumerate(examples[i].step_of) if step >= 1]
            mass = sum(weights[i][j] for i, j in asked)
            assert whole == other
            assert whole.divisor == pytest.approx({"tokens": len(asked), "mass": mass, "sum": 1.0}[scale])
            found[scale] = whole.divisor
    assert found["sum"] < found["mass"] < found["tokens"]


def test_a_batch_that_cannot_be_cut_is_refused(rationales):
    student = load_student("tiny-llama")
    datamodule = datamodule_of(student, rationales[:3])
    with pytest.raises(InputError, match="cannot be cut into 4"):
        datamodule.micro_batches(Progress(epoch=0), accumulate=4)


def test_no_example_at_all_is_refused():
    student = load_student("tiny-llama")
    with pytest.raises(InputError, match="no training example"):
        datamodule_of(student, [])


def test_a_loss_that_is_not_finite_stops_and_names_the_examples(rationales):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            next(module.model.parameters()).data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="arithmetic-train"):
        fit("tiny-llama", rationales, callbacks=[Poison()])


def test_merged_lora_equals_the_adapter(student, rationales):
    lora = add_lora(load_student(student.name, dtype=torch.float64), rank=4, alpha=None, seed=0)
    torch.manual_seed(0)
    for name, parameter in lora.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    eos = lora.tokenizer.eos_token_id
    examples = examples_of(lora, rationales)
    views = [view(e, 0, encoder_decoder=lora.encoder_decoder, eos_token_id=eos) for e in examples]
    batch = collate(views, [e.key for e in examples], pad_token_id=lora.pad_token_id, divisor=1)
    lora.model.eval()
    with torch.no_grad():
        adapter = logits_and_targets(lora, batch)[0]
        lora.model = lora.model.merge_and_unload()
        merged = logits_and_targets(lora, batch)[0]
        plain = logits_and_targets(load_student(student.name, dtype=torch.float64), batch)[0]
    torch.testing.assert_close(merged, adapter, rtol=1e-9, atol=1e-9)
    assert (merged - plain).abs().max() > 1e-3  # the adapter did something


def test_the_rate_rises_then_falls_to_zero():
    factors = [learning_rate_factor(step, 100, 10, "cosine") for step in range(101)]
    assert factors[:10] == sorted(factors[:10]) and factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[100] == pytest.approx(0)
    assert learning_rate_factor(55, 100, 10, "linear") == pytest.approx(0.5)
    assert learning_rate_factor(55, 100, 10, "constant") == 1.0
