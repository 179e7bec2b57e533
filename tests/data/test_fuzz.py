"""The fuzzer of ``tests/fuzz.py`` for a few seconds, so that it does not rot; an hour of it is run by hand."""

from fuzz import fuzz


def test_a_round_of_the_fuzzer_finds_nothing():
    assert fuzz(0.0, 0) == 0
