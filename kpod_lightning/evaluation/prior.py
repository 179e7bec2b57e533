"""The mean probability that the student gives a target before it is trained: it tells which token weights can help."""

from pathlib import Path
from typing import Any

from kpod_lightning.evaluation.sections import Section
from kpod_lightning.store.artefacts import Arrow

PRIOR = "prior.json"
ROWS = ".losses-prior"
"""Folder of the run in which the ranks leave the sample's losses for each other."""

NUM_SAMPLED = 512
"""Most examples that are read. They are the same for every seed and number of ranks."""

STRONG, WEAK = 0.65, 0.25
"""Between the means of Beyond Log Likelihood (arXiv 2510.00526): 0.76 to 0.81 strong, about 0.5, and 0.01 weak. Where
the regimes end is our choice."""


def prior_arrow() -> Arrow:
    """Measures a sample of the train set in one pass, whole rationales asked; no training depends on it."""
    return Arrow(
        verb="prior",
        artefact=PRIOR,
        settings=("optim.precision",),
        needs=("tokens",),
        also=(NUM_SAMPLED,),
        make=measured,
        save=save_prior,
        show=lambda context: context.say(sentence_of(context.folder)),
        shared=True,
        trains=False,
    )


def measured(context: Any) -> dict[str, float]:
    """The mean over all targets of the sample, answer phrase and EOS among them; every rank calls it."""
    import numpy as np

    from kpod_lightning.students.token_losses import token_losses

    config, examples = context.config, context.examples
    number = min(NUM_SAMPLED, len(examples))
    positions = np.sort(np.random.default_rng([0, 3]).choice(len(examples), number, replace=False))
    student = context.reading(measuring=False)
    rows = token_losses(config, student, [examples[int(i)] for i in positions], context.folder / ROWS)
    nats = np.concatenate([np.asarray(row, np.float64) for row in rows])
    return {
        "mean_probability": float(np.exp(-nats).mean()),
        "nats_per_token": float(nats.mean()),
        "num_examples": number,
        "num_targets": len(nats),
    }


def save_prior(path: Path, made: dict[str, float]) -> None:
    import json
    import shutil

    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    # Ranks of this machine may still have the files open, and some file systems then keep them a while.
    shutil.rmtree(path.parent / ROWS, ignore_errors=True)


def sentence(made: dict[str, Any]) -> str:
    """The figure, and what it says of weights that follow the probability."""
    mean = made["mean_probability"]
    regime = (
        "a strong prior, with which lowering the weights of improbable targets helped there"
        if mean >= STRONG
        else "a weak prior, with which plain NLL won by far there, and whatever starves improbable targets lost"
        if mean <= WEAK
        else "between the regimes: neither won there"
    )
    return (
        f"Before training the student gives a target a probability of {mean:.3f} in the mean, and loses "
        f"{made['nats_per_token']:.2f} nats ({made['num_targets']:.0f} targets of {made['num_examples']:.0f} examples)"
        f": {regime} (Beyond Log Likelihood, arXiv 2510.00526: 0.76 to "
        "0.81 strong, about 0.5 a draw, 0.01 weak)."
    )


def sentence_of(folder: Path) -> str:
    from kpod_lightning.store.reading import read_object

    return sentence(read_object(folder / PRIOR))


def describe_prior(folder: Path) -> list[Section]:
    """Its part of the report of a run; nothing where a run has none."""
    return [Section("Before training", (sentence_of(folder),))] if (folder / PRIOR).is_file() else []
