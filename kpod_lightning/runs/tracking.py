"""Logging of a run: ``metrics.jsonl``, and one W&B run for a training over all of its kills and resumes."""

import json
import netrc
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from kpod_lightning.config import to_dict
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import Preempted
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.evaluation.grade import accuracy
from kpod_lightning.evaluation.sections import Section
from kpod_lightning.evaluation.statistics import mcnemar_exact
from kpod_lightning.runs.folder import Run
from kpod_lightning.runs.metrics import UNITS, JsonlLogger
from kpod_lightning.runs.wandb_log import offline_rows
from kpod_lightning.store.files import fingerprint, write_text

if TYPE_CHECKING:
    import wandb

BY_STEP = tuple(name for name in UNITS if not name.startswith("test/") and name != "validation/kept_accuracy")
"""Keys of what is logged during training; W&B shows them over the optimiser step."""

LAST_PART = "train/nats_per_token"
"""A key of the last part of an epoch's row; the part with the validation results comes before it."""

OUTCOMES = {(False, True): "gained", (True, False): "lost", (True, True): "both", (False, False): "neither"}
"""Outcome of a test problem, by whether it was right before distillation and after."""


class EpochRows(WandbLogger):
    """Sends W&B one row for each logged step, in order and once; Lightning logs a row in parts.

    W&B's own step is the number of optimiser steps done, so that numbers go on, instead of starting from 0, when a
    run is resumed in another process or another offline folder.

    Args:
        experiment: an open W&B run.
        known: steps whose rows it has already; they are not sent again.
    """

    def __init__(self, experiment: "wandb.Run", known: set[int]) -> None:
        super().__init__(experiment=experiment, project=experiment.project, save_dir=experiment.dir)
        self.known = known
        self._step: int | None = None
        self._row: dict[str, Any] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step != self._step:
            self.send()
            self._step = step
        self._row |= metrics
        if LAST_PART in metrics:
            self.send()

    @rank_zero_only
    def send(self) -> None:
        """Send the parts of a row that have been collected, if there are any."""
        step, row = self._step, self._row
        self._step, self._row = None, {}
        if step is None or step in self.known:
            return
        self.experiment.log({**row, "trainer/global_step": step}, step=step + 1, commit=True)
        self.known.add(step)


def has_key() -> bool:
    """Whether W&B will find a key, in the environment or in netrc under the name of its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    hosts = {urlsplit(wandb.setup().settings.base_url).netloc, "api.wandb.ai"}  # older `wandb login` used this name
    if os.environ.get("WANDB_BASE_URL"):
        hosts = {urlsplit(os.environ["WANDB_BASE_URL"]).netloc}
    try:
        return any(host in netrc.netrc(os.environ.get("NETRC")).hosts for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Content of ``wandb.json``: which W&B run shows which training.

    Args:
        id: id of the W&B run.
        training: fingerprint of everything that the training depends on.
        result: fingerprint of the result that the W&B run has; None before it has one.
    """

    id: str
    training: str
    result: str | None = None

    @classmethod
    def of(cls, folder: Path, training: str) -> "Identity | None":
        """The W&B run of a training; None where the run folder has none, or that of another training."""
        path = folder / "wandb.json"
        if not path.is_file():
            return None
        found = cls(**json.loads(path.read_text(encoding="utf-8")))
        return found if found.training == training else None

    def save(self, folder: Path) -> None:
        write_text(folder / "wandb.json", json.dumps(asdict(self), indent=2) + "\n")


