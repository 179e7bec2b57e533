"""Phases on the clock: parts inside parts, and the share of KPOD's own phases by hand."""

import time

import pytest

from benchmarks.bench_phases import GSM8K, Clock, medians, num_learned, share_of_own
from kpod_lightning.config import WeightsConfig


def test_a_part_inside_another_is_taken_out_of_it_and_the_sum_is_the_whole(monkeypatch):
    now = iter([3.0, 5.0, 9.0, 10.0, 12.0])
    monkeypatch.setattr(time, "process_time", lambda: next(now))

    class Work:
        def artefact(self, name):
            self.inside()

        def inside(self):
            return None

    clock = Clock()
    clock.watch(Work, "artefact")
    clock.watch(Work, "inside", "{outer}: inside")
    Work().artefact("student")
    clock.lap()
    assert clock.seconds == {"start and end": 3.0 + 2.0, "student": 2.0 + 1.0, "student: inside": 4.0}


def test_own_phases_grow_with_the_train_set_but_for_the_learning_of_the_weights():
    seconds = {
        **{"weights.safetensors": 30.0, "weights.safetensors: all rationales": 2.0},
        **{"difficulties.jsonl": 1.0, "schedule.npz": 1.0, "student": 100.0, "tokens": 5.0},
    }
    share = share_of_own(seconds, GSM8K // 3, epochs_of_run=5)
    assert share["20 epochs"] == pytest.approx((30 + 3 * (2 + 1 + 1)) / (20 * 3 * 100 / 5))
    twice = share_of_own(seconds, GSM8K // 3, 5, more_learned=2.0)
    assert twice["20 epochs"] == pytest.approx((60 + 3 * (2 + 1 + 1)) / (20 * 3 * 100 / 5))
    assert share["3 epochs"] == pytest.approx(share["20 epochs"] * 20 / 3)


def test_a_phase_that_a_round_lacks_took_no_time_there():
    assert medians([{"a": 1.0}, {"a": 3.0, "b": 4.0}, {"a": 2.0}]) == {"a": 2.0, "b": 0.0}


def test_weights_are_learned_from_no_more_rationales_than_are_left_of_those_held_out():
    assert num_learned(WeightsConfig(num_train=1000), 4000) == 1000
    assert num_learned(WeightsConfig(num_train=1000), 240) == 240 - 48
    assert num_learned(WeightsConfig(), 4000) == 3900
