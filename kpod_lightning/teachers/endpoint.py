"""What all OpenAI-compatible endpoints share: request bodies, replies, costs, failures, and waits before a retry."""

import math
import os
import re
import time
from collections.abc import Mapping
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
from kpod_lightning.store.reading import parsed
from kpod_lightning.teachers.prices import Prices, is_providers_own
from kpod_lightning.teachers.prompts import Message
from kpod_lightning.teachers.replies import Usage, ending_of, error_of, first_choice, usage_of
from kpod_lightning.teachers.reply_size import is_too_long
from kpod_lightning.teachers.requests import Request
from kpod_lightning.teachers.writing import Work

LONGEST_WAIT = 60.0
"""Longest wait before a retry, in seconds, unless the endpoint asks for more."""

LONGEST_ASKED = 900.0
"""Longest wait that an endpoint may ask for, in seconds; for more the order stops until it is repeated."""

MODERATION = (
    *("content_filter", "content filter", "content_policy", "content policy", "content management policy"),
    *("responsibleaipolicyviolation", "responsible ai", "data_inspection_failed", "datainspectionfailed"),
    *("content exists risk", "inappropriate content", "sensitive content", "unsafe content", "harmful content"),
    *("moderation", "flagged", "safety system", "safety policy", "safety filter", "usage policy", "prohibited content"),
    *("content_blocked", "prompt_blocked", "blocked by", "sensitive_words", "risk_control", "敏感", "不安全", "违规"),
)
"""Words by which endpoints say that they refuse this one prompt, in lower case."""


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

    ``reason``: content_filter | prompt_too_long. ``said``: the endpoint's words.
    """

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.reason, self.said = reason, said


class Later(InputError):
    """The endpoint asks for a longer wait than ``LONGEST_ASKED``; ``cost`` of the request as in ``Failure``."""

    def __init__(self, text: str, cost: Decimal | None) -> None:
        super().__init__(text)
        self.cost = cost


class TooDear(InputError):
    """A reply was billed more than ``max_tokens`` allows; ``cost`` in US dollars."""

    def __init__(self, text: str, cost: Decimal) -> None:
        super().__init__(text)
        self.cost = cost


class OutOfBudget(Exception):
    """The budget has no room for a request, and no request under way can free any."""


def client_settings(teacher: TeacherConfig, key: str) -> dict[str, Any]:
    """What the endpoint's client is made with; faults are asked again by us, who count what they cost."""
    return {"api_key": key, "base_url": teacher.base_url, "timeout": teacher.timeout, "max_retries": 0}


def key_of(teacher: TeacherConfig) -> str:
    """The API key, from the environment variable ``teacher.key_variable``; "none" for an own endpoint without one.

    Raises:
        InputError: the variable is not set, and the endpoint is OpenAI's.
    """
    key = os.environ.get(teacher.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"{teacher.key_variable} holds characters that no key has: export the key alone")
    if not key and is_providers_own(teacher.base_url):
        raise InputError(
            f"{teacher.key_variable} is not set: export the key there (never on the command line, where others see it)"
        )
    return key or "none"


def without_key(text: str, key: str) -> str:
    """A message of the endpoint as one line, without the API key and passwords in URLs, which some endpoints repeat."""
    line = _PASSWORD.sub(r"\1***@", " ".join(text.split()))
    return line.replace(key, "***") if len(key) >= 8 else line


_PASSWORD = re.compile(r"(\w+://)[^/\s@]*(?:/[^/\s@]*)*@(?=[\w.\[])")


def retry_after(headers: Any) -> float | None:
    """Seconds that the header ``Retry-After`` asks for, as a number or as a date; None without a valid one."""
    value = (headers.get("retry-after") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError, OSError):  # the last two: dates before the year 1 or beyond the clock
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def never_connected(error: BaseException | None) -> bool:
    """Whether a request was never sent. The client reports a refused connection as a time-out, so look at causes."""
    while error is not None and not isinstance(error, aiohttp.ClientConnectorError):
        error = error.__cause__ or error.__context__
    return error is not None


