"""Own records: the records of a table that others wrote as records with our fields, made when they are read."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kpod_lightning.data.answers import gold_answer
from kpod_lightning.data.fields import LETTERS, Fields, has, value_of
from kpod_lightning.data.outputs import rationale_of, taken_apart
from kpod_lightning.data.problems import Choice, Problem, question_hash
from kpod_lightning.data.tables import Record, Table
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import fingerprint
from kpod_lightning.store.reading import kind_of, parsed
from kpod_lightning.store.records import id_of

READING = "own-1"
"""Name of how records are read: another one makes other problems of the same file."""

LONGEST_UNMARKED = 12
"""Most words of an output that is taken for the answer itself though no mark says so."""

_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_ROLES |= {"prompter": "user", "model": "assistant", "chatgpt": "assistant", "bot": "assistant", "developer": "system"}


class OwnRecords(Sequence[Record]):
    """Some records of a table in our fields.

    Args:
        name: of the table; an id is ``name-00012`` where the records have none, counted from 1.
        kind: of the answers, as ``data.kind``.
        thinking: as ``data.thinking``.
        positions: which of the table's records; all of them by default.
    """

    def __init__(
        self,
        table: Table,
        fields: Fields,
        *,
        name: str,
        kind: str,
        thinking: str,
        positions: np.ndarray | None = None,
        first: int | None = None,
    ) -> None:
        self.table, self.fields, self.name, self.kind, self.thinking = table, fields, name, kind, thinking
        self.positions = np.arange(len(table)) if positions is None else positions
        self.first = first
        """The number of a choice's first position, 0 or 1, where answers are positions."""

    @property
    def path(self) -> Path:
        return self.table.path

    @property
    def sha256(self) -> str:
        settings = [READING, self.table.sha256, repr(self.fields), self.name, self.kind, self.thinking, self.first]
        return fingerprint(settings, hashlib.sha256(self.positions.astype("<i8").tobytes()).hexdigest())

    def chosen(self, positions: np.ndarray) -> "OwnRecords":
        """Those of these records that stand at ``positions``."""
        return OwnRecords(
            self.table,
            self.fields,
            name=self.name,
            kind=self.kind,
            thinking=self.thinking,
            positions=self.positions[positions],
            first=self.first,
        )

    def place(self, position: int) -> str:
        return self.table.place(int(self.positions[position]))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, position: Any) -> Any:
        """
        Raises:
            InputError: a field is missing or has a value that cannot be read.
        """
        at = int(self.positions[position])
        record, place, fields = self.table[at], self.table.place(at), self.fields
        for name in sorted(fields.asked):
            if not has(record, name):
                raise InputError(
                    f"{place}: no field {name}, which data.fields names; there are {', '.join(record) or 'none'}"
                )
        question, reply = question_of(record, fields, place)
        rationale, answer = self._answer(record, reply, place)
        choices = choices_of(record, fields, place)
        numbered = f"{self.name}-{at + 1:05d}"
        theirs = fields.id
        row = {
            "id": numbered if theirs is None else id_of({theirs: value_of(record, theirs)}, theirs, place),
            "question": question,
            "answer": label_of(answer, choices, self.first, place) if self.kind == "choice" else answer,
            "rationale": rationale,
        }
        return row | {"choices": choices} if choices else row

    def question_hash(self, position: int) -> str:
        """The name of a record's question, as of a problem, whatever its answer is."""
        at = int(self.positions[position])
        record, place = self.table[at], self.table.place(at)
        question, _ = question_of(record, self.fields, place)
        choices = tuple(Choice(**choice) for choice in choices_of(record, self.fields, place))
        return question_hash(Problem(id="", question=question, answer="", kind=self.kind, split="", choices=choices))

    def _answer(self, record: Record, reply: str | None, place: str) -> tuple[str | None, Any]:
        """Rationale and answer, from fields of their own or taken from one text."""
        fields = self.fields
        theirs = fields.rationale
        text = reply if theirs is None and fields.answer is not None else None
        text = text if theirs is None else _text(value_of(record, theirs), theirs, place)
        written = None if text is None else rationale_of(text, self.thinking)
        value = reply if fields.answer is None else value_of(record, fields.answer)
        if isinstance(value, list) and _are_turns(value):
            value = turns_of(value, place)[-1][1]
        if fields.answer is None and reply is None:
            raise InputError(
                f"{place}: none of its fields is known as the answer; there are {', '.join(record)}: "
                "data.fields.answer=NAME says which it is"
            )
        if fields.answer is not None and not has(record, fields.answer):
            raise InputError(f"{place}: no field {fields.answer}, the answer; there are {', '.join(record) or 'none'}")
        if isinstance(value, bool):
            value = "yes" if value else "no"
        if not isinstance(value, str):
            return written, value
        before, answer, is_marked = taken_apart(value, self.thinking)
        if fields.is_output and not is_marked and len(answer.split()) > LONGEST_UNMARKED:
            raise InputError(
                f"{place}: {fields.answer or 'the reply'} is a text without a marked answer (#### 7, \\boxed{{7}} or "
                '"The answer is 7" at its end); data.fields.answer=NAME says which field holds the answer'
            )
        return (before if text is None else written), answer


