"""KPOD's curriculum, Eqs. (8)-(13): difficulties of a train set, clusters of its questions, the schedule."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.config import RunConfig, num_stages
from kpod_lightning.curricula.controls import mixed, permuted_difficulties, uniform
from kpod_lightning.curricula.difficulties import difficulties_of
from kpod_lightning.curricula.question_vectors import question_vectors
from kpod_lightning.curricula.schedule import Schedule, build_schedule, cluster_questions
from kpod_lightning.data.examples import Example
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.students.student import Student
from kpod_lightning.students.token_losses import token_losses

NUM_CLUSTERED = 50_000
"""Questions that K-means is run on: vectors of a million take the memory of a large model."""


def measure_difficulties(
    config: RunConfig, student: Student, examples: Sequence[Example], weights: Ragged | None, folder: Path
) -> Iterator[dict[str, Any]]:
    """Eq. (8) for every rationale, as rows of ``difficulties.jsonl``.

    Args:
        folder: for the student's losses, seen by all ranks.

    Raises:
        InputError: the student's loss of a token is not finite.
    """
    nll = token_losses(config, student, examples, folder)

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
    """Eqs. (9)-(13): clusters of the questions, then input steps of every stage; then controls and mix, if any.

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

    difficulties: Sequence[np.ndarray] = Ragged.stored(map(np.asarray, steps()), np.float64)
    if settings.permuted:
        difficulties = permuted_difficulties(difficulties, config.seed)
    schedule = build_schedule(
        difficulties,
        clusters_of(config, student, questions, len(difficulties)),
        num_stages(config),
        keys=keys,
        initial_fraction=settings.initial_fraction,
        growth_exponent=settings.growth_exponent,
        diversity=settings.diversity,
        diversity_scale=settings.diversity_scale,
        solver=settings.solver,
        step_size=settings.step_size,
        start=settings.start,
    )
    if settings.uniform:
        schedule = uniform(schedule, difficulties, config.seed)
    return mixed(schedule, difficulties, settings.mix, config.seed) if settings.mix else schedule
