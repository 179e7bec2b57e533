"""A file of token weights in JSON Lines: anybody's own, by the characters of a rationale, for any tokenizer.

A row weighs the characters ``start`` to ``stop`` (one past the last, as Python counts them) of one rationale's text::

    {"problem_id": "p7", "sample": 0, "start": 12, "end": 19, "weight": 0.8, "text": " 3 + 4 "}
    {"problem_id": "p7", "sample": 0, "part": "answer", "weight": 1.0}
"""

import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kpod_lightning.distributed.progress import shown
from kpod_lightning.keypoints.table import WeightTable, text_hash
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.store.keys import Key, Keys
from kpod_lightning.store.ragged import Ragged
from kpod_lightning.store.records import id_of, number, optional_text, whole_number

FIELDS = ("problem_id", "sample", "part", "start", "end", "weight", "text")

LARGEST = 1e6
"""Most that a token may weigh: more is a slip of the pen, and overflows in half precision."""


class WeightRows:
    """The rows of a file, checked one by one, in flat arrays: 24 bytes a row.

    Args:
        rows: of the file.
        rationales: rows of ``rationales.jsonl``, which the characters are counted in.
        others: stop | skip, what to do with a row for a rationale that is not among them.

    Raises:
        InputError: a row that is wrong or for an unknown rationale, beyond its text, or that overlaps another one.
    """

    def __init__(self, rows: JsonLines, rationales: Sequence[Mapping[str, Any]], others: str) -> None:
        self.rows, self.rationales = rows, rationales
        self.keys = Keys.of((row["problem_id"], row["sample"]) for row in rationales)
        self.num_skipped = 0
        self.answers = np.full(len(self.keys), np.nan, np.float32)
        self._text: tuple[int, str] = (-1, "")
        numbers, self._weights = array.array("i"), array.array("f")
        self._places = array.array("q")
        for i, row in enumerate(shown(rows, "reading weights", len(rows), few=200_000)):
            place = rows.place(i)
            if (unknown := [name for name in row if name not in FIELDS]) != []:
                raise InputError(f"{place}: no field {unknown[0]}; a row of weights has {', '.join(FIELDS)}")
            position = self._position(row, place, others)
            if position is None:
                continue
            weight = number(row, "weight", place, most=LARGEST)
            if self._is_of_answer(row, place):
                self._weigh_answer(position, weight, place)
                continue
            numbers.extend((position, *self._span(row, position, place)))
            self._weights.append(weight)
            self._places.append(i)
        self._numbers = np.frombuffer(numbers, np.int32).reshape(-1, 3) if numbers else np.zeros((0, 3), np.int32)
        # By rationale, then by character.
        self._order = np.lexsort(self._numbers.T[::-1])
        self._refuse_overlaps()

    def __len__(self) -> int:
        return len(self._weights)

    def _position(self, row: Mapping[str, Any], place: str, others: str) -> int | None:
        key = id_of(row, "problem_id", place), whole_number(row, "sample", place, default=0)
        position = self.keys.find(key, max(0, self._text[0]))
        if position is not None:
            return position
        if others == "skip":
            self.num_skipped += 1
            return None
        of_problem = [sample for name, sample in self.keys if name == key[0]]
        there = f"its samples there are {', '.join(map(str, of_problem[:10]))}" if of_problem else "nor any other of it"
        raise InputError(
            f"{place}: sample {key[1]} of problem {key[0]} is not among the run's rationales, {there}; set "
            "file.others=skip to leave out rows of other rationales"
        )

    def _is_of_answer(self, row: Mapping[str, Any], place: str) -> bool:
        part = optional_text(row, "part", place) or "rationale"
        if part not in ("rationale", "answer"):
            raise InputError(f"{place}: part is rationale or answer, not {part[:60]}")
        if part == "answer" and (extra := [name for name in ("start", "end", "text") if name in row]):
            raise InputError(f"{place}: the answer is weighed whole, so its row has no {extra[0]}; take it out")
        return part == "answer"

    def _weigh_answer(self, position: int, weight: float, place: str) -> None:
        if not np.isnan(self.answers[position]):
            name, sample = self.keys[position]
            raise InputError(f"{place}: the answer of sample {sample} of problem {name} stands here twice; remove one")
        self.answers[position] = weight

    def text(self, position: int) -> str:
        """Text of a rationale; the last one is kept, since the rows of a rationale mostly stand together."""
        if self._text[0] != position:
            self._text = position, str(self.rationales[position]["rationale"])
        return self._text[1]

    def _span(self, row: Mapping[str, Any], position: int, place: str) -> tuple[int, int]:
        start, stop = (whole_number(row, name, place) for name in ("start", "end"))
        text = self.text(position)
        if not (start < stop or start == stop == 0):
            raise InputError(f"{place}: start is below end, not {start} and {stop}; end is one past the last character")
        if stop > len(text):
            raise InputError(f"{place}: end is at most {len(text)}, the characters of the rationale, not {stop}")
        said = row.get("text")
        if said is not None and said != text[start:stop]:
            there = text[start:stop] if stop - start <= 60 else f"{text[start : start + 60]}..."
            raise InputError(
                f"{place}: characters {start} to {stop} of the rationale are {there!r}, not the row's text: it is of "
                "another text, or counts bytes"
            )
        return start, stop

    def _refuse_overlaps(self) -> None:
        ordered = self._numbers[self._order]
        same = ordered[1:, 0] == ordered[:-1, 0]
        over = same & ((ordered[1:, 1] < ordered[:-1, 2]) | (ordered[1:] == ordered[:-1]).all(1))
        if not over.any():
            return
        first = int(np.flatnonzero(over)[0])
        earlier, later = sorted(self._places[int(i)] for i in self._order[first : first + 2])
        name, sample = self.keys[int(ordered[first, 0])]
        twice = "stand here twice" if (ordered[first] == ordered[first + 1]).all() else "overlap those of another row"
        raise InputError(
            f"{self.rows.place(later)}: characters of sample {sample} of problem {name} {twice}, see "
            f"{self.rows.place(earlier)}; remove one"
        )

    def table(self, default: float, about: Mapping[str, Any]) -> WeightTable:
        """Weights of every rationale, whose characters without a row weigh ``default``, and whose answer 1."""
        ends = np.searchsorted(self._numbers[self._order, 0], np.arange(len(self.keys)), side="right")
        weights = np.frombuffer(self._weights, np.float32) if self._weights else np.zeros(0, np.float32)

        def of_row(position: int) -> tuple[np.ndarray, np.ndarray]:
            order = self._order[ends[position - 1] if position else 0 : ends[position]]
            return tiled(self._numbers[order, 1:], weights[order], len(self.text(position)), default)

        positions = range(len(self.keys))
        hashes = b"".join(bytes.fromhex(text_hash(self.text(i))) for i in positions)
        return WeightTable(
            self.keys,
            np.frombuffer(hashes, np.uint8).reshape(-1, 32),
            Ragged.stored((of_row(i)[0] for i in positions), np.int32),
            Ragged.stored((of_row(i)[1] for i in positions), np.float32),
            about,
            {},
            np.where(np.isnan(self.answers), np.float32(1), self.answers),
        )