class Tracker:
    """Logs a run to W&B, on rank 0 alone; a context that closes the W&B run which it opened.

    A resumed or requeued training continues its W&B run, whose id is in ``wandb.json``; another training in the same
    folder (``--redo``) gets a W&B run of its own.

    No gap and no repeat: ``metrics.jsonl`` has every epoch up to the checkpoint that a training resumes from. When
    the W&B run is opened it is sent the rows of that file that it does not have. It has what the offline folders hold
    and, online, every step before the one it resumes at. An epoch that is trained again after a kill has the same
    numbers (apart from tokens per second), so its row is not sent again.

    Args:
        run: the run folder and its settings.
        describe: gives the method's sections of the report; called when the W&B run is opened.
    """

    def __init__(self, run: Run, describe: Callable[[], Sequence[Section]]) -> None:
        self.run = run
        self.describe = describe
        off = "disabled" in (run.config.logging.wandb, os.environ.get("WANDB_MODE"))
        self.wanted = not off and is_first()
        self.rows: EpochRows | None = None
        self.identity: Identity | None = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if self.rows is None:
            return
        import wandb

        self.rows.send()
        experiment = self.rows.experiment
        if kind is Preempted:
            experiment.mark_preempting()  # the server then waits for the run to be resumed
        experiment.finish(exit_code=0 if kind in (None, Preempted) else 1)
        wandb.teardown()  # finish() returns before W&B's service has written its files; teardown() waits for them
        if kind is None and self.identity is not None:
            self.identity.save(self.run.folder)  # with the result, which W&B has only now
        if experiment.offline:
            folders = self.run.folder / "wandb" / "offline-run-*"
            console.print(f"W&B is offline; to upload the run: wandb sync {folders}", soft_wrap=True)

    def loggers(self, training: str, step: int) -> list[Logger]:
        """Loggers of a training.

        Args:
            training: fingerprint of everything that it depends on.
            step: optimiser step that it resumes at; 0 where it begins.
        """
        jsonl = JsonlLogger(self.run.folder / "metrics.jsonl")
        jsonl.cut(step)
        return [jsonl, self.opened(training)] if self.wanted else [jsonl]

    def opened(self, training: str) -> EpochRows:
        """The W&B run of the training, opened at the first call; it then has every row of ``metrics.jsonl``."""
        if self.rows is not None:
            return self.rows
        folder = self.run.folder
        self.identity = Identity.of(folder, training) or Identity(id=secrets.token_hex(4), training=training)
        self.identity.save(folder)
        logged = list(offline_rows(folder, self.identity.id))
        experiment = open_wandb(self.run, self.identity.id)
        if not experiment.step:  # offline, or a W&B run that the server does not have yet
            self.log_panels(experiment, {name for row in logged for name in row})
        known = {row["trainer/global_step"] for row in logged if LAST_PART in row}
        known |= set(range(experiment.step - 1))  # W&B's step is one more than ours; 0 if offline
        self.rows = EpochRows(experiment, known)
        for row in self.run.metrics:
            self.rows.log_metrics({name: value for name, value in row.items() if name != "step"}, row["step"])
        return self.rows

    def log_panels(self, experiment: "wandb.Run", logged: Collection[str]) -> None:
        """Log the panels of the method's sections whose keys are not in ``logged``."""
        missing = {name: panel for name, panel in panels(self.describe()).items() if name not in logged}
        if missing:
            experiment.log(missing, step=0, commit=True)

    def log_result(self, training: str, sets: Sequence[str]) -> None:
        """Log accuracies and the outcome of each test problem, once, whether or not this process trained the student.

        Args:
            training: fingerprint of everything that the training depends on.
            sets: names of the problem sets that were asked after distillation; ``test`` is one.
        """
        if not self.wanted:
            return
        made_from = self.run.provenance["artefacts"]
        result = fingerprint(training, {name: made_from.get(f"predictions/{name}.jsonl") for name in sets})
        known = self.identity or Identity.of(self.run.folder, training)
        if known is not None and known.result == result:
            return
        rows = self.opened(training)
        rows.send()
        before = self.run.records("test-before")
        records = {name: self.run.records(name) for name in sets}
        rows.experiment.summary.update(result_numbers(before, records))
        last = max((row["step"] for row in self.run.metrics), default=-1)
        tables = result_tables(before, records["test"])
        rows.experiment.log(tables, step=max(last + 2, rows.experiment.step), commit=True)
        if self.run.config.logging.artifacts:
            log_artifacts(rows.experiment, self.run.folder)
        assert self.identity is not None  # opened() found it
        self.identity = replace(self.identity, result=result)


