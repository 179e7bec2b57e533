"""The mean probability of the targets before training."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kpod_lightning.config import RunConfig
from kpod_lightning.data.examples import make_example
from kpod_lightning.evaluation.prior import PRIOR, describe_prior, prior_arrow, sentence
from kpod_lightning.students.token_losses import token_losses


def test_the_prior_is_the_mean_probability_of_all_targets_and_stands_in_the_report(student, rationales, tmp_path):
    examples = [make_example(r, student.tokenizer, encoder_decoder=student.encoder_decoder) for r in rationales]
    config = RunConfig(seed=0)
    context = SimpleNamespace(config=config, reading=lambda measuring: student, examples=examples, folder=tmp_path)
    arrow = prior_arrow()
    arrow.save(tmp_path / PRIOR, arrow.make(context))
    made = json.loads((tmp_path / PRIOR).read_text())
    rows = token_losses(config, student, examples, Path(tmp_path / "rows"))
    probabilities = [math.exp(-nats) for row in rows for nats in np.asarray(row).tolist()]
    assert made["num_targets"] == len(probabilities) == sum(len(e.target_ids) for e in examples)
    assert made["mean_probability"] == pytest.approx(sum(probabilities) / len(probabilities), rel=1e-9)
    (section,) = describe_prior(tmp_path)
    assert f"{made['mean_probability']:.3f}" in section.sentences[0]


@pytest.mark.parametrize(("mean", "words"), [(0.8, "a strong prior"), (0.5, "between"), (0.01, "a weak prior")])
def test_the_regime_is_that_of_the_source(mean, words):
    assert words in sentence({"mean_probability": mean, "nats_per_token": 1.0, "num_targets": 10, "num_examples": 2})
