"""Filters a file of samples: keeps what is right, whole, free of contradictions and no near-duplicate."""

import json
from collections.abc import Sequence
from pathlib import Path

from kpod_lightning.data.problems import Problem
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.products import product
from kpod_lightning.teachers.samples.figures import Statistics, Tally
from kpod_lightning.teachers.samples.quality import THRESHOLD, SampleRows

_WRITTEN = ("teacher", "licence", "key", "model", "prompt", "finish_reason")
"""Fields of a sample that its filtered row keeps, beside problem, rationale and answer."""


def filter_samples(
    path: Path,
    problems: Sequence[Problem],
    out: Path,
    *,
    threshold: float = THRESHOLD,
    most: int | None = None,
) -> Statistics:
    """Write the kept samples of a file, in the order of the problems, numbered 0, 1, ... within each.

    A run reads the written file with rationales.source=recorded rationales.teacher=OUT.

    Args:
        out: the written file; it replaces an older one only when it is complete.
        threshold: Jaccard similarity from which a sample is a near-duplicate, in (0, 1].
        most: most samples of a problem that are written, the first kept ones; all by default.

    Raises:
        InputError: as ``SampleRows``; or ``out`` is a file of samples that were paid for.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"--near {threshold:g}: a share in (0, 1]; 1 leaves out only what has the same 3-grams")
    if most is not None and most < 1:
        raise InputError(f"--most {most}: at least 1 rationale of a problem")
    if out.resolve() == path.resolve() or out.with_suffix(".ledger.jsonl").exists():
        raise InputError(f"{out} holds samples that were paid for, which filtering would replace: take another --out")
    samples, tally, num_written = SampleRows(path, problems), Tally(), 0
    with product(out, "file of filtered samples") as aside, aside.open("w", encoding="utf-8") as file:
        for problem, rows, judged in samples.judged(threshold):
            tally.add(rows, judged)
            pairs = [pair for pair in zip(rows, judged, strict=True) if pair[1].name == "kept"][:most]
            for number, (row, verdict) in enumerate(pairs):
                written = {
                    "problem_id": problem.id,
                    "sample": number,
                    "rationale": row["rationale"],
                    "predicted_answer": verdict.predicted,
                    **{name: row[name] for name in _WRITTEN},
                }
                file.write(json.dumps(written, ensure_ascii=False) + "\n")
            num_written += len(pairs)
        found = tally.statistics(samples, num_written)
    return found
