"""The file of samples with its ledger and lock: nothing lost, nothing counted twice, no budget exceeded."""

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teachers.builders import row_of

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines
from kpod_lightning.teachers.samples.file import Appender, Money, SampleFile


@pytest.mark.parametrize("torn", [b'{"key": "c", "corr', b'{"key": "c"}', b"x" * 200_000, b"\xc3"])
@pytest.mark.parametrize("ending", [".jsonl", ".ledger.jsonl"])
def test_a_last_line_that_a_kill_has_torn_is_cut_and_the_rest_kept_byte_for_byte(tmp_path, torn, ending):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.begin("0c", "c", Decimal("0.5")).result()
        file.begin("0d", "d", Decimal("0.5")).result()
        file.add(row_of("a", text="Größe\n" * 30_000)).result()
        file.add(row_of("b")).result()
    place = tmp_path / f"samples{ending}"
    whole = place.read_bytes()
    place.write_bytes(whole + torn)
    with SampleFile(path) as file:
        assert place.read_bytes() == whole
        assert (file.num_rows, set(file.open)) == (2, {"0c", "0d"})
        assert (file.right_of("a"), file.right_of("c")) == (True, None)


def test_a_file_that_is_one_torn_line_is_empty(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(json.dumps({"problem_id": "p"} | row_of("a")).encode()[:60])
    with SampleFile(path) as file:
        assert file.num_rows == 0 and path.read_bytes() == b""


def test_rows_are_found_again_with_whether_they_are_right(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.add(row_of("a"))
        file.add(row_of("b", correct=False))
        now = [file.right_of(key) for key in "abc"]
    with SampleFile(path) as file:
        assert [file.right_of(key) for key in "abc"] == now == [True, False, None]
        assert file.num_rows == 2


def ledger_of(path: Path, *, cost: str | None = None, fails: bool = False, row_from: str | None = None) -> SampleFile:
    """A file opened again, where an attempt was begun that may have cost half a dollar."""
    with SampleFile(path, Decimal(1)) as file:
        file.begin("0a", "k", Decimal("0.5"))
        if fails:
            file.fail("0a", None if cost is None else Decimal(cost), "timeout")
        if row_from not in (None, "0a"):
            file.begin(row_from, "k", Decimal("0.5"))
        if row_from is not None:
            file.add(row_of("k", cost=0.125, attempts=[row_from]))
    return SampleFile(path, Decimal(1))


@pytest.mark.parametrize(
    ("history", "spent", "held"),
    [
        ({}, "0", "0.5"),
        ({"fails": True, "cost": "0.25"}, "0.25", "0"),
        ({"fails": True, "cost": "0"}, "0", "0"),
        ({"fails": True}, "0", "0.5"),
        ({"row_from": "0a"}, "0.125", "0"),
        ({"fails": True, "cost": "0.25", "row_from": "0b"}, "0.375", "0"),
        ({"fails": True, "row_from": "0b"}, "0.125", "0.5"),
    ],
)
def test_what_a_file_has_cost_is_known_when_it_is_opened_again(tmp_path, history, spent, held):
    with ledger_of(tmp_path / "samples.jsonl", **history) as file:
        assert (file.money.spent, file.money.held) == (Decimal(spent), Decimal(held))
        assert file.open == ({"0a": Decimal("0.5")} if Decimal(held) else {})


def test_a_held_attempt_leaves_less_of_the_budget(tmp_path):
    with ledger_of(tmp_path / "samples.jsonl") as file:
        assert not file.money.reserve(Decimal("0.51"))
        assert file.money.reserve(Decimal("0.5"))


@pytest.mark.parametrize(("cost", "num_wasted"), [(None, 1), ("0.25", 1), ("0", 0)])
def test_what_was_wasted_is_counted_alike_at_once_and_when_the_file_is_opened_again(tmp_path, cost, num_wasted):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.begin("0a", "k", Decimal("0.5"))
        file.fail("0a", None if cost is None else Decimal(cost), "timeout")
        assert file.seen.num_wasted == num_wasted
    with SampleFile(path) as file:
        assert file.seen.num_wasted == num_wasted


def test_rows_asked_in_another_way_cost_money_and_tell_nothing_of_those_to_come(tmp_path):
    path = tmp_path / "samples.jsonl"

    def ours(row: dict[str, Any]) -> bool:
        return row["teacher"] == "a"

    def counts(file: SampleFile) -> tuple[int, int, float]:
        return file.num_rows, file.seen.num_rows, file.seen.cost

    with SampleFile(path, alike=ours) as file:
        file.add(row_of("x", teacher="a", cost=0.25))
        file.add(row_of("y", teacher="b", cost=0.5))
        file.add(row_of("z", teacher="a", cost=1.0))
        now = counts(file)
    with SampleFile(path, alike=ours) as file:
        assert counts(file) == now == (3, 2, 1.25)
        assert file.money.spent == Decimal("1.75")
        assert file.right_of("y") is True


def test_a_second_process_is_refused_by_the_name_of_the_first_while_that_has_the_file(tmp_path):
    path = tmp_path / "gpt-4.1.jsonl"
    with SampleFile(path), pytest.raises(InputError) as caught:
        SampleFile(path)
    assert f"{path} is being written by process {os.getpid()} on " in str(caught.value)
    assert "\n" not in str(caught.value)
    with SampleFile(path) as file:
        assert file.num_rows == 0


def test_two_files_of_a_folder_are_written_side_by_side(tmp_path):
    with SampleFile(tmp_path / "a-1-of-2.jsonl") as one, SampleFile(tmp_path / "a-2-of-2.jsonl") as other:
        one.add(row_of("a")).result()
        assert other.right_of("a") is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"problem_id": "p", "rationale": "x"}\n', r"samples\.jsonl:2: no row .*correct"),
        (json.dumps({"key": "b", "correct": True, "cost": 0.1, "usage": None}) + "\n", r"samples\.jsonl:2: no row"),
        ('{"key": "b", "correct": true}\n', r"samples\.jsonl:2: no row .*cost"),
        ("no JSON\n", r"samples\.jsonl:2: broken JSON"),
        ("[]\n", r"samples\.jsonl:2: a line holds one JSON object"),
    ],
)
def test_a_file_of_other_rows_is_refused_as_it_is_and_not_held(tmp_path, line, said):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row_of("a")) + "\n" + line, encoding="utf-8")
    before = path.read_bytes()
    for _ in range(2):  # the first one has let go of it
        with pytest.raises(InputError, match=said) as caught:
            SampleFile(path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_of_other_rows_without_a_last_newline_is_refused_as_it_is(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"id": "p", "question": "x"}\n{"id": "q", "question": "y"}', encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(InputError):
        SampleFile(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["samples.json", "samples", "samples.jsonl.gz"])
def test_a_file_that_does_not_end_in_jsonl_is_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        SampleFile(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/samples\.jsonl: ") as caught:
        SampleFile(tmp_path / "file" / "samples.jsonl")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_made(tmp_path):
    with SampleFile(tmp_path / "new" / "folder" / "samples.jsonl") as file:
        file.add(row_of("a")).result()
    assert len(JsonLines(tmp_path / "new" / "folder" / "samples.jsonl")) == 1


FULL = Path("/dev/full")

on_linux = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@on_linux
def test_on_a_full_disk_a_line_and_all_later_ones_end_in_an_error_that_says_so():
    appender = Appender(FULL)
    said = {str(appender.append(FULL, {"row": i}).exception(timeout=5)) for i in range(3)}
    appender.close()
    assert said == {f"/dev/full: {os.strerror(errno.ENOSPC)}; free space or permissions there, then repeat"}


@on_linux
def test_once_one_file_is_full_no_other_line_is_taken_for_written(tmp_path):
    appender = Appender(FULL, tmp_path / "rows.jsonl")
    assert isinstance(appender.append(FULL, {}).exception(timeout=5), InputError)
    assert isinstance(appender.append(tmp_path / "rows.jsonl", {}).exception(timeout=5), InputError)
    appender.close()
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


class Held:
    """``os.fsync`` that waits until it is let go."""

    def __init__(self) -> None:
        self.called, self.free, self.number = threading.Event(), threading.Event(), 0
        self._fsync = os.fsync

    def __call__(self, descriptor: int) -> None:
        self.called.set()
        assert self.free.wait(5)
        self._fsync(descriptor)
        self.number += 1


@pytest.fixture
def held(monkeypatch) -> Held:
    held = Held()
    monkeypatch.setattr(os, "fsync", held)
    return held


def test_a_line_is_done_only_when_it_is_on_disk(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    done = appender.append(path, {"row": 0})
    assert held.called.wait(5)
    assert path.read_bytes() == b'{"row": 0}\n' and not done.done()
    held.free.set()
    done.result(timeout=5)
    assert held.number == 1
    appender.close()


def test_lines_that_came_while_the_disk_was_busy_share_one_write_to_disk_and_keep_their_order(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    appender.append(path, {"row": 0})
    assert held.called.wait(5)
    futures = [appender.append(path, {"row": i}) for i in range(1, 100)]
    held.free.set()
    for future in futures:
        future.result(timeout=5)
    assert held.number == 2
    assert [row["row"] for row in JsonLines(path)] == list(range(100))
    appender.close()


def test_closing_waits_for_what_was_appended(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path)
    futures = [appender.append(path, {"row": i}) for i in range(9)]
    threading.Timer(0.05, held.free.set).start()
    appender.close()
    assert all(future.done() and future.exception() is None for future in futures)


@on_linux
def test_closing_ends_although_the_last_lines_do_not_reach_the_disk(tmp_path, held):
    path = tmp_path / "rows.jsonl"
    appender = Appender(path, FULL)
    appender.append(path, {})
    assert held.called.wait(5)
    failed = appender.append(FULL, {})
    closing = threading.Thread(target=appender.close, daemon=True)
    closing.start()
    closing.join(0.1)  # by then the end is marked
    held.free.set()
    assert isinstance(failed.exception(timeout=5), InputError)
    closing.join(0.2)
    ended = not closing.is_alive()
    appender._lines.put(None)  # lets go of a thread that waits
    closing.join(5)
    assert ended


def test_rows_from_many_threads_are_all_there_each_a_whole_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file, ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda i: file.add(row_of(f"k{i}", text="Größe\n" * (i % 50))), range(400)))
        for future in futures:
            future.result(timeout=5)
        assert file.num_rows == 400
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert {row["key"]: row["text"] for row in rows} == {f"k{i}": "Größe\n" * (i % 50) for i in range(400)}
    assert len(rows) == 400


def test_half_a_surrogate_pair_becomes_a_question_mark_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "samples.jsonl"
    with SampleFile(path) as file:
        file.add(row_of("a", text="5 \ud83d hens \U0001f414")).result()
    assert JsonLines(path)[0]["text"] == "5 ? hens \U0001f414"


def test_money_is_reserved_and_settled_as_by_hand():
    money = Money(Decimal(10), spent=Decimal(3))
    assert money.reserve(Decimal(4)) and money.reserve(Decimal(3))  # 3 + 4 + 3 is all of it
    assert not money.reserve(Decimal("0.01"))
    money.settle(Decimal(4), Decimal(1))
    assert money == Money(Decimal(10), spent=Decimal(4), held=Decimal(3))
    money.settle(Decimal(3), None)  # may have been billed
    assert money == Money(Decimal(10), spent=Decimal(4), held=Decimal(3))
    assert not money.reserve(Decimal("3.01")) and money.reserve(Decimal(3))


def test_without_a_limit_all_is_reserved():
    assert Money().reserve(Decimal(10**9))


CENTS = st.integers(0, 300).map(lambda cents: Decimal(cents) / 100)


@given(CENTS, st.lists(st.tuples(CENTS, st.sampled_from(["out", "billed", "unknown"]), st.integers(0, 100))))
def test_no_order_of_requests_spends_more_than_the_limit(limit, requests):
    money, out = Money(limit), []
    bill = Decimal(0)
    for at_most, end, percent in requests:
        if money.reserve(at_most):
            out.append(at_most)
        if end != "out" and out:
            first = out.pop(0)
            cost = first * percent / 100
            bill += cost  # of what nobody knows too
            money.settle(first, cost if end == "billed" else None)
        assert bill + sum(out) <= money.spent + money.held <= limit


def test_a_line_that_is_none_of_a_ledger_is_named(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.with_suffix(".ledger.jsonl").write_text('{"attempt": "0a", "cost": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"samples\.ledger\.jsonl:1: no line of a ledger"):
        SampleFile(path)


def paid_file(folder: Path) -> Path:
    with SampleFile(folder / "s.jsonl") as file:
        for name in ("a1", "b2"):
            file.begin(name, f"k{name}", Decimal("0.5")).result()
            file.add(row_of(f"k{name}", attempts=[name])).result()
    return folder / "s.jsonl"


@pytest.mark.parametrize("lost", ["removed", "emptied", "torn"])
def test_a_ledger_that_lost_lines_of_rows_that_are_there_stops_the_order_and_nothing_is_made(tmp_path, lost):
    path = paid_file(tmp_path)
    ledger = path.with_suffix(".ledger.jsonl")
    if lost == "removed":
        ledger.unlink()
    else:
        ledger.write_bytes(b"" if lost == "emptied" else ledger.read_bytes()[:-5])
    with pytest.raises(InputError, match=rf"s\.ledger\.jsonl: lacks {1 if lost == 'torn' else 2} requests"):
        SampleFile(path)
    assert ledger.exists() == (lost != "removed")


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (".jsonl", row_of("c", cost=-33)),
        (".jsonl", row_of("c", cost=float("nan"))),
        (".jsonl", row_of("c", cost="much")),
        (".jsonl", row_of("c", correct="yes")),
        (".jsonl", row_of("c", attempts=["zz"])),
        (".jsonl", row_of("c", attempts=3)),
        (".jsonl", row_of(["c"])),
        (".ledger.jsonl", {"attempt": "c3", "at_most": "NaN"}),
        (".ledger.jsonl", {"attempt": "c3", "at_most": "-1"}),
        (".ledger.jsonl", {"attempt": 3, "at_most": "1"}),
        (".ledger.jsonl", {"attempt": "f" * 17, "at_most": "1"}),
        (".ledger.jsonl", {"attempt": "c3", "cost": "0", "why": None}),
        (".ledger.jsonl", {"attempt": "c3"}),
    ],
)
def test_a_line_of_wrong_types_is_named_and_never_counted(tmp_path, ending, line):
    path = paid_file(tmp_path)
    file = path.with_suffix(ending)
    with file.open("a") as appended:
        appended.write(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=rf"s{ending}:{3}"):
        SampleFile(path)
