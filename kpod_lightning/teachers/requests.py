"""Requests to a teacher: one a sample, with a key made of all that its text depends on; and which are still wanted."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kpod_lightning.config import TeacherConfig
from kpod_lightning.data.problems import Problem
from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.data.wrong import wrong_answer
from kpod_lightning.teachers.prompts import Message, Prompt


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample to be written."""

    problem: Problem
    sample: int
    messages: tuple[Message, ...]
    key: str
    """32 hex digits, see ``sample_key``."""
    after: str | None = None
    """Second user message, which asks for the answer after the rationale; None without ``teacher.answer_call``."""
    against: tuple[Message, ...] | None = None
    """The messages with another answer; None without ``teacher.contrast``."""

    @property
    def seed(self) -> int:
        """Random seed of this sample, for teachers that take one; 31 bits."""
        return int(self.key[:8], 16) >> 1


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A teacher's reply to a request.

    ``finish_reason``: stop (a natural end, the only one after which a sample can be right) | length | content_filter |
    prompt_too_long | unreadable (content of an unknown form) | the teacher's own word for another end. ``thinking``:
    where the endpoint has a field of its own for it. ``answer``: the reply to the answer call. Tokens are counted as
    the teacher counts (and bills) them. ``latency``: seconds. ``logprobs``: each token with the natural logarithm of
    its probability; ``top_logprobs``: for each of them the likeliest tokens in its place.
    """

    text: str
    finish_reason: str = "stop"
    thinking: str | None = None
    answer: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency: float = 0.0
    model: str | None = None
    logprobs: list[tuple[str, float]] | None = None
    top_logprobs: list[list[tuple[str, float]]] | None = None


def with_answer(reply: Reply, second: Reply) -> Reply:
    """One reply out of the rationale and the reply to the answer call; tokens and latency add up."""
    return Reply(
        text=reply.text,
        finish_reason=reply.finish_reason,
        thinking=reply.thinking,
        answer=thought_and_rest(second.text, second.thinking)[1],
        prompt_tokens=reply.prompt_tokens + second.prompt_tokens,
        cached_tokens=reply.cached_tokens + second.cached_tokens,
        completion_tokens=reply.completion_tokens + second.completion_tokens,
        latency=reply.latency + second.latency,
        model=reply.model,
        logprobs=reply.logprobs,
        top_logprobs=reply.top_logprobs,
    )


def sampling_of(teacher: TeacherConfig, seed: int) -> dict[str, Any]:
    """Every setting that a sample's text depends on, except prompt and model."""
    names = ("temperature", "top_p", "max_tokens", "stop", "answer_call", "thinking", "extra")
    found = {name: getattr(teacher, name) for name in names} | {"seed": seed}
    if teacher.contrast is not None:  # rows that were asked without it keep their keys
        found |= {name: getattr(teacher, name) for name in ("contrast", "contrast_lambda", "contrast_plausible")}
    return found


def order_digest(prompt: str, model: str, sampling: dict[str, Any]) -> bytes:
    """SHA-256 of prompt, model and sampling, which all samples of an order share.

    Args:
        prompt: hash of the prompt file with its examples (``Prompt.sha256``).
    """
    return hashlib.sha256(json.dumps([prompt, model, sampling], sort_keys=True).encode()).digest()


def sample_key(problem: Problem, order: bytes, sample: int) -> str:
    """The key of a sample: 32 hex digits of the SHA-256 of (problem, prompt, model, sampling, index).

    Args:
        order: ``order_digest`` of prompt, model and sampling.
    """
    parts = json.dumps([problem.id, problem.text, problem.answer, sample])
    return hashlib.sha256(order + parts.encode()).hexdigest()[:32]


@dataclass(eq=False)
class _Open:
    """A problem with samples under way or still to ask.

    ``waiting``: indices of samples to ask. ``num_right``: right rows. ``num_out``: requests under way.
    """

    problem: Problem
    waiting: list[int]
    num_right: int
    num_out: int = 0


