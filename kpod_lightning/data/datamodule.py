"""StagedDataModule: examples as batches of the stage in hand. A place in an epoch is saved and gone on from."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from kpod_lightning.data.batches import MicroBatch, MicroBatches, global_batches, num_global_batches, positions_of
from kpod_lightning.data.budget import Budget
from kpod_lightning.data.example_table import lengths_of, num_targets
from kpod_lightning.data.examples import Example
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.stages import Progress, Stages
from kpod_lightning.data.view_dataset import ViewDataset, Views
from kpod_lightning.data.views import Batch
from kpod_lightning.store.errors import InputError

Draw = Callable[[int, int], "Sequence[tuple[int, ...]] | None"]
"""From the number of examples and the epoch: positions of examples that go together; None: each by itself."""


class Epoch(NamedTuple):
    """Groups of examples that go together (None: each by itself), their tokens [N], global batches of them, and the
    stage of each batch.

    ``ends``: the budget of the training is used up behind the last batch.
    """

    groups: Sequence[tuple[int, ...]] | None
    lengths: np.ndarray
    batches: Sequence[np.ndarray]
    stages: Sequence[int]
    ends: bool


class EpochSampler(DistributedSampler[MicroBatch]):
    """This rank's micro-batches of the trainer's epoch, without those that a resumed training has done.

    Everything is read when iteration begins, so that a loader which Lightning keeps over epochs moves from stage to
    stage as one that is built anew; a micro-batch carries its stage, so that loader workers cannot mix stages up. The
    base class tells Lightning that ranks have their shares already, and nothing else of it is used.
    """

    def __init__(self, datamodule: "StagedDataModule") -> None:
        self.datamodule = datamodule
        self.told: int | None = None
        """The length that the trainer was told when it took the loader; it stops every epoch there."""

    def __len__(self) -> int:
        length = len(self.datamodule.current_micro_batches())
        if self.told is None:
            self.told = length
        return length

    def __iter__(self) -> Iterator[MicroBatch]:
        """
        Raises:
            InputError: the epoch has more or fewer micro-batches than the trainer was told.
        """
        micro_batches = self.datamodule.current_micro_batches()
        if self.told not in (None, len(micro_batches)):
            raise InputError(
                f"the curriculum or the method gives {len(micro_batches)} micro-batches in this epoch, and "
                f"{self.told} when the trainer took the loader: use Trainer(reload_dataloaders_every_n_epochs=1)"
            )
        start = self.datamodule.begin_epoch(len(micro_batches))
        return (micro_batches[i] for i in range(start, len(micro_batches)))

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it; the epoch is read from the trainer, whose count is right after a resume too."""


