"""Were keypoints found: hand-made losses, and the reasons the guard gives."""

import math

import numpy as np
import pytest

from kpod_lightning.keypoints.sufficiency import sufficiency


def nats(none, whole, top, drawn):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 60)
    return {
        name: value + noise for name, value in {"none": none, "all": whole, "top 0.3": top, "random 0.3": drawn}.items()
    }


def test_sufficiency_is_the_share_of_the_gain_that_the_top_tokens_give():
    found = sufficiency(nats(4.0, 1.0, 1.6, 3.4), 0.3, 0.2)
    assert found.value == pytest.approx(0.8)
    assert found.interval[0] <= 0.8 <= found.interval[1]
    assert found.reason is None


@pytest.mark.parametrize(
    ("losses", "spread", "reason"),
    [
        ((4.0, 3.95, 3.95, 4.0), 0.2, "no better with the rationale"),
        ((4.0, 1.0, 3.4, 3.4), 0.2, "no better than a random choice"),
        ((4.0, 1.0, 3.8, 3.0), 0.2, "no better than a random choice"),
        ((4.0, 1.0, 1.5, 3.4), 0.01, "all tokens weigh the same"),
        ((math.nan, 1.0, 1.5, 3.4), 0.2, "no better with the rationale"),
    ],
)
def test_the_guard_says_why_no_keypoints_were_found(losses, spread, reason):
    assert reason in sufficiency(nats(*losses), 0.3, spread).reason
