"""What KPOD makes before the student learns: keypoint weights, step difficulties, the schedule."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from rich.progress import track
from torch.utils.data import Subset

from kpod_lightning.checkpoints import newest_checkpoint
from kpod_lightning.config import RunConfig, num_stages
from kpod_lightning.datamodule import batches_of_like_length
from kpod_lightning.difficulties import TokenLossModule, difficulties_of, token_loss_loader
from kpod_lightning.errors import InputError
from kpod_lightning.examples import Example
from kpod_lightning.keypoint_batches import KeypointDataModule, own_answer, retokenised_answer
from kpod_lightning.keys import Key, Keys
from kpod_lightning.predictions import PredictedRows, RowWriter
from kpod_lightning.preemption import stopping_callback
from kpod_lightning.question_vectors import question_vectors
from kpod_lightning.ragged import Ragged
from kpod_lightning.ranks import barrier, first_rank, is_first, share_of
from kpod_lightning.schedule import Schedule, build_schedule, cluster_questions
from kpod_lightning.students import Student, add_lora, load_student
from kpod_lightning.sufficiency import sufficiency
from kpod_lightning.token_weights import WeightTable, permuted, rescaled, text_hash
from kpod_lightning.trainers import trainer_of, without_harmless_warnings
from kpod_lightning.weight_network import WeightNetwork
from kpod_lightning.weights import KeypointModule, ProjectedEmbedding

NUM_CLUSTERED = 50_000
"""Questions that K-means is run on: vectors of a million take the memory of a large model."""


def predicted(
    config: RunConfig,
    module: L.LightningModule,
    loader: Any,
    batches: Sequence[np.ndarray],
    num_examples: int,
    folder: Path,
) -> PredictedRows:
    """One row an example, through ``Trainer.predict`` on all ranks; every rank can read all rows.

    Args:
        loader: gives ``batches``, positions of examples, one after another.
        folder: for the rows, seen by all ranks; its earlier content goes.
    """
    first_rank(lambda: shutil.rmtree(folder, ignore_errors=True))
    with RowWriter(folder, batches) as writer, without_harmless_warnings():
        callbacks = [stopping_callback(None), writer, RichProgressBar(leave=False)]
        trainer = trainer_of(config, logger=False, enable_checkpointing=False, callbacks=callbacks)
        trainer.predict(module, loader, return_predictions=False)
    barrier()
    return PredictedRows(folder, num_examples)


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


def measure_difficulties(
    config: RunConfig, student: Student, examples: Sequence[Example], weights: Ragged | None, folder: Path
) -> Iterator[dict[str, Any]]:
    """Eq. (8) for every rationale, as rows of ``difficulties.jsonl``.

    Args:
        folder: for the student's losses, seen by all ranks.

    Raises:
        InputError: the student's loss of a token is not finite.
    """
    batches = share_of(batches_of_like_length(examples, max(config.optim.batch_size, 16)))
    loader = token_loss_loader(examples, student, batches)
    module = TokenLossModule(student, config.launch, config.optim.precision)
    nll = predicted(config, module, loader, batches, len(examples), folder)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for example, row in zip(examples, difficulties_of(examples, nll, weights), strict=True):
                yield {"problem_id": example.key[0], "sample": example.key[1], "difficulties": row.tolist()}
        except ValueError as error:
            raise InputError(f"step difficulties: {error}; try optim.precision=32-true") from error

    return rows()


def clusters_of(config: RunConfig, student: Student, questions: Iterable[str], num_questions: int) -> np.ndarray:
    """K-means of the question vectors. Of a large set a sample is clustered, and each question joins the nearest mean.

    Args:
        questions: read twice where they are more than ``NUM_CLUSTERED``.
    """
    settings = config.schedule
    vectors_of = partial(
        question_vectors,
        source=settings.vectors,
        student=student,
        glove_path=Path(settings.glove_path) if settings.glove_path else None,
        seed=config.seed,
    )
    # TF-IDF is of all questions or of none; its vectors are short.
    if num_questions <= NUM_CLUSTERED or settings.vectors == "tfidf":
        return cluster_questions(vectors_of(list(questions)), settings.num_clusters, config.seed)
    from sklearn.metrics import pairwise_distances_argmin  # slow import

    drawn = np.zeros(num_questions, bool)
    drawn[np.random.default_rng([config.seed, 2]).choice(num_questions, NUM_CLUSTERED, replace=False)] = True
    sample = vectors_of(list(compress(questions, drawn)))
    labels = cluster_questions(sample, settings.num_clusters, config.seed)
    means = np.stack([sample[labels == label].mean(0) for label in range(labels.max() + 1)])
    every, found = iter(questions), []
    while chunk := list(islice(every, NUM_CLUSTERED // 10)):
        found.append(pairwise_distances_argmin(vectors_of(chunk), means))
    return np.concatenate(found)


def make_schedule(
    config: RunConfig, student: Student, rows: Iterable[dict[str, Any]], questions: Iterable[str]
) -> Schedule:
    """Eqs. (9)-(13): clusters of the questions, then input steps of every stage.

    Args:
        rows: of ``difficulties.jsonl``.
        questions: of the same rationales.
    """
    settings = config.schedule
    keys: list[Key] = []

    def steps() -> Iterator[list[float]]:
        for row in rows:
            keys.append((row["problem_id"], row["sample"]))
            yield row["difficulties"]

    difficulties = Ragged.stored(map(np.asarray, steps()), np.float64)
    return build_schedule(
        difficulties,
        clusters_of(config, student, questions, len(difficulties)),
        num_stages(config),
        keys=keys,
        initial_fraction=settings.initial_fraction,
        growth_exponent=settings.growth_exponent,
        diversity=settings.diversity,
        solver=settings.solver,
        step_size=settings.step_size,
        start=settings.start,
    )
