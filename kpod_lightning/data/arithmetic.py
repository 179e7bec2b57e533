"""Synthetic word problems whose rationales have a known role for every character.

The benchmark needs no download. A sentence of a rationale states at most one calculation, so the steps, and the
characters that carry the reasoning, are known exactly. Expressions are written as in GSM8K: ``12 + 7 = 19``, with ``*``
and ``/`` for products and quotients.
"""

import hashlib
import random
import re
from dataclasses import dataclass

from kpod_lightning.config import DataConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.scenes import (
    ASIDES,
    DISTRACTORS,
    LEADS,
    OBJECT,
    OOD_DISTRACTORS,
    OOD_SCENES,
    OTHER_OPENINGS,
    OTHER_WORDS,
    PEOPLE,
    POSSESSIVE,
    SCENES,
    WORDINGS,
    Scene,
)

__all__ = ["KINDS", "LARGEST", "SPLITS", "WORDINGS", "GeneratedProblem", "Span", "generate", "problems_of", "unrelated"]

Span = tuple[int, int, str]
"""First character, one past the last, and kind."""

KINDS = ("result", "operand", "operator", "equals", "filler", "filler_number")

SPLITS = ("train", "validation", "test", "ood")

LARGEST = 99
"""Largest number in distribution; a result is never negative."""

LARGEST_OOD = 199

NUM_EXTRA_STEPS_OOD = 2

_STEP_SHARES = {1: 4.0, 2: 4.0, 3: 4.0, 4: 3.0, 5: 1.5}

_MARK = "\x00"  # where an expression goes in a sentence; occurs in no template


@dataclass(frozen=True, kw_only=True)
class GeneratedProblem:
    """A problem and the role of every character of its rationale; ``kinds`` tile ``problem.rationale``.

    ``others`` are further rationales that make the same calculations, each with its own kinds.
    """

    problem: Problem
    kinds: tuple[Span, ...]
    others: tuple[tuple[str, tuple[Span, ...]], ...] = ()


_TRIES = 50
"""Draws of a further rationale until it differs from those before: of one step there are some hundred."""


def generate(
    split: str,
    num_problems: int,
    seed: int = 0,
    min_steps: int = 2,
    max_steps: int = 5,
    num_rationales: int = 1,
    wording: str = "scene",
) -> list[GeneratedProblem]:
    """Word problems of one split; a larger ``num_problems`` appends to the list and changes none before.

    A question belongs to train, validation or test by its hash, so no question is in two of them whatever the
    seeds; ``ood`` has wording of its own. It also has larger numbers and, with the default, 5 to 7 steps:
    from ``max_steps`` to ``max_steps + 2``.

    Args:
        split: train, validation, test or ood.
        num_problems: how many.
        seed: another seed is another benchmark.
        min_steps: fewest calculations of a rationale, at least 1.
        max_steps: most calculations of a rationale.
        num_rationales: of each problem, all different and right; a larger number changes none before. Where many are
            asked for, a problem of one step has fewer.
        wording: scene, or any: then the first rationale is told as further ones are (``data.wording``).

    Raises:
        ValueError: unknown split, or an empty range of steps.
    """
    if split not in SPLITS:
        raise ValueError(f"split is one of {', '.join(SPLITS)}, got {split}")
    if not 1 <= min_steps <= max_steps:
        raise ValueError(f"steps need 1 <= min_steps <= max_steps, got {min_steps} and {max_steps}")
    if split == "ood":
        min_steps, max_steps = max_steps, max_steps + NUM_EXTRA_STEPS_OOD
    problems: list[GeneratedProblem] = []
    seen: set[str] = set()
    for index in range(num_problems):
        rng = random.Random(f"{seed}/{split}/{index}")
        while True:
            choices = range(min_steps, max_steps + 1)
            shares = [_STEP_SHARES.get(num_steps, 1.0) for num_steps in choices]
            num_steps = rng.choices(choices, shares)[0]
            cast = _cast(rng, ood=split == "ood")
            question, rationale, kinds, answer, story = _word_problem(rng, num_steps, cast)
            if question not in seen and (split == "ood" or _split_of(question) == split):
                break
        seen.add(question)
        if wording == "any":
            rationale, kinds = _render(_told_again(random.Random(f"{seed}/{split}/{index}/0"), story))
        problem = Problem(
            id=f"arithmetic-{split}-{index:05d}",
            question=question,
            answer=str(answer),
            kind="number",
            split=split,
            rationale=rationale,
        )
        others = _other_rationales(story, rationale, f"{seed}/{split}/{index}", num_rationales - 1)
        problems.append(GeneratedProblem(problem=problem, kinds=kinds, others=others))
    return problems


