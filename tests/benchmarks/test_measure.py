"""Ratios of the benchmarks: which targets are met, and what a file of them keeps."""

import time

import pytest

from benchmarks.measure import Options, Ratio, in_turns, load, machine, save


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_ratio_is_the_peer_s_time_over_ours_in_every_round():
    ratio = in_turns("burning", "three times as long", lambda: burn(0.01), lambda: burn(0.03), rounds=3)
    assert len(ratio.values) == 3
    assert ratio.median == pytest.approx(3, rel=0.2)
    assert ratio.ours == pytest.approx(0.01, rel=0.2) and ratio.theirs == pytest.approx(0.03, rel=0.2)


@pytest.mark.parametrize(
    ("target", "met"),
    [({}, None), ({"goal": 1.5}, True), ({"goal": 1.6}, False), ({"at_most": 1.5}, True), ({"at_most": 1.4}, False)],
)
def test_a_target_is_met_by_the_median(target, met):
    assert Ratio(name="a", peer="b", values=[0.1, 1.5, 9.0], **target).met is met


def test_a_file_of_ratios_gives_back_what_was_saved(tmp_path):
    rows = [
        Ratio(name="a", peer="b", values=[1.25, 1.5], goal=1.2, more={"wall": 1.5}),
        Ratio(name="c", peer="d", values=[2.0]),
    ]
    about, found = load(save("some", rows, machine(Options()), tmp_path))
    assert found == rows
    assert about["section"] == "some" and about["versions"]["torch"] and about["threads"] == 1
