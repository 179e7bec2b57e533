"""KPOD's weighting, Eqs. (2)-(7) and (15): a network learns which tokens of a rationale carry its answer."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpod_lightning.config import RunConfig, WeightsConfig
from kpod_lightning.keypoints.base import OF_TABLES, Weighting
from kpod_lightning.store.artefacts import Arrow
from kpod_lightning.store.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from kpod_lightning.evaluation.sections import Section
    from kpod_lightning.keypoints.network import WeightNetwork
    from kpod_lightning.keypoints.table import WeightTable
    from kpod_lightning.store.ragged import Ragged

WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints-weights"
"""Folder of the run in which an interrupted learning of the weights goes on."""
USE = (*(name.partition(".")[2] for name in OF_TABLES), "in_difficulty", "if_not_found", "kind")
"""Settings of how weights are used. The others say how they are learned, so that ablations share one table."""
IN_LOSS = tuple(f"weights.{name}" for name in USE)


class Learned(Weighting):
    """Weights of a table that is learned once, before the student; the loss reads it."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self._keypoints: list[Ragged | None] = []  # read once; of a large train set they are a file

    @property
    def in_difficulty(self) -> bool:
        use, progressive = self.config.weights, self.config.schedule.progressive
        return use.in_difficulty and progressive

    @cached_property
    def learned(self) -> bool:
        return self.config.weights.in_loss or self.in_difficulty

    def uses(self, key: str) -> bool:
        return self.learned or key in IN_LOSS

    @property
    def artefact(self) -> str | None:
        return WEIGHTS if self.in_difficulty else None

    def arrows(self) -> list[Arrow]:
        if not self.learned:
            return []
        from kpod_lightning.students.student import contents

        model = self.config.weights.answer_model
        how = tuple(f"weights.{field.name}" for field in fields(WeightsConfig) if field.name not in USE)
        return [
            Arrow(
                verb="weights",
                artefact=WEIGHTS,
                settings=(*how, "seed", "optim.precision"),
                needs=("tokens",),
                also=(contents(model) if model else None,),
                make=self.made,
                save=save_weights,
                show=self.show,
                shared=True,
                trains=self.config.weights.in_loss,
                measures=True,
            )
        ]

    def made(self, context: Any) -> "WeightTable":
        from kpod_lightning.distributed.checkpoints import forget_other_checkpoints
        from kpod_lightning.keypoints.learn import learn_weights

        checkpoints = context.folder / CHECKPOINTS
        forget_other_checkpoints(checkpoints, context.fingerprints[WEIGHTS])
        student, copy = context.measuring, context.measuring_copy
        return learn_weights(self.config, student, context.examples, context.texts, checkpoints, copy=copy)

    def loaded(self, folder: Path) -> "WeightTable":
        from kpod_lightning.keypoints.table import WeightTable

        return WeightTable.load(folder / WEIGHTS)

    def show(self, context: Any) -> None:
        from kpod_lightning.keypoints.pictures import coloured_terminal, sentence_on_weights

        table = self.loaded(context.folder)
        context.say(sentence_on_weights(table))
        for key, text in zip(context.examples.keys[:2], context.texts, strict=False):
            context.say(coloured_terminal(table.rows[key], text))
        self.keypoints(context)  # where none were found, stop before anything is made from them

    def keypoints(self, context: Any) -> "Ragged | None":
        if not self._keypoints:
            from kpod_lightning.keypoints.learn import keypoints

            table = self.loaded(context.folder)
            self._keypoints.append(keypoints(self.config, table, context.examples, context.texts))
        return self._keypoints[0]

    def table(self, context: Any) -> "Sequence[np.ndarray] | None":
        from kpod_lightning.keypoints.in_loss import with_ones

        weights = self.keypoints(context)
        return None if weights is None else with_ones(weights, context.examples)

    def network(self, context: Any) -> "WeightNetwork | None":
        if not self.learned:
            return None
        import torch

        from kpod_lightning.keypoints.network import WeightNetwork

        # Its features are those of the student that measured; the context's student may have learned since.
        student = context.measuring_copy()
        network = WeightNetwork(student, self.config.weights.features, self.config.weights.hidden_size)
        learned = {name: torch.from_numpy(values) for name, values in self.loaded(context.folder).network.items()}
        if learned.keys() != network.learned().keys():
            raise InputError(f"{context.folder / WEIGHTS} is of another weight network: make it again with --redo")
        network.load_state_dict(learned, strict=False)  # the frozen parameters are the student's
        return network.requires_grad_(False).eval()

    def models(self) -> dict[str, str]:
        model = self.config.weights.answer_model
        return {"weights.answer_model": model} if model is not None and self.learned else {}

    def describe(self, folder: Path) -> "Sequence[Section]":
        if not (folder / WEIGHTS).is_file():
            return []
        from kpod_lightning.keypoints.pictures import describe_weights, with_texts
        from kpod_lightning.store.json_lines import JsonLines

        table = self.loaded(folder)
        return [describe_weights(table, with_texts(table, JsonLines(folder / "rationales.jsonl")))]


def save_weights(path: Path, table: "WeightTable") -> None:
    import shutil

    table.save(path)
    shutil.rmtree(path.parent / CHECKPOINTS)
