"""metrics.jsonl: what is logged of every epoch, each row whole or not there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from kpod_lightning.store.files import appending, writing
from kpod_lightning.store.json_lines import read_rows, save_jsonl

UNITS = {
    "epoch": "number of the epoch, the first is 0; what is printed counts from 1",
    "train/nats_per_token": "nats a target token, all alike",
    "train/weighted_nats_per_token": "nats a target token, weighted as in Eq. (15)",
    "train/mean_weight": "mean weight of a target token",
    "train/effective_share": "effective sample size of the weights, (sum w)^2 / sum w^2, over the number of tokens",
    "train/tokens_seen": "target tokens since the first step",
    "train/tokens_per_second": "target tokens a second, mean of the epoch",
    "train/stage": "stage t",
    "train/mean_input_steps": "steps of a rationale that are input, mean",
    "schedule/asked_nats": "nats, H(t)",
    "schedule/budget_nats": "nats, D(t)",
    "schedule/asked_steps": "first steps that are asked, of all rationales together",
    "schedule/shown_share": "share of a rationale's tokens that is input",
    "train/kl": "nats, two-way divergence of the answers of a pair, mean over rationales (mcc_kd)",
    "train/kl_skipped": "share of rationales whose partner has another answer (mcc_kd)",
    "adaptive/share_taken": "share of the examples that the epoch takes",
    "adaptive/mean_difficulty": "nats a token, mean over all examples",
    "adaptive/mean_difficulty_taken": "nats a token, mean over the examples that are taken",
    "self_paced/mean_confidence": "confidence in a target in [0, 1], mean",
    "prefix_adaptive/mean_shown": "share of a rationale's steps that is input, mean",
    "prefix_adaptive/mean_low": "share of steps, lower end of the interval that is drawn from, mean",
    "prefix_adaptive/mean_high": "share of steps, upper end of the interval that is drawn from, mean",
    "prefix_adaptive/success": "share right of the rationales finished from their shown steps, before the epoch",
    "validation/accuracy": "share right",
    "validation/accuracy_low": "share right, lower end of the 95 % interval",
    "validation/accuracy_high": "share right, upper end of the 95 % interval",
    "validation/unparsable": "share of outputs without an answer",
    "validation/kept_accuracy": "share right, of the student that was kept",
    "test/accuracy_before": "share right, before distillation",
    "test/accuracy_before_low": "share right, lower end of the 95 % interval",
    "test/accuracy_before_high": "share right, upper end of the 95 % interval",
    "test/accuracy": "share right, after distillation",
    "test/accuracy_low": "share right, lower end of the 95 % interval",
    "test/accuracy_high": "share right, upper end of the 95 % interval",
    "test/gained": "problems wrong before and right after",
    "test/lost": "problems right before and wrong after",
    "test/p_value": "exact McNemar test, before against after",
}
"""Of every number that W&B gets; it stands in the W&B run's config. Other test sets are written as ``test`` is."""


class JsonlLogger(Logger):
    """``metrics.jsonl``: one line a logged step, the same keys as W&B.

    After a kill the file may hold rows that the resumed run writes again; ``cut(step)`` drops them first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings stand in config.yaml."""

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drop the rows of ``step`` and later, and a torn last line.

        Raises:
            InputError: another line is damaged. Names file and line.
        """
        if self.path.is_file():
            with writing(self.path) as aside:
                save_jsonl(aside, (row for row in read_rows(self.path) if row["step"] < step))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with appending(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the epoch's checkpoint is: the row is not written again
