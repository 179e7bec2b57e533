"""The openai teacher through the command: what the endpoint saw and billed, beside what the file of samples says."""

import math
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime, formatdate
from pathlib import Path
from typing import Any

import pytest
import teacher_server
from teacher_server import FAULTS, REFUSALS, lines
from teachers.test_order_command import ROOT, bill, started, with_answers, words_of

from kpod_lightning.__main__ import main
from kpod_lightning.config import load_config
from kpod_lightning.data.benchmarks import read_problems
from kpod_lightning.data.distributions import recorded_tokens
from kpod_lightning.distributed.preemption import INTERRUPTED, STOPPED
from kpod_lightning.students.student import load_student
from kpod_lightning.teachers.endpoint import retry_after
from kpod_lightning.teachers.openai import Slots
from kpod_lightning.teachers.samples.file import Money, SampleFile

EXACT = 1e-12
"""US dollars; the server's bill is a sum of floats."""

FEW = ["data.num_train=10", "data.num_validation=1", "data.num_test=1", "samples=2", "budget=1"]
"""Twenty samples; problems of other splits are not asked, but take time to make."""

Order = Callable[..., tuple[int, str, str]]


def order_with(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *own: str) -> Order:
    """Runs the command on ten problems with two samples each; exit code, output, errors."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-tests")

    def run(url: str, out: Path, *settings: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words_of(url, out, *FEW, *own, *settings))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def order(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Order:
    return order_with(capsys, monkeypatch, "teacher.concurrency=8", "teacher.timeout=0.4")


@pytest.fixture
def signalled() -> Iterator[Callable[[int, Callable[[], bool]], None]]:
    """Sends this process a signal once something holds; a signal that comes too late is ignored."""
    earlier = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = []

    def send(number: int, holds: Callable[[], bool]) -> None:
        def wait() -> None:
            until = time.monotonic() + 20
            while not holds() and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join()
    for number, handler in earlier.items():
        signal.signal(number, handler)


def asked(server: Path) -> list[str]:
    """The samples' keys, in the order in which requests for them came."""
    path = server / "arrivals.jsonl"
    return [line["key"].split("/")[0] for line in lines(path)] if path.exists() else []


def money_of(out: Path) -> Money:
    with SampleFile(out) as file:
        return file.money


def is_one_line(err: str) -> bool:
    return err.startswith("kpod: ") and err.count("\n") == 1 and err.endswith("\n")


