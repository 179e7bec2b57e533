"""Rationales from the provider's batch API: half the price, within a day. A later command finds a batch again.

The journal beside the samples (``samples/journal.py``) says which batches were made. A line with a batch's token and
attempts is on disk before the batch is made, and the batch's metadata have the token: after a kill the next command
asks the provider whether it has the batch.
"""

import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import openai
from openai.types import Batch
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from kpod_lightning.distributed.preemption import Preempted, asked_to_stop
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import row_of
from kpod_lightning.teachers.address import shown_url
from kpod_lightning.teachers.endpoint import (
    Failure,
    Refusal,
    TooDear,
    Wait,
    body_of,
    check_completion,
    client_settings,
    cost_of,
    key_of,
    kind_of,
    kind_of_status,
    out_of_budget,
    tokens_of,
    without_key,
)
from kpod_lightning.teachers.replies import Usage, first_choice, reply_of
from kpod_lightning.teachers.reply_size import TooLong, limit
from kpod_lightning.teachers.requests import Reply, Request
from kpod_lightning.teachers.samples.journal import Journal
from kpod_lightning.teachers.writing import Work

T = TypeVar("T")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


MOST_REQUESTS = 50_000
MOST_BYTES = 190 * 2**20
"""Limits of one batch. The provider allows 50,000 requests and 200 MB."""
DAY = 86_400
"""Seconds by which the clocks of provider and command may differ at most."""
OVER = ("completed", "failed", "expired", "cancelled")
"""States of a batch that will not change any more."""


@dataclass
class Sent:
    """A batch that the provider has. ``attempts``: the name of each sample's attempt, by the sample's key."""

    token: str
    id: str
    attempts: dict[str, str]
    num_done: int = 0


