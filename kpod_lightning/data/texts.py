"""Text: what the student is shown of a problem, and the target that is asked of it; the words before any token."""

from collections.abc import Sequence
from dataclasses import dataclass

from kpod_lightning.data.rationales import Rationale
from kpod_lightning.data.template import answer_phrase, prompt_text


@dataclass(frozen=True, kw_only=True)
class Text:
    """One prompt and its target, which is the rationale and then the answer phrase.

    ``steps`` are character spans that tile ``rationale``; both are empty where only the answer is asked.
    ``answer_phrase`` ends with ``answer``; both are empty where no answer is asked. ``kind`` tells the texts that a
    method makes of one rationale apart.
    """

    prompt: str
    rationale: str
    steps: tuple[tuple[int, int], ...]
    answer_phrase: str
    answer: str
    kind: int = 0


def text_of(rationale: Rationale, *, prompt: str | None = None, with_rationale: bool = True) -> Text:
    """The text of chain-of-thought distillation, Eq. (1).

    Args:
        prompt: what the student is shown; None takes the template's.
        with_rationale: false asks the answer alone.
    """
    return Text(
        prompt=prompt_text(rationale.problem) if prompt is None else prompt,
        rationale=rationale.text.rstrip() if with_rationale else "",
        steps=rationale.steps if with_rationale else (),
        answer_phrase=answer_phrase(rationale.problem),
        answer=rationale.problem.answer,
    )


def with_demonstrations(prompt: str, shown: Sequence[Text]) -> str:
    """A prompt behind texts with their targets, a blank line between any two."""
    demos = (" ".join(part for part in (text.prompt, text.rationale, text.answer_phrase) if part) for text in shown)
    return "\n\n".join([*demos, prompt])
