"""Processor time, for tests that look for what takes more than its share of a longer text."""

import time
from collections.abc import Callable


def seconds(call: Callable[[str], object], text: str) -> float:
    """Of the processor, the best of three calls."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        call(text)
        best = min(best, time.process_time() - began)
    return best
