"""The batch teacher through the command: a batch that was made is paid once, whatever happens to the command."""

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import teacher_server
from teacher_server import lines
from teachers.test_openai_teacher import (
    EXACT,
    FEW,
    Order,
    closed_port,
    every_sample_once,
    is_one_line,
    money_of,
    order_with,
    signalled,
)
from teachers.test_order_command import bill, started, with_answers, words_of

from kpod_lightning.distributed.preemption import STOPPED
from kpod_lightning.teachers import batch
from kpod_lightning.teachers.samples.file import SampleFile

__all__ = ["signalled"]  # a fixture, which is found by its name
BATCH = ["teacher=batch:model-a", "teacher.poll=0.02"]


class Killed(BaseException):
    """Nobody catches it: what is in the files then is what a kill leaves there."""


@pytest.fixture
def order(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Order:
    return order_with(capsys, monkeypatch, *BATCH)


def batches(server: Path) -> list[list[str]]:
    """The samples' keys of every batch that was made, in the order of arrival."""
    path = server / "arrivals.jsonl"
    return [line["keys"] for line in lines(path)] if path.exists() else []


def is_paid_once(server: Path, out: Path) -> None:
    """No more was billed than was spent, and nothing is left that may have been."""
    money = money_of(out)
    assert float(money.spent) == pytest.approx(bill(server), abs=EXACT)
    assert money.held == 0
    billed = Counter(line["key"].split("/")[0] for line in lines(server / "ledger.jsonl") if line["kind"] == "ok")
    assert all(number == 1 for number in billed.values())


# ---- Faults ----


@pytest.mark.parametrize("kind", ["all", "500", "time-out", "empty"])
def test_lines_that_come_to_nothing_are_asked_again_and_the_bill_is_what_was_spent(tmp_path, order, kind):
    """Errors have lines in a file of their own, what an expired batch left (time-out) has none, and some are empty."""
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    settings = {"faults": 0.4, "refusals": 0.1, "only": "" if kind == "all" else kind}
    with teacher_server.in_thread(server, **settings) as url:
        code, _, err = order(url, out)
    assert (code, err) == (0, "")
    rows = every_sample_once(out)
    made = batches(server)
    assert len(made) > 1 and len(made[0]) == 20
    assert all(set(later) < set(earlier) for earlier, later in itertools.pairwise(made))
    is_paid_once(server, out)
    refused = {
        line["key"].split("/")[0]: line["kind"]
        for line in lines(server / "ledger.jsonl")
        if line["kind"] in teacher_server.REFUSALS
    }
    assert refused
    for row in rows:
        reason = {"filtered": "content_filter"}.get(refused.get(row["key"], ""), refused.get(row["key"], "stop"))
        assert row["finish_reason"] == reason
        assert reason == "stop" or (row["rationale"] == "" and not row["correct"])


def test_a_sample_that_fails_in_batch_after_batch_is_left_and_named(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=1.0, only="500") as url:
        code, _, err = order(url, out, "teacher.max_attempts=2")
        assert code == 2 and is_one_line(err) and "20 of 20 samples" in err, err
        assert [len(keys) for keys in batches(server)] == [20, 20]
    is_paid_once(server, out)
    with teacher_server.in_thread(server) as url:
        assert order(url, out)[0] == 0
    every_sample_once(out)
    is_paid_once(server, out)


def test_a_batch_whose_makers_reply_was_lost_is_found_and_not_made_again(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, lost_replies=1) as url:
        assert order(url, out)[0] == 0
    assert [len(keys) for keys in batches(server)] == [20]
    every_sample_once(out)
    is_paid_once(server, out)


def test_a_batch_whose_makers_reply_was_lost_for_good_is_found_by_the_next_command(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, lost_replies=1) as url:
        code, _, err = order(url, out, "teacher.max_attempts=1")
        assert code == 2 and is_one_line(err), err
        assert order(url, out)[0] == 0
    assert [len(keys) for keys in batches(server)] == [20]
    every_sample_once(out)
    is_paid_once(server, out)


def test_results_of_a_batch_that_are_too_large_stop_the_order_in_one_line(tmp_path, order, monkeypatch):
    out = tmp_path / "samples.jsonl"
    with teacher_server.in_thread(tmp_path / "server") as url:
        with monkeypatch.context() as patched:
            patched.setattr("kpod_lightning.teachers.reply_size.LARGEST", 1000)
            code, _, err = order(url, out, "teacher.max_attempts=1")
        assert code == 2 and is_one_line(err) and "too long to be read" in err, err
        assert order(url, out)[0] == 0  # the batch is there still, and paid once
    every_sample_once(out)
    is_paid_once(tmp_path / "server", out)


def one(key: str, body: Any, status: Any = 200) -> dict[str, Any]:
    return {"custom_id": key, "response": {"status_code": status, "body": body}}


ODD: dict[str, Any] = {
    # name: line in place of the sample's own, made of its key
    "no id": lambda key: {"response": {"status_code": 200, "body": {}}},
    "unknown id": lambda key: one("somebody-elses", {"choices": []}),
    "id of another type": lambda key: one([key], {}),  # type: ignore[arg-type]
    "no object": lambda key: [key],
    "broken": lambda key: None,
    "no response": lambda key: {"custom_id": key},
    "response is a text": lambda key: {"custom_id": key, "response": "ok"},
    "status is a text": lambda key: one(key, {}, "200"),
    "body is HTML": lambda key: one(key, "<html>Bad gateway</html>"),
    "error in 200": lambda key: one(key, {"error": {"message": "upstream", "code": 502}}),
    "error is a text": lambda key: one(key, {"error": "upstream"}, 500),
    "choices are a text": lambda key: one(key, {"choices": "text"}),
    "message is a list": lambda key: one(key, {"choices": [{"message": [1], "finish_reason": 3}]}),
}


def test_odd_lines_of_a_batchs_results_cost_their_sample_another_attempt_and_no_other(tmp_path, order, monkeypatch):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    work_off, odd = teacher_server.Server.work_off, dict(ODD)
    spoiled: dict[str, str] = {}

    def with_odd_lines(self: teacher_server.Server, made: dict[str, Any]) -> None:
        work_off(self, made)
        rows = self.files[made["output_file_id"]].split(b"\n")
        for i, row in enumerate(rows):
            if odd:
                name, line = odd.popitem()
                key = json.loads(row)["custom_id"]
                spoiled[key] = name
                rows[i] = json.dumps(line(key)).encode() if line(key) is not None else row[:-9]
        self.files[made["output_file_id"]] = b"\n".join(rows)

    monkeypatch.setattr(teacher_server.Server, "work_off", with_odd_lines)
    with teacher_server.in_thread(server) as url:
        code, said, err = order(url, out)
    assert (code, err) == (0, ""), err
    assert set(spoiled.values()) == ODD.keys()
    made = batches(server)
    assert len(made) == 2 and set(made[1]) <= set(spoiled)
    rows = {row["key"]: row for row in every_sample_once(out)}
    for key, name in spoiled.items():
        asked_again = rows[key]["model"] == "model-a-2026-01-01"
        assert asked_again or (rows[key]["rationale"], rows[key]["correct"]) == ("", False), name
        assert asked_again == (key in made[1]), name
    assert said.count("its sample is asked again") == 2  # no object, broken


@pytest.mark.parametrize("tail", ["\u2028Next line.", "\x85Next line.", "\x0cNext page."])
def test_a_reply_may_have_any_character_that_some_take_for_the_end_of_a_line(tmp_path, order, tail):
    out = tmp_path / "samples.jsonl"
    with teacher_server.in_thread(tmp_path / "server", tail=tail) as url:
        assert order(url, out)[0] == 0
    assert all(row["rationale"].endswith(tail[1:]) for row in every_sample_once(out))


# ---- Kills ----


@pytest.mark.parametrize("moment", ["before the journal", "journal", "upload", "creation", "row"])
def test_a_kill_at_any_moment_loses_nothing_and_pays_nothing_twice(tmp_path, order, monkeypatch, moment):
    """Before the journal has a line; right after it, the upload, the batch, or some rows."""
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with teacher_server.in_thread(server) as url:
        with monkeypatch.context() as patched:
            if moment == "before the journal":
                patched.setattr(batch.Journal, "begin", killed)
            elif moment == "journal":
                begin = batch.Journal.begin
                patched.setattr(batch.Journal, "begin", lambda *a: (begin(*a), killed()))
            elif moment == "upload":
                patched.setattr(batch.Batches, "find", killed)
            elif moment == "creation":
                patched.setattr(batch.Batches, "poll", killed)
            else:
                take_line, numbers = batch.Batches.take_line, itertools.count()
                patched.setattr(
                    batch.Batches,
                    "take_line",
                    lambda *a: killed() if next(numbers) == 7 else take_line(*a),
                )
            with pytest.raises(Killed):
                order(url, out)
        assert len(batches(server)) == (moment in ("creation", "row"))
        # An order of which nothing was sent leaves no file of samples.
        assert len(lines(out) if out.exists() else []) == (7 if moment == "row" else 0)
        assert money_of(out).held > 0 or moment not in ("creation", "row")
        assert order(url, out)[0] == 0
        assert len(batches(server)) == 1
    every_sample_once(out)
    is_paid_once(server, out)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_a_refused_sample_is_written_loses_nothing_and_writes_it_once(
    tmp_path, order, monkeypatch, moment
):
    server, out, add = tmp_path / "server", tmp_path / "samples.jsonl", SampleFile.add

    def killed(self: SampleFile, row: dict[str, Any]) -> None:
        if moment == "after":
            add(self, row).result()
        raise Killed

    with teacher_server.in_thread(server, refusals=1.0) as url:
        with monkeypatch.context() as patched:
            patched.setattr(SampleFile, "add", killed)
            with pytest.raises(Killed):
                order(url, out, "data.num_train=5")
        assert len(lines(out)) == (moment == "after")
        assert order(url, out, "data.num_train=5")[0] == 0
    every_sample_once(out, 5)
    is_paid_once(server, out)


def test_what_was_begun_for_a_batch_that_was_never_made_costs_nothing(tmp_path, order):
    """By hand: a journal's line and the ledger's, and no batch at the provider."""
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    attempt = {"attempt": "00000000000000aa", "key": "f" * 32, "at_most": "0.999"}
    out.with_suffix(".ledger.jsonl").write_text(json.dumps(attempt) + "\n", encoding="utf-8")
    journal = {"batch": "00000000000000bb", "made": int(time.time()), "attempts": {"f" * 32: "00000000000000aa"}}
    out.with_suffix(".batches.jsonl").write_text(json.dumps(journal) + "\n", encoding="utf-8")
    assert str(money_of(out).held) == "0.999"
    with teacher_server.in_thread(server) as url:
        assert order(url, out)[0] == 0  # within a budget of 1
    every_sample_once(out)
    is_paid_once(server, out)


@pytest.mark.parametrize("num_kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_no_sample_is_lost_or_paid_twice_through_kills_at_random_moments(tmp_path, num_kills):
    server, out, rng = tmp_path / "server", tmp_path / "samples.jsonl", random.Random(1)
    journal = out.with_suffix(".batches.jsonl")
    # Several batches after one another: lines that come to nothing are asked again.
    with teacher_server.running(server, faults=0.5, looks=4, seed=2) as url:
        words = words_of(url, out, *FEW, *BATCH, "teacher.poll=0.1", "teacher.max_attempts=20")
        for _ in range(num_kills):
            process, before = started(words), journal.stat().st_size if journal.exists() else 0
            until = time.monotonic() + (3 if batches(server) else 30)
            # Until it makes a batch; where one is under way, it only looks at that one at first.
            while process.poll() is None and time.monotonic() < until:
                if journal.exists() and journal.stat().st_size > before:
                    break
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.5))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        last = started(words)
        _, err = last.communicate(timeout=60)
        assert last.returncode == 0, err
    every_sample_once(out)
    is_paid_once(server, out)


