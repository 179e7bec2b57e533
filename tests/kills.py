"""Kills a small run again and again, and fills its disk: it must end as the unbroken run does, bit for bit.

    python tests/kills.py --kills 60 --disks 10

Half of the kills (SIGKILL) come at random moments, half while a checkpoint is being written. After some of them the
newest checkpoint is cut off or has a bit flipped, as after a power cut. The run folder and the system's temporary
folder lie on different disks. Every attempt is a fork of this process, which has imported everything already.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPERIMENT = str(Path(__file__).parents[1] / "experiments" / "arithmetic.yaml")
SMALL = [
    "data.num_train=24",
    "data.num_validation=4",
    "data.num_test=2",
    "optim.epochs=4",
    "optim.batch_size=6",
    "optim.checkpoint_every=2",
    "schedule.num_stages=2",
    "weights.num_train=12",
    "weights.num_held_out=4",
    "weights.warmup_epochs=1",
    "weights.epochs=1",
    "weights.batch_size=6",
    "weights.if_not_found=uniform",
    "evaluation.max_new_tokens=4",
    "evaluation.batch_size=2",
    "logging.wandb=disabled",
    "launch.accelerator=cpu",
]
MEMORY = Path("/dev/shm")
"""A disk of its own on every Linux."""


def forked(folder: Path, temporary: Path, most_bytes: int | None = None, told: str = "said") -> int:
    """Begin or continue the run in a process of its own, whose number is returned; it says in a file what is wrong.

    Args:
        most_bytes: of a file that it may write.
        told: name of the file in which it says it, beside the run folder.
    """
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
        said = os.open(folder.parent / told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said, 2)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
        from kpod_lightning.__main__ import main

        code = main(["run", EXPERIMENT, "--run", str(folder), *SMALL])
    finally:
        sys.stderr.flush()
        os._exit(code)


def holds(folder: Path, number: int) -> bool:
    """Whether the lock of the run folder names the process. A killed one leaves its file, but not its lock."""
    lock = folder / ".lock"
    return lock.is_file() and lock.read_text(encoding="utf-8").startswith(f"{number}\n")


def refuse_second(folder: Path, temporary: Path, first: int) -> bool:
    """Begin the same run beside the process that writes it: it must say who writes and leave everything as it is.

    Returns whether the first one wrote all the time, so that there was something to be refused.
    """
    while not holds(folder, first):
        time.sleep(0.005)
    code = ended(forked(folder, temporary, told="second"))
    if not holds(folder, first):
        return False
    said = (folder.parent / "second").read_text(encoding="utf-8")
    if code != 2 or f"is being written by process {first} " not in said:
        raise SystemExit(f"{folder}: a second writer ends with {code} and says {said}")
    return True


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def parts(folder: Path) -> set[str]:
    """Checkpoints that are being written: the names of their temporary files."""
    found: set[str] = set()
    for name in ("checkpoints", "checkpoints-weights"):
        if (folder / name).is_dir():
            found |= {entry.name for entry in os.scandir(folder / name) if entry.name.endswith(".part")}
    return found


def killed(number: int, folder: Path, chance: random.Random, seconds: float, *, writing: bool) -> bool:
    """Kill the process, unless it ends before.

    Args:
        seconds: that an unbroken run takes.
        writing: kill it while it writes one of the next checkpoints; otherwise at a random moment.
    """
    left, until = chance.randint(1, 6), time.monotonic() + chance.uniform(0.1, seconds)
    before = parts(folder)
    while os.waitpid(number, os.WNOHANG)[0] == 0:
        now = parts(folder) if writing else set()
        left -= len(now - before)
        before = now
        if (writing and left <= 0) or (not writing and time.monotonic() > until):
            time.sleep(chance.uniform(0.0, 0.002) if writing else 0.0)
            os.kill(number, signal.SIGKILL)
            ended(number)
            return True
        time.sleep(0.0005 if writing else 0.005)
    return False


def damage(folder: Path, chance: random.Random) -> bool:
    """Cut off the newest checkpoint, or flip a bit of it."""
    files = sorted(folder.glob("checkpoints*/[ls]*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return False
    content = bytearray(files[-1].read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        content = content[:place]
    else:
        content[place] ^= 1 << chance.randrange(8)
    files[-1].write_bytes(content)
    return True


def outcome(folder: Path) -> dict[str, object]:
    """All that must be the same: the student, weights, difficulties, predictions, and what was logged but speeds."""
    kept = ["student/model.safetensors", "weights.safetensors", "difficulties.jsonl"]
    kept += [str(path.relative_to(folder)) for path in sorted(folder.glob("predictions/*.jsonl"))]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    speed = "train/tokens_per_second"
    logged = [{name: value for name, value in row.items() if name != speed} for row in rows]
    speeds = [row[speed] for row in rows if speed in row]
    assert min(speeds) > max(speeds) / 1000, f"tokens a second: {speeds}"
    return {name: (folder / name).read_bytes() for name in kept} | {"metrics.jsonl": logged}


def compare(folder: Path, unbroken: dict[str, object]) -> None:
    found = outcome(folder)
    others = [name for name in unbroken if found.get(name) != unbroken[name]]
    if others or len(found) != len(unbroken):
        raise SystemExit(f"{folder}: differs from the unbroken run in {', '.join(others)}")


def finish(folder: Path, temporary: Path, unbroken: dict[str, object]) -> None:
    code = ended(forked(folder, temporary))
    if code:
        raise SystemExit(f"{folder}: exit code {code}: {(folder.parent / 'said').read_text(encoding='utf-8')}")
    compare(folder, unbroken)


@contextmanager
def empty(parent: Path) -> Iterator[Path]:
    """A folder for a run, with room beside it for what runs share."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="kills-") as made:
        yield Path(made) / "run"


