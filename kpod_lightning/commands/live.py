"""What `kpod study` shows while runs go on: a table of arms and seeds on a terminal, elsewhere a line an event."""

import time
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kpod_lightning.commands.status import epochs_of, reached, rights_of, rows_of
from kpod_lightning.distributed.console import console, say
from kpod_lightning.distributed.progress import duration
from kpod_lightning.runs.dispatch import ELSEWHERE, FAILED, FINISHED, RUNNING, WAITING, Task
from kpod_lightning.runs.study import Study

PERIOD = 1.0
"""Seconds between two drawings of the table."""

AROUND = 8
"""Lines of a terminal that the rows of the table do not have: its head, what stands above it, the prompt."""

STYLES = {WAITING: "dim", RUNNING: "yellow", ELSEWHERE: "magenta", FINISHED: "green", FAILED: "bold red"}


class Cells:
    """The state of every run of a study.

    Args:
        jobs: that run at once, for the time that is left.
    """

    def __init__(self, study: Study, tasks: list[Task], jobs: int) -> None:
        self.study, self.tasks, self.jobs = study, tasks, jobs
        self.of = {(task.run.arm.name, task.run.seed): task for task in tasks}
        self.began = self.drawn = time.monotonic()
        self.accuracies: dict[str, str] = {}
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "Cells":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.live is not None:
            self.live.update(self.drawing(), refresh=True)
            self.live.stop()
        else:
            say(self.sentence())

    def changed(self, task: Task) -> None:
        """Say an event, where there is no table."""
        if self.live is None:
            say(f"{task.name}: {self.event(task)}")

    def looked(self) -> None:
        """Draw the table anew if it is a second old."""
        if self.live is not None and time.monotonic() - self.drawn >= PERIOD:
            self.drawn = time.monotonic()
            self.live.update(self.drawing(), refresh=True)

    def event(self, task: Task) -> str:
        if task.state == RUNNING:
            return f"started, log {task.log}"
        if task.state == ELSEWHERE:
            return "another process runs it; waits for that"
        if task.state == FAILED:
            return f"failed with {task.ended}: {task.line}"
        if task.state == FINISHED:
            took = f" after {duration(task.seconds)}" if task.seconds else " before"
            return f"finished{took}, test accuracy {self.accuracy(task)}"
        return "not finished, waits"

    def cell(self, task: Task) -> str:
        if task.state == FINISHED:
            return self.accuracy(task).removesuffix(" %")
        if task.state in (FAILED, ELSEWHERE):
            return task.state
        return place_of(task.run.folder) or ("starts" if task.state == RUNNING else "·")

    def accuracy(self, task: Task) -> str:
        """Test accuracy of a finished run; a file is read once."""
        if task.name not in self.accuracies:
            right = rights_of(task.run.folder)
            self.accuracies[task.name] = f"{100 * sum(right) / len(right):.1f} %" if right else "unknown"
        return self.accuracies[task.name]

    def sentence(self) -> str:
        """How many runs are at what, and how long the rest may take."""
        number = {state: sum(task.state == state for task in self.tasks) for state in STYLES}
        parts = [f"{number[FINISHED]} of {len(self.tasks)} finished"]
        parts += [f"{number[state]} {state}" for state in (RUNNING, ELSEWHERE, WAITING, FAILED) if number[state]]
        left = self.seconds_left()
        about = f", about {duration(left)} left" if left else ""
        return f"{self.study.name}: {', '.join(parts)}; {duration(time.monotonic() - self.began)} so far{about}"

    def seconds_left(self) -> float | None:
        """As long as the mean run that has finished here, for each that has not; None before there is one."""
        took = [task.seconds for task in self.tasks if task.state == FINISHED and task.seconds]
        if not took:
            return None
        mean, now = sum(took) / len(took), time.monotonic()
        waiting = mean * sum(task.state == WAITING for task in self.tasks)
        running = sum(max(0.0, mean - (now - task.began)) for task in self.tasks if task.state == RUNNING)
        return (waiting + running) / self.jobs

    def drawing(self) -> Group:
        table = Table("test accuracy, %", box=box.SIMPLE_HEAD)
        for seed in self.study.seeds:
            table.add_column(f"s{seed}", justify="right")
        names = self.names()
        for name in names:
            tasks = [self.of[name, seed] for seed in self.study.seeds]
            table.add_row(Text(name), *(Text(self.cell(task), STYLES[task.state]) for task in tasks))
        hidden = len(self.study.arms) - len(names)
        below = [Text(f"and {hidden} arms that have ended or wait", "dim")] if hidden else []
        return Group(Text(self.sentence()), table, *below)

    def names(self) -> list[str]:
        """Arms of the table: all, or where the terminal is too low for them, those at which something is done first."""
        arms = [arm.name for arm in self.study.arms]
        room = max(1, console.height - AROUND)
        if len(arms) <= room:
            return arms
        at_work = {task.run.arm.name for task in self.tasks if task.state in (RUNNING, ELSEWHERE, FAILED)}
        chosen = sorted(arms, key=lambda name: name not in at_work)[:room]
        return [name for name in arms if name in chosen]


def place_of(folder: Path) -> str:
    """How far an unfinished run has come; nothing where it has only begun."""
    verb = reached(folder)
    if verb == "training":
        return f"epoch {epochs_of(folder, rows_of(folder / 'metrics.jsonl'))}".rstrip()
    return "" if verb in ("nothing yet", "settings") else verb