def test_the_batch_goes_on_where_the_command_is_stopped_and_the_same_command_collects_it(tmp_path, order, signalled):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, looks=25) as url:
        signalled(signal.SIGTERM, lambda: bool(batches(server)))
        code, _, err = order(url, out)
        assert code == STOPPED and is_one_line(err), err
        assert lines(out) == [] and money_of(out).held > 0
        code, said, _ = order(url, out)
        assert code == 0 and "under way since an earlier command" in said
    assert [len(keys) for keys in batches(server)] == [20]
    every_sample_once(out)
    is_paid_once(server, out)


def test_a_signal_is_heeded_while_the_endpoint_is_down(tmp_path, order, signalled):
    began = time.monotonic()
    signalled(signal.SIGTERM, lambda: time.monotonic() - began > 1.0)
    code, _, err = order(closed_port(), tmp_path / "samples.jsonl", "teacher.max_attempts=4")
    assert code == STOPPED and is_one_line(err), err


def test_an_endpoint_at_which_nobody_listens_is_named_in_one_line(tmp_path, order):
    url, out = closed_port(), tmp_path / "samples.jsonl"
    code, _, err = order(url, out, "teacher.max_attempts=2")
    assert code == 2 and is_one_line(err) and url in err, err


# ---- Limits ----


