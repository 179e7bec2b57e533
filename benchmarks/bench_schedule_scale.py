"""The schedule of a million rationales in 10 stages, on one thread: time and peak memory.

Difficulties are log-normal, rationales have one to seven steps (four in the mean), questions five clusters of uneven
size. The arguments are other sizes, e.g. 100000.
"""

import resource
import sys
import time

import numpy as np

from kpod_lightning.curricula.schedule import build_schedule

NUM_STAGES = 10


def main() -> None:
    for size in [int(word) for word in sys.argv[1:]] or [1_000_000]:
        rng = np.random.default_rng(0)
        lengths = rng.integers(1, 8, size)
        difficulties = np.split(rng.lognormal(0, 0.7, lengths.sum()), np.cumsum(lengths)[:-1])
        clusters = rng.choice(5, size, p=[0.4, 0.3, 0.15, 0.1, 0.05])
        began = time.perf_counter()
        schedule = build_schedule(difficulties, clusters, NUM_STAGES)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{size} rationales, {NUM_STAGES} stages: {seconds:.1f} s, peak {peak:.2f} GiB, "
            f"value / upper bound >= {schedule.certificate:.6f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