def closed_port() -> str:
    """URL at which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/v1"


def every_sample_once(out: Path, num_problems: int = 10, num_samples: int = 2) -> list[dict[str, Any]]:
    rows = lines(out)
    assert len({row["key"] for row in rows}) == len(rows) == num_problems * num_samples
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows)
    return rows


# ---- Faults ----


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_any_kind_costs_one_more_request_and_no_sample(tmp_path, order, kind):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=0.4, only=kind, most_faults=1, hang=0.7) as url:
        code, _, err = order(url, out)
    assert (code, err) == (0, "")
    rows, ledger = every_sample_once(out), lines(server / "ledger.jsonl")
    num_faults = sum(line["kind"] == kind for line in ledger)
    assert num_faults > 0 and len(asked(server)) == len(rows) + num_faults
    assert Counter(line["key"].split("/")[0] for line in ledger if line["kind"] == "ok") == {
        row["key"]: 1 for row in rows
    }
    money = money_of(out)
    if kind in ("429", "empty"):  # what such a request costs is known
        assert money.held == 0
        assert float(money.spent) == pytest.approx(bill(server), abs=EXACT)
    else:
        assert money.held > 0
        assert float(money.spent) == pytest.approx(
            sum(line["billed"] for line in ledger if line["kind"] == "ok"), abs=EXACT
        )
        assert float(money.spent + money.held) >= bill(server)


@pytest.mark.parametrize("case", ["expired-key", "empty-account", "no-such-model"])
def test_what_no_repetition_mends_stops_all_at_once_in_one_line_and_the_key_stands_nowhere(
    tmp_path, order, monkeypatch, case
):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    key = "key-of-the-tests" if case == "no-such-model" else case
    monkeypatch.setenv("OPENAI_API_KEY", key)
    settings = ["teacher=openai:no-such-model"] if case == "no-such-model" else []
    with teacher_server.in_thread(server) as url:
        code, said, err = order(url, out, "teacher.concurrency=4", *settings)
    assert code == 2 and is_one_line(err), err
    assert {"expired-key": "OPENAI_API_KEY", "empty-account": "credit", "no-such-model": "no-such-model"}[case] in err
    assert key not in said + err
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or key.encode() not in file.read_bytes(), file
    assert lines(out) == []
    assert 1 <= len(asked(server)) <= 4
    assert money_of(out) == Money(None)


@pytest.mark.parametrize("where", ["nobody listens", "only errors"])
def test_an_endpoint_that_gives_nothing_but_faults_is_named_in_one_line(tmp_path, order, where):
    out, began = tmp_path / "samples.jsonl", time.monotonic()
    if where == "nobody listens":
        url = closed_port()
        code, _, err = order(url, out, "teacher.max_attempts=2")
        assert money_of(out).held == 0  # nothing was sent
    else:
        with teacher_server.in_thread(tmp_path / "server", faults=1.0, only="500") as url:
            code, _, err = order(url, out, "teacher.max_attempts=2")
    assert code == 2 and is_one_line(err), err
    assert url in err
    assert time.monotonic() - began < 5


def test_one_sample_that_fails_for_ever_is_left_and_named_while_the_others_come(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=0.3, only="429") as url:
        code, _, err = order(url, out, "teacher.max_attempts=1")
        num_missing = 20 - len(lines(out))
        assert 0 < num_missing < 20
        assert code == 2 and is_one_line(err) and f"{num_missing} of 20 samples" in err, err
        assert order(url, out)[0] == 0
    every_sample_once(out)
    ok = Counter(line["key"] for line in lines(server / "ledger.jsonl") if line["kind"] == "ok")
    assert set(ok.values()) == {1}


def test_a_sample_that_is_refused_is_a_row_without_a_text_and_asked_once(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, refusals=0.5, right=1.0) as url:
        with_answers(server, 10)
        assert order(url, out)[0] == 0
        assert order(url, out)[0] == 0
    rows, kinds = every_sample_once(out), {k["key"].split("/")[0]: k["kind"] for k in lines(server / "ledger.jsonl")}
    assert set(Counter(asked(server)).values()) == {1}
    assert set(REFUSALS) <= set(kinds.values())
    reasons = {"ok": "stop", "filtered": "content_filter"}
    for row in rows:
        kind = kinds[row["key"]]
        assert row["finish_reason"] == reasons.get(kind, kind)
        if kind != "ok":
            assert row["rationale"] == "" and not row["correct"] and row["predicted_answer"] is None
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)
    assert money_of(out).held == 0


# ---- When requests are sent ----


@pytest.mark.parametrize(("seconds", "low", "high"), [("0", 0.0, 0.45), ("1.2", 1.2, 1.6)])
def test_a_sample_is_asked_again_when_the_endpoint_said(tmp_path, order, seconds, low, high):
    """Without a word of the endpoint it would be half a second to a second."""
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=0.4, only="429", most_faults=1, retry_after=seconds) as url:
        assert order(url, out)[0] == 0
    times: dict[str, list[float]] = {}
    for line in lines(server / "arrivals.jsonl"):
        times.setdefault(line["key"], []).append(line["time"])
    waits = [pair[1] - pair[0] for pair in times.values() if len(pair) == 2]
    assert all(wait >= low for wait in waits), waits
    assert min(waits) < high, waits


def test_retry_after_is_a_number_of_seconds_or_a_date():
    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after": " 0.25 "}) == 0.25
    assert retry_after({"retry-after": "-3"}) == 0.0
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after({"retry-after": later}) == pytest.approx(29.5, abs=1)
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0.0


@pytest.mark.parametrize("headers", [{}, {"retry-after": ""}, {"retry-after": "soon"}])
def test_no_retry_after_that_can_be_read_is_none(headers):
    assert retry_after(headers) is None


def test_as_many_requests_are_sent_at_once_as_the_endpoint_takes(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, most_at_once=4, latency=0.05) as url:
        settings = ["data.num_train=50", "teacher.concurrency=16", "teacher.max_attempts=30"]
        assert order(url, out, *settings)[0] == 0
    every_sample_once(out, 50)
    kinds = {line["number"]: line["kind"] for line in lines(server / "ledger.jsonl")}
    refused = [kinds[line["number"]] == "429" for line in lines(server / "arrivals.jsonl")]
    half = len(refused) // 2
    first, second = sum(refused[:half]) / half, sum(refused[half:]) / (len(refused) - half)
    assert sum(refused) >= 8  # of the first sixteen, four were taken
    assert second < first, (first, second)
    assert second < 0.25


def test_slots_are_halved_once_for_all_that_was_under_way_together(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    slots = Slots(16)
    for later in (0.1, 0.2, 0.5):  # begun at 100.0, refused at different times
        now = 100.0 + later
        slots.narrow(later)
        assert slots.limit == 8
    now = 101.0
    slots.narrow(0.4)  # begun at 100.6, after the first was refused at 100.1
    assert slots.limit == 4
    for later in (102.0, 103.0, 104.0):
        now = later
        slots.narrow(0.1)
    assert slots.limit == 1


def test_slots_grow_by_one_or_a_tenth_for_as_many_successes_as_there_are():
    slots = Slots(40)
    slots.limit = 4.0
    slots.widen()
    assert slots.limit == pytest.approx(4.25)  # 4 + max(1, 0.4) / 4
    slots.limit = 20.0
    slots.widen()
    assert slots.limit == pytest.approx(20.1)  # 20 + max(1, 2) / 20
    for _ in range(1000):
        slots.widen()
    assert slots.limit == 40


# ---- Money ----


def test_a_budget_is_not_exceeded_and_a_larger_one_goes_on_to_the_end(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=0.2, most_faults=1, hang=0.7) as url:
        settings = ["data.num_train=20"]
        code, _, err = order(url, out, *settings, "budget=0.012")
        assert code == 2 and is_one_line(err) and "budget of 0.012" in err, err
        assert 0 < bill(server) <= 0.012
        num_rows = len(lines(out))
        assert 0 < num_rows < 40
        assert order(url, out, *settings, "budget=0.012")[0] == 2  # and stays so
        assert bill(server) <= 0.012
        assert order(url, out, *settings, "budget=1")[0] == 0
    rows = every_sample_once(out, 20)
    ok = Counter(line["key"].split("/")[0] for line in lines(server / "ledger.jsonl") if line["kind"] == "ok")
    assert ok == {row["key"]: 1 for row in rows}


def test_without_faults_what_is_spent_is_what_the_endpoint_bills(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server) as url:
        code, said, _ = order(url, out)
    assert code == 0 and f"{bill(server):.4f} US dollars spent" in said
    billed = {line["key"].split("/")[0]: line["billed"] for line in lines(server / "ledger.jsonl")}
    assert {row["key"]: row["cost"] for row in every_sample_once(out)} == pytest.approx(billed, abs=EXACT)
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)
    assert money_of(out).held == 0


def test_an_endpoint_that_does_not_say_how_much_it_was_counts_as_the_most_it_can_be(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, usage=False, keeps_bodies=True) as url:
        assert order(url, out, "teacher.max_tokens=300")[0] == 0
    texts = {line["key"].split("/")[0]: line["messages"][0]["content"] for line in lines(server / "bodies.jsonl")}
    for row in every_sample_once(out):
        longest = len(texts[row["key"]].encode()) + 2 * 64  # a byte a token, and what a template adds
        assert row["cost"] == pytest.approx((1 * longest + 4 * 300) / 1e6, abs=EXACT)
    assert float(money_of(out).spent) >= bill(server)


def test_an_endpoint_that_bills_more_than_the_limit_allows_stops_the_order_in_one_line(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, ignores_limit=True, words=400.0) as url:
        code, _, err = order(url, out, "teacher.max_tokens=16", "teacher.concurrency=4")
    assert code == 2 and is_one_line(err) and "max_tokens" in err, err
    assert len(asked(server)) <= 8
    money = money_of(out)
    assert float(money.spent + money.held) >= bill(server) - EXACT  # so that repeating the command keeps the budget


# ---- How much is asked ----


@pytest.mark.parametrize(("right", "each"), [(1.0, 1), (0.0, 4)])
def test_no_more_is_asked_of_a_problem_than_it_takes_for_a_right_one(tmp_path, order, right, each):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 10)
    with teacher_server.in_thread(server, right=right) as url:
        assert order(url, out, "samples=4", "teacher.stop_at=1")[0] == 0
    rows = every_sample_once(out, 10, each)
    assert set(Counter(row["problem_id"] for row in rows).values()) == {each}
    assert len(asked(server)) == 10 * each
    assert all(row["correct"] == (right == 1.0) for row in rows)


def test_no_more_is_asked_than_what_is_under_way_once_there_are_enough_right_ones(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 20)
    settings = ["data.num_train=20", "teacher.concurrency=2", "teacher.stop_at_total=6"]
    with teacher_server.in_thread(server, right=1.0, latency=0.02) as url:
        assert order(url, out, *settings)[0] == 0
        num_asked = len(asked(server))
        assert 6 <= num_asked <= 6 + 2 * 2 - 1  # two under way, and as many about to be
        assert order(url, out, *settings)[0] == 0
        assert len(asked(server)) == num_asked
    assert len(lines(out)) == num_asked


def test_a_reply_that_the_limit_cuts_says_so_and_is_never_right(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 10)
    with teacher_server.in_thread(server, right=1.0) as url:
        assert order(url, out, "teacher.max_tokens=8")[0] == 0
    for row in every_sample_once(out):
        assert row["finish_reason"] == "length" and not row["correct"]
        assert row["usage"]["completion_tokens"] == 8


def test_log_probabilities_are_kept_where_they_are_asked(tmp_path, order):
    with teacher_server.in_thread(tmp_path / "server") as url:
        assert order(url, tmp_path / "with.jsonl", "data.num_train=2", "teacher.logprobs=true")[0] == 0
        assert order(url, tmp_path / "without.jsonl", "data.num_train=2")[0] == 0
        likeliest = ["teacher.logprobs=true", "teacher.top_logprobs=2"]
        assert order(url, tmp_path / "top.jsonl", "data.num_train=2", *likeliest)[0] == 0
    assert all(recorded_tokens(row, "") for row in lines(tmp_path / "top.jsonl"))
    assert all(row["top_logprobs"] == [[["So", -0.5], ["We", -1.5]]] for row in lines(tmp_path / "top.jsonl"))
    assert all("top_logprobs" not in row for row in lines(tmp_path / "with.jsonl"))
    assert all(row["logprobs"] == [["So", -0.5]] for row in lines(tmp_path / "with.jsonl"))
    assert all("logprobs" not in row for row in lines(tmp_path / "without.jsonl"))


# ---- Asking for the answer apart ----


def test_the_answer_is_asked_after_the_reply_and_both_are_paid(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, keeps_bodies=True) as url:
        assert order(url, out, "teacher.answer_call=true")[0] == 0
    rows, bodies = every_sample_once(out), lines(server / "bodies.jsonl")
    calls = {line["key"]: line["messages"] for line in bodies}
    ledger = {line["key"]: line for line in lines(server / "ledger.jsonl")}
    assert len(bodies) == len(calls) == len(ledger) == 2 * len(rows)
    for row in rows:
        first, second = ledger[f"{row['key']}/1"], ledger[f"{row['key']}/3"]
        question, reply, asked_after = calls[f"{row['key']}/3"]
        assert question == calls[f"{row['key']}/1"][0]
        assert reply["role"] == "assistant" and asked_after["role"] == "user"
        assert asked_after["content"] == "Therefore, the answer (arabic numerals) is"
        assert row["text"] == reply["content"]
        answer = row["answer_call"].removesuffix(".")
        assert row["predicted_answer"] == answer
        assert row["rationale"] == f"{reply['content']} Therefore, the answer is {answer}."
        assert len(row["attempts"]) == 2
        assert row["cost"] == pytest.approx(first["billed"] + second["billed"], abs=EXACT)
        written = first["completion_tokens"] + second["completion_tokens"]
        assert row["usage"]["completion_tokens"] == written
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)


def test_a_rationale_whose_answer_never_comes_stays_paid(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    settings = ["data.num_train=3", "teacher.answer_call=true", "teacher.max_attempts=2"]
    with teacher_server.in_thread(server, second_fault="429", retry_after="0") as url:
        code, _, err = order(url, out, *settings)
    assert code == 2 and is_one_line(err), err
    assert lines(out) == [] and bill(server) > 0
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)
    assert money_of(out).held == 0
    with teacher_server.in_thread(server) as url:
        assert order(url, out, *settings)[0] == 0
    every_sample_once(out, 3)
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)


def test_a_sample_whose_answer_is_refused_has_the_tokens_that_its_cost_is_of(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, second_fault="content_filter") as url:
        assert order(url, out, "teacher.answer_call=true", "data.num_train=5")[0] == 0
    ledger = {line["key"]: line for line in lines(server / "ledger.jsonl")}
    for row in every_sample_once(out, 5):
        assert row["finish_reason"] == "content_filter" and not row["correct"]
        first = ledger[f"{row['key']}/1"]
        assert row["cost"] == pytest.approx(first["billed"], abs=EXACT)
        assert row["usage"]["completion_tokens"] == first["completion_tokens"]
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)


# ---- Signals, and several commands ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_under_way_at_a_signal_is_kept_and_the_same_command_goes_on(tmp_path, order, signalled, number):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    settings = ["teacher.concurrency=3", "teacher.timeout=5"]
    with teacher_server.in_thread(server, latency=0.15) as url:
        signalled(number, lambda: len(asked(server)) >= 5)
        code, _, err = order(url, out, *settings)
        assert code == (INTERRUPTED if number == signal.SIGINT else STOPPED) and is_one_line(err), err
        before = asked(server)
        assert 5 <= len(before) < 20
        assert sorted(row["key"] for row in lines(out)) == sorted(before)
        assert order(url, out, *settings)[0] == 0
    every_sample_once(out)
    assert set(Counter(asked(server)).values()) == {1}
    assert float(money_of(out).spent) == pytest.approx(bill(server), abs=EXACT)
    assert money_of(out).held == 0


def test_a_second_command_on_the_same_file_is_refused_while_the_first_goes_on(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, latency=0.5) as url:
        first = started(words_of(url, out, *FEW, "teacher.concurrency=2"))
        until = time.monotonic() + 30
        while not asked(server) and first.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        code, _, err = order(url, out)
        assert code == 2 and is_one_line(err) and f"process {first.pid}" in err, err
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=30)
        assert first.returncode == INTERRUPTED and is_one_line(err), err
        assert sorted(row["key"] for row in lines(out)) == sorted(asked(server))


def test_two_parts_ask_every_sample_once_and_share_the_budget(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    parts = [tmp_path / "samples-1-of-2.jsonl", tmp_path / "samples-2-of-2.jsonl"]
    with teacher_server.in_thread(server) as url:
        for number, part in enumerate(parts, start=1):
            before = bill(server)
            code, _, err = order(url, out, "budget=0.008", "--shard", f"{number}/2")
            assert code == 2 and is_one_line(err) and "0.004 US dollars" in err, err
            assert 0 < bill(server) - before <= 0.004
            assert order(url, out, "--shard", f"{number}/2")[0] == 0
            assert float(money_of(part).spent) == pytest.approx(bill(server) - before, abs=EXACT)
    assert not out.exists()
    rows = [row for part in parts for row in lines(part)]
    assert len(lines(parts[0])) == len(lines(parts[1])) == 10
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == 20
    assert Counter(asked(server)) == {row["key"]: 1 for row in rows}


# ---- Nothing is asked ----


def test_what_an_order_would_cost_is_told_from_prices_without_asking_or_writing(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server) as url:
        code, said, err = order(url, out, "--dry-run")
    assert (code, err) == (0, "")
    assert asked(server) == [] and [file.name for file in tmp_path.iterdir()] == ["server"]
    tokenizer = load_student("tiny-llama").tokenizer
    train = read_problems(load_config(ROOT / "experiments/arithmetic.yaml", ["data.num_train=10"]))["train"]
    prompts = [f"Q: {problem.question}\nA: Let's think step by step." for problem in train]
    mean = sum(len(tokenizer(prompt, add_special_tokens=False).input_ids) for prompt in prompts) / 10
    assert "samples to be asked: 20\n" in said
    assert f"prompt: {mean:.0f} tokens on average, as tiny-llama counts them\n" in said
    at_most = 20 * (1 * (math.ceil(mean) + 2 * 64) + 4 * 512) / 1e6
    assert f"with every reply as long as teacher.max_tokens=512: {at_most:.4f} US dollars\n" in said


def test_what_the_rest_would_cost_is_told_from_what_there_is(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server) as url:
        assert order(url, out)[0] == 0
        files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"}
        code, said, _ = order(url, out, "data.num_train=30", "--dry-run")
    assert code == 0
    assert {file: file.read_bytes() for file in files} == files
    assert "samples to be asked: 40\n" in said
    mean = float(Decimal(str(bill(server))) / 20)
    assert f"with replies as long as the 20 seen so far: {40 * mean:.4g} [" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["teacher=openai:model-a"], "--out"),
        (["--out", "samples.jsonl"], "teacher="),
        (["teacher=oracle:model-a", "--out", "samples.jsonl"], "teacher=oracle:model-a"),
        (["teacher=openai:", "--out", "samples.jsonl"], "teacher=openai:"),
        (["teacher=openai:model-a", "--out", "samples.txt"], "samples.txt"),
        (["teacher=openai:model-a", "teacher.stop=[a,b,c,d,e]", "--out", "samples.jsonl"], "teacher.stop"),
        (["teacher=openai:gpt-4.1-mini", "--out", "samples.jsonl"], "budget"),
    ],
)
def test_an_order_that_lacks_something_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, named):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-tests")
    assert main(["rationales", str(ROOT / "experiments/arithmetic.yaml"), "data.num_train=10", *words]) == 2
    said = capsys.readouterr()
    assert is_one_line(said.err) and named in said.err, said.err
    assert list(tmp_path.iterdir()) == []
