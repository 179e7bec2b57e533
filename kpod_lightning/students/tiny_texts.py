"""Texts to pretrain the tiny students on: sums, a little English, and rationales that do not follow their question."""

import random
from collections.abc import Callable, Mapping

from kpod_lightning.data.arithmetic import LARGEST, unrelated

_PLAIN_NAMES = ("Kim", "Max", "Eva", "Jon", "Ida", "Rob", "Mr. Poe", "Mrs. Ray")

_PLAIN_THINGS = (
    "balls",
    "cups",
    "toys",
    "hats",
    "keys",
    "birds",
    "trees",
    "pens",
    "fish",
    "stones",
    "bottles",
    "bags",
)

_PLAIN_VERBS = ("looks at", "paints", "draws", "counts", "likes", "carries", "hides", "washes")

_PLAIN_COLOURS = ("red", "blue", "green", "old", "small", "large", "new", "white")

_PLAIN_PLACES = (
    "in the house",
    "near the river",
    "at school",
    "in the garden",
    "on the table",
    "by the door",
)

_ONE_STEP: dict[str, tuple[tuple[str, str], ...]] = {
    "+": (
        ("There are {a} {o} and {b} {o}. What is the sum?", "The sum is {e}."),
        ("Add {b} to {a}.", "We add: {e}."),
        ("What is {a} plus {b}?", "{a} plus {b} is {e}."),
    ),
    "-": (
        ("There were {a} {o} and {b} are gone. What is the difference?", "The difference is {e}."),
        ("Subtract {b} from {a}.", "We subtract: {e}."),
        ("What is {a} minus {b}?", "{a} minus {b} is {e}."),
    ),
    "*": (
        ("What is {b} times {a}?", "The product is {e}."),
        ("Multiply {a} by {b}.", "We multiply: {e}."),
    ),
    "/": (
        ("Divide {a} by {b}.", "We divide: {e}."),
        ("What is {a} over {b}?", "The quotient is {e}."),
    ),
}

_TWO_STEP = {
    "+": "Add {b} to the result.",
    "-": "Subtract {b} from the result.",
    "*": "Multiply the result by {b}.",
    "/": "Divide the result by {b}.",
}


FIRST = {"sum": 6.0, "word_sum": 2.5, "reading": 1.5}
"""Odds of the kinds of text in a first round."""


def pretraining_text(index: int, seed: int | str = 0, odds: Mapping[str, float] = FIRST) -> tuple[str, str]:
    """Text ``index`` as (prompt, target); a causal student reads both, an encoder-decoder writes the target.

    Kinds: ``sum``, alone; ``word_sum``, of one step and, rarely, two; ``reading``, sentences to read or copy;
    ``conclusion``, steps from which the answer is to be read; ``story``, in the benchmark's wording, where the
    rationale tells of other numbers and events than its question, so that the student learns to write and not to
    solve. ``odds`` are those of the kinds.
    """
    rng = random.Random(f"{seed}/pretraining/{index}")
    return _WRITERS[rng.choices(list(odds), list(odds.values()))[0]](rng)


