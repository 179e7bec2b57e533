"""Verbs: the names at which the pipeline can stop, in its order, as the command line and ``--until`` take them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stop:
    """A name of arrows of the pipeline (``Arrow.verb``): the pipeline stops behind the last arrow that has it."""

    name: str
    help: str
    """What has been made by then, as `kpod --help` says it."""
    artefacts: tuple[str, ...] = ()
    """What the shipped methods have made by then, the last one last."""
    of_every_method: bool = True
    """Otherwise there is this stop only where the method makes something of this name."""
    has_command: bool = True
    """`kpod NAME EXPERIMENT` runs the pipeline up to here; otherwise only `kpod run --until NAME` does."""


STOPS = (
    Stop(
        "rationales",
        "up to the rationales that are trained on; with teacher=... --out FILE, let a teacher write some",
        artefacts=("rationales.jsonl",),
    ),
    Stop("tokens", "up to the tokenised examples", has_command=False),
    Stop(
        "before",
        "up to the graded outputs of the student before distillation",
        ("predictions/test-before.jsonl",),
        has_command=False,
    ),
    Stop("weights", "up to the keypoint weights", artefacts=("weights.safetensors",), of_every_method=False),
    Stop(
        "difficulties", "up to the difficulty of every step", artefacts=("difficulties.jsonl",), of_every_method=False
    ),
    Stop("schedule", "up to the schedule of input steps", artefacts=("schedule.npz",), of_every_method=False),
    Stop("prior", "up to the mean probability of the targets before training", ("prior.json",), has_command=False),
    Stop("train", "up to the distilled student", artefacts=("student",)),
    Stop(
        "evaluate",
        "up to the graded outputs",
        artefacts=("predictions/validation.jsonl", "predictions/test.jsonl"),
    ),
    Stop(
        "report", "the whole pipeline", ("report.html",), has_command=False
    ),  # `kpod report RUN` writes a report again
)
"""Stops of method=kpod. A method whose arrows have other names stops there too, with ``--until``."""
