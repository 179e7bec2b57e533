"""Token weights of a whole train set: one number per token, kept by rationale and character span.

A table is read through the characters, so that a student with another tokenizer can use it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kpod_lightning.errors import InputError
from kpod_lightning.examples import Example, Key


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TokenWeights:
    """The weights w_j of one rationale: ``values[j]`` belongs to the characters ``spans[j]`` of the hashed text."""

    text_sha256: str
    spans: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class WeightTable:
    """Token weights by rationale, and what made them.

    ``about`` says how well they were found (plain containers); ``network`` holds the parameters of the weight
    network that were learned, so that rationales not yet weighed can be.
    """

    rows: Mapping[Key, TokenWeights]
    about: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, np.ndarray] = field(default_factory=dict)

    def of(self, example: Example, text: str) -> np.ndarray:
        """Weights [n] of the example's rationale tokens; a token takes the mean over its characters.

        Raises:
            InputError: the table does not have the rationale, or has another text for it.
        """
        row = self.rows.get(example.key)
        name = f"rationale {example.key[1]} of problem {example.key[0]}"
        if row is None:
            raise InputError(f"the weight table has no {name}: make the weights again with --redo")
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
        found = []
        for left, right in spans:
            right = max(right, left + 1)  # the blank before the rationale has no character of its own
            covered = counts[left:right] > 0
            if not covered.any():
                raise InputError(f"the weight table says nothing of characters {left} to {right} of {name}")
            found.append(float((sums[left:right][covered] / counts[left:right][covered]).mean()))
        return np.asarray(found)

    def save(self, path: Path) -> None:
        """Write a safetensors file: flat weights and spans, offsets by rationale, keys and hashes in its header."""
        rows = list(self.rows.values())
        packed = save(
            {
                "weights": np.concatenate([row.values for row in rows]).astype(np.float32),
                "spans": np.concatenate([row.spans for row in rows]).astype(np.int32),
                "offsets": np.cumsum([0, *(len(row.values) for row in rows)]).astype(np.int64),
                **{f"network.{name}": value for name, value in self.network.items()},
            },
            # One entry: the order of several changes from process to process, and the same table is the same bytes.
            metadata={
                "table": json.dumps(
                    {
                        "keys": list(self.rows),
                        "text_sha256": [row.text_sha256 for row in rows],
                        "about": self.about,
                    }
                )
            },
        )
        path.write_bytes(packed)

    @staticmethod
    def load(path: Path) -> "WeightTable":
        """Read what ``save`` wrote.

        Raises:
            InputError: the file is missing, broken or no weight table.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["table"])
                keys, hashes, about = header["keys"], header["text_sha256"], header["about"]
                weights, spans, offsets = (file.get_tensor(name) for name in ("weights", "spans", "offsets"))
                prefix = "network."
                names = [name for name in list(file.keys()) if name.startswith(prefix)]
                network = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path}: no weight table ({error}); make the weights again with --redo") from error
        if (
            not len(keys) == len(hashes) == len(offsets) - 1
            or offsets[-1] != len(weights)
            or len(weights) != len(spans)
        ):
            raise InputError(f"{path}: its counts do not agree; make the weights again with --redo")
        bounds = pairwise(offsets)
        return WeightTable(
            {
                (problem_id, sample): TokenWeights(sha, spans[left:right], weights[left:right])
                for (problem_id, sample), sha, (left, right) in zip(keys, hashes, bounds, strict=True)
            },
            about,
            network,
        )


def rescaled(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Weights with mean 1 over all tokens of the train set.

    Else leaving the weights out would also change how much the answer counts against the rationale, by 1 / ρ, and
    the ablation would compare two things.

    Raises:
        InputError: all weights are 0.
    """
    mean = float(np.concatenate(weights).mean())
    if not mean > 0:
        raise InputError("all token weights are 0: the loss would be of the answer alone")
    return [row / mean for row in weights]


def permuted(weights: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Every rationale's weights in random order: the same spread, without their meaning."""
    rng = np.random.default_rng([seed, 1])
    return [rng.permutation(row) for row in weights]