def _text(value: Any, name: str, place: str) -> str | None:
    """A text; None where there is none."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{place}: {name} is a text, not of the kind {kind_of(value)}")
    return value if value and value.strip() else None


def question_of(record: Record, fields: Fields, place: str) -> tuple[str, str | None]:
    """The question, and the reply where it stands in a chat.

    Raises:
        InputError: there is none.
    """
    values = [value_of(record, name) for name in fields.question]
    if len(values) == 1 and isinstance(values[0], dict) and all(isinstance(part, list) for part in values[0].values()):
        # Lists of roles and contents, as Arrow tables may hold turns.
        values = [[dict(zip(values[0], turn, strict=False)) for turn in zip(*values[0].values(), strict=False)]]
    if len(values) == 1 and isinstance(values[0], list):
        return chat_of(values[0], fields.question[0], fields.answer is None, place)
    for name, value in zip(fields.question, values, strict=True):
        if value is not None and not isinstance(value, str):
            others = "; data.fields.question=NAME leaves it out" if len(values) > 1 else ""
            raise InputError(f"{place}: {name} is a text, not of the kind {kind_of(value)}{others}")
    texts = [value.strip() for value in values if value is not None]
    question = "\n".join(text for text in texts if text)
    if not question:
        name = fields.question[-1]
        what = "is empty" if any(has(record, name) for name in fields.question) else "is missing"
        raise InputError(
            f"{place}: the question, field {name}, {what}; complete it or take the record out; "
            f"there are {', '.join(record)}"
        )
    return question, None


def _are_turns(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) for turn in value)


def turns_of(value: list[Any], place: str) -> list[tuple[str, str]]:
    """Role (user, assistant or system) and text of each turn, in either of the usual spellings.

    Raises:
        InputError: a turn of another form.
    """
    turns = []
    for number, turn in enumerate(value, start=1):
        role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if isinstance(content, list):  # parts, of which only texts can be read
            parts = [part.get("text") if isinstance(part, dict) else part for part in content]
            texts = [part for part in parts if isinstance(part, str)]
            content = "\n".join(texts) if len(texts) == len(parts) else None
        if not isinstance(role, str) or role.lower() not in _ROLES or not isinstance(content, str):
            raise InputError(
                f"{place}: turn {number} of the chat has no role (user, assistant or system) with a content, nor a "
                "from with a value"
            )
        turns.append((_ROLES[role.lower()], content.strip()))
    return turns


def chat_of(value: list[Any], name: str, has_reply: bool, place: str) -> tuple[str, str | None]:
    """The user's question and the assistant's reply in a chat of one question; a system's turn is left out.

    Raises:
        InputError: more than one question, or no reply where there is to be one.
    """
    if not _are_turns(value):
        raise InputError(f"{place}: {name} is a text or a list of turns with role and content")
    turns = [turn for turn in turns_of(value, place) if turn[0] != "system"]
    roles = [role for role, _ in turns]
    expected = ["user", "assistant"] if has_reply or len(roles) > 1 else ["user"]
    if roles != expected:
        raise InputError(
            f"{place}: the turns of {name} are {', '.join(roles) or 'none'}, where one question of the user and one "
            "reply of the assistant are expected; take the record out or cut the chat"
        )
    if not turns[0][1]:
        raise InputError(f"{place}: the user's turn of {name} is empty; complete it or take the record out")
    return turns[0][1], turns[1][1] if len(turns) > 1 else None


def choices_of(record: Record, fields: Fields, place: str) -> list[dict[str, str]]:
    """Choices as label and text, from any of the usual forms.

    Raises:
        InputError: another form.
    """
    if not fields.choices:
        return []
    if len(fields.choices) > 1:
        cells = [value_of(record, name) for name in fields.choices]
        value: Any = [cell for cell in cells if cell is not None and str(cell).strip()]
        if cells[: len(value)] != value:
            raise InputError(f"{place}: a choice is empty before others: {', '.join(fields.choices)}")
    else:
        value = value_of(record, fields.choices[0])
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # a cell of CSV
        value = parsed(value, f"{place}: {fields.choices[0]}")
    if value is None:
        return []
    found = _labelled(value)
    labels = [label for label, _ in found]
    if len(found) < 2 or len(set(labels)) < len(labels):
        raise InputError(
            f"{place}: choices are a list of texts, of objects with label and text, or an object of texts by label, "
            f"at least two, each label once; not {str(value)[:60]}"
        )
    return [{"label": label, "text": text} for label, text in found]


_LETTERED = re.compile(r"\s*\(?([A-Ja-j])[).:]\s*(.*)", re.DOTALL)


def _labelled(value: Any) -> list[tuple[str, str]]:
    """Label and text of each choice; [] for a form that is not known."""
    if isinstance(value, dict) and isinstance(value.get("label"), list) and isinstance(value.get("text"), list):
        pairs = list(zip(value["label"], value["text"], strict=False))
        pairs = pairs if len(value["label"]) == len(value["text"]) else []
    elif isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and _are_turns(value):
        pairs = [(choice.get("label", choice.get("key")), choice.get("text", choice.get("value"))) for choice in value]
    elif isinstance(value, list) and len(value) <= len(LETTERS):
        texts = [str(text) for text in value if isinstance(text, (str, int, float)) and not isinstance(text, bool)]
        if len(texts) < len(value):
            return []
        marked = [_LETTERED.fullmatch(text) for text in texts]
        if [found[1].upper() for found in marked if found] == list(LETTERS[: len(texts)]):  # "A) oven"
            texts = [found[2] for found in marked if found]
        pairs = list(zip(LETTERS, texts, strict=False))
    else:
        return []
    scalars = (str, int, float)
    if any(not isinstance(part, scalars) or not str(part).strip() for pair in pairs for part in pair):
        return []
    return [(str(label).strip(), str(text).strip()) for label, text in pairs]


def position_of(answer: Any, choices: Sequence[Mapping[str, str]]) -> int | None:
    """The number that an answer is, where it can only be a choice's position: no label or text is that number."""
    if isinstance(answer, str) and answer.strip().isdecimal() and len(answer.strip()) < 4:
        answer = int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not choices:
        return None
    named = {str(choice[part]) for choice in choices for part in ("label", "text")}
    return None if str(answer) in named else answer


def label_of(answer: Any, choices: Sequence[Mapping[str, str]], first: int | None, place: str) -> Any:
    """The label of the choice that an answer names by label, by text or by position; unchanged without choices.

    Args:
        first: the number of the first position, 0 or 1; None where it is not known.

    Raises:
        InputError: it names none of the choices.
    """
    if not choices:
        return answer
    listed = ", ".join(choice["label"] for choice in choices)
    number = position_of(answer, choices)
    if number is not None and first is not None and 0 <= number - first < len(choices):
        return choices[number - first]["label"]
    if number is not None:
        raise InputError(
            f"{place}: answer {number} is none of the choices {listed}, and whether positions count from 0 or 1 is not "
            "clear; write the label"
        )
    try:
        return gold_answer(answer, "choice", {choice["label"]: choice["text"] for choice in choices})
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error