def kind_of(error: Exception, teacher: TeacherConfig, key: str) -> Exception:
    """The kind of an error: ``Failure`` (retry), ``Refusal`` (never retry this request), ``InputError`` (stop all)."""
    if never_connected(error):
        return Failure("no connection")
    if is_too_long(error):
        return Failure("reply too long to be read", cost=None)
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
    if 300 <= status < 400:
        return InputError(
            f"{teacher.name}: the endpoint redirects to another URL ({status}): set teacher.base_url to it"
        )
    if status in (400, 403, 422, 451) and any(word in about for word in MODERATION):
        return Refusal("content_filter", said)
    if status == 401 or status == 403:
        return InputError(f"{teacher.name}: the key in {teacher.key_variable} is refused ({status}: {said}); renew it")
    if status == 402 or (status == 429 and "insufficient_quota" in about):
        return InputError(f"{teacher.name}: the account has no credit left ({status}: {said}); top it up, then repeat")
    if status in (408, 409, 425, 429) or status >= 500:
        # Providers do not say whether they bill what comes to nothing, 429 apart.
        cost = Decimal(0) if status == 429 else None
        if wait is not None and wait > LONGEST_ASKED:
            return Later(
                f"{teacher.name}: the endpoint asks to wait {min(wait, 1e9):.0f} seconds ({status}: {said}); the same "
                "command goes on then",
                cost,
            )
        why = "429 too many requests" if status == 429 else f"{status} of the server"
        return Failure(why, cost=cost, wait=wait, too_many=status in (429, 503))
    is_of_prompt = any(word in about for word in ("prompt", "input", "context"))
    if (
        status == 413
        or "context_length" in about
        or "maximum context" in about
        or (is_of_prompt and "too long" in about)
    ):
        return Refusal("prompt_too_long", said)
    if status == 404 or "model_not_found" in about:
        return InputError(
            f"{teacher.name}: no such model at this endpoint ({status}: {said}); mend teacher= or base_url"
        )
    return InputError(f"{teacher.name}: the request is refused ({status}: {said}); mend the teacher.* setting it names")


def body_of(teacher: TeacherConfig, messages: tuple[Message, ...], seed: int) -> dict[str, Any]:
    """The body of a request, without ``teacher.extra``."""
    limit = teacher.limit_field or ("max_completion_tokens" if is_providers_own(teacher.base_url) else "max_tokens")
    chosen = {
        "temperature": teacher.temperature,
        "top_p": teacher.top_p,
        "stop": teacher.stop or None,
        "logprobs": teacher.logprobs or None,
        "top_logprobs": teacher.top_logprobs or None,
        "seed": None if teacher.temperature == 0 else seed,
    }
    return {
        "model": (teacher.name or "").partition(":")[2],
        "messages": [{"role": role, "content": text} for role, text in messages],
        limit: teacher.max_tokens,
        **{name: value for name, value in chosen.items() if value is not None},
    }


def completion_of(content: bytes, kind: str) -> Mapping[str, Any]:
    """The JSON object of a reply.

    Args:
        kind: its content type, for the message.

    Raises:
        Failure: it is none. The endpoint answered, so it may bill the reply.
    """
    try:
        found = parsed(content, "reply")
    except InputError as error:
        form = f"malformed reply, of type {kind[:40]}" if kind and "json" not in kind else "malformed reply"
        raise Failure(form, cost=None) from error
    if not isinstance(found, Mapping):
        raise Failure("malformed reply", cost=None)
    return found


def check_completion(completion: Mapping[str, Any], cost: Decimal, teacher: TeacherConfig, key: str) -> None:
    """Check that a reply has a choice, and is not an error in disguise.

    Args:
        cost: of the reply in US dollars.

    Raises:
        Failure, Refusal, InputError: as ``kind_of_status``, or the reply has no choice, or ended by a fault.
    """
    if error := error_of(completion):
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        said = without_key(str(error.get("message") or ""), key)
        about = f"{code} {said}".lower()
        if any(word in about for word in MODERATION):
            raise Refusal("content_filter", said[:300])
        kind = kind_of_status(status, str(code or ""), said, teacher)
        raise Failure(f"{kind.why}, in a reply of status 200", cost=None) if isinstance(kind, Failure) else kind
    choice = first_choice(completion)
    if choice is None:
        raise Failure("empty choices", cost=cost)
    if ending_of(choice.get("finish_reason")) == "error":
        raise Failure(f"ended by {str(choice['finish_reason'])[:40]}", cost=cost)


def cost_of(usage: Usage | None, prices: Prices, at_most: Decimal, teacher: TeacherConfig) -> Decimal:
    """The cost of a reply in US dollars; ``at_most`` if the endpoint does not report its tokens, or not believably.

    Raises:
        TooDear: it costs more than ``at_most``.
    """
    if usage is None or usage.odd:
        return at_most
    cost = prices.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    if cost > at_most:
        raise TooDear(
            f"{teacher.name}: a request was billed {cost} US dollars, where teacher.max_tokens allows {at_most}: the "
            "endpoint ignores that limit, so no budget can be kept",
            cost,
        )
    return cost


def tokens_of(completion: Mapping[str, Any], messages: tuple[Message, ...], work: Work) -> Usage | None:
    """The tokens of a reply; that they cannot be right is said once."""
    usage = usage_of(completion, sum(len(text.encode("utf-8")) for _, text in messages))
    if usage is not None and usage.odd:
        work.say_once(
            "usage", f"the endpoint counts tokens that cannot be right ({usage.odd}): such replies count as the most"
        )
    return usage


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
