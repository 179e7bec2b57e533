"""Batches for learning keypoint weights: question and rationale in one row, the answer in another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kpod_lightning.data.batches import FromStart, batches_by_length, batches_done, global_batches
from kpod_lightning.data.example_table import lengths_of
from kpod_lightning.data.examples import Example
from kpod_lightning.data.tokens import spanned_ids
from kpod_lightning.data.views import IGNORE, padded
from kpod_lightning.distributed.progress import shown
from kpod_lightning.distributed.ranks import share_of
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key
from kpod_lightning.store.ragged import Ragged


@dataclass(kw_only=True)  # not frozen: Lightning's precision plugins put converted tensors into a copy
class KeypointBatch:
    """Rationales with their questions (the trunk) and their answers, padded on the right.

    trunk_ids, trunk_mask: [B, L] prompt, then rationale.
    starts, lengths: [B] tokens of the prompt and of the rationale (n).
    step_ends: [B, S] rationale tokens up to the end of each step, the last one repeated.
    answer_ids: [B, A] answer phrase and answer; answer_targets: the same, ``IGNORE`` outside the answer itself.
    frozen: [B, L, D] what the student's frozen first block gives inside the rationale, where it is kept; else None.
    """

    trunk_ids: Tensor
    trunk_mask: Tensor
    starts: Tensor
    lengths: Tensor
    step_ends: Tensor
    answer_ids: Tensor
    answer_targets: Tensor
    keys: tuple[Key, ...]
    frozen: Tensor | None = None

    @property
    def rationale_mask(self) -> Tensor:
        """[B, L] whether a position holds a token of the rationale."""
        place = torch.arange(self.trunk_ids.shape[1], device=self.trunk_ids.device)
        return (place >= self.starts[:, None]) & (place < (self.starts + self.lengths)[:, None])

    def to(self, device: torch.device) -> "KeypointBatch":
        return self._each(lambda tensor: tensor.to(device), self.keys)

    def rows(self, part: slice) -> "KeypointBatch":
        """Some of the rationales, with the padding of the whole batch."""
        return self._each(lambda tensor: tensor[part], self.keys[part])

    def repeated(self, times: int) -> "KeypointBatch":
        """Every rationale ``times`` times in a row."""
        keys = tuple(key for key in self.keys for _ in range(times))
        return self._each(lambda tensor: tensor.repeat_interleave(times, 0), keys)

    def _each(self, change: Callable[[Tensor], Tensor], keys: tuple[Key, ...]) -> "KeypointBatch":
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keys"}
        tensors: dict[str, Any] = {name: None if tensor is None else change(tensor) for name, tensor in given.items()}
        return KeypointBatch(**tensors, keys=keys)


AnswerTokens = Callable[[Example], tuple[list[int], int]]
"""Answer phrase and answer of an example as tokens of the answer model, and the first one that holds the answer."""


def own_answer(example: Example) -> tuple[list[int], int]:
    """The example's own tokens, if student and answer model have the same tokenizer."""
    n = example.num_rationale_tokens
    return list(example.target_ids[n:-1]), example.answer_start - n


def retokenised_answer(student_tokenizer: Any, tokenizer: Any) -> AnswerTokens:
    """The same text in the tokens of an answer model with another tokenizer than the student's."""

    def answer(example: Example) -> tuple[list[int], int]:
        n = example.num_rationale_tokens
        text = student_tokenizer.decode(example.target_ids[n:-1], skip_special_tokens=True)
        start = text.rindex(student_tokenizer.decode(example.target_ids[example.answer_start : -1]).strip())
        ids, spans = spanned_ids(text, tokenizer)
        return ids, next(j for j, (_, end) in enumerate(spans) if end > start)

    return answer


