"""The arrows of a run, in order: each writes one artefact, unless the run folder has it already."""

import logging
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from rich.progress import track

from kpod_lightning.curricula.pictures import sentence_on_schedule
from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.problems import Problem, contents_of
from kpod_lightning.data.rationales import SELECTION, RationaleTable
from kpod_lightning.data.sources import sentence_on_origins, source_of
from kpod_lightning.data.template import TEMPLATE
from kpod_lightning.distributed.checkpoints import forget_other_checkpoints
from kpod_lightning.distributed.preemption import stopping
from kpod_lightning.distributed.ranks import first_rank, is_first
from kpod_lightning.evaluation.generate import generate
from kpod_lightning.evaluation.grade import grade
from kpod_lightning.keypoints.learn import loss_weights
from kpod_lightning.methods.kpod import curriculum_fingerprints, described
from kpod_lightning.methods.training import distil
from kpod_lightning.runs.folder import Run, settings_of
from kpod_lightning.runs.report import print_result, save_report
from kpod_lightning.runs.tracking import Tracker
from kpod_lightning.runs.train_set import TrainSet, console, select
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import JsonLines, save_jsonl
from kpod_lightning.students.export import export_student
from kpod_lightning.students.student import Student, contents, load_config, load_student


def evaluate(run: Run, name: str, problems: Sequence[Problem], student: Student) -> list[dict[str, Any]]:
    """Graded outputs of all problems; every rank generates its share."""
    config = run.config
    what = f"{name} ({len(problems)} problems)"
    outputs = generate(
        problems,
        student,
        method=config.method,
        batch_size=config.evaluation.batch_size,
        max_new_tokens=config.evaluation.max_new_tokens,
        num_samples=config.evaluation.num_samples,
        temperature=config.evaluation.temperature,
        seed=config.seed,
        track=lambda batches: stopping(track(list(batches), description=what, console=console, disable=not is_first())),
    )
    return grade(problems, outputs, variant=config.evaluation.variant)


ARROWS = ("rationales", "tokens", "weights", "difficulties", "schedule", "train", "evaluate", "report")
"""Where a run can be stopped, in order; each writes what the next one reads."""


def complete(run: Run, until: str = "report") -> None:
    """Do what is missing in the run folder, up to one of ``ARROWS``, and print the result.

    Raises:
        InputError: input that cannot be used; or an artefact was made from problems, rationales or a student that
            have changed since, and ``--redo`` was not given.
    """
    with Tracker(run, lambda: described(run)) as tracker:
        follow_arrows(run, until, tracker)


def follow_arrows(run: Run, until: str, tracker: Tracker) -> None:
    config, folder = run.config, run.folder
    console.quiet = not is_first()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if load_config(config.student.name).model_type == "t5" and config.optim.precision == "16-mixed":
        raise InputError("optim.precision=16-mixed overflows in T5: take bf16-mixed or 32-true")
    whole = read_problems(config)
    splits = cut(whole, config)
    out_of_distribution = [name for name in splits if name not in ("train", "validation", "test")]

    source = source_of(config, whole["train"])
    problems = {split: contents_of(found) for split, found in splits.items()}
    settings = settings_of(config, "method", "seed", "data", "rationales")
    data = fingerprint(settings, SELECTION, source.sha256, problems["train"])
    asked = fingerprint(
        settings_of(config, "method", "data", "evaluation"),
        config.seed if config.evaluation.num_samples > 1 else None,  # greedy outputs are the same for every seed
        problems["test"],
    )
    before = fingerprint(asked, config.student.name, contents(config.student.name))
    student_alone = fingerprint(config.student.name, contents(config.student.name), settings_of(config, "student"))
    made = curriculum_fingerprints(config, data, student_alone)
    trained = fingerprint(
        data, before, problems["validation"], settings_of(config, "student", "optim", "evaluation"), made.training
    )

    selected, found = select(run, data, splits["train"], source)
    counts = {
        "problems": found.num_problems,
        "rationales read": found.num_read,
        "of them wrong": found.num_wrong,
        "of them duplicates": found.num_duplicate,
        "problems without a right one": found.num_without,
        "kept": found.num_kept,
    }
    run.provenance["counts"] = counts | {
        name: number for name, number in run.provenance.get("counts", {}).items() if name not in counts
    }
    run.provenance["origins"] = found.origins
    run.artefact("rationales.jsonl", data, lambda: selected, lambda path, made: shutil.copyfile(made, path))
    console.print(" · ".join(f"{name} {number}" for name, number in counts.items()))
    console.print(sentence_on_origins(found.origins), soft_wrap=True)
    if until == "rationales":
        return

    rationales = RationaleTable(JsonLines(folder / "rationales.jsonl"), splits["train"])
    train_set = TrainSet(run, rationales, fingerprint(data, student_alone, config.method, TEMPLATE))
    if until == "tokens":
        console.print(f"tokenised examples {len(train_set.examples)}")
        return

    def student_before() -> list[dict[str, Any]]:
        return evaluate(run, "before distillation", splits["test"], load_student(config.student.name))

    run.artefact("predictions/test-before.jsonl", before, student_before, save_jsonl, shared=True)

    weights = schedule = None
    # What other settings had made here would else stand in this run's report.
    for name, wanted in (
        ("weights.safetensors", made.weights),
        ("difficulties.jsonl", made.difficulties),
        ("schedule.npz", made.schedule),
    ):
        if wanted is None:
            run.forget(name)
    if made.weights is not None:
        learned_from = made.weights
        run.artefact(
            "weights.safetensors",
            learned_from,
            lambda: train_set.learn_weights(learned_from),
            train_set.save_weights,
            shared=True,
        )
        weights = train_set.weights()
    if until == "weights":
        return
    if made.difficulties is not None:
        used = weights if config.weights.in_difficulty else None
        run.artefact(
            "difficulties.jsonl",
            made.difficulties,
            lambda: train_set.difficulties(used),
            train_set.save_difficulties,
            shared=True,
        )
    if until == "difficulties":
        return
    if made.schedule is not None:
        make = partial(first_rank, train_set.make_schedule, "the schedule")
        run.artefact("schedule.npz", made.schedule, make, lambda path, schedule: schedule.save(path))
        schedule = train_set.schedule()
        console.print(sentence_on_schedule(schedule))
    if until == "schedule":
        return

    def train() -> Path:
        forget_other_checkpoints(folder / "checkpoints", trained)
        in_loss = weights if config.method == "kpod" and config.weights.in_loss else None
        return distil(
            run,
            train_set.examples,
            splits["validation"],
            train_set.student,
            loggers=lambda step: tracker.loggers(trained, step),
            token_weights=None if in_loss is None else loss_weights(config, in_loss, train_set.examples),
            schedule=schedule,
        )

    run.artefact("student", trained, train, lambda path, best: export_student(best, config.student, path))
    if until == "train":
        return

    for name in ("validation", "test", *out_of_distribution):

        def student_after(name: str = name) -> list[dict[str, Any]]:
            # The saved folder, not the module in memory: this is what others will load.
            student = load_student(str(folder / "student"), dtype="auto")
            return evaluate(run, name, splits[name], student)

        run.artefact(f"predictions/{name}.jsonl", fingerprint(trained, name, problems[name]), student_after, save_jsonl)

    if until == "report":
        made_from = fingerprint(trained, before, counts)
        run.artefact("report.html", made_from, lambda: None, lambda path, _: save_report(path, run))
    tracker.log_result(trained, ("validation", "test", *out_of_distribution))
    if is_first():
        print_result(run, out_of_distribution)
