"""The pipeline: one loop over arrows, each of which writes one artefact unless the run folder has it already."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import transformers

from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.own import understood
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.sources import Source, others_of, sentence_on_origins, source_of
from kpod_lightning.distributed.checkpoints import forget_other_checkpoints
from kpod_lightning.distributed.console import console
from kpod_lightning.distributed.preemption import stopping
from kpod_lightning.distributed.progress import shown
from kpod_lightning.distributed.ranks import is_first
from kpod_lightning.evaluation.generate import DECODING, generate
from kpod_lightning.evaluation.grade import grade
from kpod_lightning.methods.base import Method, method_of
from kpod_lightning.methods.context import Context, input_fingerprints, train_set_arrows
from kpod_lightning.methods.training import distil
from kpod_lightning.methods.warm import arrows_before_training
from kpod_lightning.runs.folder import Run
from kpod_lightning.runs.report import print_result, save_report
from kpod_lightning.runs.tracking import Tracker
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.json_lines import save_jsonl
from kpod_lightning.students.export import export_student
from kpod_lightning.students.student import Student, check_student, load_before, load_student


def evaluate(
    run: Run, method: Method, name: str, problems: Sequence[Problem], student: Student
) -> list[dict[str, Any]]:
    """Graded outputs of all problems; every rank generates its share."""
    config = run.config.evaluation
    what = f"{name} ({len(problems)} problems)"
    outputs = generate(
        problems,
        student,
        prompt=method.prompt,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        num_samples=config.num_samples,
        temperature=config.temperature,
        seed=run.config.seed,
        own_decoding=config.generation_config == "student",
        track=lambda batches: stopping(shown(many := list(batches), what, len(many), few=0, kept=True)),
    )
    return grade(problems, outputs, variant=config.variant)


def arrows_of(
    run: Run, method: Method, splits: dict[str, Sequence[Problem]], source: Source, tracker: Tracker
) -> list[Arrow]:
    """Everything that a run makes, in order: what all methods share, round what the method makes for itself."""
    config = run.config
    # Greedy outputs are the same for every seed; prompts tell methods apart.
    asking = ("evaluation", *(["seed"] if config.evaluation.num_samples > 1 else []))
    own = arrows_before_training(config, method, source)

    def before(context: Context) -> list[dict[str, Any]]:
        return evaluate(run, method, "before distillation", splits["test"], load_before(config.student))

    def trained(context: Context) -> Path:
        training = context.fingerprints["student"]
        forget_other_checkpoints(run.folder / "checkpoints", training)
        return distil(context, splits["validation"], loggers=partial(tracker.loggers, training))

    def saved() -> Student:
        trusted = config.student.trust_remote_code
        return load_student(str(run.folder / "student"), dtype="auto", trust_remote_code=trusted)

    def after(name: str, context: Context) -> list[dict[str, Any]]:
        # The saved folder, not the module in memory: this is what others will load.
        return evaluate(run, method, name, splits[name], saved())

    def predictions(name: str, make: Any, student: str, **others: Any) -> Arrow:
        problems = f"problems/{name.removesuffix('-before')}"
        return Arrow(
            artefact=f"predictions/{name}.jsonl",
            settings=asking,
            needs=(student, problems, *method.prompts_from()),
            also=(DECODING, *([] if method.prompts_from() else [prompts_of(problems)])),
            make=make,
            save=save_jsonl,
            **others,
        )

    def prompts_of(problems: str) -> str:
        return fingerprint([method.prompt(problem) for problem in splits[problems.partition("/")[2]]])

    names = ["validation", "test", *(name for name in splits if name not in ("train", "validation", "test"))]
    return [
        *train_set_arrows(splits["train"], source, method, show=lambda context: show_counts(run)),
        predictions("test-before", before, "student/before", verb="before", shared=True),
        *own,
        Arrow(
            verb="train",
            artefact="student",
            settings=("seed", "method", "student", "optim", "evaluation", *method.training_settings()),
            needs=(
                "tokens",
                "problems/validation",
                *(arrow.artefact for arrow in own if arrow.artefact is not None and arrow.trains),
            ),
            make=trained,
            save=lambda path, best: export_student(best, config.student, path),
        ),
        *(predictions(name, partial(after, name), "student", verb="evaluate") for name in names),
        Arrow(
            verb="report",
            artefact="report.html",
            needs=(
                "rationales.jsonl",
                "predictions/test-before.jsonl",
                *(f"predictions/{name}.jsonl" for name in names),
            ),
            make=lambda context: None,
            save=lambda path, _: save_report(path, run, method.describe(run.folder)),
        ),
    ]


def complete(run: Run, until: str = "report") -> None:
    """Do what is missing in the run folder, up to a verb or an artefact, and print the result.

    Raises:
        InputError: input that cannot be used; or an artefact was made from problems, rationales or a student that
            have changed since, and ``--redo`` was not given.
    """
    method = method_of(run.config)
    with Tracker(run, lambda: method.describe(run.folder)) as tracker:
        follow_arrows(run, method, until, tracker)


def follow_arrows(run: Run, method: Method, until: str, tracker: Tracker) -> None:
    config = run.config
    console.quiet = not is_first()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if check_student(config.student).model_type == "t5" and config.optim.precision == "16-mixed":
        raise InputError("optim.precision=16-mixed overflows in T5: take bf16-mixed or 32-true")
    whole = read_problems(config)
    splits = cut(whole, config)
    if is_first():
        for line in understood(splits, config.data):
            console.print(line, highlight=False, soft_wrap=True)
    arrows = arrows_of(run, method, splits, source_of(config, whole["train"], others_of(whole)), tracker)
    last = last_of(arrows, until, config.method)
    fingerprints = input_fingerprints(config, splits)
    context = Context(config, run.folder, run.cache, method, splits["train"], fingerprints, count=run.count)
    # What other settings had made here would else stand in this run's report.
    run.forget_others({arrow.artefact for arrow in arrows if arrow.artefact is not None})
    for arrow in arrows[: last + 1]:
        made_from = fingerprints[arrow.artefact or arrow.verb] = arrow.fingerprint(config, fingerprints)
        if arrow.artefact is not None:
            run.artefact(arrow.artefact, made_from, partial(arrow.make, context), arrow.save, shared=arrow.shared)
        else:
            arrow.make(context)  # on all ranks now: a later arrow may ask for it on rank 0 alone
        if arrow.show is not None:
            arrow.show(context)
    if arrows[last].verb in ("evaluate", "report"):
        names = [Path(arrow.artefact).stem for arrow in arrows if arrow.verb == "evaluate" and arrow.artefact]
        tracker.log_result(fingerprints["student"], names)
        if is_first():
            print_result(run, names)


def last_of(arrows: Sequence[Arrow], until: str, method: str) -> int:
    """Position of the last arrow of a verb, or of an artefact.

    Raises:
        InputError: the run makes no such thing.
    """
    places = [i for i, arrow in enumerate(arrows) if until in (arrow.verb, arrow.artefact)]
    if not places:
        verbs = ", ".join(dict.fromkeys(arrow.verb for arrow in arrows))
        raise InputError(f"method={method} with these settings makes no {until}; it stops at one of {verbs}")
    return places[-1]


def show_counts(run: Run) -> None:
    counts = run.provenance.get("counts", {})
    console.print(" · ".join(f"{name} {number}" for name, number in counts.items()))
    console.print(sentence_on_origins(run.provenance.get("origins", {})), soft_wrap=True)