def test_batches_shrink_until_the_provider_takes_them(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, most_in_batch=5) as url:
        assert order(url, out)[0] == 0
    assert [len(keys) for keys in batches(server)] == [20, 10, 5, 5, 5, 5]
    every_sample_once(out)
    is_paid_once(server, out)


def test_a_limit_that_not_even_one_sample_is_within_ends_the_order(tmp_path, order, monkeypatch):
    out, send, numbers = tmp_path / "samples.jsonl", batch.Batches.send, itertools.count()

    def counted(self: batch.Batches) -> bool:
        if next(numbers) > 30:
            raise Killed  # it would go on for ever
        return send(self)

    monkeypatch.setattr(batch.Batches, "send", counted)
    with teacher_server.in_thread(tmp_path / "server", most_in_batch=0) as url:
        code, _, err = order(url, out, "teacher.max_attempts=2")
    assert code == 2 and is_one_line(err) and "limit" in err, err
    assert money_of(out).held == 0


def test_a_budget_that_is_not_enough_is_not_exceeded_and_a_larger_one_goes_on(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, faults=0.2) as url:
        code, _, err = order(url, out, "budget=0.0045")
        assert code == 2 and is_one_line(err) and "budget of 0.0045" in err, err
        assert 0 < bill(server) <= 0.0045
        assert 0 < len(lines(out)) < 20
        assert order(url, out)[0] == 0
    every_sample_once(out)
    is_paid_once(server, out)


