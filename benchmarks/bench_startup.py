"""A finished run, asked for again, against the import of Lightning: CPU times of the processes.

Asked for again, a finished run looks at every artefact, finds that nothing is to be made, and prints its result.
"""

import resource
import statistics
import subprocess
import sys
import tempfile

from benchmarks.measure import ROOT, Options, Ratio

ROUNDS = 5
SMALL = ("method=plain", "data.num_train=16", "data.num_validation=4", "data.num_test=4", "optim.epochs=1")
QUIET = ("evaluation.max_new_tokens=4", "logging.wandb=disabled")


def seconds(command: list[str]) -> float:
    """CPU time of a process and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(options: Options) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "kpod_lightning", "run", "experiments/arithmetic.yaml", "--run", folder]
        again, imported = [*run, *SMALL, *QUIET], [sys.executable, "-c", "import lightning"]
        seconds(again)  # makes the run
        seconds(again)  # the byte code of what only a second time imports is there from now on
        rounds = options.rounds or (1 if options.quick else ROUNDS)
        turns = [(seconds(again), seconds(imported)) for _ in range(rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
    return [
        Ratio(
            name="time of a finished run again",
            peer="import lightning",
            values=[mine / other for mine, other in turns],
            at_most=1.5,
            ours=ours,
            theirs=theirs,
            unit="CPU seconds",
        )
    ]