def problems_of(data: DataConfig, split: str, num_problems: int, num_rationales: int = 1) -> list[GeneratedProblem]:
    """Problems of a run's settings; see ``generate``."""
    return generate(
        split,
        num_problems,
        seed=data.seed,
        min_steps=data.min_steps,
        max_steps=data.max_steps,
        num_rationales=num_rationales,
        wording=data.wording,
    )


def unrelated(rng: random.Random, max_steps: int = 5) -> tuple[str, str, str]:
    """A question, and the rationale and answer of another story about the same person and things.

    To read: language and calculations are right, and neither the numbers nor what happens follow the question, which
    is one that no validation or test set has.
    """
    while True:
        cast = _cast(rng, ood=False)
        question, *_ = _word_problem(rng, rng.randint(1, max_steps), cast)
        if _split_of(question) == "train":
            break
    _, rationale, _, answer, story = _word_problem(rng, rng.randint(1, max_steps), cast)
    if rng.random() < 0.5:
        rationale, _ = _render(_told_again(rng, story))
    return question, rationale, str(answer)


def _split_of(question: str) -> str:
    """Split of a question by its hash: eight tenths train, a tenth validation, a tenth test."""
    bucket = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4]) % 10
    return {8: "validation", 9: "test"}.get(bucket, "train")


_Sentence = tuple[str, tuple[int, str, int, int] | None]
"""Text with a mark for the expression, and the expression: left, operator, right, result."""


@dataclass(frozen=True, kw_only=True)
class _Story:
    """What every rationale of a problem tells.

    ``openings``: sentences of which it may begin with one. ``steps``: of each calculation the ways to say it, and
    whether it needs no result before it. ``asides``: sentences that do not matter. ``name``: stays a capital.
    """

    openings: tuple[str, ...]
    steps: tuple[tuple[tuple[_Sentence, ...], bool], ...]
    asides: tuple[str, ...]
    name: str


def _other_rationales(story: _Story, first: str, seed: str, num: int) -> tuple[tuple[str, tuple[Span, ...]], ...]:
    """Further rationales of a problem, with the kinds of their characters; the i-th depends on those before alone."""
    found: dict[str, tuple[Span, ...]] = {}
    for sample in range(1, num + 1):
        rng = random.Random(f"{seed}/{sample}")
        for _ in range(_TRIES):
            text, kinds = _render(_told_again(rng, story))
            if text != first and text not in found:
                found[text] = kinds
                break
    return tuple(found.items())


def _told_again(rng: random.Random, story: _Story) -> list[_Sentence]:
    """The same calculations in other words, those that need no result perhaps first."""
    steps = list(story.steps)
    if rng.random() < 0.5:
        steps.sort(key=lambda step: not step[1])
    sentences = [rng.choice(ways) for ways, _ in steps]
    if rng.random() < 0.25:
        sentences = _led(sentences, rng.choice(LEADS), story.name)
    if rng.random() < 0.6:
        sentences.insert(0, (rng.choice(story.openings), None))
    if rng.random() < 0.1:
        sentences.insert(0, (rng.choice(story.asides), None))
    return sentences


def _led(sentences: list[_Sentence], leads: tuple[str, ...], name: str) -> list[_Sentence]:
    """With a beginning for each; the leads end with the fifth, so longer rationales continue without."""
    led = [
        (lead + _lower_first(text, name), expression)
        for (text, expression), lead in zip(sentences, leads, strict=False)
    ]
    return [*led, *sentences[len(led) :]]


@dataclass(frozen=True, kw_only=True)
class _Cast:
    """What a story is about: its scene, and the words for the placeholders that stay the same."""

    scene: Scene
    words: dict[str, str]
    ood: bool


def _cast(rng: random.Random, *, ood: bool) -> _Cast:
    scene = rng.choice(OOD_SCENES if ood else SCENES)
    name, pronoun = rng.choice(PEOPLE)
    objects = rng.choice(scene.objects)
    words = {
        "n": name,
        "P": pronoun.capitalize(),
        "p": pronoun,
        "r": POSSESSIVE[pronoun],
        "r_cap": POSSESSIVE[pronoun].capitalize(),
        "r_obj": OBJECT[pronoun],
        "o": objects,
        "a": str(rng.randint(5, 60)),
        "h": str(rng.randint(2, 9)),
        "m": str(rng.choice((15, 20, 30, 45))),
    }
    return _Cast(scene=scene, words=words, ood=ood)