def collate_keypoints(
    examples: Sequence[Example], pad_token_id: int, answer_tokens: AnswerTokens = own_answer
) -> KeypointBatch:
    """Pad examples into one batch; token ids and steps are those that ``make_example`` has aligned."""
    trunks, ends, answers, targets = [], [], [], []
    for example in examples:
        n = example.num_rationale_tokens
        trunks.append([*example.prompt_ids, *example.target_ids[:n]])
        steps = example.step_of[:n]
        ends.append([j + 1 for j in range(n) if j + 1 == n or steps[j + 1] != steps[j]])
        answer, first = answer_tokens(example)
        answers.append(answer)
        targets.append([*[IGNORE] * first, *answer[first:]])
    num_steps = max(map(len, ends))
    return KeypointBatch(
        trunk_ids=padded(trunks, pad_token_id),
        trunk_mask=padded([[1] * len(row) for row in trunks], 0),
        starts=torch.tensor([len(example.prompt_ids) for example in examples]),
        lengths=torch.tensor([example.num_rationale_tokens for example in examples]),
        step_ends=torch.tensor([[*row, *[row[-1]] * (num_steps - len(row))] for row in ends]),
        answer_ids=padded(answers, 0),  # nothing attends to padding, and every vocabulary has a token 0
        answer_targets=padded(targets, IGNORE),
        keys=tuple(example.key for example in examples),
    )


class KeypointDataModule(L.LightningDataModule):
    """Batches for training, in an order that follows from (seed, epoch), and batches of all rationales for predicting.

    In training every rank gets the whole batch and takes its rows; in predicting it gets its own share of the batches.

    Args:
        weighed: examples that ``Trainer.predict`` gives weights to.
        learned: positions of those that the weight network learns from.
    """

    def __init__(
        self,
        weighed: Sequence[Example],
        learned: Sequence[int],
        *,
        pad_token_id: int,
        batch_size: int,
        seed: int,
        answer_tokens: AnswerTokens = own_answer,
    ) -> None:
        super().__init__()
        self.weighed = weighed
        self.learned = np.asarray(learned)
        self.frozen: Ragged | None = None
        self.frozen_row = np.zeros(0, np.int64)
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size
        self.seed = seed
        self.answer_tokens = answer_tokens

    def collate(self, positions: Sequence[int] | np.ndarray) -> KeypointBatch:
        """The batch of some of the examples to be weighed."""
        examples = [self.weighed[i] for i in positions]
        batch = collate_keypoints(examples, self.pad_token_id, self.answer_tokens)
        if self.frozen is not None:
            rows = [self.frozen[self.frozen_row[i]] for i in positions]
            batch.frozen = torch.zeros(*batch.trunk_ids.shape, rows[0].shape[1])
            for i, (row, start) in enumerate(zip(rows, batch.starts.tolist(), strict=True)):
                batch.frozen[i, start : start + len(row)] = torch.from_numpy(np.array(row))
        return batch

    def keep(self, frozen: Callable[[KeypointBatch], Tensor]) -> None:
        """Compute the frozen features of all rationales once, so that every later batch brings them along.

        Batches are those of predicting, whose order follows from the lengths alone: a resumed run keeps the same bits.

        Args:
            frozen: [B, L, D] of a batch.
        """
        batches = batches_by_length(lengths_of(self.weighed), 2 * self.batch_size)

        def rows() -> Iterator[np.ndarray]:
            for positions in shown(batches, "features of the rationales", len(batches)):
                batch = self.collate(positions)
                for row, inside in zip(frozen(batch), batch.rationale_mask, strict=True):
                    yield row[inside].cpu().numpy()

        self.frozen_row = np.argsort(np.concatenate(batches))
        self.frozen = Ragged.stored(rows(), np.float32)

    def loader(self, batches: Sequence[np.ndarray], start: int = 0) -> DataLoader[KeypointBatch]:
        return DataLoader(
            batches,  # type: ignore[arg-type]
            sampler=FromStart(range(len(batches)), start),
            batch_size=None,
            collate_fn=self.collate,
        )

    def train_dataloader(self) -> DataLoader[KeypointBatch]:
        assert self.trainer is not None
        lengths = lengths_of(self.weighed)[self.learned]
        epoch = self.trainer.current_epoch
        batches = global_batches(len(self.learned), self.batch_size, self.seed, epoch, lengths)
        if min(map(len, batches)) < self.trainer.world_size:
            raise InputError(
                f"a batch of {min(map(len, batches))} rationales cannot be cut into {self.trainer.world_size} parts: "
                "raise weights.batch_size or weights.num_train"
            )
        done = batches_done(self.trainer, len(batches))
        return self.loader([self.learned[batch] for batch in batches], start=done)

    def weighed_batches(self) -> list[np.ndarray]:
        """Positions in ``weighed``: this rank's share."""
        return share_of(batches_by_length(lengths_of(self.weighed), 2 * self.batch_size))

    def predict_dataloader(self) -> DataLoader[KeypointBatch]:
        return self.loader(self.weighed_batches())
