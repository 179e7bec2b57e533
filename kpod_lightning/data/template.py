"""The versioned template: prompt, answer phrase, and what is cut off a rationale that already states its answer."""

import re

from kpod_lightning.data.problems import Problem

TEMPLATE = "kpod-1"
"""Name of prompt, answer phrase and stop rule together; it stands in every record."""

_ANSWER_TAIL = re.compile(
    r"(?:^|(?<=[\s.!?]))(?:(?:therefore|so|thus|hence)\s*,?\s*)?(?:the\s+)?(?:final\s+)?answer\s+is\b[^\n]*$",
    re.IGNORECASE,
)


def prompt_text(problem: Problem, *, think: bool = True) -> str:
    """What the student is shown: ``Q: <x> A: Let's think step by step.`` (section 3.1 of the paper).

    Args:
        think: false leaves "Let's think step by step." out, where the answer is asked without a rationale.
    """
    question = " ".join(problem.text.split())
    return f"Q: {question} A:" + (" Let's think step by step." if think else "")


def answer_phrase(problem: Problem) -> str:
    """``Therefore, the answer is <y>``; weight 1 at every stage."""
    return f"Therefore, the answer is {problem.answer}"


def without_answer_tail(text: str) -> str:
    """The text without its last sentence where that already states the answer in a phrase of the template's kind.

    The phrase is appended once by the template; a teacher that wrote it would teach it twice. A text which is
    nothing but that sentence stays as it is, or no rationale would be left.
    """
    stripped = text.rstrip()
    shorter = _ANSWER_TAIL.sub("", stripped).rstrip()
    return shorter if shorter else stripped
