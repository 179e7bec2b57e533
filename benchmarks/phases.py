"""A KPOD run's own phases against the training of the plain method; the default run against another checkout's.

Without another checkout (``--against``) a shorter run tells the shares: what grows with the train set is extrapolated.
"""

from benchmarks.bench_phases import measure as timed
from benchmarks.measure import Options, Ratio

SHORT = ("data.num_train=800", "data.num_validation=40", "data.num_test=40", "optim.epochs=3")
QUICK = ("data.num_train=64", "data.num_validation=4", "data.num_test=4", "optim.epochs=2", "weights.epochs=1")
OWN_LIMIT, WHOLE_LIMIT = 0.1, 0.6


def measure(options: Options) -> list[Ratio]:
    words = QUICK if options.quick else () if options.against else SHORT
    found = timed(options.against, rounds=options.rounds or 1, words=words)
    note = "one run, tiny-llama, generated arithmetic; shares are extrapolated to 7,473 rationales"
    rows = [
        Ratio(
            name="KPOD's own phases, time, GSM8K's size",
            peer=f"plain training, {epochs}",
            values=[share],
            at_most=OWN_LIMIT,
            note=note,
        )
        for epochs, share in found["own_share"].items()
    ]
    training = found["seconds"]["student"]
    for phase, seconds in found["seconds"].items():
        rows.append(
            Ratio(
                name=f"{phase}, time",
                peer="the training of that run",
                values=[seconds / training],
                ours=seconds,
                theirs=training,
                unit="CPU seconds",
            )
        )
    if options.against:
        whole = Ratio(
            name="the default run, time",
            peer="the other checkout's",
            values=[found["ratio"]["whole"]],
            at_most=WHOLE_LIMIT,
            ours=found["total"],
            theirs=sum(found["their_seconds"].values()),
            unit="CPU seconds",
        )
        rows.insert(0, whole)
    return rows
