"""Rationales from any OpenAI-compatible endpoint: concurrent requests, retries by kind of failure, a cost ledger."""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import openai
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

from kpod_lightning.data.thoughts import thought_and_rest
from kpod_lightning.distributed.preemption import Preempted, asked_to_stop
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.address import shown_url
from kpod_lightning.teachers.endpoint import (
    LONGEST_WAIT,
    Failure,
    OutOfBudget,
    Refusal,
    Wait,
    body_of,
    check_completion,
    client_settings,
    completion_of,
    cost_of,
    idempotency_key,
    key_of,
    kind_of,
    out_of_budget,
    tokens_of,
)
from kpod_lightning.teachers.prompts import Message
from kpod_lightning.teachers.replies import Usage, first_choice, reply_of
from kpod_lightning.teachers.reply_size import TooLong, limit_later
from kpod_lightning.teachers.requests import Reply, Request, with_answer
from kpod_lightning.teachers.writing import Work


class Slots:
    """Limit on concurrent requests: halved when the endpoint is overloaded, then raised slowly up to ``most``."""

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
        """Raise the limit after a success: by a tenth over as many successes as there are slots."""
        self.limit = min(self.most, self.limit + max(1.0, 0.1 * self.limit) / self.limit)

    def narrow(self, latency: float) -> None:
        """Halve the limit on overload, once for all requests that were under way together.

        Args:
            latency: seconds that the failed request took.
        """
        now = time.monotonic()
        if now - self._narrowed > latency:
            self._narrowed, self.limit = now, max(1.0, self.limit / 2)