def test_a_provider_that_bills_more_than_the_limit_allows_ends_the_order_in_one_line(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, ignores_limit=True, words=400.0) as url:
        code, _, err = order(url, out, "teacher.max_tokens=16")
        assert code == 2 and is_one_line(err) and "max_tokens" in err, err
    assert len(batches(server)) == 1
    money = money_of(out)
    assert float(money.spent + money.held) >= bill(server) - EXACT


def test_what_came_to_nothing_is_not_asked_again_once_there_are_enough_right_ones(tmp_path, order):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 10)
    with teacher_server.in_thread(server, right=1.0, faults=0.5, only="500", most_faults=1) as url:
        assert order(url, out, "teacher.stop_at_total=4")[0] == 0
    assert [len(keys) for keys in batches(server)] == [20]
    assert 4 <= len(lines(out)) < 20
    is_paid_once(server, out)


# ---- Settings that change while a batch is under way ----


def test_a_batch_that_was_asked_with_other_settings_is_named_and_collected_by_the_earlier_ones(
    tmp_path, order, signalled
):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with teacher_server.in_thread(server, looks=25) as url:
        signalled(signal.SIGTERM, lambda: bool(batches(server)))
        assert order(url, out)[0] == STOPPED
        code, _, err = order(url, out, "teacher.temperature=0.9")
        assert code == 2 and is_one_line(err) and "other settings" in err, err
        assert len(batches(server)) == 1  # nothing is asked before that is settled
        code, _, err = order(url, out)
        assert (code, err) == (0, "")
        every_sample_once(out)
        assert order(url, out, "teacher.temperature=0.9")[0] == 0
    assert len(lines(out)) == 40
    is_paid_once(server, out)


def test_what_was_paid_is_collected_although_there_are_enough_right_ones_by_now(tmp_path, order, signalled):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 10)
    with teacher_server.in_thread(server, right=1.0, looks=10) as url:
        assert order(url, out, "data.num_train=2")[0] == 0
        signalled(signal.SIGTERM, lambda: len(batches(server)) == 2)
        assert order(url, out, "teacher.stop_at_total=6")[0] == STOPPED
        code, _, err = order(url, out, "teacher.stop_at_total=4")
        assert (code, err) == (0, "")
    every_sample_once(out)
    is_paid_once(server, out)


@pytest.mark.parametrize(("right", "each"), [(1.0, 1), (0.0, 3)])
def test_no_more_is_asked_of_a_problem_than_it_takes_for_a_right_one(tmp_path, order, right, each):
    server, out = tmp_path / "server", tmp_path / "samples.jsonl"
    with_answers(server, 10)
    with teacher_server.in_thread(server, right=right) as url:
        assert order(url, out, "samples=3", "teacher.stop_at=1")[0] == 0
    assert [len(keys) for keys in batches(server)] == [10] * each
    every_sample_once(out, 10, each)


def test_an_answer_of_its_own_takes_two_calls_which_no_batch_has(tmp_path, order):
    server = tmp_path / "server"
    with teacher_server.in_thread(server) as url:
        code, _, err = order(url, tmp_path / "samples.jsonl", "teacher.answer_call=true")
    assert code == 2 and is_one_line(err) and "answer_call" in err, err
    assert batches(server) == []
