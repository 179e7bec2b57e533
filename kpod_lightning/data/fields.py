"""Fields: which fields of a record that others wrote are our id, question, answer, rationale and choices."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kpod_lightning.store.errors import InputError

NAMES = {
    "question": (
        *("question", "problem", "prompt", "query", "instruction", "input", "inputs", "question_text"),
        *("question_stem", "problem_statement"),
    ),
    "answer": (
        *("answer", "final_answer", "gold_answer", "gold", "answer_key", "correct_answer", "expected_answer", "label"),
        *("correct_option", "correct", "target", "targets", "ground_truth", "reference_answer"),
    ),
    "rationale": (
        *("rationale", "cot", "chain_of_thought", "reasoning", "reasoning_content", "explanation", "thought"),
        *("thinking",),
    ),
    "choices": ("choices", "options"),
    "id": ("id", "uid", "uuid", "qid", "question_id", "problem_id", "example_id"),
}
"""Names, in small letters, under which others have our fields."""

OUTPUTS = ("output", "response", "completion", "solution", "generated_solution", "answer_text")
"""Fields that hold a rationale, an answer, or a rationale that ends in the answer."""

CHATS = ("messages", "conversations", "conversation", "chat", "dialogue")

CONTEXTS = ("context", "passage", "body")
"""Fields that a question cannot be answered without; they stand before it."""

LETTERS = "ABCDEFGHIJ"

ROW = "row"
"""``data.fields.id=row``: ids are row numbers, whatever field looks like an id."""


def normal(name: str) -> str:
    """A field's name in small letters, its words joined: answerKey, answer_key and "Answer key" are answerkey."""
    return re.sub(r"[\s_-]+", "", name).lower()


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Names of the fields that make ours; dots lead into an object. ``question`` joins texts by a line break."""

    question: tuple[str, ...]
    answer: str | None
    """None: the answer of the chat in ``question``."""
    rationale: str | None = None
    choices: tuple[str, ...] = ()
    """One field with all, or a field for each, in order."""
    id: str | None = None
    """None: row numbers."""
    asked: frozenset[str] = frozenset()
    """Those that ``data.fields`` names: they stand in every record."""
    is_output: bool = False
    """Whether ``answer`` is a field that may hold a rationale too."""
    unused: tuple[str, ...] = ()

    def sentence(self, has_rationales: bool) -> str:
        """Which of the fields became ours, for a person to check."""
        before = f"what stands before the answer in {self.answer or self.question[0]}" if has_rationales else ""
        ours = {
            "question": " + ".join(self.question),
            "answer": self.answer or f"{self.question[0]} (what the assistant says)",
            "rationale": self.rationale or before,
            "choices": " ".join(self.choices),
            "id": self.id or "row numbers",
        }
        used = ", ".join(f"{name} is {theirs}" for name, theirs in ours.items() if theirs)
        return used + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """A record's value by the name of its field, or by a path with dots into objects; None where there is none."""
    if name in record or "." not in name:
        return record.get(name)
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return value_of(inner, rest) if isinstance(inner, Mapping) else None


def has(record: Mapping[str, Any], name: str) -> bool:
    """Whether a record has the field, be it null."""
    if name in record or "." not in name:
        return name in record
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return isinstance(inner, Mapping) and has(inner, rest)


