"""What all OpenAI-compatible endpoints share: request bodies, replies, costs, failures, and waits before a retry."""

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
"""Longest wait before a retry, in seconds, unless the endpoint asks for more."""


@dataclass
class Failure(Exception):
    """A request that failed and can be retried.

    ``cost``: in US dollars: 0 if the endpoint refused the request, None if it may have been billed. ``wait``: seconds
    that the endpoint asks for. ``too_many``: the endpoint is overloaded.
    """

    why: str
    cost: Decimal | None = Decimal(0)
    wait: float | None = None
    too_many: bool = False


class Refusal(Exception):
    """The endpoint will never answer this request; its sample gets a row without text.

    ``reason``: content_filter | prompt_too_long.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooDear(InputError):
    """A reply was billed more than ``max_tokens`` allows; ``cost`` in US dollars."""

    def __init__(self, text: str, cost: Decimal) -> None:
        super().__init__(text)
        self.cost = cost


class OutOfBudget(Exception):
    """The budget has no room for a request, and no request under way can free any."""


def key_of(teacher: TeacherConfig) -> str:
    """The API key, from the environment variable ``teacher.key_variable``; "none" for an own endpoint without one.

    Raises:
        InputError: the variable is not set, and the endpoint is OpenAI's.
    """
    key = os.environ.get(teacher.key_variable, "").strip()
    if not key and teacher.base_url is None:
        raise InputError(
            f"{teacher.key_variable} is not set: export the key there (never on the command line, where others see it)"
        )
    return key or "none"


def without_key(text: str, key: str) -> str:
    """A message of the endpoint as one line, without the API key, which some endpoints repeat."""
    line = " ".join(text.split())
    return line.replace(key, "***") if len(key) >= 8 else line


def retry_after(headers: Any) -> float | None:
    """Seconds that the header ``Retry-After`` asks for, as a number or as a date; None without a valid one."""
    value = (headers.get("retry-after") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None


def never_connected(error: BaseException | None) -> bool:
    """Whether a request was never sent. The client reports a refused connection as a time-out, so look at causes."""
    while error is not None and not isinstance(error, aiohttp.ClientConnectorError):
        error = error.__cause__ or error.__context__
    return error is not None


def kind_of(error: Exception, teacher: TeacherConfig, key: str) -> Exception:
    """The kind of an error: ``Failure`` (retry), ``Refusal`` (never retry this request), ``InputError`` (stop all)."""
    if never_connected(error):
        return Failure("no connection")
    if isinstance(error, openai.APITimeoutError):
        return Failure("time-out", cost=None, too_many=True)
    if isinstance(error, openai.APIConnectionError):
        return Failure("connection dropped", cost=None)
    if not isinstance(error, openai.APIStatusError):
        return Failure("malformed reply", cost=None)  # the endpoint answered, so it may bill the reply
    said, wait = without_key(error.message, key), retry_after(error.response.headers)
    return kind_of_status(error.status_code, str(error.code or ""), said, teacher, wait)


def kind_of_status(status: int, code: str, said: str, teacher: TeacherConfig, wait: float | None = None) -> Exception:
    """The kind of an error that the endpoint reports, as ``kind_of``.

    Args:
        status: of HTTP.
        code: the endpoint's name of the error.
        said: its message.
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
        # Providers do not say whether they bill such a request.
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
    """The body of a request, without ``teacher.extra``."""
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
    """Whether a reply has a choice with a message. The client does not check."""
    choices = getattr(completion, "choices", None) or ()
    return any(getattr(choice, "message", None) is not None for choice in choices[:1])


def cost_of(usage: Any, prices: Prices, at_most: Decimal, teacher: TeacherConfig) -> Decimal:
    """The cost of a reply in US dollars; ``at_most`` if the endpoint does not report its tokens.

    Raises:
        TooDear: it costs more than ``at_most``.
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
    """Idempotency key of a call, the same for every attempt: a gateway that supports it bills the call once."""
    return request.key if messages == request.messages else f"{request.key}-answer"


class Wait(wait_base):
    """Wait before a retry: as long as the endpoint asks, else exponential backoff; jitter spreads the retries."""

    def __init__(self) -> None:
        self._backing_off = wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT, jitter=0.5)

    def __call__(self, retry_state: Any) -> float:
        error = retry_state.outcome.exception()
        asked = getattr(error, "wait", None)
        backing_off = self._backing_off(retry_state)
        return backing_off if asked is None else float(asked) + 0.1 * backing_off


def out_of_budget(work: Work) -> InputError:
    """The error that ends an order whose budget is used up."""
    money = work.file.money
    held = f", {money.held:.4f} more may be billed" if money.held else ""
    return InputError(
        f"the budget of {money.limit} US dollars has no room for another request: {money.spent:.4f} spent{held}; "
        f"{work.file.num_rows} samples are in {work.file.path}, and the same command with a larger budget= goes on"
    )


def reply_of(completion: Any, latency: float, stop: Sequence[str]) -> Reply:
    """The reply in a chat completion, cut before the first stop text: some servers leave it in or ignore ``stop``."""
    choice, usage = completion.choices[0], getattr(completion, "usage", None)
    message = choice.message
    thinking = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    content = getattr(choice.logprobs, "content", None) if getattr(choice, "logprobs", None) else None
    details = getattr(usage, "prompt_tokens_details", None)
    # Some servers leave the reason out, and some have other names for a natural end.
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