def _word_problem(rng: random.Random, num_steps: int, cast: _Cast) -> tuple[str, str, tuple[Span, ...], int, _Story]:
    scene, words, ood, name = cast.scene, cast.words, cast.ood, cast.words["n"]
    largest = LARGEST_OOD if ood else LARGEST
    value = rng.randint(20, 120) if ood else rng.randint(4, 50)
    question = [rng.choice(scene.start).format(k=value, **words)]
    openings = tuple(text.format(k=value, **words) for text in (*scene.opening, *OTHER_OPENINGS))
    sentences: list[_Sentence] = []
    steps: list[tuple[tuple[_Sentence, ...], bool]] = []

    def tell(kind: str, text: str, expression: tuple[int, str, int, int]) -> None:
        ways = [each.format(k=number, g=groups, e=_MARK, **words) for each in (text, *OTHER_WORDS[kind])]
        sentences.append((ways[0], expression))
        steps.append((tuple((way, expression) for way in ways), kind == "group"))

    opening = rng.choice(scene.opening).format(k=value, **words)
    steps_left = num_steps
    last = ""
    while steps_left:
        moves = _possible_moves(rng, value, largest)
        if steps_left < 2:
            moves.pop("group", None)
        if len(moves) > 1:
            moves.pop(last, None)  # the same calculation twice in a row reads badly
        # Sums are the bulk, as they are in school books; products stay small so that results do.
        shares = {"+": 4.0, "-": 4.0, "*": 1.5, "/": 1.5, "group": 1.0}
        move = rng.choices(list(moves), [shares[each] for each in moves])[0]
        number, groups = moves[move]
        clause = rng.choice(scene.clauses[move])
        question.append(clause[0].format(k=number, g=groups, **words))
        if move == "group":
            total = number * groups
            tell("group", clause[1], (groups, "*", number, total))
            tell("sum", clause[2], (value, "+", total, value + total))
            value += total
            steps_left -= 2
        else:
            result = {"+": value + number, "-": value - number, "*": value * number, "/": value // number}[move]
            tell(move, clause[1], (value, move, number, result))
            value = result
            steps_left -= 1
        last = move
    if rng.random() < 0.4:
        distractor = rng.choice(OOD_DISTRACTORS if ood else DISTRACTORS).format(**words)
        question.insert(rng.randrange(len(question)), distractor)
    question.append(rng.choice(scene.ask).format(**words))
    if rng.random() < 0.25:
        sentences = _led(sentences, rng.choice(LEADS), name)
    sentences = [(opening, None), *sentences] if rng.random() < 0.6 else sentences
    if rng.random() < 0.1:
        sentences.insert(0, (rng.choice(ASIDES).format(**words), None))
    rationale, kinds = _render(sentences)
    asides = tuple(aside.format(**words) for aside in ASIDES)
    story = _Story(openings=openings, steps=tuple(steps), asides=asides, name=name)
    return " ".join(question), rationale, kinds, value, story


def _possible_moves(rng: random.Random, value: int, largest: int) -> dict[str, tuple[int, int]]:
    """Calculations that keep the value in [1, largest], each with its number and how many groups of that number."""
    moves: dict[str, tuple[int, int]] = {}
    if value + 2 <= largest:
        moves["+"] = (rng.randint(2, min(40, largest - value)), 0)
    if value > 5:
        moves["-"] = (rng.randint(2, min(40, value - 2)), 0)
    if value >= 2 and value * 2 <= largest:
        moves["*"] = (rng.randint(2, min(5, largest // value)), 0)
    divisors = [divisor for divisor in range(2, 6) if value % divisor == 0 and value > divisor]
    if divisors:
        moves["/"] = (rng.choice(divisors), 0)
    groups = rng.randint(2, 5)
    if value + 2 * groups <= largest:
        moves["group"] = (rng.randint(2, min(9, (largest - value) // groups)), groups)
    return moves


def _lower_first(text: str, name: str) -> str:
    """Lower case after a lead, unless the sentence begins with the name."""
    return text if text.startswith(name) else text[:1].lower() + text[1:]


def _render(sentences: list[_Sentence]) -> tuple[str, tuple[Span, ...]]:
    """The rationale, one blank between sentences, and the spans that tile it."""
    pieces: list[tuple[str, str]] = []
    for index, (text, expression) in enumerate(sentences):
        before, mark, after = text.partition(_MARK)
        pieces += _filler((" " if index else "") + before)
        if mark and expression is not None:
            left, operator, right, result = expression
            pieces += [
                (str(left), "operand"),
                (" ", "filler"),
                (operator, "operator"),
                (" ", "filler"),
                (str(right), "operand"),
                (" ", "filler"),
                ("=", "equals"),
                (" ", "filler"),
                (str(result), "result"),
            ]
        pieces += _filler(after)
    spans: list[Span] = []
    position = 0
    for text, kind in pieces:
        spans.append((position, position + len(text), kind))
        position += len(text)
    return "".join(text for text, _ in pieces), tuple(spans)


def _filler(text: str) -> list[tuple[str, str]]:
    """Filler cut at its numbers; decimals and times stay whole."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return [(part, "filler_number" if part[0].isdigit() else "filler") for part in parts]
