"""What shards wrote becomes one file, with all that was paid for, and once."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from teachers.test_quality import TEXTS, rows_of, written

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import save_jsonl
from kpod_lightning.teachers.samples.file import SampleFile
from kpod_lightning.teachers.samples.merge import Merged, merge_samples


@pytest.fixture
def parts(tmp_path) -> list[Path]:
    """Two shards, of p0 (4 samples, cost 0.04) and of p1 and p2 (5 samples, 0.05), the second with a failure."""
    paths = [tmp_path / f"samples-{i}-of-2.jsonl" for i in (1, 2)]
    written(paths[0], {"p0": TEXTS["p0"]})
    written(paths[1], {name: TEXTS[name] for name in ("p1", "p2")})
    with SampleFile(paths[1]) as file:
        file.begin("1" * 16, "k", Decimal("0.05")).result()
        file.fail("1" * 16, Decimal("0.002"), "malformed reply").result()
        file.begin("2" * 16, "k", Decimal("0.05")).result()
        file.fail("2" * 16, None, "time-out").result()
    return paths


def contents(out: Path) -> tuple[bytes, bytes]:
    return out.read_bytes(), out.with_suffix(".ledger.jsonl").read_bytes()


def test_a_merged_file_has_every_row_and_all_money_of_its_parts(tmp_path, parts):
    out = tmp_path / "samples.jsonl"
    assert merge_samples(out, parts) == Merged(9, 0, Decimal("0.09"))
    assert rows_of(out) == [row for part in parts for row in rows_of(part)]
    with SampleFile(out) as file:
        assert file.num_rows == 9
        assert (file.money.spent, file.money.held) == (Decimal("0.092"), Decimal("0.05"))
        assert all(file.right_of(row["key"]) is not None for part in parts for row in rows_of(part))


def test_merging_again_changes_nothing(tmp_path, parts):
    out = tmp_path / "samples.jsonl"
    merge_samples(out, parts)
    before = contents(out)
    assert merge_samples(out, parts) == Merged(9, 9, Decimal("0.09"))
    assert contents(out) == before


def test_what_is_there_is_the_first_part(tmp_path, parts):
    one, whole = tmp_path / "one.jsonl", tmp_path / "whole.jsonl"
    merge_samples(one, parts[:1])
    assert merge_samples(one, parts[1:]) == Merged(9, 0, Decimal("0.09"))
    merge_samples(whole, parts)
    assert contents(one) == contents(whole)


def test_samples_of_the_same_index_under_different_keys_both_stay(tmp_path, parts):
    other = tmp_path / "hotter.jsonl"
    written(other, {"p0": TEXTS["p0"]}, temperature=1.0)
    assert merge_samples(tmp_path / "samples.jsonl", [parts[0], other]).num_rows == 8


def test_a_key_with_two_contents_stops(tmp_path, parts):
    other = tmp_path / "other.jsonl"
    written(other, {"p0": TEXTS["p0"]}, cost="0.02")
    with pytest.raises(InputError, match=r"other\.jsonl:1: key \w+ stands at .*samples-1-of-2\.jsonl:1 with other"):
        merge_samples(tmp_path / "samples.jsonl", [parts[0], other])
    assert not (tmp_path / "samples.jsonl").exists()


def test_a_part_that_is_being_written_is_refused(tmp_path, parts):
    with SampleFile(parts[1]), pytest.raises(InputError, match=r"samples-2-of-2\.jsonl is being written"):
        merge_samples(tmp_path / "samples.jsonl", parts)
    assert not (tmp_path / "samples.jsonl").exists()
    merge_samples(tmp_path / "samples.jsonl", parts)


def test_the_merged_file_is_no_part_of_itself(tmp_path, parts):
    with pytest.raises(InputError, match="named twice"):
        merge_samples(parts[0], parts)
    with pytest.raises(InputError, match="named twice"):
        merge_samples(tmp_path / "samples.jsonl", [parts[0], parts[0]])


def test_a_part_that_is_not_there_is_refused_and_leaves_no_trace(tmp_path, parts):
    with pytest.raises(InputError, match="no such file"):
        merge_samples(tmp_path / "samples.jsonl", [*parts, tmp_path / "folder" / "none.jsonl"])
    assert not (tmp_path / "folder").exists()
    with pytest.raises(InputError, match="no parts"):
        merge_samples(tmp_path / "samples.jsonl", [])


def test_a_broken_row_stops_and_a_last_one_that_a_kill_cut_is_not_there(tmp_path, parts):
    out, whole = tmp_path / "samples.jsonl", parts[0].read_bytes()
    parts[0].write_bytes(whole[:-20])
    assert merge_samples(out, parts).num_rows == 8
    before = contents(out)
    parts[0].write_bytes(b"{\n" + whole)
    with pytest.raises(InputError, match=r"samples-1-of-2\.jsonl:1: broken JSON"):
        merge_samples(out, parts)
    parts[0].write_text(json.dumps({"problem_id": "p0", "rationale": "x"}) + "\n")
    with pytest.raises(InputError, match=r"samples-1-of-2\.jsonl:1: no field correct"):
        merge_samples(out, parts)
    assert contents(out) == before


def test_a_part_of_which_a_batch_is_under_way_is_not_merged(tmp_path):
    part, out = tmp_path / "a.jsonl", tmp_path / "all.jsonl"
    save_jsonl(part, [])
    journal = part.with_suffix(".batches.jsonl")
    sent = [{"batch": "0a", "made": 1, "attempts": {"k": "0b"}}]
    save_jsonl(journal, sent)
    with pytest.raises(InputError, match=r"a\.jsonl: batches are under way \(1\)"):
        merge_samples(out, [part])
    assert not out.exists()
    save_jsonl(journal, [*sent, {"batch": "0a", "status": "completed"}])
    assert merge_samples(out, [part]).num_rows == 0


@pytest.mark.parametrize("lost", ["all", "a line", "its end"])
def test_a_part_whose_ledger_lost_requests_is_refused_and_nothing_is_merged(tmp_path, lost):
    part, out = tmp_path / "a.jsonl", tmp_path / "samples.jsonl"
    written(part, {"p0": TEXTS["p0"]})
    rows = [row | {"attempts": [f"{i:016x}"]} for i, row in enumerate(rows_of(part), start=1)]
    save_jsonl(part, rows)
    ledger = part.with_suffix(".ledger.jsonl")
    lines = [json.dumps({"attempt": row["attempts"][0], "key": row["key"], "at_most": "0.05"}) + "\n" for row in rows]
    ledger.write_text("".join(lines), encoding="utf-8")
    assert merge_samples(tmp_path / "whole.jsonl", [part]).num_rows == len(rows)
    left = {"all": "", "a line": "".join(lines[1:]), "its end": "".join(lines)[:-20]}[lost]
    ledger.write_text(left, encoding="utf-8")
    number = len(rows) if lost == "all" else 1
    with pytest.raises(InputError, match=rf"a\.ledger\.jsonl: lacks {number} requests that rows of .*a\.jsonl"):
        merge_samples(out, [part])
    assert not out.exists() and not out.with_suffix(".ledger.jsonl").exists()