@dataclass
class Wanted:
    """The requests that have no row yet, problem by problem.

    With ``stop_at`` a problem never has more requests under way than right samples are lacking. So which samples are
    asked depends on which were right, and neither on speed nor on interruptions.

    Args:
        right_of: whether the row of a key is right; None if there is no such row.
        num_right: right rows in the file.
        num_out: requests under way.
    """

    problems: Iterable[Problem]
    prompt: Prompt
    teacher: TeacherConfig
    seed: int
    right_of: Callable[[str], bool | None]
    num_right: int = 0
    num_out: int = 0
    _claimed: set[str] = field(default_factory=set)
    _ready: deque[_Open] = field(default_factory=deque)
    _of: dict[str, _Open] = field(default_factory=dict)
    _fresh: Iterator[Problem] | None = None

    def __post_init__(self) -> None:
        assert self.teacher.name is not None
        self.order = order_digest(self.prompt.sha256, self.teacher.name, sampling_of(self.teacher, self.seed))

    def key(self, problem: Problem, sample: int) -> str:
        return sample_key(problem, self.order, sample)

    @property
    def enough(self) -> bool:
        total = self.teacher.stop_at_total
        return total is not None and self.num_right >= total

    def take(self) -> Request | None:
        """The next request, or None if none can be asked now; there may be more once a request under way is done."""
        if self.enough:
            return None
        while True:
            if not self._ready:
                if self._fresh is None:
                    self._fresh = iter(self.problems)
                problem = next(self._fresh, None)
                if problem is None:
                    return None
                self._ready.append(self._open(problem))
            first = self._ready[0]
            if first.waiting and not self._has_all(first):
                return self._send(first)
            self._ready.popleft()  # done() puts it back when one of its samples is

    def claim(self, problem: Problem, sample: int) -> Request:
        """A request that an earlier command sent and that is still under way; ``take`` skips it.

        To be called before the first ``take``.
        """
        request = self._request(problem, sample)
        self._claimed.add(request.key)
        self.num_out += 1
        return request

    def _open(self, problem: Problem) -> _Open:
        keys = [self.key(problem, sample) for sample in range(self.teacher.samples)]
        rights = [self.right_of(key) for key in keys]
        out = [key for key in keys if key in self._claimed]
        missing = [i for i, right in enumerate(rights) if right is None and keys[i] not in self._claimed]
        opened = _Open(problem, missing, sum(bool(right) for right in rights), len(out))
        self._of |= dict.fromkeys(out, opened)
        return opened

    def _has_all(self, of: _Open) -> bool:
        return self.teacher.stop_at is not None and of.num_right + of.num_out >= self.teacher.stop_at

    def _send(self, of: _Open) -> Request:
        sample = of.waiting.pop(0)
        of.num_out += 1
        self.num_out += 1
        request = self._request(of.problem, sample)
        self._of[request.key] = of
        return request

    def _request(self, problem: Problem, sample: int) -> Request:
        messages = self.prompt.messages(problem)
        after = self.prompt.answer_call(problem) if self.teacher.answer_call else None
        return Request(
            problem=problem,
            sample=sample,
            messages=messages,
            key=self.key(problem, sample),
            after=after,
            against=None if self.teacher.contrast is None else self._against(problem),
        )

    def _against(self, problem: Problem) -> tuple[Message, ...]:
        """The messages with a wrong answer, or with an empty one."""
        other = wrong_answer(problem, self.seed) if self.teacher.contrast == "wrong" else None
        return self.prompt.messages(replace(problem, answer=other or ""))

    def done(self, request: Request, right: bool | None) -> None:
        """Note that a request has its row, right or not; None: it was given up and stays without a row."""
        self.num_out -= 1
        self.num_right += bool(right)
        self._claimed.discard(request.key)
        of = self._of.pop(request.key, None)
        if of is None:  # claimed, and its problem is not open yet: _open will find the row
            return
        of.num_out -= 1
        of.num_right += bool(right)
        if of.waiting and of not in self._ready:
            self._ready.append(of)
