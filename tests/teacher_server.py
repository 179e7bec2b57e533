"""An OpenAI-compatible server with faults and a ledger of its own: what it did is in its files, whatever clients think.

``python teacher_server.py FOLDER key=value ...`` prints its port. ``FOLDER/answers.json`` maps questions to answers.
``arrivals.jsonl`` gets a line when a request comes, ``ledger.jsonl`` one with its bill before the reply leaves.
"""

import asyncio
import itertools
import json
import math
import queue
import random
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "503", "time-out", "dropped", "malformed", "empty")
REFUSALS = ("content_filter", "filtered", "prompt_too_long")
ERRORS = {
    "429": (429, "rate_limit_exceeded", "Too many requests."),
    "500": (500, "server_error", "Something went wrong."),
    "503": (503, "server_error", "Something went wrong."),
    "content_filter": (400, "content_filter", "The request was filtered."),
    "prompt_too_long": (400, "context_length_exceeded", "The maximum context length is 10 tokens."),
}
"""Faults that are not billed: status, code, message."""


@dataclass(kw_only=True)
class Settings:
    """``faults``: share of the requests that come to nothing. ``latency``: seconds. Prices: US dollars a million."""

    faults: float = 0.0
    refusals: float = 0.0
    latency: float = 0.0
    spread: float = 0.2
    hang: float = 5.0
    right: float = 0.5
    words: float = 40.0
    input_price: float = 1.0
    output_price: float = 4.0
    most_at_once: int = 10**9
    seed: int = 0
    only: str = ""
    """The one kind of fault there is, for tests of this kind."""
    most_faults: int = 10**9
    """Of one request; it is answered when it is asked once more."""
    looks: int = 2
    """After which a batch is over."""
    lost_replies: int = 0
    """Batches that are made, and whose maker is not told."""
    most_in_batch: int = 10**9
    usage: bool = True
    """Replies say how many tokens there were."""
    ignores_limit: bool = False
    """Replies are as long as they are, whatever is asked."""
    retry_after: str = ""
    """What a 429 says; else 0 or 0.2 seconds."""
    second_fault: str = ""
    """What becomes of every request for the answer alone."""
    keeps_bodies: bool = False
    """``bodies.jsonl`` gets what was asked."""
    tail: str = ""
    """What every rationale ends with."""


def error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": code, "param": None}}


def num_tokens(text: str) -> int:
    """As this server counts: no client can know it from its own tokenizer."""
    return math.ceil(len(text) / 3.7)


