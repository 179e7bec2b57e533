"""Learns the token weights of a train set and judges them on held-out rationales."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from rich.progress import track
from torch.utils.data import Subset

from kpod_lightning.config import RunConfig
from kpod_lightning.data.batches import batches_of_like_length
from kpod_lightning.data.examples import Example
from kpod_lightning.distributed.checkpoints import newest_checkpoint
from kpod_lightning.distributed.predictions import predicted
from kpod_lightning.distributed.preemption import stopping_callback
from kpod_lightning.distributed.ranks import first_rank, is_first
from kpod_lightning.distributed.trainer import trainer_of, without_harmless_warnings
from kpod_lightning.keypoints.batches import KeypointDataModule, own_answer, retokenised_answer
from kpod_lightning.keypoints.module import KeypointModule, ProjectedEmbedding
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.sufficiency import sufficiency
from kpod_lightning.keypoints.table import WeightTable, permuted, rescaled, text_hash
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Keys
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.students.student import Student, add_lora, load_student


def answer_model_of(config: RunConfig) -> Student:
    """θ_w of Eq. (5): the student's checkpoint once more, or another model.

    Raises:
        InputError: it cannot be loaded.
    """
    name = config.weights.answer_model or config.student.name
    try:
        model = load_student(name)
    except InputError as error:
        raise InputError(f"weights.answer_model: {error}") from error
    if config.weights.lora_rank is not None:
        model = add_lora(model, config.weights.lora_rank, None, config.seed)
    return model


def learn_weights(
    config: RunConfig, student: Student, examples: Sequence[Example], texts: Sequence[str], checkpoints: Path
) -> WeightTable:
    """Train the weight network (Eqs. 2-7), weigh every rationale, and judge the weights on held-out ones.

    Args:
        student: gives features and, as a second copy, the answer model; it is not changed.
        examples: the train set's; ``texts`` are their rationales.
        checkpoints: folder in which an interrupted training goes on.

    Raises:
        InputError: too few rationales.
    """
    settings = config.weights
    order = np.random.default_rng([config.seed, 0]).permutation(len(examples)).tolist()
    num_held_out = min(settings.num_held_out, len(examples) // 5)
    if num_held_out < 2:
        raise InputError(
            f"{len(examples)} rationales are too few to learn keypoint weights from: at least 10 are needed; "
            "weights.in_loss=false weights.in_difficulty=false goes without"
        )
    held_out = [examples[i] for i in order[:num_held_out]]
    learned: Any = Subset(examples, order[num_held_out:][: settings.num_train])  # type: ignore[arg-type]

    torch.manual_seed(config.seed)
    network = WeightNetwork(student, settings.features, settings.hidden_size)
    answer_model = answer_model_of(config)
    reads_alike = answer_model.tokenizer.get_vocab() == student.tokenizer.get_vocab()
    module = KeypointModule(
        answer_model,
        network,
        settings,
        updates_per_epoch=-(-len(learned) // settings.batch_size),
        seed=config.seed,
        projected=None if reads_alike else ProjectedEmbedding(student, answer_model),
        launch=config.launch,
        precision=config.optim.precision,
    )
    data = KeypointDataModule(
        learned,
        examples,
        pad_token_id=student.pad_token_id,
        batch_size=settings.batch_size,
        seed=config.seed,
        answer_tokens=own_answer if reads_alike else retokenised_answer(student.tokenizer, answer_model.tokenizer),
    )
    resume = first_rank(lambda: newest_checkpoint(checkpoints))
    trainer = trainer_of(
        config,
        unused_parameters=True,  # the weight network's, while the answer model alone learns
        max_epochs=settings.warmup_epochs + settings.epochs,
        logger=False,
        callbacks=[
            ModelCheckpoint(dirpath=checkpoints, filename="last", enable_version_counter=False),
            stopping_callback(checkpoints / "step.ckpt"),
            RichProgressBar(leave=False),
        ],
    )
    with without_harmless_warnings():
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    batches = data.weighed_batches()
    weights = predicted(config, module, data.predict_dataloader(), batches, len(examples), checkpoints / "weighed")

    module.eval()
    torch.manual_seed(config.seed)  # of the random masks
    found: dict[str, list[np.ndarray]] = {}
    batches = batches_of_like_length(held_out, 2 * settings.batch_size)
    what = f"{num_held_out} held-out rationales"
    for positions in track(batches, description=what, transient=True, disable=not is_first()):
        batch = data.collate([held_out[i] for i in positions]).to(module.device)
        for name, nats in module.held_out_nats(batch).items():
            found.setdefault(name, []).append(nats.float().cpu().numpy())
    result = sufficiency(
        {name: np.concatenate(rows) for name, rows in found.items()},
        settings.share,
        spread=float(np.concatenate([weights[i] for i in order[:num_held_out]]).std()),
    )
    about = {
        "sufficiency": asdict(result),
        "reason": result.reason,
        "num_learned_from": len(learned),
        "history": module.history,
    }
    spans = (np.reshape(e.spans[: e.num_rationale_tokens], (-1, 2)) for e in examples)
    return WeightTable(
        Keys.of(example.key for example in examples),
        np.frombuffer(b"".join(bytes.fromhex(text_hash(text)) for text in texts), np.uint8).reshape(-1, 32),
        Ragged.stored(spans, np.int32),
        Ragged.stored(weights, np.float32),
        about,
        network.learned(),
    )


def keypoints(
    config: RunConfig, table: WeightTable, examples: Sequence[Example], texts: Sequence[str]
) -> Ragged | None:
    """The learned weights w of every example's rationale tokens; None where there are no keypoints and 1 is taken.

    Raises:
        InputError: held-out rationales show no keypoints, and ``weights.if_not_found=stop``.
    """
    reason = table.about["reason"]
    if reason is None:
        pairs = enumerate(zip(examples, texts, strict=True))
        return Ragged.stored((table.of(example, text, near=i) for i, (example, text) in pairs), np.float64)
    if config.weights.if_not_found == "stop":
        raise InputError(
            f"no keypoints were found: {reason}. weights.if_not_found=uniform (with --redo) goes on with weights of 1; "
            "or let the answer model learn more: weights.warmup_epochs, weights.model_lr"
        )
    return None


def loss_weights(config: RunConfig, weights: Ragged, examples: Sequence[Example]) -> Ragged:
    """Weights of Eq. (15) for all target tokens of every example; the answer phrase and EOS weigh 1."""
    floor = config.weights.floor
    rows: Iterable[np.ndarray] = permuted(weights, config.seed) if config.weights.permuted else weights
    rows = Ragged.stored((floor + (1 - floor) * row for row in rows), np.float64)
    if config.weights.rescale == "mean":
        rows = rescaled(rows)
    return Ragged.stored(
        (np.append(row, np.ones(len(e.target_ids) - len(row))) for row, e in zip(rows, examples, strict=True)),
        np.float64,
    )
