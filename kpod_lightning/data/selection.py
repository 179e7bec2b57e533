"""The rationales that a run is trained on: selected once for all runs that ask for the same."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kpod_lightning.config import RationalesConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.rationales import Counts, as_row, select_rationales, sentence_on_losses
from kpod_lightning.data.sources import Source
from kpod_lightning.distributed.console import console, say
from kpod_lightning.distributed.progress import shown
from kpod_lightning.distributed.ranks import first_rank
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import save_jsonl
from kpod_lightning.store.kept import keeping, kept
from kpod_lightning.store.reading import read_object


def select(
    config: RationalesConfig, seed: int, folder: Path, problems: Sequence[Problem], source: Source
) -> tuple[Path, Counts]:
    """Rationales that are trained on, selected once for all who name the same folder: their file, and counts.

    Args:
        folder: of the cache, named by all that the selection depends on.

    Raises:
        InputError: none is left.
    """

    def make() -> None:
        if kept(folder, say):
            return
        counts = Counts()
        groups = shown(source.groups(problems), "selecting rationales", len(problems))
        selected = select_rationales(
            groups,
            counts,
            correct_only=config.correct_only,
            num_per_problem=config.num_per_problem,
            step_rule=config.step_rule,
            seed=seed,
            verdict=config.verdict,
        )
        with keeping(folder) as aside:
            save_jsonl(aside / "rationales.jsonl", map(as_row, selected))
            if not counts.num_kept:
                raise InputError(
                    f"no rationale is left: {counts.num_read} read, {counts.num_wrong} do not reach the gold answer, "
                    f"{counts.num_unread} state no answer that can be read; set rationales.correct_only=false, "
                    "rationales.verdict=recorded, data.kind or another rationales.teacher"
                )
            (aside / "counts.json").write_text(json.dumps(asdict(counts)), encoding="utf-8")

    first_rank(make, "the selection of rationales")
    counts = Counts(**read_object(folder / "counts.json"))
    if warning := sentence_on_losses(counts.named()):
        console.print(warning, soft_wrap=True)
    return folder / "rationales.jsonl", counts