def kill_often(disks: tuple[Path, Path], unbroken: dict[str, object], seconds: float, num: int, seed: int) -> Counter:
    """Kill run after run, each some ten times, until there were so many kills; compare every run that ends."""
    chance, count = random.Random(seed), Counter()
    while count["kills"] < num:
        place, temporary = disks if count["runs"] % 2 == 0 else disks[::-1]
        with empty(place) as folder:
            for _ in range(10):
                writing = chance.random() < 0.5
                if count["kills"] == num:
                    break
                number = forked(folder, temporary)
                if chance.random() < 0.2:
                    count["second writers refused"] += refuse_second(folder, temporary, number)
                if not killed(number, folder, chance, seconds, writing=writing):
                    break
                count["kills"] += 1
                count["while a checkpoint was written"] += bool(parts(folder))
                if chance.random() < 0.2:
                    count["checkpoints damaged"] += damage(folder, chance)
            finish(folder, temporary, unbroken)
            count["runs"] += 1
            print(f"  {dict(count)}", flush=True)
    return count


def says_one_line(folder: Path, code: int) -> None:
    said = (folder.parent / "said").read_text(encoding="utf-8")
    lines = [line for line in said.splitlines() if line.startswith("kpod: ")]
    if code != 2 or "Traceback" in said or len(lines) != 1:
        raise SystemExit(f"{folder}: exit code {code}, and says {said}")
    print(f"  {lines[0]}", flush=True)


def fill_disks(unbroken: dict[str, object], most: int, num: int, temporary: Path) -> Counter:
    """Runs on disks of several sizes, each too small; then the disk grows, and the same command goes on.

    Args:
        most: bytes that a run folder takes.
    """
    count = Counter()
    for i in range(num):
        with tempfile.TemporaryDirectory() as mounted:
            size = int(most * (i + 0.5) / num)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mounted], check=True)
            try:
                folder = Path(mounted) / "run"
                said = Path(mounted) / "said"
                said.symlink_to(temporary / f"said-{os.getpid()}")
                code = ended(forked(folder, temporary))
                if code:
                    says_one_line(folder, code)
                    count["full disks"] += 1
                subprocess.run(["mount", "-o", f"remount,size={20 * most}", mounted], check=True)
                finish(folder, temporary, unbroken)
            finally:
                subprocess.run(["umount", mounted], check=True)
    return count


def limit_files(unbroken: dict[str, object], disks: tuple[Path, Path], largest: int, num: int) -> Counter:
    """Runs that may write no file beyond a size, as under ``ulimit -f``; then the limit goes, and they go on."""
    count = Counter()
    for i in range(num):
        with empty(disks[i % 2]) as folder:
            code = ended(forked(folder, disks[1 - i % 2], int(largest * (i + 0.5) / num)))
            says_one_line(folder, code)
            count["limited files"] += 1
            finish(folder, disks[1 - i % 2], unbroken)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--disks", type=int, default=10, help="sizes of full disks; needs root")
    parser.add_argument("--limits", type=int, default=3, help="largest sizes of a file")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    import torch

    import kpod_lightning.runs.pipeline  # noqa: F401  # all that an attempt needs

    torch.set_num_threads(1)
    disks = (MEMORY, Path(tempfile.gettempdir()))
    if disks[0].stat().st_dev == disks[1].stat().st_dev:
        raise SystemExit(f"{disks[0]} and {disks[1]} are one disk: set TMPDIR to a folder on another")
    began = time.monotonic()
    with empty(disks[0]) as folder:
        start = time.monotonic()
        code = ended(forked(folder, disks[1]))
        seconds = time.monotonic() - start
        assert code == 0, (folder.parent / "said").read_text(encoding="utf-8")
        unbroken = outcome(folder)
        sizes = [path.stat().st_size for path in folder.parent.rglob("*") if path.is_file()]
    print(f"unbroken: {seconds:.1f} s, {sum(sizes)} bytes", flush=True)
    count = kill_often(disks, unbroken, seconds, words.kills, words.seed)
    print(dict(count), f"{time.monotonic() - began:.0f} s", flush=True)
    count = limit_files(unbroken, disks, max(sizes), words.limits)
    count += fill_disks(unbroken, sum(sizes), words.disks, disks[1])
    print(dict(count), f"{time.monotonic() - began:.0f} s; every run ended as the unbroken one", flush=True)


if __name__ == "__main__":
    main()
