"""Where a training is followed: ``metrics.jsonl``, and one W&B run for all of its kills and resumes."""

import json
import netrc
import os
import secrets
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from kpod_lightning.config import to_dict
from kpod_lightning.distributed.preemption import Preempted
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.evaluation.grade import accuracy
from kpod_lightning.evaluation.statistics import mcnemar_exact
from kpod_lightning.runs.folder import Run
from kpod_lightning.store.files import fingerprint, write_text

if TYPE_CHECKING:
    import wandb
from kpod_lightning.runs.metrics import UNITS, JsonlLogger

console = Console()

BY_STEP = tuple(name for name in UNITS if not name.startswith("test/") and name != "validation/best_accuracy")

LAST_PART = "train/nats_per_token"
"""Key of what an epoch logs last: validation logs its part of the same step before."""

OUTCOMES = {(False, True): "gained", (True, False): "lost", (True, True): "both", (False, False): "neither"}
"""Of a test problem, by whether it was right before and after."""


class EpochRows(WandbLogger):
    """Gives W&B each step's row whole, in order, and once.

    W&B's own step is the number of optimiser steps done, so that a run which goes on in another process, or in
    another offline folder, numbers on instead of from 0.

    Args:
        experiment: an open W&B run.
        known: steps that it has already, which are not sent again.
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
        """What there is of a row that nothing follows any more."""
        step, row = self._step, self._row
        self._step, self._row = None, {}
        if step is None or step in self.known:
            return
        self.experiment.log({**row, "trainer/global_step": step}, step=step + 1, commit=True)
        self.known.add(step)


def has_key() -> bool:
    """Whether W&B finds a key: in the environment, or in netrc for its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    hosts = {urlsplit(wandb.setup().settings.base_url).netloc, "api.wandb.ai"}  # `wandb login` of older versions
    if os.environ.get("WANDB_BASE_URL"):
        hosts = {urlsplit(os.environ["WANDB_BASE_URL"]).netloc}
    try:
        return any(host in netrc.netrc(os.environ.get("NETRC")).hosts for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def offline_rows(folder: Path, run_id: str) -> Iterator[dict[str, Any]]:
    """History rows that lie in the offline files of a W&B run, up to a torn end; of a picture or table a part only.

    W&B writes its log late, every few seconds, and has no reader for it. The format is LevelDB's log of protobuf
    records.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    header, block = struct.Struct("<IHB"), 32768
    for path in sorted(folder.glob(f"wandb/offline-run-*/run-{run_id}.wandb")):
        data, position, record = path.read_bytes(), 7, b""
        while position + header.size <= len(data):
            if block - position % block < header.size:
                position += block - position % block  # no header is split between blocks
                continue
            _, size, kind = header.unpack_from(data, position)
            position += header.size
            if kind == 0 or position + size > len(data):
                break
            record += data[position : position + size]
            position += size
            if kind in (1, 4):  # whole, or the last part
                try:
                    history = Record.FromString(record).history
                except Exception:  # what cannot be read counts as not written: a repeat is better than a gap
                    break
                record = b""
                if history.item:
                    yield {i.key or i.nested_key[0]: json.loads(i.value_json) for i in history.item}


class Tracker:
    """Follows a run; a context, which closes the W&B run that it opened. Only rank zero talks to W&B.

    The id of the W&B run is kept in ``wandb.json`` with the training it belongs to, so that a resumed or requeued
    training goes on in the same one, and another training (``--redo``) gets its own.

    What holds: ``metrics.jsonl`` has every epoch up to the checkpoint that a training resumes from. On opening, W&B
    gets what it lacks of that file, and no step that it has: those of the offline folders that still exist, and on the
    server those below the step at which it resumes. So a kill between a row and its checkpoint makes no repeat (the
    epoch is trained again to the same numbers, apart from tokens a second), and one before W&B wrote its log no gap.

    Args:
        run: the run folder and its settings.
        described: what there is to see of weights, difficulties and schedule; called when the W&B run is opened.
    """

    def __init__(self, run: Run, described: Callable[[], dict[str, Any]]) -> None:
        self.run = run
        self.described = described
        off = "disabled" in (run.config.logging.wandb, os.environ.get("WANDB_MODE"))
        self.wanted = not off and is_first()
        self.rows: EpochRows | None = None
        self.state: dict[str, Any] = {}
        self.result: str | None = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if self.rows is None:
            return
        import wandb

        self.rows.send()
        experiment = self.rows.experiment
        if kind is Preempted:
            experiment.mark_preempting()  # the server then waits for it to go on
        experiment.finish(exit_code=0 if kind in (None, Preempted) else 1)
        wandb.teardown()  # W&B's files are whole when its service has ended, not yet when finish returns
        if kind is None and self.result is not None:
            self.keep(result=self.result)
        if experiment.offline:
            folders = self.run.folder / "wandb" / "offline-run-*"
            console.print(f"W&B is offline; to upload the run: wandb sync {folders}", soft_wrap=True)

    def keep(self, **state: Any) -> None:
        self.state |= state
        write_text(self.run.folder / "wandb.json", json.dumps(self.state, indent=2) + "\n")

    def remember(self, training: str) -> None:
        path = self.run.folder / "wandb.json"
        if path.is_file():
            self.state = json.loads(path.read_text(encoding="utf-8"))
        if self.state.get("training") != training:
            self.state = {}

    def loggers(self, training: str, step: int) -> list[Logger]:
        """Of a training that goes on from an optimiser step; 0 where it begins.

        Args:
            training: fingerprint of everything that it depends on.
        """
        jsonl = JsonlLogger(self.run.folder / "metrics.jsonl")
        jsonl.cut(step)
        return [jsonl, self.opened(training)] if self.wanted else [jsonl]

    def opened(self, training: str) -> EpochRows:
        """The W&B run of the training, with all that it should have by now."""
        if self.rows is not None:
            return self.rows
        self.remember(training)
        if not self.state:
            self.keep(id=secrets.token_hex(4), training=training)
        written = list(offline_rows(self.run.folder, self.state["id"]))
        experiment = self.start()
        for name in BY_STEP:
            summary = "max,last" if name == "validation/accuracy" else None
            experiment.define_metric(name, step_metric="trainer/global_step", step_sync=False, summary=summary)
        experiment.config.update({**to_dict(self.run.config), "units": UNITS}, allow_val_change=True)
        known = {row["trainer/global_step"] for row in written if LAST_PART in row}
        known |= set(range(experiment.step - 1))  # W&B's step is one more; 0 if offline
        if not experiment.step:
            shown = {name for row in written for name in row}
            pictures = {name: made for name, made in panels(self.described()).items() if name not in shown}
            if pictures:
                experiment.log(pictures, step=0, commit=True)
        self.rows = EpochRows(experiment, known)
        for row in self.run.metrics:
            self.rows.log_metrics({name: value for name, value in row.items() if name != "step"}, row["step"])
        return self.rows

    def start(self) -> "wandb.Run":
        import wandb  # slow import, not needed where W&B is off

        config = self.run.config
        settings: dict[str, Any] = {
            "id": self.state["id"],
            "resume": "allow",
            "dir": self.run.folder,
            "project": config.logging.project,
            "name": self.run.folder.name,
            "group": config.logging.group,
            # W&B refuses longer tags; a student may be a path.
            "tags": [name[-64:] for name in (config.data.dataset, Path(config.student.name).name, config.method)],
            "settings": wandb.Settings(silent=True),
        }
        mode: Any = "offline"
        if config.logging.wandb == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        try:
            return wandb.init(mode=mode, **settings)
        except wandb.Error as error:
            if mode != "online":
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            console.print(f"W&B cannot be reached ({reason}); the run is logged offline", soft_wrap=True)
            wandb.teardown()  # its service holds on to the id
            return wandb.init(mode="offline", **settings)

    def log_result(self, training: str, sets: Sequence[str]) -> None:
        """Accuracies and what became of each test problem, once, whether or not this process trained the student.

        Args:
            training: fingerprint of everything that the training depends on.
            sets: names of the problem sets that were asked after distillation; ``test`` is one.
        """
        if not self.wanted:
            return
        made_from = self.run.provenance["artefacts"]
        result = fingerprint(training, {name: made_from.get(f"predictions/{name}.jsonl") for name in sets})
        if self.rows is None:
            self.remember(training)
        if self.state.get("result") == result:
            return
        rows = self.opened(training)
        rows.send()
        before = self.run.records("test-before")
        records = {name: self.run.records(name) for name in sets}
        rows.experiment.summary.update(result_numbers(before, records, self.run.metrics))
        last = max((row["step"] for row in self.run.metrics), default=-1)
        tables = result_tables(before, records["test"])
        rows.experiment.log(tables, step=max(last + 2, rows.experiment.step), commit=True)
        if self.run.config.logging.artifacts:
            self.log_artifacts(rows.experiment)
        self.result = result

    def log_artifacts(self, experiment: "wandb.Run") -> None:
        import wandb

        for kind, folder in (("model", "student"), ("predictions", "predictions")):
            artifact = wandb.Artifact(f"{folder}-{experiment.id}", type=kind)
            # Without a copy: the files are whole once they are there, and are replaced, never changed.
            artifact.add_dir(str(self.run.folder / folder), policy="immutable")
            experiment.log_artifact(artifact)


def panels(made: Mapping[str, Any]) -> dict[str, Any]:
    """The report's pictures of weights, difficulties and schedule, and the schedule as a table."""
    import wandb

    found: dict[str, Any] = {f"pictures/{name}": wandb.Plotly(figure) for name, figure in made["figures"].items()}
    if "coloured" in made:
        page = "".join(f"<p>{text}</p>" for text in made["coloured"])
        found["pictures/rationales"] = wandb.Html(page, inject=False)
    if "stages" in made:
        columns: list[str | int] = ["stage", "asked, nats", "budget, nats", "mean input steps", "value / upper bound"]
        rows = [
            [row["stage"], row["asked"], row["budget"], row["input_steps"], row["certificate"]]
            for row in made["stages"]
        ]
        found["tables/schedule"] = wandb.Table(columns=columns, data=rows)
    return found


def result_numbers(
    before: list[dict[str, Any]], records: Mapping[str, list[dict[str, Any]]], metrics: list[dict[str, Any]]
) -> dict[str, float]:
    """The W&B summary of a finished run: accuracies with their 95 % intervals, and the paired test."""
    numbers: dict[str, float] = {}
    for name, graded in {"test/accuracy_before": before, **{f"{n}/accuracy": r for n, r in records.items()}}.items():
        if name == "validation/accuracy":
            continue  # the best of the training is this one, and stands below
        found = accuracy(graded)
        numbers |= {name: found.value, f"{name}_low": found.interval[0], f"{name}_high": found.interval[1]}
    test = mcnemar_exact([r["right"] for r in before], [r["right"] for r in records["test"]])
    numbers |= {"test/gained": test.only_after, "test/lost": test.only_before, "test/p_value": test.p_value}
    validated = [row["validation/accuracy"] for row in metrics if "validation/accuracy" in row]
    return numbers | ({"validation/best_accuracy": max(validated)} if validated else {})


def result_tables(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of the test problems: how many were gained, lost, right both times or neither, and which."""
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