@dataclass
class Server:
    folder: Path
    settings: Settings
    answers: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        path = self.folder / "answers.json"
        self.answers = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path = self.folder / "odd.json"
        self.odd: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        self.arrivals = (self.folder / "arrivals.jsonl").open("a", buffering=1, encoding="utf-8")
        self.ledger = (self.folder / "ledger.jsonl").open("a", buffering=1, encoding="utf-8")

    def odd_of(self, call: str) -> dict[str, Any] | None:
        """The next of the odd replies of ``odd.json``, to the first attempt of each call."""
        return self.odd.pop(0) if self.odd and self.attempts[call] == 1 else None

    def note(self, file: Any, **fields: Any) -> None:
        file.write(json.dumps(fields) + "\n")

    def text_of(self, messages: list[dict[str, str]], key: str) -> str:
        """A rationale whose length is log-normal, and whose answer is right as often as asked."""
        asked = messages[-1]["content"]
        rng = random.Random(f"{self.settings.seed}/{key}/text")
        if asked.startswith("Therefore"):
            return str(rng.randrange(100)) + "."
        found = [answer for question, answer in self.answers.items() if question in asked]
        right = found and rng.random() < self.settings.right
        answer = found[0] if right else str(10_000 + rng.randrange(10_000))
        length = max(3, round(self.settings.words * rng.lognormvariate(-0.125, 0.5)))
        words = [rng.choice(("so", "then", "adds", "coins", "apples", "left", "some", "twice")) for _ in range(length)]
        sentences = [" ".join(words[start : start + 8]).capitalize() + "." for start in range(0, length, 8)]
        return " ".join([*sentences, f"Therefore, the answer is {answer}."]) + self.settings.tail

    def fault_of(self, key: str, attempt: int) -> str | None:
        own = self.settings
        refusing = random.Random(f"{own.seed}/{key}/refusal")
        if refusing.random() < own.refusals:
            return refusing.choice(REFUSALS)
        if attempt > own.most_faults:
            return None
        rng = random.Random(f"{own.seed}/{key}/{attempt}")
        return (own.only or rng.choice(FAULTS)) if rng.random() < own.faults else None

    def error(self, status: int, code: str, message: str, **headers: str) -> web.Response:
        return web.json_response(error_body(code, message), status=status, headers=headers)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except ConnectionResetError:  # the client was killed while it sent this
            return web.Response()
        key = (request.headers.get("Idempotency-Key") or f"{body.get('seed')}").removesuffix("-answer")
        call = f"{key}/{len(body['messages'])}"
        number = next(self.numbers)
        self.note(self.arrivals, number=number, key=call, time=time.time())
        if self.settings.keeps_bodies:
            with (self.folder / "bodies.jsonl").open("a", encoding="utf-8") as file:
                self.note(file, key=call, **body)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "expired-key":
            return self.error(401, "invalid_api_key", f"Incorrect API key provided: {token}.")
        if token == "empty-account":
            return self.error(429, "insufficient_quota", "You exceeded your current quota.")
        if body["model"] == "no-such-model":
            return self.error(404, "model_not_found", "The model does not exist.")
        self.attempts[call] += 1
        self.at_once += 1
        try:
            return await self.answer(request, body, call, number)
        finally:
            self.at_once -= 1

    async def answer(self, request: web.Request, body: dict[str, Any], call: str, number: int) -> web.StreamResponse:
        own, rng = self.settings, random.Random(f"{self.settings.seed}/{call}/latency")
        fault = "429" if self.at_once > own.most_at_once else self.fault_of(call, self.attempts[call])
        if body["messages"][-1]["content"].startswith("Therefore") and own.second_fault:
            fault = own.second_fault
        if own.latency and fault not in ERRORS:
            await asyncio.sleep(own.latency * rng.uniform(1 - own.spread, 1 + own.spread))
        if (odd := self.odd_of(call)) is not None:
            if "endless" in odd:
                return await self.endless(request, call, odd)
            raw = odd["body"] if isinstance(odd["body"], str) else json.dumps(odd["body"])
            self.note(self.ledger, number=number, key=call, kind=odd["name"], billed=0.0)
            headers = {"Content-Type": "application/json"} | odd.get("headers", {})
            content = zlib.compress(raw.encode()) if headers.get("Content-Encoding") == "deflate" else raw.encode()
            return web.Response(body=content, status=odd.get("status", 200), headers=headers)
        status, reply = self.completion(body, call, number, fault)
        if status == 429:
            return web.json_response(
                reply, status=429, headers={"Retry-After": own.retry_after or rng.choice(("0", "0.2"))}
            )
        if fault == "time-out":
            await asyncio.sleep(own.hang)
        if fault == "dropped" and request.transport is not None:
            request.transport.close()
        if fault == "malformed":
            return web.Response(text=json.dumps(reply)[:-40], content_type="application/json")
        return web.json_response(reply, status=status)

    async def endless(self, request: web.Request, call: str, odd: dict[str, Any]) -> web.StreamResponse:
        """A reply of blanks until the client leaves; the ledger then says how many bytes it took."""
        headers = {"Content-Type": "application/json"} | odd.get("headers", {})
        reply, sent = web.StreamResponse(status=odd.get("status", 200), headers=headers), 0
        await reply.prepare(request)
        with suppress(ConnectionError):
            while sent < 2**28:
                await reply.write(b" " * 2**16)
                sent += 2**16
        self.note(self.ledger, key=call, kind=odd["name"], billed=0.0, sent=sent)
        return reply

    def completion(self, body: dict[str, Any], call: str, number: int, fault: str | None) -> tuple[int, dict[str, Any]]:
        """Status and body of a reply, which is in the ledger from here on."""
        own = self.settings
        done = {"number": number, "key": call, "kind": fault or "ok"}
        if fault in ERRORS:
            self.note(self.ledger, **done, billed=0.0)
            status, code, message = ERRORS[fault]
            return status, error_body(code, message)
        prompt = sum(num_tokens(message["content"]) + 4 for message in body["messages"])
        text, limit = self.text_of(body["messages"], call.split("/")[0]), body.get("max_tokens")
        limit = 10**9 if own.ignores_limit else limit or body.get("max_completion_tokens") or 10**9
        written = min(num_tokens(text), limit)
        reason = "stop" if num_tokens(text) <= limit else "length"
        text = text if reason == "stop" else text[: int(limit * 3.7)]
        billed = (prompt * own.input_price + written * own.output_price) / 1e6
        self.note(self.ledger, **done, billed=billed, completion_tokens=written)
        if fault == "filtered":
            text, reason = "", "content_filter"
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": reason,
        }
        if body.get("logprobs"):
            top = [
                {"token": name, "logprob": -0.5 - i}
                for i, name in enumerate(["So", "We"][: body.get("top_logprobs", 0)])
            ]
            choice["logprobs"] = {"content": [{"token": "So", "logprob": -0.5, "bytes": None, "top_logprobs": top}]}
        reply = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"] + "-2026-01-01",
            "choices": [] if fault == "empty" else [choice],
        }
        if own.usage:
            reply["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": written,
                "total_tokens": prompt + written,
            }
        return 200, reply

    # ---- Files and batches ----

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        name = f"file-{len(self.files)}"
        self.files[name] = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response(
            {
                "id": name,
                "object": "file",
                "bytes": len(self.files[name]),
                "created_at": int(time.time()),
                "filename": "samples.jsonl",
                "purpose": "batch",
                "status": "processed",
            }
        )

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["name"]])

    async def make_batch(self, request: web.Request) -> web.Response:
        asked = await request.json()
        batch = {
            "id": f"batch-{len(self.batches)}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": "24h",
            "created_at": int(time.time()),
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "status": "in_progress",
        }
        self.batches[batch["id"]] = batch
        asked_for = [json.loads(line)["custom_id"] for line in self.files[batch["input_file_id"]].splitlines()]
        self.note(self.arrivals, batch=batch["id"], keys=asked_for)
        lost = len(self.batches) <= self.settings.lost_replies
        if lost and request.transport is not None:
            request.transport.close()
        return web.json_response(batch)

    async def show_batch(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["name"]]
        self.looks[batch["id"]] += 1
        if batch["status"] == "in_progress" and self.looks[batch["id"]] >= self.settings.looks:
            self.work_off(batch)
        return web.json_response(batch)

    async def list_batches(self, request: web.Request) -> web.Response:
        newest_first = list(reversed(self.batches.values()))
        return web.json_response({"object": "list", "data": newest_first, "has_more": False})

    def work_off(self, batch: dict[str, Any]) -> None:
        """Its results and errors; what is left when it expires has no line at all."""
        asked = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if len(asked) > self.settings.most_in_batch:
            errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}]
            batch |= {"status": "failed", "errors": {"object": "list", "data": errors}}
            return
        results, errors = [], []
        for line in asked:
            call = f"{line['custom_id']}/{len(line['body']['messages'])}"
            self.attempts[call] += 1
            fault = self.fault_of(call, self.attempts[call])
            if fault == "time-out":
                continue
            status, body = self.completion(line["body"], call, next(self.numbers), fault)
            response = {"status_code": status, "request_id": call, "body": body}
            (results if status == 200 else errors).append(
                {"id": call, "custom_id": line["custom_id"], "response": response, "error": None}
            )
        status = "completed" if len(results) + len(errors) == len(asked) else "expired"
        batch["status"] = status
        for field_name, rows in (("output_file_id", results), ("error_file_id", errors)):
            if rows:
                batch[field_name] = f"file-{len(self.files)}"
                self.files[batch[field_name]] = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def application(server: Server) -> web.Application:
    app = web.Application(client_max_size=2**30)
    app.add_routes(
        [
            web.post("/v1/chat/completions", server.chat),
            web.post("/v1/files", server.upload),
            web.get("/v1/files/{name}/content", server.content),
            web.post("/v1/batches", server.make_batch),
            web.get("/v1/batches", server.list_batches),
            web.get("/v1/batches/{name}", server.show_batch),
        ]
    )
    return app


async def serve(folder: Path, settings: Settings, started: Callable[[int], None]) -> None:
    server = Server(folder, settings)
    runner = web.AppRunner(application(server), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    started(runner.addresses[0][1])
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        server.arrivals.close()
        server.ledger.close()


@contextmanager
def in_thread(folder: Path, **settings: Any) -> Iterator[str]:
    """The server in this process, which starts at once; gives its base URL."""
    folder.mkdir(parents=True, exist_ok=True)
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(folder, Settings(**settings), ports.put))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{ports.get()}/v1"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[str]:
    """The server as a process; gives its base URL."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    process = subprocess.Popen([sys.executable, __file__, str(folder), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def lines(path: Path) -> list[dict[str, Any]]:
    # Not splitlines, which takes characters of a reply for the end of a line.
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


if __name__ == "__main__":
    chosen = asdict(Settings()) | {
        name: json.loads(value) for name, _, value in (w.partition("=") for w in sys.argv[2:])
    }
    asyncio.run(serve(Path(sys.argv[1]), Settings(**chosen), lambda port: print(port, flush=True)))
