"""Whether a student reaches the gold answer when it is given the first steps of a rationale."""

from collections.abc import Sequence

import numpy as np

from kpod_lightning.config import EvaluationConfig
from kpod_lightning.data.examples import Example, first_asked
from kpod_lightning.data.problems import Problem
from kpod_lightning.distributed.progress import told
from kpod_lightning.evaluation.generate import continued, output_of
from kpod_lightning.evaluation.grade import record_of
from kpod_lightning.students.student import Student


def shown_ids(example: Example, num_input_steps: int, student: Student) -> list[int]:
    """What the student is shown of an example whose first c steps are input, as ``data.views`` shows it in training.

    The ids are the example's own: decoder-only, the steps stand behind the prompt; an encoder-decoder has them in the
    input of its encoder, and its decoder starts with what is left.
    """
    closing = [student.tokenizer.eos_token_id] if student.encoder_decoder else []
    return [*example.prompt_ids, *example.target_ids[: first_asked(example, num_input_steps)], *closing]


def successes(
    student: Student,
    examples: Sequence[Example],
    problems: Sequence[Problem],
    input_steps: Sequence[int] | np.ndarray,
    evaluation: EvaluationConfig,
) -> np.ndarray:
    """[num_examples] r: whether the whole text, shown steps and greedy continuation, states the gold answer.

    Every rank calls it and gets all; the ranks divide the batches.

    Args:
        problems: [num_examples] that of each example; one may come several times.
        input_steps: [num_examples] c.
        evaluation: how answers are decoded and read.
    """
    rows = [shown_ids(example, int(c), student) for example, c in zip(examples, input_steps, strict=True)]
    found = continued(
        rows,
        student,
        batch_size=evaluation.batch_size,
        max_new_tokens=evaluation.max_new_tokens,
        own_decoding=evaluation.generation_config == "student",
        track=lambda batches: told(many := list(batches), "measuring prefixes", len(many)),
    )
    right = np.zeros(len(examples), bool)
    for i, (example, problem, c) in enumerate(zip(examples, problems, input_steps, strict=True)):
        (new,) = found[i]
        output = output_of(new, student, example.target_ids[: first_asked(example, int(c))])
        right[i] = record_of(problem, [output], variant=evaluation.variant)["right"]
    return right