def names_of(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Fields of the records, in the order they come, and how many records have a value there."""
    seen: Counter[str] = Counter()
    for record in records:
        for name, value in record.items():
            seen[name] += value is not None and value != ""
    return seen


class _Finder:
    """Looks for our fields among the names of a table; says what is there where one is missing or not clear."""

    def __init__(self, names: Counter[str], asked: Mapping[str, str], where: str) -> None:
        self.names, self.asked, self.where = names, asked, where
        self.filled = [name for name, number in names.items() if number]

    def among(self, candidates: Iterable[str]) -> list[str]:
        wanted = [normal(name) for name in candidates]
        return [name for name in self.filled if normal(name) in wanted]

    def one(self, ours: str, found: list[str]) -> str | None:
        if len(found) > 1:
            proposed = next((name for name in found if normal(name) == ours), found[0])
            raise InputError(
                f"{self.where}: {' and '.join(found)} could each be the {ours}: "
                f"data.fields.{ours}={proposed} says which; there are {self.listed()}"
            )
        return found[0] if found else None

    def listed(self) -> str:
        return ", ".join(self.names) or "none"

    def parts(self, ours: str) -> tuple[str, ...]:
        """What ``data.fields`` names for one of ours: a field, or several joined by +."""
        name = self.asked.get(ours)
        if name is None:
            return ()
        return (name,) if name in self.names or "+" not in name else tuple(part.strip() for part in name.split("+"))

    def question(self) -> tuple[str, ...]:
        if asked := self.parts("question"):
            return asked
        found = self.among(NAMES["question"])
        by_name = {normal(name): name for name in found}
        if set(by_name) == {"instruction", "input"} and len(found) == 2:  # Alpaca
            return by_name["instruction"], by_name["input"]
        question = self.one("question", found)
        if question is None:
            return ()
        return (*self.among(CONTEXTS), question)

    def answer(self, rationale: str | None) -> tuple[str | None, str | None, bool]:
        """Fields of answer and rationale, and whether the answer's may hold both."""
        outputs = self.among(OUTPUTS)
        answer = self.asked.get("answer") or self.one("answer", self.among(NAMES["answer"]))
        if answer is None:
            return self.one("answer", outputs), rationale, True
        others = [name for name in outputs if name != answer]
        if rationale is None:
            rationale = self.one("rationale", others)
        return answer, rationale, normal(answer) in map(normal, OUTPUTS)

    def choices(self) -> tuple[str, ...]:
        if asked := self.parts("choices"):
            return asked
        if field := self.one("choices", self.among(NAMES["choices"])):
            return (field,)
        for pattern in ("{}", "option{}", "choice{}"):
            by_name = {normal(name): name for name in self.names}
            columns = [by_name.get(pattern.format(letter.lower())) for letter in LETTERS]
            found = [name for name in columns if name is not None]
            if len(found) > 1 and found == columns[: len(found)]:
                return tuple(found)
        return ()


def find_fields(names: Counter[str], asked: Mapping[str, str], where: str) -> Fields:
    """Which fields of a table are ours.

    Args:
        names: of the table's fields, with the number of records that have a value there.
        asked: ``data.fields``: our name -> theirs; several names joined by + make one question, or choices.
        where: the table, for messages.

    Raises:
        InputError: there is no question or no answer, or more than one field could be it.
    """
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        raise InputError(f"data.fields.{unknown[0]}: our fields are {', '.join(NAMES)}")
    finder = _Finder(names, asked, where)
    rationale = asked.get("rationale") or finder.one("rationale", finder.among(NAMES["rationale"]))
    ids = sorted(finder.among(NAMES["id"]), key=lambda name: [normal(n) for n in NAMES["id"]].index(normal(name)))
    identity = asked.get("id") or (ids[0] if ids else None)
    question = finder.question()
    answer, rationale, is_output = finder.answer(rationale)
    chats = finder.among(CHATS)
    if chats and not ((question and answer) or asked.get("question")):
        question = (chats[0],)
    # A field that is asked for may hold a chat, with the answer in it.
    for ours, theirs in (("question", question), ("answer", answer or chats or asked.get("question"))):
        if not theirs:
            raise InputError(
                f"{where}: none of its fields is known as the {ours} ({', '.join(NAMES[ours][:6])} ...); there are "
                f"{finder.listed()}: data.fields.{ours}=NAME says which it is"
            )
    choices = finder.choices()
    used = {*question, answer, rationale, identity, *choices}
    tops = {name.partition(".")[0] for name in used if name}
    return Fields(
        question=question,
        answer=answer,
        rationale=rationale if rationale != answer else None,
        choices=choices,
        id=None if identity == ROW and ROW not in names else identity,
        asked=frozenset(part for ours in asked for part in finder.parts(ours) if (ours, part) != ("id", ROW)),
        is_output=is_output or answer is None,
        unused=tuple(name for name in names if name not in used and name not in tops),
    )
