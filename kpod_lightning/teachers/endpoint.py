"""What every OpenAI-compatible endpoint shares: requests and replies, costs, failures and how to wait after them."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import openai
from tenacity import wait_exponential_jitter
from tenacity.wait import wait_base

from kpod_lightning.config import TeacherConfig
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.prompts import Message
from kpod_lightning.teachers.requests import Reply, Request
from kpod_lightning.teachers.writing import Work

LONGEST_WAIT = 60.0
"""Seconds; an endpoint that asks for more is believed."""


@dataclass
class Failure(Exception):
    """A request that came to nothing.

    ``cost``: 0 where the endpoint refused it, None where it may have been billed. ``wait``: seconds that the endpoint
    asks for. ``too_many``: it has more to do than it can.
    """

    why: str
    cost: Decimal | None = Decimal(0)
    wait: float | None = None
    too_many: bool = False


class Refusal(Exception):
    """Of this very request: its sample has no text, which is a result. ``reason``: content_filter | prompt_too_long."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooDear(InputError):
    """A reply was billed more than it could be; ``cost`` in US dollars."""

    def __init__(self, text: str, cost: Decimal) -> None:
        super().__init__(text)
        self.cost = cost


class OutOfBudget(Exception):
    """There is no room for a request, and nothing under way that could make some."""


def key_of(teacher: TeacherConfig) -> str:
    """The key, from the environment.

    Raises:
        InputError: there is none, and the endpoint is not one of your own.
    """
    key = os.environ.get(teacher.key_variable, "").strip()
    if not key and teacher.base_url is None:
        raise InputError(
            f"{teacher.key_variable} is not set: export the key there (never on the command line, where others see it)"
        )
    return key or "none"


def without_key(text: str, key: str) -> str:
    """A message of the endpoint as one line without the key; some repeat it."""
    line = " ".join(text.split())
    return line.replace(key, "***") if len(key) >= 8 else line


