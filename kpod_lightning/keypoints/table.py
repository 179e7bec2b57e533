"""Token weights of a whole train set: one number per token, kept by rationale and character span.

A table is read through the characters, so that a student with another tokenizer can use it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kpod_lightning.data.examples import Example
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.keys import Key, Keys
from kpod_lightning.store.ragged import Ragged


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TokenWeights:
    """The weights w_j of one rationale: ``values[j]`` belongs to the characters ``spans[j]`` of the hashed text."""

    text_sha256: str
    spans: np.ndarray
    values: np.ndarray


class WeightTable:
    """Token weights by rationale, and what made them; a row is read from disk when it is asked for.

    Args:
        keys: [N] of the rationales.
        text_sha256: [N, 32] bytes.
        spans: N rows [n, 2].
        values: N rows [n].
        about: how well they were found, in plain containers.
        network: parameters of the weight network that were learned, so that rationales not yet weighed can be.
        answers: [N] what answer phrase and EOS weigh, float32; None: 1.
    """

    def __init__(
        self,
        keys: Keys,
        text_sha256: np.ndarray,
        spans: Ragged,
        values: Ragged,
        about: Mapping[str, Any],
        network: Mapping[str, np.ndarray],
        answers: np.ndarray | None = None,
    ) -> None:
        self.keys, self.text_sha256, self.spans, self.values = keys, text_sha256, spans, values
        self.about, self.network = about, network
        self.answers = np.ones(len(keys), np.float32) if answers is None else answers

    @classmethod
    def of_rows(
        cls,
        rows: Mapping[Key, TokenWeights],
        about: Mapping[str, Any] | None = None,
        network: Mapping[str, np.ndarray] | None = None,
    ) -> "WeightTable":
        """A small table."""
        hashes = b"".join(bytes.fromhex(row.text_sha256) for row in rows.values())
        return cls(
            Keys.of(rows),
            np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            Ragged.stored((row.spans.reshape(-1, 2) for row in rows.values()), np.int32),
            Ragged.stored((row.values for row in rows.values()), np.float32),
            about or {},
            network or {},
        )

    def row(self, position: int) -> TokenWeights:
        return TokenWeights(self.text_sha256[position].tobytes().hex(), self.spans[position], self.values[position])

    @property
    def rows(self) -> Mapping[Key, TokenWeights]:
        return _Rows(self)

    def of(self, example: Example, text: str, near: int = 0) -> np.ndarray:
        """Weights [n] of the example's rationale tokens; a token takes the mean over its characters.

        Args:
            near: where in the table the rationale is looked for first.

        Raises:
            InputError: the table does not have the rationale, or has another text for it.
        """
        position = self.keys.find(example.key, near)
        name = f"rationale {example.key[1]} of problem {example.key[0]}"
        if position is None:
            raise InputError(f"the weight table has no {name}: make the weights again with --redo")
        row = self.row(position)
        if row.text_sha256 != text_hash(text):
            raise InputError(f"the weight table was made from another text of {name}: make it again with --redo")
        spans = np.asarray(example.spans[: example.num_rationale_tokens], dtype=np.int64).reshape(-1, 2)
        if np.array_equal(spans, row.spans):
            return row.values.astype(np.float64)
        sums, counts = np.zeros(len(text)), np.zeros(len(text))
        for (left, right), value in zip(row.spans, row.values, strict=True):
            sums[left:right] += value
            counts[left:right] += 1
        # A character that no token of the other tokenizer covers (a blank that it dropped) says nothing.
        # The blank before the rationale has no character of its own: an empty span says what it weighs, or else the
        # first character does.
        blank = row.values[row.spans[:, 1] == 0]
        found = []
        for left, right in spans:
            if right == 0 and len(blank):
                found.append(float(blank.mean()))
                continue
            right = max(right, left + 1)
            covered = counts[left:right] > 0
            if not covered.any():
                raise InputError(f"the weight table says nothing of characters {left} to {right} of {name}")
            found.append(float((sums[left:right][covered] / counts[left:right][covered]).mean()))
        return np.asarray(found)

    def save(self, path: Path) -> None:
        """Write a safetensors file: flat weights and spans, offsets by rationale, keys, hashes of the texts."""
        tensors: dict[str, np.ndarray] = {
            "weights": np.ascontiguousarray(self.values.values, np.float32),
            "spans": np.ascontiguousarray(self.spans.values, np.int32),
            "ends": np.asarray(self.values.ends, np.int64),
            "problem_ids": np.ascontiguousarray(self.keys.ids),
            "problem_id_ends": np.asarray(self.keys.ends, np.int64),
            "samples": np.asarray(self.keys.samples, np.int64),
            "text_sha256": self.text_sha256,
            **({} if (self.answers == 1).all() else {"answers": np.ascontiguousarray(self.answers, np.float32)}),
            **{f"network.{name}": np.ascontiguousarray(value) for name, value in self.network.items()},
        }
        # One entry: the order of several changes from process to process, and the same table is the same bytes.
        save_file(tensors, path, metadata={"about": json.dumps(self.about)})

    @staticmethod
    def load(path: Path) -> "WeightTable":
        """Open what ``save`` wrote.

        Raises:
            InputError: the file is missing, broken or no weight table.
        """
        try:
            # Kept open by the slices, which read no more than is asked for.
            file = safe_open(path, framework="numpy")
            about = json.loads((file.metadata() or {})["about"])
            ends, hashes = file.get_tensor("ends"), file.get_tensor("text_sha256")
            keys = Keys(*(file.get_tensor(name) for name in ("problem_ids", "problem_id_ends", "samples")))
            spans, weights = file.get_slice("spans"), file.get_slice("weights")
            prefix = "network."
            names = [name for name in list(file.keys()) if name.startswith(prefix)]
            answers = file.get_tensor("answers") if "answers" in list(file.keys()) else None
            network = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path}: no weight table ({error}); make the weights again with --redo") from error
        sizes = {int(ends[-1]) if len(ends) else 0, weights.get_shape()[0], spans.get_shape()[0]}
        if not len(keys) == len(hashes) == len(ends) or len(sizes) > 1:
            raise InputError(f"{path}: its counts do not agree; make the weights again with --redo")
        return WeightTable(keys, hashes, Ragged(spans, ends), Ragged(weights, ends), about, network, answers)


class _Rows(Mapping[Key, TokenWeights]):
    """The rows of a table by key, in its order."""

    def __init__(self, table: WeightTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table.keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.table.keys)

    def __getitem__(self, key: Key) -> TokenWeights:
        position = self.table.keys.find(key)
        if position is None:
            raise KeyError(key)
        return self.table.row(position)
