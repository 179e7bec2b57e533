"""KPOD's in-rationale curriculum, Eqs. (8)-(13): a rationale is learned from its last steps to the whole."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import num_stages
from kpod_lightning.curricula.scheduled import Scheduled
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    from kpod_lightning.curricula.schedule import Schedule
    from kpod_lightning.data.stages import Pace, Stages
    from kpod_lightning.evaluation.sections import Section

DIFFICULTIES, SCHEDULE = "difficulties.jsonl", "schedule.npz"
LOSSES = ".losses"
"""Folder of the run in which the ranks leave the student's token losses for each other."""


class InRationale(Scheduled):
    """Difficulty of every step, Eq. (8), then the schedule of input steps, Eqs. (9)-(13)."""

    def arrows(self, weights: str | None) -> list[Arrow]:
        if not self.config.schedule.progressive:
            return []
        weighted = weights is not None
        return [
            Arrow(
                verb="difficulties",
                artefact=DIFFICULTIES,
                settings=("optim.precision", "weights.if_not_found") if weighted else ("optim.precision",),
                needs=("tokens", *([weights] if weights else [])),
                make=lambda context: self.measured(context, weighted),
                save=save_difficulties,
                show=show_difficulties,
                shared=True,
                measures=True,
            ),
            Arrow(
                verb="schedule",
                artefact=SCHEDULE,
                settings=("schedule", "seed"),
                needs=(DIFFICULTIES,),
                also=(num_stages(self.config),),
                make=self.made,
                save=lambda path, schedule: schedule.save(path),
                show=lambda context: context.say(sentence(self.loaded(context))),
            ),
        ]

    def measured(self, context: Any, weighted: bool) -> Iterator[dict[str, Any]]:
        """Rows of ``difficulties.jsonl``, measured on all ranks."""
        from kpod_lightning.curricula.measure import measure_difficulties

        weights, folder = context.keypoints() if weighted else None, context.folder / LOSSES
        return measure_difficulties(self.config, context.reading(), context.examples, weights, folder)

    def made(self, context: Any) -> "Schedule":
        from kpod_lightning.curricula.measure import make_schedule
        from kpod_lightning.distributed.ranks import first_rank
        from kpod_lightning.store.json_lines import JsonLines

        def make() -> "Schedule":
            rows = JsonLines(context.folder / DIFFICULTIES)
            return make_schedule(self.config, context.student, rows, context.questions)

        return first_rank(make, "the schedule")

    def loaded(self, context: Any) -> "Schedule":
        """The schedule of the run folder.

        Raises:
            InputError: it is of other rationales.
        """
        from kpod_lightning.curricula.schedule import Schedule

        schedule = Schedule.load(context.folder / SCHEDULE)
        if schedule.keys != context.examples.keys:
            raise InputError(f"{context.folder / SCHEDULE} is of other rationales: make it again with --redo")
        return schedule

    def staged(self, context: Any, pace: "Pace") -> "Stages":
        from kpod_lightning.data.stages import InputSteps

        schedule = self.loaded(context)
        logged = {"schedule/asked_nats": schedule.asked, "schedule/budget_nats": schedule.budgets}
        return InputSteps(list(schedule.input_steps), pace=pace, logged=logged)

    def models(self) -> dict[str, str]:
        vectors = self.config.schedule.vectors
        encoder = self.config.schedule.progressive and vectors not in ("student", "tfidf", "glove")
        return {"schedule.vectors": vectors} if encoder else {}

    def describe(self, folder: Path) -> "Sequence[Section]":
        if not (folder / SCHEDULE).is_file():
            return []
        from kpod_lightning.curricula.pictures import describe_difficulties, describe_schedule
        from kpod_lightning.curricula.schedule import Schedule
        from kpod_lightning.store.json_lines import JsonLines

        difficulties = describe_difficulties(JsonLines(folder / DIFFICULTIES), vocabulary_of(folder))
        return [difficulties, describe_schedule(Schedule.load(folder / SCHEDULE))]


def save_difficulties(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    import shutil

    from kpod_lightning.store.json_lines import save_jsonl

    save_jsonl(path, rows)
    # Ranks of this machine may still have the files open, and some file systems then keep them a while.
    shutil.rmtree(path.parent / LOSSES, ignore_errors=True)


def show_difficulties(context: Any) -> None:
    from kpod_lightning.curricula.pictures import figures_of, sentences_on_difficulties
    from kpod_lightning.store.json_lines import JsonLines
    from kpod_lightning.students.student import load_config

    student = context.config.student
    model = load_config(
        student.name, trust_remote_code=student.trust_remote_code, allow_pickle=student.allow_pickle
    ).get_text_config()
    num_tokens = getattr(model, "vocab_size", None)
    for line in sentences_on_difficulties(figures_of(JsonLines(context.folder / DIFFICULTIES)), num_tokens):
        context.say(line)


def vocabulary_of(folder: Path) -> int | None:
    """Tokens of the student's vocabulary, from the distilled student in the run folder; None where there is none."""
    from kpod_lightning.store.reading import read_object

    if not (folder / "student" / "config.json").is_file():
        return None
    found: dict[str, Any] = read_object(folder / "student" / "config.json")
    number = found.get("vocab_size", found.get("text_config", {}).get("vocab_size"))
    return None if number is None else int(number)


def sentence(schedule: "Schedule") -> str:
    from kpod_lightning.curricula.pictures import sentence_on_schedule

    return sentence_on_schedule(schedule)
