"""Runs of a study, each in a process of its own, some at once. The state is in the run folders alone.

submitit's LocalExecutor would do the same with two more processes a run, but no signal passes them: SIGTERM is
bypassed, and ``cancel`` leaves the run alive without a word. Its exit code is always 0, and its logs are named by
process ids.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from kpod_lightning.distributed import signals
from kpod_lightning.distributed.console import say
from kpod_lightning.distributed.preemption import by_signals, listening
from kpod_lightning.runs.folder import LOCK, REPORT, changed_settings, has_ended
from kpod_lightning.runs.study import NAMED, PlannedRun, Study
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import unwritable, write_text
from kpod_lightning.store.locks import BUSY, LEASE, is_held, one_writer
from kpod_lightning.store.reading import read_object, shown

LOOK = 0.2
"""Seconds between two looks at the processes."""

TAIL = 8192
"""Bytes of a log's end in which its last line is looked for."""

WAITING, RUNNING, ELSEWHERE, FINISHED, FAILED = "waiting", "running", "elsewhere", "finished", "failed"


@dataclass
class Task:
    """A run of the study, and what has become of it here."""

    run: PlannedRun
    state: str = WAITING
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    """``time.monotonic()`` when its process was started."""
    seconds: float = 0.0
    """That its process took."""
    ended: str = ""
    """How the process of a failed run ended, e.g. ``exit code 2``."""
    line: str = ""
    """The last line of a failed run's log."""
    devices: int = 0
    """GPUs that it takes, where GPUs are shared out."""
    gpus: tuple[str, ...] = ()
    """Those that it has while it runs."""

    @property
    def name(self) -> str:
        return self.run.folder.name

    @property
    def log(self) -> Path:
        return self.run.folder.parent / "logs" / f"{self.name}.log"


@dataclass
class Dispatch:
    """The tasks of a study, at most ``jobs`` of which run at once.

    Attributes:
        threads: of each process, for ``OMP_NUM_THREADS``; the caller's own value wins.
        gpus: that are free, as ``CUDA_VISIBLE_DEVICES`` names them; None: they are not shared out.
        changed: called with a task whose state is another than before.
        looked: called after every look at the processes.
    """

    tasks: Sequence[Task]
    jobs: int
    threads: int
    changed: Callable[[Task], None]
    looked: Callable[[], None]
    gpus: list[str] | None = None
    running: list[Task] = field(default_factory=list)

    def complete(self) -> None:
        """Start what is missing until every run has finished or failed.

        Raises:
            Preempted: a signal came. The runs were asked to stop, and have stopped.
            InputError: no log can be written.
        """
        with listening():
            try:
                while any(task.state in (WAITING, RUNNING, ELSEWHERE) for task in self.tasks):
                    if signals.received:
                        raise by_signals()
                    self.look()
                    self.looked()
                    time.sleep(LOOK)
            finally:
                self.stop()

    def look(self) -> None:
        """See which processes have ended, and start others."""
        for task in [task for task in self.running if task.process is not None and task.process.poll() is not None]:
            self.running.remove(task)
            self.end(task)
        for task in self.tasks:
            if task.state in (WAITING, ELSEWHERE):
                self.begin(task)

    def begin(self, task: Task) -> None:
        """Start a run, unless it has finished, or another process is at it, or as many run as may."""
        if has_ended(task.run.folder):
            self.turn(task, FINISHED)
        elif is_held(task.run.folder / LOCK):
            self.turn(task, ELSEWHERE)
        elif len(self.running) >= self.jobs or not self.has_gpus(task):
            self.turn(task, WAITING)
        else:
            if self.gpus is not None:
                task.gpus, self.gpus = tuple(self.gpus[: task.devices]), self.gpus[task.devices :]
            task.process, task.began = started(task, self.threads), time.monotonic()
            self.running.append(task)
            self.turn(task, RUNNING)

    def has_gpus(self, task: Task) -> bool:
        return self.gpus is None or len(self.gpus) >= task.devices

    def end(self, task: Task) -> None:
        """What has become of a run whose process has ended."""
        assert task.process is not None
        if self.gpus is not None:
            task.gpus, self.gpus = (), sorted([*self.gpus, *task.gpus])
        code, task.seconds = task.process.returncode, time.monotonic() - task.began
        task.line = last_line(task.log)
        if has_ended(task.run.folder):
            self.turn(task, FINISHED)
        elif code == 2 and BUSY in task.line:  # another process was faster; the next look finds it there
            self.turn(task, WAITING)
        else:
            task.ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            self.turn(task, FAILED)

    def turn(self, task: Task, state: str) -> None:
        if state != task.state:
            task.state = state
            self.changed(task)

    def stop(self) -> None:
        """Ask the runs to save a checkpoint and to end, and wait for that."""
        if self.running:
            say(f"asks {', '.join(task.name for task in self.running)} to save what is done and to end")
        for task in self.running:
            assert task.process is not None
            task.process.terminate()
        for task in self.running:
            assert task.process is not None
            task.process.wait()
            self.turn(task, FINISHED if has_ended(task.run.folder) else WAITING)
        self.running.clear()