def _calculation(rng: random.Random, value: int | None = None) -> tuple[int, str, int, int]:
    """left, operator, right and result, all numbers in [0, LARGEST]; mostly sums and differences."""
    while True:
        operator = rng.choices("+-*/", (4.0, 4.0, 1.0, 1.0))[0]
        if operator == "+":
            left = rng.randint(1, LARGEST - 1) if value is None else value
            if left < LARGEST:
                right = rng.randint(1, LARGEST - left)
                return left, operator, right, left + right
        elif operator == "-":
            left = rng.randint(1, LARGEST) if value is None else value
            if left > 0:
                right = rng.randint(1, left)
                return left, operator, right, left - right
        elif operator == "*":
            factor = rng.randint(2, 9)
            left = rng.randint(1, LARGEST // factor) if value is None else value
            if left * factor <= LARGEST:
                # The benchmark writes both orders: 3 boxes of 8, and 8 that become 3 times as many.
                flipped = value is None and rng.random() < 0.5
                return (factor, "*", left, left * factor) if flipped else (left, "*", factor, left * factor)
        else:
            divisor = rng.randint(2, 9)
            left = divisor * rng.randint(1, LARGEST // divisor) if value is None else value
            if left and left % divisor == 0:
                return left, operator, divisor, left // divisor


def expression_text(left: int, operator: str, right: int, result: int) -> str:
    """``12 + 7 = 19``."""
    return f"{left} {operator} {right} = {result}"


def _bare_sums(rng: random.Random) -> tuple[str, str]:
    left, operator, right, result = _calculation(rng)
    return f"{left} {operator} {right} =", f" {result}"


def _word_sum(rng: random.Random) -> tuple[str, str]:
    left, operator, right, result = _calculation(rng)
    things = rng.choice(_PLAIN_THINGS)
    question, sentence = rng.choice(_ONE_STEP[operator])
    question = question.format(a=left, b=right, o=things)
    rationale = sentence.format(a=left, b=right, e=expression_text(left, operator, right, result))
    if result > 0 and rng.random() < 0.25:  # nothing to go on with after a result of 0
        left, operator, right, result = _calculation(rng, result)
        question += " " + _TWO_STEP[operator].format(b=right)
        rationale += f" Then {expression_text(left, operator, right, result)}."
    return f"Q: {question} A: Let's think step by step.", f" {rationale} Therefore, the answer is {result}"


def _sentence(rng: random.Random) -> str:
    number = rng.randint(1, LARGEST)
    return rng.choice(
        (
            "{n} {v} {k} {c} {o} {w}.",
            "{w2}, {n} {v} the {o} and {k} {c} {o2}.",
            "The {c} {o} are {w}; {n} {v} {k} of the {o2}.",
        )
    ).format(
        n=rng.choice(_PLAIN_NAMES),
        v=rng.choice(_PLAIN_VERBS),
        k=number,
        c=rng.choice(_PLAIN_COLOURS),
        o=rng.choice(_PLAIN_THINGS),
        o2=rng.choice(_PLAIN_THINGS),
        w=rng.choice(_PLAIN_PLACES),
        w2=rng.choice(_PLAIN_PLACES).capitalize(),
    )


def _reading(rng: random.Random) -> tuple[str, str]:
    text = _sentence(rng)
    if rng.random() < 0.5:
        return f"Read: {text} Again:", f" {text}"
    numbers = [rng.randint(0, LARGEST) for _ in range(rng.randint(2, 6))]
    listed = ", ".join(map(str, numbers))
    if rng.random() < 0.5:
        return f"Read: {listed}. Again:", f" {listed}."
    place = rng.randrange(len(numbers))
    ordinal = ("first", "second", "third", "fourth", "fifth", "sixth")[place]
    return f"Numbers: {listed}. The {ordinal} number is", f" {numbers[place]}."


def _conclusion(rng: random.Random) -> tuple[str, str]:
    """Ask for the last result of one to four calculations, which stand among other sentences with numbers."""
    steps: list[str] = []
    value: int | None = None
    for _ in range(rng.randint(1, 4)):
        left, operator, right, result = _calculation(rng, value)
        _, sentence = rng.choice(_ONE_STEP[operator])
        steps.append(sentence.format(a=left, b=right, e=expression_text(left, operator, right, result)))
        value = result or None  # nothing to go on with after a result of 0
    answer = result
    for _ in range(rng.randint(0, 3)):
        steps.insert(rng.randint(0, len(steps)), _sentence(rng))
    question = " ".join(_sentence(rng) for _ in range(rng.randint(1, 3)))
    return (
        f"Q: {question} A: Let's think step by step. {' '.join(steps)}",
        f" Therefore, the answer is {answer}",
    )


def _story(rng: random.Random) -> tuple[str, str]:
    question, rationale, answer = unrelated(rng)
    return f"Q: {question} A: Let's think step by step.", f" {rationale} Therefore, the answer is {answer}"


_WRITERS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "sum": _bare_sums,
    "word_sum": _word_sum,
    "reading": _reading,
    "conclusion": _conclusion,
    "story": _story,
}
