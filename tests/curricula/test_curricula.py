"""What curricula beside KPOD's show and ask of a rationale at each stage, written out by hand."""

import numpy as np
import pytest

from kpod_lightning.curricula.forward import first_steps
from kpod_lightning.curricula.in_sample import share_by_stage, shares
from kpod_lightning.curricula.schedule import build_schedule
from kpod_lightning.data.datamodule import ExampleDataModule
from kpod_lightning.data.examples import Example
from kpod_lightning.data.prefixes import FirstSteps, TokenShares, num_shown
from kpod_lightning.data.stages import Pace, Progress
from kpod_lightning.data.views import IGNORE

PROMPT, TARGET, END = (1, 2), (*range(10, 20), 30, 31), 99
EXAMPLE = Example(
    key=("p", 0),
    prompt_ids=PROMPT,
    target_ids=TARGET,
    step_of=(0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3),  # steps of 2, 3 and 5 tokens, then the answer and the end
    spans=((0, 0),) * 12,
    num_steps=3,
    answer_start=10,
)


def data_of(stages, encoder_decoder=False) -> ExampleDataModule:
    return ExampleDataModule(
        [EXAMPLE],
        stages=stages,
        encoder_decoder=encoder_decoder,
        pad_token_id=0,
        eos_token_id=END,
        batch_size=1,
    )


def shown_and_asked(stages, stage: int) -> tuple[list[int], list[int]]:
    """Target tokens that are input and those that are asked; both families must agree on them."""
    (decoder_only,), _ = data_of(stages).dataset.shown([0], stage)
    (encoder_decoder,), _ = data_of(stages, encoder_decoder=True).dataset.shown([0], stage)
    asked = [label for label in decoder_only.labels if label != IGNORE]
    assert encoder_decoder.labels == asked
    assert encoder_decoder.input_ids[-1] == END
    shown = encoder_decoder.input_ids[len(PROMPT) : -1]
    assert decoder_only.input_ids == [*PROMPT, *shown, *asked]
    assert decoder_only.labels == [IGNORE] * (len(PROMPT) + len(shown)) + asked
    assert data_of(stages).dataset.num_asked([0], stage) == len(asked)
    return shown, asked


def test_in_sample_gives_a_share_of_the_tokens_and_always_asks_the_answer():
    stages = TokenShares(1, [0.6, 0.3, 0.0])
    cut = {0: 6, 1: 3, 2: 0}  # floor of the share of ten rationale tokens
    for stage, num_given in cut.items():
        assert shown_and_asked(stages, stage) == (list(TARGET[:num_given]), list(TARGET[num_given:]))
        assert stages.metrics(stage) == {"schedule/shown_share": [0.6, 0.3, 0.0][stage]}
    assert shown_and_asked(TokenShares(1, [1.0, 0.0]), 0) == (list(TARGET[:10]), [30, 31])
    assert [stages.is_whole(stage) for stage in cut] == [False, False, True]


def test_the_shares_of_in_sample_fall_to_nothing_by_the_last_stage():
    assert shares(0.6, 0.3) == [0.6, 0.3]
    assert shares(0.9, 0.1) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert shares(0.5, 0.3) == pytest.approx([0.5, 0.2])
    assert shares(0.0, 0.3) == []
    assert share_by_stage(0.6, 0.3, 6) == [0.6, 0.6, 0.6, 0.3, 0.3, 0.3, 0.0]
    assert share_by_stage(0.6, 0.3, 5) == [0.6, 0.6, 0.6, 0.3, 0.3, 0.0]
    assert share_by_stage(0.6, 0.3, 1) == [0.6, 0.0]
    assert share_by_stage(0.0, 0.3, 2) == [0.0, 0.0, 0.0]


def test_a_share_of_tokens_is_rounded_down_from_its_decimal_value():
    assert [num_shown(0.29, 100), num_shown(0.6, 5), num_shown(0.3, 9), num_shown(0.99, 1)] == [29, 3, 2, 0]


def test_forward_asks_the_first_steps_and_drops_the_rest_until_all_steps_are_asked():
    stages = FirstSteps(np.array([[1], [2], [3]]), np.array([3]))
    assert shown_and_asked(stages, 0) == ([], list(TARGET[:2]))
    assert shown_and_asked(stages, 1) == ([], list(TARGET[:5]))
    assert shown_and_asked(stages, 2) == ([], list(TARGET))
    assert [stages.is_whole(stage) for stage in range(3)] == [False, False, True]


def test_forward_asks_as_many_steps_as_the_schedule_and_one_where_that_asks_the_answer_alone():
    schedule = build_schedule([[1.0, 2.0, 3.0], [4.0, 5.0]], [0, 0], 2, start="last_steps")
    assert schedule.input_steps.tolist()[0] == [2, 1]
    asked = first_steps(schedule, np.array([3, 2]))
    assert asked[0].tolist() == [1, 1] and asked[-1].tolist() == [3, 2]
    assert (asked + schedule.input_steps == [3, 2]).all()
    none_fits = build_schedule([[1.0, 2.0, 3.0], [4.0, 5.0]], [0, 0], 2, initial_fraction=0.0)
    assert none_fits.input_steps.tolist()[0] == [3, 2]
    assert first_steps(none_fits, np.array([3, 2]))[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("pace", "places", "expected"),
    [
        (Pace(), [(0, 0), (1, 7), (2, 14), (5, 35)], [0, 1, 2, 2]),
        (Pace(length=2), [(0, 0), (1, 7), (2, 14), (5, 35)], [0, 0, 1, 2]),
        (Pace(unit="steps", length=5), [(0, 4), (0, 5), (1, 9), (1, 10), (5, 35)], [0, 1, 1, 2, 2]),
    ],
)
def test_a_stage_lasts_as_many_epochs_or_steps_as_its_pace_says(pace, places, expected):
    stages = TokenShares(1, [0.6, 0.3, 0.0], pace=pace)
    assert [stages.stage_of(Progress(epoch=epoch, step=step)) for epoch, step in places] == expected