class ValidationProblems(Dataset[list[int]]):
    """One batch of all validation problems, by position: Lightning takes problems themselves for tensors to move."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = problems

    def __len__(self) -> int:
        return 1 if self.problems else 0

    def __getitem__(self, index: int) -> list[int]:
        return list(range(len(self.problems)))


def _as_it_is(batch: Any) -> Any:
    return batch


class StagedDataModule(L.LightningDataModule):
    """Batches of the stage in hand, once ``hold`` was given examples. It knows and restores its place in an epoch.

    Args:
        batch_size: examples of a global batch, over all ranks and accumulated micro-batches.
        group_by_length: examples of like length meet, which saves padding.
        draw: examples that go together in an epoch, ``Method.draw``; None: each by itself.
        apart: only examples of one kind (``Text.kind``) meet in a global batch.
        loss_scale: what the summed loss of a global batch is divided by, see ``OptimConfig``.
        validation: problems on which greedy generation picks the checkpoint.
        budget: optimiser steps or target tokens after which the training ends. It wants a trainer that builds loaders
            anew for each epoch.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        group_by_length: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        draw: Draw | None = None,
        apart: bool = False,
        loss_scale: str = "tokens",
        validation: Sequence[Problem] = (),
        budget: Budget | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.group_by_length = group_by_length
        self.seed = seed
        self.num_workers = num_workers
        self.loss_scale = loss_scale
        self.draw = draw
        self.apart = apart
        self.validation = validation
        self.budget = budget or Budget()
        self.num_asked = 0
        """Target tokens of the global batches that were trained on, over all ranks; the module counts them."""
        self._restored: dict[str, int] = {}
        self._first_step = 0
        self._begun: tuple[Any, Progress] | None = None

    def hold(self, examples: Sequence[Example], stages: Stages | None, **others: Any) -> None:
        """Take up the examples and what a stage shows and asks of them.

        Args:
            others: those of ``ViewDataset``.

        Raises:
            InputError: there is no example.
        """
        if not examples:
            raise InputError("no training example is left after filtering: look at rationales.* and student.max_length")
        self.examples = examples
        self.stages = Stages(len(examples)) if stages is None else stages
        self.lengths = lengths_of(examples)
        self.dataset = ViewDataset(examples, self.stages, **others)

    def groups(self, progress: Progress) -> tuple[int, Sequence[tuple[int, ...]] | None]:
        """The stage, and positions of the examples that go together in its epoch; None: all, each by itself.

        Where a stage does not take all examples, a group stays if it takes all of the group.

        Raises:
            InputError: the curriculum or the method takes no example.
        """
        stage = self.stages.stage_of(progress)
        groups = self.draw(len(self.examples), progress.epoch) if self.draw is not None else None
        taken = self.stages.taken(stage)
        if taken is not None:
            every = [(position,) for position in range(len(self.examples))] if groups is None else groups
            among = set(taken.tolist())
            groups = [group for group in every if among.issuperset(group)]
        if groups is not None and not groups:
            raise InputError(
                f"epoch {progress.epoch + 1}, stage {stage}: the curriculum or the method trains on none of "
                f"{len(self.examples)} examples: change its settings"
            )
        return stage, groups

    def kinds_apart(self, groups: Sequence[tuple[int, ...]] | None) -> np.ndarray | None:
        """[G] the kind of each group, where kinds do not meet in a global batch."""
        if not self.apart:
            return None
        kinds = self.dataset.kinds
        return kinds if groups is None else kinds[[group[0] for group in groups]]

    def epoch_of(self, progress: Progress) -> "Epoch":
        """The global batches of an epoch.

        Args:
            progress: at its start.
        """
        (stage, groups), lengths = self.groups(progress), self.lengths
        if groups is not None:
            lengths = np.array([max(lengths[list(group)]) for group in groups])
        sorted_by = lengths if self.group_by_length else None
        kinds = self.kinds_apart(groups)
        batches = global_batches(len(lengths), self.batch_size, self.seed, progress.epoch, sorted_by, kinds)
        stages = self.stages_of(batches, groups, progress, stage)
        if not self.budget.is_limited:
            return Epoch(groups, lengths, batches, stages, False)

        def num_asked(number: int) -> int:
            return self.dataset.num_asked(positions_of(batches[number], groups), stages[number])

        count, ends = self.budget.within(range(len(batches)), progress, num_asked, most=self.num_targets(groups))
        # Of a training that has ended there is no epoch to come, but its loader is asked for a length.
        count = max(1, count)
        return Epoch(groups, lengths, batches[:count], stages[:count], ends)

    def stages_of(
        self,
        batches: Sequence[np.ndarray],
        groups: Sequence[tuple[int, ...]] | None,
        progress: Progress,
        first: int,
    ) -> list[int]:
        """The stage of each global batch of an epoch; what depends on steps or tokens may change inside it.

        Args:
            progress: at the epoch's start.
            first: stage at the epoch's start.
        """
        if self.stages.follows == "epochs":
            return [first] * len(batches)
        found, tokens = [], progress.tokens
        for number, batch in enumerate(batches):
            here = Progress(epoch=progress.epoch, step=progress.step + number, tokens=tokens)
            found.append(self.stages.stage_of(here))
            if self.stages.follows == "tokens":
                tokens += self.dataset.num_asked(positions_of(batch, groups), found[-1])
        return found

    def num_targets(self, groups: Sequence[tuple[int, ...]] | None = None) -> int:
        """Target tokens of whole examples, of those in groups or of all."""
        of_examples = num_targets(self.examples)
        return int(of_examples.sum() if groups is None else sum(of_examples[list(group)].sum() for group in groups))

    def micro_batches(
        self, progress: Progress, *, accumulate: int = 1, rank: int = 0, world_size: int = 1
    ) -> MicroBatches:
        """A rank's micro-batches of one epoch.

        Args:
            progress: at the epoch's start.

        Raises:
            InputError: a global batch is smaller than the number of parts that it is to be cut into.
        """
        epoch = self.epoch_of(progress)
        return MicroBatches(
            epoch.batches,
            epoch.lengths,
            partial(self.dataset.whole, loss_scale=self.loss_scale),
            accumulate=accumulate,
            rank=rank,
            world_size=world_size,
            stages=epoch.stages,
            epoch=progress.epoch,
            groups=epoch.groups,
            packed=self.dataset.packed,
        )

    def begun(self) -> Progress:
        """The trainer's current epoch, with the steps and target tokens before it."""
        trainer = self.trainer
        assert trainer is not None
        epoch, step = trainer.current_epoch, trainer.global_step
        if self._begun is None or self._begun[0] is not trainer or self._begun[1].epoch != epoch:
            before, tokens = step, self.num_asked
            if (epoch, step) == (self._restored.get("epoch"), self._restored.get("step")):
                before, tokens = step - self._restored["batches"], self._restored.get("asked_before", 0)
            self._begun = (trainer, Progress(epoch=epoch, step=before, tokens=tokens))
        return self._begun[1]

    def current_micro_batches(self) -> MicroBatches:
        """This rank's micro-batches of the trainer's current epoch."""
        trainer = self.trainer
        assert trainer is not None
        return self.micro_batches(
            self.begun(),
            accumulate=trainer.accumulate_grad_batches,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def begin_epoch(self, num_micro_batches: int) -> int:
        """Micro-batches of the trainer's epoch that were done before it was resumed; only then are there any."""
        assert self.trainer is not None
        # A loader with workers begins a pass twice, so a place counts for as long as no step was taken from it.
        here = (self.trainer.current_epoch, self.trainer.global_step)
        done = (
            self._restored.get("batches", 0) if here == (self._restored.get("epoch"), self._restored.get("step")) else 0
        )
        done_here = done * self.trainer.accumulate_grad_batches
        if done_here >= num_micro_batches:  # saved at an epoch's end
            done = done_here = 0
        self._first_step = self.trainer.global_step - done
        return done_here

    def state_dict(self) -> dict[str, int]:
        """The place in the training: epoch, optimiser step, and how many global batches of the epoch are done; target
        tokens so far, and those before the epoch."""
        assert self.trainer is not None
        step = self.trainer.global_step
        return {
            "epoch": self.trainer.current_epoch,
            "step": step,
            "batches": step - self._first_step,
            "asked": self.num_asked,
            "asked_before": self.begun().tokens,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from a place, with as many ranks and micro-batches as there are now."""
        self._restored = dict(state_dict)
        self.num_asked = self._restored.get("asked", 0)
        self._begun = None

    def _set_max_epochs(self) -> None:
        """Let the trainer end with the epoch in which the budget is used up, and not before."""
        assert self.trainer is not None
        progress, budget = self.begun(), self.budget
        spent = (budget.steps is not None and progress.step >= budget.steps) or (
            budget.tokens is not None and progress.tokens >= budget.tokens
        )
        if spent:
            num_epochs = progress.epoch
        elif self.epoch_of(progress).ends:
            num_epochs = progress.epoch + 1
        else:
            per_epoch = self.num_targets() if budget.tokens else -(-len(self.examples) // self.batch_size)
            about = -(-(budget.tokens or budget.steps or 0) // per_epoch)
            num_epochs = max(progress.epoch + 2, about)
        self.trainer.fit_loop.max_epochs = num_epochs

    def num_optimizer_steps(self, num_epochs: int = 1) -> int:
        """Of the first epochs, which may differ in length.

        Lightning's ``estimated_stepping_batches`` would build the loader before a resumed training knows its epoch.
        """
        step = 0
        for epoch in range(num_epochs):
            _, groups = self.groups(Progress(epoch=epoch, step=step))
            num_groups = len(self.examples) if groups is None else len(groups)
            step += num_global_batches(num_groups, self.batch_size, self.kinds_apart(groups))
        return step

    def before_whole(self, num_epochs: int) -> Progress:
        """Steps and target tokens before the first global batch whose stage teaches every rationale whole.

        Raises:
            InputError: none of the epochs does, as far as can be said beforehand.
        """
        step = tokens = 0
        for number in range(num_epochs):
            epoch = self.epoch_of(Progress(epoch=number, step=step, tokens=tokens))
            for batch, stage in zip(epoch.batches, epoch.stages, strict=True):
                if self.stages.is_whole(stage):
                    return Progress(epoch=number, step=step, tokens=tokens)
                step += 1
                tokens += self.dataset.num_asked(positions_of(batch, epoch.groups), stage)
        raise InputError(
            f"optim.decay_from=whole: no epoch of optim.epochs={num_epochs} is known to teach whole rationales; take "
            "optim.decay_from=start, or fewer stages"
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """One batch: the positions of all validation problems, which generation cuts by length."""
        return DataLoader(ValidationProblems(self.validation), batch_size=None, collate_fn=_as_it_is)

    def train_dataloader(self) -> DataLoader[Batch]:
        """A loader whose every pass gives the micro-batches of the trainer's epoch, from where a resume goes on."""
        if self.budget.is_limited:
            self._set_max_epochs()
        return DataLoader(
            self.dataset,
            sampler=EpochSampler(self),  # yields whole micro-batches, so that no further batching takes place
            batch_size=None,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),  # else building an iterator draws from the global state
        )


class ExampleDataModule(StagedDataModule):
    """Examples that are tokenised already, with their stages and weights.

    Args:
        examples: the train set's.
        stages: what is input and asked at which progress; None: every rationale whole, which is plain distillation.
        token_weights: per example [len(target_ids)]; None means 1.
        views: what is shown and asked, ``Method.views``; None: from ``stages`` and ``token_weights``.
        others: those of ``StagedDataModule``.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        encoder_decoder: bool,
        pad_token_id: int,
        eos_token_id: int,
        stages: Stages | None = None,
        token_weights: Sequence[Sequence[float]] | Sequence[np.ndarray] | None = None,
        views: Views | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.hold(
            examples,
            stages,
            encoder_decoder=encoder_decoder,
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            token_weights=token_weights,
            views=views,
        )