@dataclass
class Batches:
    """The batches of one command.

    ``waiting``: requests for the next batch, to be taken before new ones. ``tries``: failed attempts of each sample, by
    key. ``most``: most requests of a batch.
    """

    work: Work
    client: openai.OpenAI
    key: str
    journal: Journal
    sent: list[Sent] = field(default_factory=list)
    requests: dict[str, Request] = field(default_factory=dict)
    """Requests of batches that are under way, by key."""
    waiting: deque[Request] = field(default_factory=deque)
    tries: dict[str, int] = field(default_factory=dict)
    at_most: dict[str, Decimal] = field(default_factory=dict)
    """US dollars set aside for each attempt, by its name."""
    most: int = MOST_REQUESTS
    one_at_a_time: bool = False
    """Whether the next batch waits for the last one: the provider refused a batch because too much was under way."""

    def call(self, ask: Callable[[], T]) -> T:
        """Call the API, with retries after failures that a retry may mend.

        Raises:
            InputError: the failure is of another kind, or ``teacher.max_attempts`` calls failed.
            Preempted: a signal came between two calls.
        """

        def once() -> T:
            try:
                return ask()
            except (openai.APIError, TooLong) as error:
                raise kind_of(error, self.work.teacher, self.key) from error

        trying = Retrying(
            stop=stop_after_attempt(self.work.teacher.max_attempts),
            wait=Wait(),
            retry=retry_if_exception(lambda error: isinstance(error, Failure)),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return trying(once)
        except Failure as failure:
            raise InputError(
                f"{shown_url(self.client.base_url)}: {failure.why}, {self.work.teacher.max_attempts} times in a row; "
                "when the endpoint is well, the same command goes on"
            ) from failure

    def find(self, token: str, made: int) -> Batch | None:
        """The batch with this token, or None if the provider does not have it. Its list begins with the newest batch.

        Args:
            made: seconds since 1970 when the batch was about to be made.
        """

        def look() -> Batch | None:
            for batch in self.client.batches.list(limit=100):
                if (batch.metadata or {}).get("kpod") == token:
                    return batch
                if batch.created_at < made - DAY:
                    return None
            return None

        return self.call(look)

    def resume(self) -> None:
        """Find the batches of earlier commands, and free the money that was set aside for those never made.

        Raises:
            InputError: a batch is under way that was asked with other settings.
        """
        file = self.work.file
        for token, line in list(self.journal.open.items()):
            # Skip requests that already have a row or a recorded failure: an earlier command had collected them.
            attempts = {key: name for key, name in line["attempts"].items() if name in file.open}
            self.at_most |= {name: file.open[name] for name in attempts.values()}
            found = self.find(token, line["made"])
            if found is None:
                self.free(attempts, "its batch was not made")
                self.journal.end(token, "not made")
                continue
            self.sent.append(Sent(token, found.id, attempts))
            self.work.say(f"batch {found.id} of {len(attempts)} samples is under way since an earlier command")
        self.claim({key for sent in self.sent for key in sent.attempts})

    def claim(self, keys: set[str]) -> None:
        """Take over the requests of samples that are under way.

        Raises:
            InputError: this order does not ask for some of them.
        """
        wanted = self.work.wanted
        for problem in wanted.problems if keys else ():
            for sample in range(self.work.teacher.samples):
                if (key := wanted.key(problem, sample)) in keys:
                    self.requests[key] = wanted.claim(problem, sample)
        if len(self.requests) < len(keys):
            raise InputError(
                f"{self.journal.path}: a batch that is under way was asked with other settings; repeat the command "
                "with those, then with the new ones"
            )

    def taken(self) -> Iterator[Request]:
        """Requests for a new batch."""
        while True:
            if not self.waiting:
                request = self.work.take()
                if request is None:
                    return
                yield request
            elif self.work.wanted.enough:
                self.work.wanted.done(self.waiting.popleft(), None)
            else:
                yield self.waiting.popleft()

    def send(self) -> bool:
        """Make a batch of wanted requests, as many as limits and budget allow. False if there are none."""
        work, teacher = self.work, self.work.teacher
        lines: list[bytes] = []
        attempts: dict[str, str] = {}
        reserved: dict[str, Decimal] = {}
        size = 0
        for request in self.taken():
            body = body_of(teacher, request.messages, request.seed) | teacher.extra
            line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
            packed = json.dumps(line).encode() + b"\n"
            at_most = work.prices.at_most(request.messages, teacher.max_tokens)
            full = len(lines) >= self.most or size + len(packed) > MOST_BYTES
            if full or not work.file.money.reserve(at_most):
                self.waiting.appendleft(request)
                break
            name = secrets.token_hex(8)
            lines.append(packed)
            size += len(packed)
            attempts[request.key], reserved[name] = name, at_most
            self.requests[request.key] = request
        if not lines:
            if self.waiting and not self.sent:
                work.stopped = work.stopped or out_of_budget(work)
            return False
        token = secrets.token_hex(8)
        made = int(time.time())
        self.journal.begin(token, attempts)
        self.at_most |= reserved
        began = [work.file.begin(name, key, reserved[name]) for key, name in attempts.items()]
        began[-1].result()
        try:
            file = self.call(lambda: self.client.files.create(file=("samples.jsonl", b"".join(lines)), purpose="batch"))

            def create() -> Batch:
                # An earlier call may have made the batch although its reply was lost.
                return self.find(token, made) or self.client.batches.create(
                    input_file_id=file.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={"kpod": token},
                )

            batch = self.call(create)
        except InputError:
            if self.find(token, made) is None:
                self.free(attempts, "its batch was refused")
                self.journal.end(token, "refused")
            raise
        self.sent.append(Sent(token, batch.id, attempts))
        work.say(f"batch {batch.id}: {len(attempts)} samples sent; it goes on where this command is stopped")
        return True

    def free(self, attempts: dict[str, str], why: str) -> None:
        """Note that attempts failed without cost. ``attempts``: names by key."""
        for name in attempts.values():
            if name in self.at_most:
                self.settle(name, Decimal(0), why)

    def settle(self, name: str, cost: Decimal, failed: str | None = None) -> None:
        """Note the cost of an attempt in US dollars. ``failed``: why it produced no row."""
        if failed is not None:
            self.work.file.fail(name, cost, failed).result()
        self.work.file.money.settle(self.at_most.pop(name), cost)

    def poll(self) -> Sent | None:
        """Collect the first batch that is over, and return it; None if all are under way."""
        for sent in self.sent:
            batch = self.call(lambda sent=sent: self.client.batches.retrieve(sent.id))  # type: ignore[misc]
            if batch.status in OVER:
                self.collect(sent, batch)
                return sent
            done = batch.request_counts.completed if batch.request_counts else 0
            if done != sent.num_done:
                sent.num_done = done
                self.work.say(f"batch {sent.id}: {batch.status}, {done} of {len(sent.attempts)} samples")
        return None

    def lines_of(self, file_id: str | None) -> Iterator[dict[str, Any]]:
        """Lines of one of the provider's files of results."""
        if file_id is None:
            return
        content = self.call(lambda: self.client.files.content(file_id).content)
        for number, line in enumerate(content.split(b"\n"), start=1):  # a reply may hold other ends of lines
            try:
                if line.strip():
                    yield row_of(line, f"batch file {file_id}:{number}".__str__)
            except InputError as error:
                self.work.say(f"{error}; its sample is asked again")

    def collect(self, sent: Sent, batch: Batch) -> None:
        """Write the rows of a batch that is over, and ask again for its failed requests."""
        said = "; ".join(
            without_key(error.message or "", self.key) for error in (batch.errors and batch.errors.data) or ()
        )
        left = dict(sent.attempts)
        for file_id in (batch.output_file_id, batch.error_file_id):
            for line in self.lines_of(file_id):
                key = str(line.get("custom_id"))  # a number where the sample's key has digits alone
                name = left.pop(key, None)
                # Skip attempts without money set aside: an earlier command had written their rows before a kill.
                if name is not None and name in self.at_most:
                    self.take_line(self.requests.pop(key), name, line)
        for key, name in left.items():
            if name in self.at_most:
                self.settle(name, Decimal(0), f"its batch was {batch.status}")
                if batch.status == "failed":
                    self.waiting.append(self.requests.pop(key))
                else:
                    self.again(self.requests.pop(key), f"batch {batch.status}")
        self.sent.remove(sent)
        self.journal.end(sent.token, batch.status)
        if batch.status == "failed":
            if "limit" not in said.lower() or len(sent.attempts) == 1:
                raise InputError(
                    f"{self.work.teacher.name}: batch {batch.id} failed: {said}; mend what it names, then repeat"
                )
            self.most, self.one_at_a_time = max(1, min(self.most, len(sent.attempts) // 2)), True
            self.work.say(f"batch {batch.id} failed ({said}); the next has {self.most} samples at most")

    def take_line(self, request: Request, name: str, line: dict[str, Any]) -> None:
        """Turn a line of the provider's file of results or of errors into a row, or into a failed request."""
        work, response = self.work, _object(line.get("response"))
        body = _object(response.get("body"))
        cost = Decimal(0)  # errors of a batch are not billed
        try:
            if response.get("status_code") != 200:
                error = _object(body.get("error")) or _object(line.get("error"))
                status, code = response.get("status_code"), str(error.get("code") or "")
                said = without_key(str(error.get("message") or ""), self.key)
                raise kind_of_status(status if isinstance(status, int) else 500, code, said, work.teacher)
            usage = tokens_of(body, request.messages, work)
            cost = cost_of(usage, work.prices, self.at_most[name], work.teacher)
            check_completion(body, cost, work.teacher, self.key)
            choice = first_choice(body)
            assert choice is not None
            reply = reply_of(choice, usage or Usage(), 0.0, work.teacher.stop, body.get("model"))
            work.add(request, reply, [name], cost).result()
            self.settle(name, cost)
        except Refusal as refusal:
            work.add(request, Reply(text="", finish_reason=refusal.reason), [name], cost, refusal.said).result()
            self.settle(name, cost)
        except Failure as failure:
            self.settle(name, cost, failure.why)
            self.again(request, failure.why)
        except InputError as error:
            self.settle(name, error.cost if isinstance(error, TooDear) else cost, str(error))
            work.give_up(request)
            work.stopped = work.stopped or error

    def again(self, request: Request, why: str) -> None:
        """Ask for a sample again in a later batch, or give it up after ``teacher.max_attempts`` failures."""
        self.work.failures[why] += 1
        self.work.delay(request)
        self.tries[request.key] = self.tries.get(request.key, 0) + 1
        if self.tries[request.key] < self.work.teacher.max_attempts:
            self.waiting.append(request)
        else:
            self.work.give_up(request)

    def run(self) -> None:
        """Send and collect batches until no request is left.

        Raises:
            InputError: the endpoint, a batch, or the disk.
            Preempted: a signal came; the batches go on at the provider.
        """
        self.resume()
        while True:
            while self.work.stopped is None and self.send() and not self.one_at_a_time:
                pass
            if not self.sent:
                return
            while self.sent:  # wait for all batches, so that failed requests fill few new ones
                if self.poll() is None:
                    self.sleep(self.work.teacher.poll)

    def sleep(self, seconds: float) -> None:
        """Sleep, and look for signals five times a second.

        Raises:
            Preempted: a signal came; the batches go on at the provider.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (stop := asked_to_stop()) is not None:
                raise stop
            time.sleep(min(0.2, left))


def write(work: Work) -> None:
    """Ask for all wanted samples in batches; returns when all batches are over.

    Raises:
        InputError: ``teacher.answer_call`` is set; the key, the endpoint or a batch.
    """
    teacher = work.teacher
    if teacher.answer_call:
        raise InputError("teacher.answer_call=true takes two calls a sample, which batch: does not do: take openai:")
    key = key_of(teacher)
    # A redirect is not followed: it would send the prompts elsewhere.
    http = openai.DefaultHttpxClient(follow_redirects=False, event_hooks={"response": [limit]})
    with openai.OpenAI(**client_settings(teacher, key), http_client=http) as client:
        batches = Batches(work, client, key, Journal(work.file.path.with_suffix(".batches.jsonl")))
        try:
            batches.run()
        except Preempted as stop:
            work.stopped = work.stopped or stop
        except KeyboardInterrupt:
            work.stopped = work.stopped or Preempted(requeue=False, interrupted=True)