def tiled(spans: np.ndarray, weights: np.ndarray, length: int, default: float) -> tuple[np.ndarray, np.ndarray]:
    """Spans [m, 2] and weights [m] that cover a text, the gaps between those given with ``default``.

    Args:
        spans: [n, 2] rising, without overlaps.
        weights: [n].
        length: characters of the text.
    """
    made: list[tuple[int, int, float]] = []
    end = 0
    for (start, stop), weight in zip(spans.tolist(), weights.tolist(), strict=True):
        if start > end:
            made.append((end, start, default))
        made.append((start, stop, weight))
        end = stop
    if end < length:
        made.append((end, length, default))
    return np.array([row[:2] for row in made], np.int32).reshape(-1, 2), np.array([row[2] for row in made], np.float32)


def rows_of(
    key: Key, text: str, spans: Sequence[tuple[int, int]], weights: Sequence[float], answer: float
) -> Iterator[dict[str, Any]]:
    """The rows of one rationale in a file of weights; they cover its text.

    Where tokens share a character, as the bytes of one do, it weighs their mean. What no token covers goes with the
    token behind it.

    Args:
        spans: [n] characters of each rationale token; an empty one at 0 is the blank before the rationale.
        weights: [n].
        answer: what answer phrase and EOS weigh.
    """
    name, sample = key
    sums, counts = np.zeros(len(text)), np.zeros(len(text))
    cuts = {0, len(text)}
    blanks = [weight for (_, stop), weight in zip(spans, weights, strict=True) if stop == 0]
    for (start, stop), weight in zip(spans, weights, strict=True):
        sums[start:stop] += weight
        counts[start:stop] += 1
        cuts |= {start, stop}
    pieces = [(start, stop) for start, stop in pairwise(sorted(cuts)) if counts[start]]
    made: list[tuple[int, int, float]] = [(0, 0, float(np.mean(blanks)))] if blanks else []
    begin = 0
    for start, stop in pieces:
        last = (start, stop) == pieces[-1]
        made.append((begin, len(text) if last else stop, float(sums[start] / counts[start])))
        begin = stop
    for start, stop, weight in made:
        row = {"problem_id": name, "sample": sample, "start": start, "end": stop, "weight": weight}
        yield row | {"text": text[start:stop]}
    yield {"problem_id": name, "sample": sample, "part": "answer", "weight": answer}
