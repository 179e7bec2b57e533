"""Work for a teacher: wanted requests, the file that their rows go to, and what they may cost; replies become rows."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.answers import READINGS, answers_equal, extract_answer
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.distributed.preemption import Preempted
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.estimates import Seen
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.requests import Reply, Request, Wanted, sampling_of
from kpod_lightning.teachers.samples.file import SampleFile

EXTRACTOR = "flexible"
"""The extractor of ``data/answers.py`` that reads every answer of a teacher."""

REFUSED = ("content_filter", "prompt_too_long", "unreadable")
"""Ways in which a sample has no text, and asking again would change nothing."""

MOST_REFUSED = 20
"""Refused samples after which an order without any other stops."""

PILOT = 50
"""Samples after which the cost of all is estimated."""


def rationale_of(reply: Reply, problem: Problem, thinking: str) -> tuple[str, str | None]:
    """The rationale and the answer of a reply. The gold answer is not looked at.

    Args:
        thinking: keep | drop | distil, see ``teacher.thinking``.

    Returns:
        The rationale, and the predicted answer, or None if there is no answer in the reply.
    """
    thought, rest = thought_and_rest(reply.text, reply.thinking)
    asked = (
        None
        if reply.answer is None
        else extract_answer(f"The answer is {reply.answer}", problem.kind, EXTRACTOR, problem.labels)
    )
    said = extract_answer(rest, problem.kind, EXTRACTOR, problem.labels)
    predicted = asked or said
    if thinking == "distil" and thought:
        rationale = thought
    elif thinking == "keep" and thought:
        rationale = f"<think>\n{thought}\n</think>\n{rest}".strip()
    else:
        rationale = rest
    # Readers of the file extract the answer from the rationale, so it has to end with the predicted one.
    if rationale and predicted and extract_answer(rationale, problem.kind, EXTRACTOR, problem.labels) != predicted:
        rationale = f"{rationale} Therefore, the answer is {predicted}."
    return rationale, predicted


@dataclass
class Work:
    """The requests to a teacher, the file of their rows, and the progress so far.

    ``on_change`` is called after every reply, ``say`` gets messages for the user, ``failures`` counts failed requests
    by reason, and ``given_up`` the samples that stay without a row.
    """

    teacher: TeacherConfig
    prices: Prices
    wanted: Wanted
    file: SampleFile
    licence: str
    seed: int = 0
    on_change: Callable[[], None] = lambda: None
    say: Callable[[str], None] = print
    failures: Counter[str] = field(default_factory=Counter)
    given_up: int = 0
    stopped: InputError | Preempted | None = None
    """Why no more requests are taken although some are wanted. Replies to those under way are still written."""
    pilot: Seen = field(default_factory=Seen)
    """Costs of the first ``PILOT`` samples that were asked and did not fail. The first replies to arrive would be the
    shortest ones, and bias the estimate."""
    unnatural: Counter[str] = field(default_factory=Counter)
    """Samples that ended in a way that is no natural end and no limit, by the endpoint's word for it."""
    refused: Counter[str] = field(default_factory=Counter)
    """Samples that an endpoint refused, by reason."""
    _num_with_text: int = 0
    _said: set[str] = field(default_factory=set)
    _pilot_left: int = PILOT
    _pilot_out: set[str] = field(default_factory=set)
    _pilot_texts: dict[str, list[str]] = field(default_factory=dict)

    def take(self) -> Request | None:
        """The next request; None if there is none now, or none left."""
        request = None if self.stopped is not None else self.wanted.take()
        if request is not None and self._pilot_left:
            self._pilot_left -= 1
            self._pilot_out.add(request.key)
        return request

    def delay(self, request: Request) -> None:
        """Note that a request failed and is retried later.

        Its pilot slot goes to the next request, so that the estimate is not held up.
        """
        if request.key in self._pilot_out:
            self._pilot_out.remove(request.key)
            self._pilot_left += 1

    @property
    def pilot_is_done(self) -> bool:
        return not self._pilot_left and not self._pilot_out

    @property
    def repeats_itself(self) -> bool:
        """Whether each problem of the pilot, of at least five, has the same text in all of its samples."""
        several = [texts for texts in self._pilot_texts.values() if len(texts) > 1 and any(texts)]
        is_drawn = self.teacher.temperature != 0 and not (self.teacher.name or "").startswith("recorded:")
        return is_drawn and len(several) >= 5 and all(len(set(texts)) == 1 for texts in several)

    def add(self, request: Request, reply: Reply, attempts: list[str], cost: Decimal, why: str = "") -> "Future[None]":
        """Write the row of a reply. The sample counts once the future is done.

        Args:
            why: what the endpoint said where it refused the request.
        """
        self._count_ending(reply, why)
        row = self.row(request, reply, attempts, cost)
        done = self.file.add(row)
        self.wanted.done(request, row["correct"])
        if request.key in self._pilot_out:
            self._pilot_out.remove(request.key)
            self.pilot.count(row)
            self._pilot_texts.setdefault(request.problem.id, []).append(reply.text)
            if self.pilot_is_done and self.repeats_itself:
                self.stopped = self.stopped or InputError(
                    f"{self.teacher.name} writes the same text for every sample of a problem: the endpoint ignores "
                    "teacher.temperature (a served model may lack do_sample in its generation_config.json); set it "
                    "there, or take samples=1"
                )
        self.on_change()
        return done

    def say_once(self, subject: str, line: str) -> None:
        """Tell the user something, the first time that it is about this subject."""
        if subject not in self._said:
            self._said.add(subject)
            self.say(line)

    def _count_ending(self, reply: Reply, why: str) -> None:
        """Count how a reply ended; stop where nothing but refusals came."""
        reason = reply.finish_reason
        if reason in REFUSED:
            self.refused[reason] += 1
        elif reason not in ("stop", "length"):
            self.unnatural[reason] += 1
        self._num_with_text += reason not in REFUSED
        is_asked_outside = (self.teacher.name or "").partition(":")[0] in ("openai", "batch")
        if is_asked_outside and not self._num_with_text and self.refused.total() == MOST_REFUSED:
            kinds = ", ".join(f"{name} {number}" for name, number in self.refused.most_common())
            self.stopped = self.stopped or InputError(
                f"{self.teacher.name}: the first {MOST_REFUSED} samples were all refused ({kinds})"
                f"{f', the last with: {why}' if why else ''}; mend teacher.prompt or teacher=, or repeat to go on"
            )

    def give_up(self, request: Request) -> None:
        """Leave a sample without a row. The same command asks for it again."""
        self.given_up += 1
        self.wanted.done(request, None)
        self._pilot_out.discard(request.key)
        self.on_change()

    def row(self, request: Request, reply: Reply, attempts: list[str], cost: Decimal) -> dict[str, Any]:
        """The row of a reply, with everything that is known of its sample."""
        problem, teacher = request.problem, self.teacher
        rationale, predicted = rationale_of(reply, problem, teacher.thinking)
        raw: dict[str, Any] = {"text": reply.text, "thinking": reply.thinking, "answer_call": reply.answer}
        raw |= {"logprobs": reply.logprobs, "top_logprobs": reply.top_logprobs}
        return {
            "problem_id": problem.id,
            "sample": request.sample,
            "teacher": teacher.name,
            "rationale": rationale,
            "predicted_answer": predicted,
            # Training extracts the answer from the rationale, so a sample without a rationale is never right.
            "correct": reply.finish_reason == "stop"
            and rationale != ""
            and answers_equal(predicted, problem.answer, problem.kind),
            "finish_reason": reply.finish_reason,
            "key": request.key,
            "prompt": teacher.prompt,
            "prompt_sha256": self.wanted.prompt.sha256,
            "sampling": sampling_of(teacher, self.seed),
            "model": reply.model,
            "extractor": READINGS[EXTRACTOR],
            "usage": {
                "prompt_tokens": reply.prompt_tokens,
                "cached_tokens": reply.cached_tokens,
                "completion_tokens": reply.completion_tokens,
            },
            "cost": float(cost),
            "latency": round(reply.latency, 4),
            "attempts": attempts,
            "written": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            "licence": self.licence,
            **{name: value for name, value in raw.items() if value is not None and value != rationale},
        }