def started(task: Task, threads: int) -> "subprocess.Popen[bytes]":
    """The process of a run. Its output is appended to its log, behind the command.

    It is in a session of its own: Ctrl-C in a terminal reaches the runner alone, which passes on one signal; two would
    kill a run that is saving its checkpoint.

    Raises:
        InputError: the log cannot be written.
    """
    command = [sys.executable, "-m", "kpod_lightning", *task.run.words]
    try:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as log:
            write_head(log, command)
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": str(threads)} | os.environ | visible(task.gpus),
                start_new_session=True,
            )
    except OSError as error:
        raise unwritable(task.log, error) from error


VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible(gpus: Sequence[str]) -> dict[str, str]:
    """The variable that shows a process these GPUs alone."""
    return {VISIBLE: ",".join(gpus)} if gpus else {}


def gpus_here() -> list[str]:
    """GPUs of this machine that may be used, as ``CUDA_VISIBLE_DEVICES`` names them; found without loading torch."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip() not in ("", "-1")]
    lister = shutil.which("nvidia-smi")
    if lister is None:
        return []
    listed = subprocess.run([lister, "--list-gpus"], capture_output=True, text=True, check=False)
    found = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(found))]


HEAD = "# "
"""Before the command in a log, which is no line of the run's own."""


def write_head(log: IO[bytes], command: list[str]) -> None:
    log.write(f"{HEAD}{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
    log.flush()


def last_line(log: Path) -> str:
    """The last line that a run has written to its log; nothing where it wrote none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    written = [line.strip() for line in lines if line.strip()]
    return written[-1].removeprefix("kpod: ") if written and not written[-1].startswith(HEAD) else ""


def refuse_other_settings(study: Study) -> None:
    """Stop where a run of the study has been made with other settings: its table would mix them.

    Raises:
        InputError: one has.
    """
    for arm in study.arms:
        for run in [run for run in study.runs if run.arm == arm and run.folder.is_dir()]:
            changed = changed_settings(run.folder, replace(study.configs[arm.name], seed=run.seed))
            if changed:
                reasons = "; ".join(changed)
                raise InputError(f"{run.folder} was made with other settings ({reasons}): take another --runs")


def keep_named(study: Study) -> None:
    """Write down what the study names, in ``study.json``, before its first run is started.

    Names that differ from those written last are appended, with their date and the number of runs that had finished by
    then, so that a table can say which comparisons were named before there was a result.

    Raises:
        InputError: the file is damaged, or cannot be written.
    """
    path, named = study.folder / NAMED, study.as_dict()
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(study.folder, error) from error
    with one_writer(path, study.folder / ".study.lock", seconds=LEASE):
        versions = read_object(path).get("versions", []) if path.exists() else []
        try:
            if versions and wherever_typed(versions[-1]) == wherever_typed(named):
                return
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{shown(path)}: damaged, not what a study named; move it away") from error
        num_finished = len(list(study.folder.glob(f"*/{REPORT}")))
        dated = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "num_finished": num_finished}
        write_text(path, json.dumps({"versions": [*versions, dated | named]}, indent=1, ensure_ascii=False) + "\n")


def wherever_typed(named: dict[str, Any]) -> list[Any]:
    """What a study names, without the folders of experiments, which are relative to where the command is typed."""
    arms = {name: [Path(experiment).name, *words] for name, (experiment, *words) in named["arms"].items()}
    return [arms, named["seeds"], named["family"]]
