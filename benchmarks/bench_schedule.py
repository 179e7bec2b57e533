"""The schedule of 7,473 rationales in 10 stages: time and certificate of each solver, on one thread.

Difficulties are log-normal, rationales have one to eight steps, questions five clusters of uneven size.
"""

import time

import numpy as np

from kpod_lightning.curricula.schedule import build_schedule


def main() -> None:
    rng = np.random.default_rng(0)
    difficulties = [rng.lognormal(0, 0.7, rng.integers(1, 9)) for _ in range(7473)]
    clusters = rng.choice(5, len(difficulties), p=[0.4, 0.3, 0.15, 0.1, 0.05])
    for solver in ("greedy", "ftgp"):
        began = time.perf_counter()
        schedule = build_schedule(difficulties, clusters, 10, solver=solver)
        print(f"{solver}: {time.perf_counter() - began:.2f} s, value / upper bound >= {schedule.certificate:.5f}")


if __name__ == "__main__":
    main()
