"""Outputs: a text that ends in an answer, taken apart into the rationale and the gold answer."""

import re

from kpod_lightning.data.thoughts import thought_and_rest

_HASHES = re.compile(
    r"(?P<before>(?:(?!####).)*)####(?!#)[ \t]*(?P<answer>[^\n#]+)(?:\n\s*(?:the answer is|answer:)[^\n]*)?\s*",
    re.DOTALL | re.IGNORECASE,
)
"""GSM8K's mark, perhaps with MetaMath's phrase behind it; several of them are headings in Markdown."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)

_PHRASE = re.compile(
    r"(?:^|(?<=[\s*.]))(?:(?:therefore|so|thus|hence),?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?answer"
    r"(?:\s+is\s*:?|\s*:)\**\s*(?P<answer>[^\n]+?)\s*$",
    re.IGNORECASE,
)

_CALCULATOR = re.compile(r"<<[^<>a-zA-Z]*>>")
"""Marks of GSM8K's calculator, e.g. <<2*3=6>>."""


def marked_answer(text: str) -> tuple[str, str] | None:
    """The rationale and the answer of a text that marks its answer, or None where it marks none.

    The mark is <answer>...</answer>, else #### (GSM8K), else the last \\boxed{} (MATH), else a last line with "the
    answer is" or "answer:". A boxed answer and the phrase stay in the rationale, as other words depend on them; it is
    "" where nothing but the mark is there.
    """
    if found := _ANSWER.search(text):
        outside = f"{text[: found.start()]}\n{text[found.end() :]}".strip()
        inside, answer = marked_answer(found[1]) or ("", found[1].strip())
        return ("\n".join(part for part in (outside, inside) if part), answer) if answer else None
    if found := _HASHES.fullmatch(text):
        return found["before"].strip(), found["answer"].strip()
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start >= 0 and (end := _closing(text, text.index("{", start))) is not None:
        answer = text[text.index("{", start) + 1 : end].strip()
        around = text[:start] + text[end + 1 :]
        return (text.strip() if re.search(r"\w", around) else "", answer) if answer else None
    if found := _PHRASE.search(text.rstrip()):
        answer = found["answer"].strip().strip("*").removesuffix(".").strip()
        before = text[: found.start()].strip()
        return (text.strip() if before else "", answer) if answer else None
    return None


def _closing(text: str, start: int) -> int | None:
    """Place of the brace that closes the one at ``start``, or None."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return place
    return None


def taken_apart(text: str, thinking: str) -> tuple[str | None, str, bool]:
    """Rationale, answer, and whether the answer was marked; an output that marks none is the answer itself.

    Args:
        thinking: of the text between <think> tags: keep (with its tags) | drop | distil (it is the rationale).
    """
    thought, rest = thought_and_rest(text)
    marked = marked_answer(rest)
    before, answer = marked or ("", rest)
    rationale = _CALCULATOR.sub("", before)
    if thought and thinking == "distil":
        rationale = thought
    elif thought and thinking == "keep":
        rationale = f"<think>{thought}</think>\n{rationale}".strip()
    return rationale or None, answer, marked is not None


def rationale_of(text: str, thinking: str) -> str | None:
    """A rationale that stands in a field of its own: without a mark behind it, its thought treated as in an output."""
    before, answer, is_marked = taken_apart(text, thinking)
    if is_marked or before:
        return before
    return answer or None
