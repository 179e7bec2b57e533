"""A finished run, asked for again, against the import of Lightning; prints the ratio of the processes' CPU times.

Asked for again, a finished run looks at every artefact, finds that nothing is to be made, and prints its result.
"""

import resource
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 5
SMALL = ("method=plain", "data.num_train=16", "data.num_validation=4", "data.num_test=4", "optim.epochs=1")
QUIET = ("evaluation.max_new_tokens=4", "logging.wandb=disabled")


def seconds(command: list[str]) -> float:
    """CPU time of a process and of those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Medians in seconds of both, taken in turn, and the ratio of each turn: median, smallest, largest."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "kpod_lightning", "run", "experiments/arithmetic.yaml", "--run", folder]
        again, imported = [*run, *SMALL, *QUIET], [sys.executable, "-c", "import lightning"]
        seconds(again)  # makes the run
        seconds(again)  # the byte code of what only a second time imports is there from now on
        turns = [(seconds(again), seconds(imported)) for _ in range(rounds)]
    ratios = [ours / theirs for ours, theirs in turns]
    return {
        "again_seconds": statistics.median(ours for ours, _ in turns),
        "import_seconds": statistics.median(theirs for _, theirs in turns),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rounds,
    }


def main() -> None:
    found = measure()
    print(
        f"finished run again / import of lightning = {found['ratio']:.2f} "
        f"({found['ratio_min']:.2f} to {found['ratio_max']:.2f} in {found['rounds']} turns; "
        f"{found['again_seconds']:.2f} s against {found['import_seconds']:.2f} s of CPU time)"
    )


if __name__ == "__main__":
    main()