class _Writer:
    """One command's requests to one endpoint."""

    def __init__(self, work: Work, client: openai.AsyncOpenAI, key: str) -> None:
        self.work, self.client, self.key = work, client, key
        self.teacher = work.teacher
        self.slots = Slots(self.teacher.concurrency)
        # Some requests enter the ledger before a slot is free, so that no slot waits for the disk.
        self.prepared = asyncio.Semaphore(self.teacher.concurrency + max(2, self.teacher.concurrency // 8))
        self.num_sent = self.num_answered = 0
        self.settled = asyncio.Condition()
        self.stopping = asyncio.Event()

    async def reserve(self, at_most: Decimal) -> None:
        """Set aside the most that a request may cost; wait while requests under way may still free some budget.

        Raises:
            OutOfBudget: no request is under way, and there is no room.
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

    async def ask(self, messages: tuple[Message, ...], request: Request) -> Mapping[str, Any]:
        """One call of the API: the JSON object that is its reply.

        Raises:
            Failure, Refusal, InputError: see ``endpoint``.
        """
        began = time.monotonic()
        try:
            # The bytes are read here, since the client takes any text for a completion.
            response = await self.client.chat.completions.with_raw_response.create(
                **body_of(self.teacher, messages, request.seed),
                extra_body=self.teacher.extra or None,
                extra_headers={"Idempotency-Key": idempotency_key(messages, request)},
            )
        except (openai.APIError, TooLong) as error:
            kind = kind_of(error, self.teacher, self.key)
            if isinstance(kind, Failure) and kind.too_many:
                self.slots.narrow(time.monotonic() - began)
            if isinstance(kind, InputError):  # stop before another request gets the slot
                self.work.stopped = self.work.stopped or kind
                self.stopping.set()
            raise kind from error
        return completion_of(response.http_response.content, response.headers.get("content-type", ""))

    async def send(self, messages: tuple[Message, ...], request: Request) -> tuple[Reply, str, Decimal]:
        """Make one attempt.

        Returns:
            The reply, the attempt's name in the ledger, and its cost in US dollars.

        Raises:
            Failure, Refusal, InputError, OutOfBudget: see ``endpoint``.
        """
        file, prices = self.work.file, self.work.prices
        attempt, at_most = secrets.token_hex(8), prices.at_most(messages, self.teacher.max_tokens)
        async with self.prepared:
            await self.reserve(at_most)
            cost: Decimal | None = None  # from here on, an unexpected error leaves the request possibly billed
            try:
                await asyncio.wrap_future(file.begin(attempt, request.key, at_most))
                async with self.slots.one():
                    if self.stopping.is_set():
                        cost = Decimal(0)
                        raise Failure("stopped before it was sent")
                    began = time.monotonic()
                    completion = await self.ask(messages, request)
                latency = time.monotonic() - began
                self.slots.widen()
                usage = tokens_of(completion, messages, self.work)
                cost = cost_of(usage, prices, at_most, self.teacher)
                check_completion(completion, cost, self.teacher, self.key)
                self.num_answered += 1
                choice, model = first_choice(completion), completion.get("model")
                assert choice is not None
                return reply_of(choice, usage or Usage(), latency, self.teacher.stop, model), attempt, cost
            except (Failure, Refusal, InputError) as failure:
                cost = getattr(failure, "cost", cost or Decimal(0))  # without a field of its own: refused, so free
                why = failure.why if isinstance(failure, Failure) else str(failure)
                await asyncio.wrap_future(file.fail(attempt, cost, why))
                raise
            finally:
                await self.settle(at_most, cost)

    async def answered(self, messages: tuple[Message, ...], request: Request) -> tuple[Reply, str, Decimal]:
        """Repeat ``send`` until it succeeds.

        Raises:
            Failure: ``teacher.max_attempts`` attempts failed.
            Refusal, InputError, OutOfBudget: from ``send``; no retry helps.
        """

        def again(error: BaseException) -> bool:
            if self.stopping.is_set() or not isinstance(error, Failure):
                return False
            self.work.failures[error.why] += 1
            self.work.delay(request)
            return True

        async def sleep(seconds: float) -> None:
            if seconds > 2 * LONGEST_WAIT:
                self.work.say_once("wait", f"the endpoint asks to wait {seconds:.0f} seconds before the next request")
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
        """Turn a request into a row, or give it up."""
        attempts: list[str] = []
        costs, answered_before = Decimal(0), self.num_answered
        reply: Reply | None = None
        why = ""
        try:
            reply, attempt, costs = await self.answered(request.messages, request)
            attempts.append(attempt)
            if request.after is not None and reply.finish_reason == "stop":
                said = thought_and_rest(reply.text, reply.thinking)[1]
                messages = (*request.messages, ("assistant", said), ("user", request.after))
                second, attempt, cost = await self.answered(messages, request)
                attempts.append(attempt)
                costs += cost
                reply = with_answer(reply, second)
        except Refusal as refusal:
            why = refusal.said
            # The answer call was refused: the row keeps the cost of the rationale, and no text.
            reply = replace(
                reply or Reply(text=""), text="", thinking=None, logprobs=None, finish_reason=refusal.reason
            )
        except (Failure, InputError, OutOfBudget, Preempted) as error:
            for attempt in attempts:  # the rationale was paid for, and is useless without its answer
                await asyncio.wrap_future(self.work.file.fail(attempt, costs, "no answer after it"))
            self.work.give_up(request)
            if isinstance(error, OutOfBudget):
                error = out_of_budget(self.work)
            elif isinstance(error, Failure) and self.num_answered == answered_before and not self.stopping.is_set():
                error = InputError(
                    f"{shown_url(self.client.base_url)}: nothing but faults, {self.teacher.max_attempts} times in a "
                    f"row ({error.why}); when the endpoint is well, the same command goes on"
                )
            if isinstance(error, InputError):
                self.work.stopped = self.work.stopped or error
            return
        await asyncio.wrap_future(self.work.add(request, reply, attempts, costs, why))

    async def watch(self, changed: asyncio.Condition) -> None:
        """Look for signals regularly, since all workers may be waiting."""
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


async def _write(work: Work, key: str) -> None:
    teacher = work.teacher
    # The default (httpx) client searches all its connections for each request, which takes most of the time.
    # A redirect is not followed: it would send the prompts to a place that nobody named.
    http = openai.DefaultAioHttpClient(follow_redirects=False, event_hooks={"response": [limit_later]})
    async with openai.AsyncOpenAI(**client_settings(teacher, key), http_client=http) as client:
        writer, changed = _Writer(work, client, key), asyncio.Condition()

        def interrupted() -> None:
            work.stopped = work.stopped or Preempted(requeue=False, interrupted=True)
            writer.stopping.set()
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # a second Ctrl-C stops at once

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
        # A worker that waits before a retry holds no slot, so there are more workers than slots.
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
