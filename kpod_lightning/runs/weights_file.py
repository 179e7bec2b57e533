"""Writes the token weights of a run's loss as a file that ``weights.kind=file`` of another run reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kpod_lightning.data.benchmarks import cut, read_problems
from kpod_lightning.data.sources import others_of, source_of
from kpod_lightning.keypoints.learned import WEIGHTS
from kpod_lightning.keypoints.weights_file import rows_of
from kpod_lightning.methods.base import Method, method_of
from kpod_lightning.methods.context import Context, input_fingerprints, train_set_arrows
from kpod_lightning.runs.folder import Run, load_run_config
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import save_jsonl
from kpod_lightning.store.products import product, refuse_others

RATIONALES = "rationales.jsonl"


def export_weights(folder: Path, out: Path) -> int:
    """Write the weights that the loss of a run has, finished or not, by the characters of its rationales.

    Returns:
        Number of rationales.

    Raises:
        InputError: no run folder, or not made up to its weights; the run has no table of weights; or ``out`` is a file
            of something else.
    """
    config = load_run_config(folder)
    method = method_of(config)
    kind = config.weights.kind
    if method.weighting.reads_step:
        raise InputError(f"{folder}: weights.kind={kind} makes its weights in the step, so there are none to write")
    refuse_others(out.absolute(), "weights")  # before anything slow
    context = context_of(Run(folder, config), method)
    table = method.weighting.loss_table(context)
    if table is None:
        raise InputError(f"{folder}: every token weighs 1 in this run's loss, so there are no weights to write")

    def rows() -> Iterator[dict[str, Any]]:
        for example, text, row in zip(context.examples, context.texts, table, strict=True):
            number = example.num_rationale_tokens
            answers = set(row[number:].tolist())
            if len(answers) != 1:
                raise InputError(
                    f"{folder}: weights.kind={kind} weighs the tokens of an answer differently, which a file of "
                    "weights cannot say"
                )
            yield from rows_of(example.key, text, example.spans[:number], row[:number].tolist(), *answers)

    with product(out, "weights") as aside:
        save_jsonl(aside, rows())
    return len(context.examples)


def context_of(run: Run, method: Method) -> Context:
    """What the method's weighting reads, of a run that has been made up to its weights.

    Raises:
        InputError: it has not, or its problems or rationales have changed since.
    """
    config = run.config
    whole = read_problems(config)
    splits = cut(whole, config)
    fingerprints = input_fingerprints(config, splits)
    source = source_of(config, whole["train"], others_of(whole))
    for arrow in train_set_arrows(splits["train"], source, method):
        fingerprints[arrow.artefact or arrow.verb] = arrow.fingerprint(config, fingerprints)
    made = run.provenance["artefacts"]
    if made.get(RATIONALES) != fingerprints[RATIONALES]:
        raise InputError(
            f"{run.folder}: its {RATIONALES} is not made yet, or of problems or rationales that have changed since; "
            "repeat the run's command"
        )
    for name in (RATIONALES, WEIGHTS):
        if name in made:
            run.checked(name)
    return Context(config, run.folder, run.cache, method, splits["train"], fingerprints)
