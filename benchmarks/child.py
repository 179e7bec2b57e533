"""One contender in a process of its own: it trains an epoch when it is told to, and says what that took.

``python -m benchmarks.child TASK STUDENT CONTENDER THREADS`` reads a line before each epoch and writes a line after it.
"""

import json
import logging
import os
import pickle
import resource
import sys
import time
from pathlib import Path
from typing import Any


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Turns:
    """Reports an epoch and waits for the next one; what a library prints goes elsewhere.

    Args:
        before: bytes that the process held before it had a student.
    """

    def __init__(self, before: int) -> None:
        self.out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.before = before

    def wait(self) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # the parent has what it wants; nothing is to be torn down
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def turn(self) -> None:
        gpu = sys.modules["torch"].cuda
        if gpu.is_available():
            gpu.synchronize()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.before
        if gpu.is_available():
            peak = gpu.max_memory_allocated()
        self.say(cpu=time.process_time() - self.cpu, wall=time.perf_counter() - self.wall, peak=peak)
        self.wait()

    def say(self, **what: Any) -> None:
        self.out.write(json.dumps(what) + "\n")


def main() -> None:
    task_file, student_name, contender, threads = sys.argv[1:]
    logging.disable(logging.WARNING)
    import torch

    from benchmarks.contenders import train
    from benchmarks.inputs import student_of

    torch.set_num_threads(int(threads))
    task = pickle.loads(Path(task_file).read_bytes())
    if contender.startswith("trl"):
        import trl  # noqa: F401
        from trl import SFTTrainer  # noqa: F401  imported before memory is counted
    turns = Turns(resident())
    student = student_of(student_name)
    turns.say(ready=True)
    turns.wait()
    train(contender, task, student, turns.turn)


if __name__ == "__main__":
    main()