def open_wandb(run: Run, run_id: str) -> "wandb.Run":
    """Open a W&B run: online where there is a key and the server answers, else offline."""
    import wandb  # slow import, not needed where W&B is off

    config = run.config
    settings: dict[str, Any] = {
        "id": run_id,
        "resume": "allow",
        "dir": run.folder,
        "project": config.logging.project,
        "name": run.folder.name,
        "group": config.logging.group,
        # W&B refuses tags of more than 64 characters, and a student may be a path.
        "tags": [name[-64:] for name in (config.data.dataset, Path(config.student.name).name, config.method)],
        "settings": wandb.Settings(silent=True),
    }
    mode: Any = "offline"
    if config.logging.wandb == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    try:
        experiment = wandb.init(mode=mode, **settings)
    except wandb.Error as error:
        if mode != "online":
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        console.print(f"W&B cannot be reached ({reason}); the run is logged offline", soft_wrap=True)
        wandb.teardown()  # else W&B's service keeps the id for the run that failed
        experiment = wandb.init(mode="offline", **settings)
    for name in BY_STEP:
        summary = "max,last" if name == "validation/accuracy" else None
        experiment.define_metric(name, step_metric="trainer/global_step", step_sync=False, summary=summary)
    experiment.config.update({**to_dict(config), "units": UNITS}, allow_val_change=True)
    return experiment


def log_artifacts(experiment: "wandb.Run", folder: Path) -> None:
    """Log the student and its predictions as artifacts."""
    import wandb

    for kind, part in (("model", "student"), ("predictions", "predictions")):
        artifact = wandb.Artifact(f"{part}-{experiment.id}", type=kind)
        # "immutable": W&B uploads the files without copying them first. Ours are replaced, never changed in place.
        artifact.add_dir(str(folder / part), policy="immutable")
        experiment.log_artifact(artifact)


def panels(sections: Sequence[Section]) -> dict[str, Any]:
    """What W&B shows of the method's sections: figures, HTML and tables by their keys."""
    import wandb

    found: dict[str, Any] = {}
    for section in sections:
        found |= {f"pictures/{name}": wandb.Plotly(figure) for name, figure in section.figures.items()}
        found |= {f"pictures/{name}": wandb.Html(html, inject=False) for name, html in section.html.items()}
        if section.table is not None:
            rows = [list(row) for row in section.table.rows]
            found[f"tables/{section.table.name}"] = wandb.Table(columns=list(section.table.columns), data=rows)
    return found


def result_numbers(before: list[dict[str, Any]], records: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The W&B summary of a finished run: accuracies with their 95 % intervals, and the paired test."""
    numbers: dict[str, float] = {}
    for name, graded in {"test/accuracy_before": before, **{f"{n}/accuracy": r for n, r in records.items()}}.items():
        found = accuracy(graded)
        if name == "validation/accuracy":  # a name of what is logged every epoch
            numbers["validation/kept_accuracy"] = found.value
            continue
        numbers |= {name: found.value, f"{name}_low": found.interval[0], f"{name}_high": found.interval[1]}
    test = mcnemar_exact([r["right"] for r in before], [r["right"] for r in records["test"]])
    return numbers | {"test/gained": test.only_after, "test/lost": test.only_before, "test/p_value": test.p_value}


def result_tables(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcomes of the test problems, counted and one by one."""
    import wandb

    same, each = ["problem_id", "question", "answer"], ["predicted", "text"]
    rows = [
        [OUTCOMES[old["right"], new["right"]], *(new[n] for n in same), *(r[n] for n in each for r in (old, new))]
        for old, new in zip(before, after, strict=True)
    ]
    numbers = Counter(row[0] for row in rows)
    columns: list[str | int] = ["outcome", *same, *(f"{name} {when}" for name in each for when in ("before", "after"))]
    return {
        "tables/outcomes": wandb.Table(
            columns=["outcome", "problems"], data=[[name, numbers[name]] for name in OUTCOMES.values()]
        ),
        "tables/test": wandb.Table(columns=columns, data=rows),
    }
