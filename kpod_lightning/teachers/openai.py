"""Any OpenAI-compatible endpoint: as many requests at once as it takes; faults by their kind; nothing paid twice."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import openai
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from tenacity.wait import wait_base

from kpod_lightning.config import TeacherConfig
from kpod_lightning.errors import InputError
from kpod_lightning.preemption import Preempted, asked_to_stop
from kpod_lightning.teachers.prices import Prices
from kpod_lightning.teachers.prompts import Message
from kpod_lightning.teachers.requests import Reply, Request
from kpod_lightning.teachers.writing import Work, thought_and_rest

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


class Slots:
    """How many requests may be under way: fewer when the endpoint has too many, and slowly more again."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.used = most, float(most), 0
        self._free = asyncio.Condition()
        self._narrowed = 0.0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        async with self._free:
            await self._free.wait_for(lambda: self.used < self.limit)
            self.used += 1
        try:
            yield
        finally:
            async with self._free:
                self.used -= 1
                self._free.notify_all()

    def widen(self) -> None:
        """A request has succeeded: a tenth more for as many successes as there are slots."""
        self.limit = min(self.most, self.limit + max(1.0, 0.1 * self.limit) / self.limit)

    def narrow(self, latency: float) -> None:
        """There were too many: half, once for all that were under way together."""
        now = time.monotonic()
        if now - self._narrowed > latency:
            self._narrowed, self.limit = now, max(1.0, self.limit / 2)


class Wait(wait_base):
    """As long as the endpoint asks, and else longer each time; with jitter, so that not all come back at once."""

    def __init__(self) -> None:
        self._backing_off = wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT, jitter=0.5)

    def __call__(self, retry_state: Any) -> float:
        error = retry_state.outcome.exception()
        asked = getattr(error, "wait", None)
        backing_off = self._backing_off(retry_state)
        return backing_off if asked is None else float(asked) + 0.1 * backing_off


