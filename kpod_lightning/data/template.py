"""The versioned template: prompt, answer phrase, and what is cut off a rationale that already states its answer."""

from kpod_lightning.data.problems import Problem
from kpod_lightning.data.statements import announces, is_statement
from kpod_lightning.data.steps import split_steps

TEMPLATE = "kpod-1"
"""Name of prompt, answer phrase and stop rule together; it stands in every record."""


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
    """The text without the whole sentences or lines at its end that do nothing but state the answer.

    Those are sentences that begin with a phrase of the template's kind ("So, the correct answer is 5."), a bold or
    heading line of it with the value on the next, or without one, a line that is a box, and #### 7. The phrase is
    appended once by the template; a teacher that wrote it would teach it twice. A sentence that reasons first, or
    that speaks of the answer without stating it, stays. So does a text which is nothing but a statement, or no
    rationale would be left.
    """
    kept = text.rstrip()
    spans = split_steps(kept)
    left = len(spans)
    while left > 1:
        last, one_before = (kept[slice(*span)].strip() for span in (spans[left - 1], spans[left - 2]))
        if is_statement(last) or announces(last):
            left -= 1
        elif announces(one_before) and left > 2:
            left -= 2
        else:
            break
    return kept[: spans[left - 1][1]].rstrip() if spans else kept
