"""Learns the token weights of a train set and judges them on held-out rationales."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kpod_lightning.config import RunConfig
from kpod_lightning.data.batches import batches_by_length
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.data.examples import Example
from kpod_lightning.distributed.checkpoints import KeptCheckpoint, newest_checkpoint
from kpod_lightning.distributed.harmless import without_harmless_warnings
from kpod_lightning.distributed.predictions import predicted
from kpod_lightning.distributed.preemption import stopping, stopping_callback
from kpod_lightning.distributed.progress import shown
from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.distributed.trainer import trainer_of
from kpod_lightning.keypoints.batches import KeypointDataModule, own_answer, retokenised_answer
from kpod_lightning.keypoints.module import KeypointModule, ProjectedEmbedding, num_held_out_masks
from kpod_lightning.keypoints.network import WeightNetwork
from kpod_lightning.keypoints.sufficiency import Sufficiency, looks, sufficiency
from kpod_lightning.keypoints.table import WeightTable, text_hash
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Keys
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.students.student import Student, add_lora, load_before, load_student


def answer_model_of(config: RunConfig, copy: Callable[[], Student] | None = None) -> Student:
    """The answer model θ_w of Eq. (5): a second copy of the student's checkpoint, or another model.

    Args:
        copy: makes the second copy; None: from the student's checkpoint as it came.

    Raises:
        InputError: it cannot be loaded.
    """
    name = config.weights.answer_model or config.student.name
    try:
        copy = copy or partial(load_before, config.student)
        model = copy() if name == config.student.name else load_student(name)
    except InputError as error:
        raise InputError(f"weights.answer_model: {error}") from error
    if config.weights.lora_rank is not None:
        model = add_lora(model, config.weights.lora_rank, None, config.seed)
    return model


def learn_weights(
    config: RunConfig,
    student: Student,
    examples: Sequence[Example],
    texts: Sequence[str],
    checkpoints: Path,
    *,
    copy: Callable[[], Student] | None = None,
) -> WeightTable:
    """Train the weight network (Eqs. 2-7), weigh every rationale, and judge the weights on held-out ones.

    Args:
        student: gives the features e of Eq. (2); it is not changed.
        examples: the train set's; ``texts`` are their rationales.
        checkpoints: folder from which an interrupted training resumes.
        copy: makes another copy of the student; None: it is the one before distillation as it came.

    Raises:
        InputError: too few rationales.
    """
    learned, held_out = split(config, len(examples))
    module, data = module_and_data(config, student, examples, learned, copy)
    fit(config, module, data, checkpoints)
    batches = data.weighed_batches()
    weights = predicted(config, module, data.predict_dataloader(), batches, len(examples), checkpoints / "weighed")
    spread = float(np.concatenate([weights[i] for i in held_out]).std())
    result = judged(config, module, data, held_out, spread)
    about = {
        "sufficiency": asdict(result),
        "reason": result.reason,
        "num_learned_from": len(learned),
        "history": module.history,
    }
    return table_of(examples, texts, weights, about, module.network.learned())


def split(config: RunConfig, num_examples: int) -> tuple[list[int], list[int]]:
    """Positions of the rationales that weights are learned from, and of the held-out ones.

    Raises:
        InputError: too few rationales.
    """
    order = np.random.default_rng([config.seed, 0]).permutation(num_examples).tolist()
    num_held_out = min(config.weights.num_held_out, num_examples // 5)
    if num_held_out < 2:
        raise InputError(
            f"{num_examples} rationales are too few to learn keypoint weights from: at least 10 are needed; "
            "weights.in_loss=false weights.in_difficulty=false goes without"
        )
    return order[num_held_out:][: config.weights.num_train], order[:num_held_out]


def module_and_data(
    config: RunConfig,
    student: Student,
    examples: Sequence[Example],
    learned: Sequence[int],
    copy: Callable[[], Student] | None = None,
) -> tuple[KeypointModule, KeypointDataModule]:
    """The two models with their training, and the batches.

    Args:
        examples: all of them, which get weights.
        learned: positions of those that are learned from.
        copy: as in ``learn_weights``.
    """
    settings = config.weights
    torch.manual_seed(config.seed)
    network = WeightNetwork(student, settings.features, settings.hidden_size)
    answer_model = answer_model_of(config, copy)
    same_tokenizer = answer_model.tokenizer.get_vocab() == student.tokenizer.get_vocab()
    module = KeypointModule(
        answer_model,
        network,
        settings,
        updates_per_epoch=-(-len(learned) // settings.batch_size),
        seed=config.seed,
        projected=None if same_tokenizer else ProjectedEmbedding(student, answer_model),
        launch=config.launch,
        precision=config.optim.precision,
    )
    retokenised = None if same_tokenizer else retokenised_answer(student.tokenizer, answer_model.tokenizer)
    data = KeypointDataModule(
        examples,
        learned,
        pad_token_id=student.pad_token_id,
        batch_size=settings.batch_size,
        seed=config.seed,
        answer_tokens=retokenised or own_answer,
    )
    return module, data


def fit(config: RunConfig, module: KeypointModule, data: KeypointDataModule, checkpoints: Path) -> None:
    """Train; from the newest checkpoint in the folder, if there is one."""
    resume = first_rank(lambda: newest_checkpoint(checkpoints))
    trainer = trainer_of(
        config,
        "learning of the keypoint weights",
        [
            KeptCheckpoint(dirpath=checkpoints, filename="last", enable_version_counter=False),
            stopping_callback(checkpoints / "step.ckpt"),
        ],
        unused_parameters=True,  # the weight network's, in the warm-up
        max_epochs=config.weights.warmup_epochs + config.weights.epochs,
        logger=False,
    )
    with without_harmless_warnings():
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)


def judged(
    config: RunConfig, module: KeypointModule, data: KeypointDataModule, held_out: Sequence[int], spread: float
) -> Sufficiency:
    """What the heaviest tokens of held-out rationales are worth to their answers.

    Their number doubles until the judgement is clear or all are read (docs/methods.md).

    Args:
        held_out: positions, in random order.
        spread: standard deviation of the held-out weights.
    """
    module.eval()
    torch.manual_seed(config.seed)  # of the random masks
    settings = config.weights
    size = max(1, 2 * settings.batch_size // num_held_out_masks(settings.share))  # no more rows than in predicting
    nats: dict[str, list[np.ndarray]] = {}
    numbers, lengths = looks(len(held_out)), lengths_of(data.weighed)
    for done, number in pairwise([0, *numbers]):
        new = np.asarray(held_out[done:number])
        batches = [new[batch] for batch in batches_by_length(lengths[new], size)]
        for positions in stopping(shown(batches, f"{number} held-out rationales", len(batches), few=0)):
            batch = data.collate(positions).to(module.device)
            for name, values in module.held_out_nats(batch).items():
                nats.setdefault(name, []).append(values.float().cpu().numpy())
        read = {name: np.concatenate(parts) for name, parts in nats.items()}
        # By one rank for all: where the last bit differs between devices, they must still go on or stop together.
        found = first_rank(partial(sufficiency, read, settings.share, spread, len(numbers)))
        if found.decided:
            break
    return found


def table_of(
    examples: Sequence[Example],
    texts: Sequence[str],
    weights: Iterable[np.ndarray],
    about: dict[str, Any],
    network: dict[str, np.ndarray],
) -> WeightTable:
    """The table as it is stored: weights on the character spans of the texts, with the texts' hashes.

    Args:
        weights: [n] w of each example's rationale tokens.
        about: what was found of the weights, and how they were learned.
        network: the weight network's parameters.
    """
    spans = (np.reshape(e.spans[: e.num_rationale_tokens], (-1, 2)) for e in examples)
    return WeightTable(
        Keys.of(example.key for example in examples),
        np.frombuffer(b"".join(bytes.fromhex(text_hash(text)) for text in texts), np.uint8).reshape(-1, 32),
        Ragged.stored(spans, np.int32),
        Ragged.stored(weights, np.float32),
        about,
        network,
    )


def keypoints(
    config: RunConfig, table: WeightTable, examples: Sequence[Example], texts: Sequence[str]
) -> Ragged | None:
    """The learned weights w of every example's rationale tokens; None where none were found, and all weigh 1.

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