class _Writer:
    """One command's requests to one endpoint."""

    def __init__(self, work: Work, client: openai.AsyncOpenAI, key: str) -> None:
        self.work, self.client, self.key = work, client, key
        self.teacher = work.teacher
        self.slots = Slots(self.teacher.concurrency)
        # A few are written into the ledger ahead of a free slot, so that no slot waits for the disk.
        self.prepared = asyncio.Semaphore(self.teacher.concurrency + max(2, self.teacher.concurrency // 8))
        self.num_sent = self.num_answered = 0
        self.settled = asyncio.Condition()
        self.stopping = asyncio.Event()

    async def reserve(self, at_most: Decimal) -> None:
        """Wait until the budget has room.

        Raises:
            OutOfBudget: it will have none.
        """
        async with self.settled:
            while not self.work.file.money.reserve(at_most):
                if self.num_sent == 0:
                    raise OutOfBudget
                await self.settled.wait()
            self.num_sent += 1

    async def settle(self, at_most: Decimal, cost: Decimal | None) -> None:
        async with self.settled:
            self.num_sent -= 1
            self.work.file.money.settle(at_most, cost)
            self.settled.notify_all()

    async def send(self, messages: tuple[Message, ...], request: Request) -> tuple[Any, str, Decimal, float]:
        """One attempt: completion, its name in the ledger, US dollars, seconds.

        Raises:
            Failure, Refusal, InputError, OutOfBudget.
        """
        file, prices = self.work.file, self.work.prices
        attempt, at_most = secrets.token_hex(8), prices.at_most(messages, self.teacher.max_tokens)
        async with self.prepared:
            await self.reserve(at_most)
            cost: Decimal | None = None  # whatever happens from here on, it may be billed
            try:
                await asyncio.wrap_future(file.begin(attempt, request.key, at_most))
                async with self.slots.one():
                    if self.stopping.is_set():
                        cost = Decimal(0)
                        raise Failure("stopped before it was sent")
                    began = time.monotonic()
                    try:
                        completion = await self.client.chat.completions.create(
                            **body_of(self.teacher, messages, request.seed),
                            extra_body=self.teacher.extra or None,
                            extra_headers={"Idempotency-Key": idempotency_key(messages, request)},
                        )
                    except (openai.APIError, ValueError) as error:  # a body that is no JSON is a ValueError
                        kind = kind_of(error, self.teacher, self.key)
                        cost = kind.cost if isinstance(kind, Failure) else Decimal(0)
                        if isinstance(kind, Failure) and kind.too_many:
                            self.slots.narrow(time.monotonic() - began)
                        if isinstance(kind, InputError):  # before the slot is another's
                            self.work.stopped = self.work.stopped or kind
                            self.stopping.set()
                        raise kind from error
                latency = time.monotonic() - began
                self.slots.widen()
                self.num_answered += 1
                cost = cost_of(getattr(completion, "usage", None), prices, at_most, self.teacher)
                if not is_whole(completion):
                    raise Failure("empty choices", cost=cost)
                return completion, attempt, cost, latency
            except (Failure, Refusal, InputError) as failure:
                cost = failure.cost if isinstance(failure, TooDear) else cost
                why = failure.why if isinstance(failure, Failure) else str(failure)
                await asyncio.wrap_future(file.fail(attempt, cost, why))
                raise
            finally:
                await self.settle(at_most, cost)

    async def answered(self, messages: tuple[Message, ...], request: Request) -> tuple[Any, str, Decimal, float]:
        """``send`` until it succeeds, by the kind of the fault.

        Raises:
            Failure: too many times in a row. And what ``send`` raises that no repetition mends.
        """

        def again(error: BaseException) -> bool:
            if self.stopping.is_set() or not isinstance(error, Failure):
                return False
            self.work.failures[error.why] += 1
            self.work.delay(request)
            return True

        async def sleep(seconds: float) -> None:
            try:
                await asyncio.wait_for(self.stopping.wait(), seconds)
            except TimeoutError:
                return

        trying = AsyncRetrying(
            stop=stop_after_attempt(self.teacher.max_attempts),
            wait=Wait(),
            retry=retry_if_exception(again),
            sleep=sleep,
            reraise=True,
        )
        return await trying(self.send, messages, request)

    async def write(self, request: Request) -> None:
        """A request becomes a row, or is given up."""
        attempts: list[str] = []
        costs, answered_before = Decimal(0), self.num_answered
        reply: Reply | None = None
        try:
            completion, attempt, costs, latency = await self.answered(request.messages, request)
            attempts.append(attempt)
            reply = reply_of(completion, latency, self.teacher.stop)
            if request.after is not None and reply.finish_reason == "stop":
                said = thought_and_rest(reply.text, reply.thinking)[1]
                messages = (*request.messages, ("assistant", said), ("user", request.after))
                completion, attempt, cost, latency = await self.answered(messages, request)
                attempts.append(attempt)
                costs += cost
                reply = with_answer(reply, reply_of(completion, latency, self.teacher.stop))
        except Refusal as refusal:
            # Of the rationale that it was to follow, only what it cost is of use.
            reply = replace(
                reply or Reply(text=""), text="", thinking=None, logprobs=None, finish_reason=refusal.reason
            )
        except (Failure, InputError, OutOfBudget, Preempted) as error:
            for attempt in attempts:  # paid for, and of no use without the answer
                await asyncio.wrap_future(self.work.file.fail(attempt, costs, "no answer after it"))
            self.work.give_up(request)
            if isinstance(error, OutOfBudget):
                error = out_of_budget(self.work)
            elif isinstance(error, Failure) and self.num_answered == answered_before and not self.stopping.is_set():
                error = InputError(
                    f"{self.client.base_url}: nothing but faults, {self.teacher.max_attempts} times in a row "
                    f"({error.why}); when the endpoint is well, the same command goes on"
                )
            if isinstance(error, InputError):
                self.work.stopped = self.work.stopped or error
            return
        await asyncio.wrap_future(self.work.add(request, reply, attempts, costs))

    async def watch(self, changed: asyncio.Condition) -> None:
        """Look for signals, which may come while every worker waits."""
        while True:
            self.work.stopped = self.work.stopped or asked_to_stop()
            if self.work.stopped is not None:
                self.stopping.set()
                async with changed:
                    changed.notify_all()
                return
            await asyncio.sleep(0.1)

    async def worker(self, changed: asyncio.Condition) -> None:
        while True:
            async with changed:
                while (request := self.work.take()) is None:
                    if self.work.stopped is not None:
                        self.stopping.set()
                    if self.work.stopped is not None or self.work.wanted.num_out == 0 or self.work.wanted.enough:
                        changed.notify_all()
                        return
                    await changed.wait()
            try:
                await self.write(request)
            finally:
                async with changed:
                    changed.notify_all()


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


def with_answer(reply: Reply, second: Reply) -> Reply:
    """A rationale and the answer that was asked after it."""
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
    )


async def _write(work: Work, key: str) -> None:
    teacher = work.teacher
    # The default client looks through all its connections for each request, which costs more than all else.
    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(
        api_key=key, base_url=teacher.base_url, timeout=teacher.timeout, max_retries=0, http_client=http
    ) as client:
        writer, changed = _Writer(work, client, key), asyncio.Condition()

        def interrupted() -> None:
            work.stopped = work.stopped or Preempted(requeue=False)
            writer.stopping.set()
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # a second one ends at once

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
        # Who waits before trying again holds no slot.
        num_workers = 2 * teacher.concurrency
        try:
            async with asyncio.TaskGroup() as group:
                watch = asyncio.create_task(writer.watch(changed))
                workers = [group.create_task(writer.worker(changed)) for _ in range(num_workers)]
                await asyncio.wait(workers)
                watch.cancel()
        except* InputError as errors:
            raise errors.exceptions[0] from None


def write(work: Work) -> None:
    """Ask for all that is wanted; returns when nothing is under way."""
    asyncio.run(_write(work, key_of(work.teacher)))
