"""The schedule of 7,473 rationales in 10 stages: our solver against FTGP, the paper's, in time and in certificate.

Difficulties are log-normal, rationales have one to eight steps, questions five clusters of uneven size.
"""

import numpy as np

from benchmarks.measure import Options, Ratio, in_turns
from kpod_lightning.curricula.schedule import build_schedule

NUM_STAGES = 10


def measure(options: Options) -> list[Ratio]:
    rng = np.random.default_rng(0)
    size = 500 if options.quick else 7473
    difficulties = [rng.lognormal(0, 0.7, rng.integers(1, 9)) for _ in range(size)]
    clusters = rng.choice(5, len(difficulties), p=[0.4, 0.3, 0.15, 0.1, 0.05])
    certificates = {}

    def solve(solver: str) -> None:
        certificates[solver] = build_schedule(difficulties, clusters, NUM_STAGES, solver=solver).certificate

    time = in_turns(
        f"schedule of {size} rationales, {NUM_STAGES} stages",
        "FTGP, the paper's solver",
        lambda: solve("greedy"),
        lambda: solve("ftgp"),
        rounds=options.rounds or (1 if options.quick else 5),
        goal=1.0,
    )
    value = Ratio(
        name="value / upper bound of that schedule",
        peer="FTGP, the paper's solver",
        values=[certificates["greedy"] / certificates["ftgp"]],
        goal=1.0,
        ours=certificates["greedy"],
        theirs=certificates["ftgp"],
        unit="share of the bound, at least",
    )
    return [time, value]