def retry_after(headers: Any) -> float | None:
    """Seconds that ``Retry-After`` asks for: a number, or a date."""
    value = (headers.get("retry-after") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None


def never_connected(error: BaseException | None) -> bool:
    """Whether a request was not even sent; the client calls a refused connection a time-out."""
    while error is not None and not isinstance(error, aiohttp.ClientConnectorError):
        error = error.__cause__ or error.__context__
    return error is not None


def kind_of(error: Exception, teacher: TeacherConfig, key: str) -> Exception:
    """What a fault means: ``Failure`` (again), ``Refusal`` (this one never), ``InputError`` (none of them)."""
    if never_connected(error):
        return Failure("no connection")
    if isinstance(error, openai.APITimeoutError):
        return Failure("time-out", cost=None, too_many=True)
    if isinstance(error, openai.APIConnectionError):
        return Failure("connection dropped", cost=None)
    if not isinstance(error, openai.APIStatusError):
        return Failure("malformed reply", cost=None)  # it answered, so it has computed
    said, wait = without_key(error.message, key), retry_after(error.response.headers)
    return kind_of_status(error.status_code, str(error.code or ""), said, teacher, wait)


def kind_of_status(status: int, code: str, said: str, teacher: TeacherConfig, wait: float | None = None) -> Exception:
    """What an error that the endpoint reports means, as ``kind_of``.

    Args:
        wait: seconds that it asks for.
    """
    said = said[:300]
    about = f"{code} {said}".lower()
    if status == 401 or status == 403:
        return InputError(f"{teacher.name}: the key in {teacher.key_variable} is refused ({status}: {said}); renew it")
    if status == 429 and "insufficient_quota" in about:
        return InputError(f"{teacher.name}: the account has no credit left (429: {said}); top it up, then repeat")
    if status == 429:
        return Failure("429 too many requests", wait=wait, too_many=True)
    if status in (408, 409, 425) or status >= 500:
        # Whether such a request is billed is the provider's secret.
        return Failure(f"{status} of the server", cost=None, wait=wait, too_many=status == 503)
    if "content_filter" in about or "content_policy" in about or "content management policy" in about:
        return Refusal("content_filter")
    is_of_prompt = any(word in about for word in ("prompt", "input", "context"))
    if (
        status == 413
        or "context_length" in about
        or "maximum context" in about
        or (is_of_prompt and "too long" in about)
    ):
        return Refusal("prompt_too_long")
    if status == 404 or "model_not_found" in about:
        return InputError(
            f"{teacher.name}: no such model at this endpoint ({status}: {said}); mend teacher= or base_url"
        )
    return InputError(f"{teacher.name}: the request is refused ({status}: {said}); mend the teacher.* setting it names")


def body_of(teacher: TeacherConfig, messages: tuple[Message, ...], seed: int) -> dict[str, Any]:
    """A request as the endpoint wants it, without ``teacher.extra``."""
    limit = teacher.limit_field or ("max_completion_tokens" if teacher.base_url is None else "max_tokens")
    chosen = {
        "temperature": teacher.temperature,
        "top_p": teacher.top_p,
        "stop": teacher.stop or None,
        "logprobs": teacher.logprobs or None,
        "seed": None if teacher.temperature == 0 else seed,
    }
    return {
        "model": (teacher.name or "").partition(":")[2],
        "messages": [{"role": role, "content": text} for role, text in messages],
        limit: teacher.max_tokens,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def is_whole(completion: Any) -> bool:
    """Whether a reply has what a chat completion has; the client checks none of it."""
    choices = getattr(completion, "choices", None) or ()
    return any(getattr(choice, "message", None) is not None for choice in choices[:1])


def cost_of(usage: Any, prices: Prices, at_most: Decimal, teacher: TeacherConfig) -> Decimal:
    """What a reply is billed; the most that it can be, where the endpoint does not say.

    Raises:
        TooDear: more than was set aside for it.
    """
    if not all(isinstance(getattr(usage, name, None), int) for name in ("prompt_tokens", "completion_tokens")):
        return at_most
    details = getattr(usage, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    cost = prices.cost(usage.prompt_tokens, usage.completion_tokens, cached)
    if cost > at_most:
        raise TooDear(
            f"{teacher.name}: a request was billed {cost} US dollars, where teacher.max_tokens allows {at_most}: the "
            "endpoint ignores that limit, so no budget can be kept",
            cost,
        )
    return cost


def idempotency_key(messages: tuple[Message, ...], request: Request) -> str:
    """The same for every attempt at a call, so that a gateway which knows it bills it once."""
    return request.key if messages == request.messages else f"{request.key}-answer"


class Wait(wait_base):
    """As long as the endpoint asks, and else longer each time; with jitter, so that not all come back at once."""

    def __init__(self) -> None:
        self._backing_off = wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT, jitter=0.5)

    def __call__(self, retry_state: Any) -> float:
        error = retry_state.outcome.exception()
        asked = getattr(error, "wait", None)
        backing_off = self._backing_off(retry_state)
        return backing_off if asked is None else float(asked) + 0.1 * backing_off


def out_of_budget(work: Work) -> InputError:
    money = work.file.money
    held = f", {money.held:.4f} more may be billed" if money.held else ""
    return InputError(
        f"the budget of {money.limit} US dollars has no room for another request: {money.spent:.4f} spent{held}; "
        f"{work.file.num_rows} samples are in {work.file.path}, and the same command with a larger budget= goes on"
    )


def reply_of(completion: Any, latency: float, stop: Sequence[str]) -> Reply:
    """A chat completion, up to the first text that ends it: some servers leave that in, or do not look for it."""
    choice, usage = completion.choices[0], getattr(completion, "usage", None)
    message = choice.message
    thinking = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    content = getattr(choice.logprobs, "content", None) if getattr(choice, "logprobs", None) else None
    details = getattr(usage, "prompt_tokens_details", None)
    # Some servers leave it out, and some have names of their own for a natural end.
    reason = getattr(choice, "finish_reason", None)
    text = getattr(message, "content", None) or ""
    places = [place for one in stop if (place := text.find(one)) >= 0]
    return Reply(
        text=text[: min(places)] if places else text,
        finish_reason=reason if reason in ("length", "content_filter") and not places else "stop",
        thinking=thinking,
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        latency=latency,
        model=getattr(completion, "model", None),
        logprobs=[(token.token, token.logprob) for token in content] if content else None,
    )
