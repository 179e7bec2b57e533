import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpod_lightning.commands.status import rows_of
from kpod_lightning.runs.metrics import JsonlLogger
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, cut_torn_line, load_jsonl, read_rows

ROWS = [{"step": 0, "text": "Größe"}, {"step": 1, "text": "a\u2028b"}, {"step": 2, "loss": -0.5}]
LINES = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS]
TORN = [b'{"step": 3, "lo', b'{"step": 3, "text": "\xc3', b"\0" * 100, b"x" * 200_000]


@given(st.data())
def test_a_row_cut_at_any_byte_is_left_out_by_every_reader(tmp_path_factory, data):
    whole = b"".join(LINES)
    size = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    path.write_bytes(whole[:size])
    ends = [len(b"".join(LINES[: i + 1])) for i in range(len(LINES))]
    expected = [row for row, end in zip(ROWS, ends, strict=True) if end - 1 <= size]  # the newline may be missing
    assert list(read_rows(path)) == list(JsonLines(path, may_be_torn=True)) == rows_of(path) == expected
    cut_torn_line(path)
    assert path.read_bytes() == b"".join(line for line, end in zip(LINES, ends, strict=True) if end <= size)


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line_is_cut_and_the_rest_stays_byte_for_byte(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(LINES) + torn)
    assert list(read_rows(path)) == list(JsonLines(path, may_be_torn=True)) == ROWS
    cut_torn_line(path)
    assert path.read_bytes() == b"".join(LINES)
    cut_torn_line(path)
    assert path.read_bytes() == b"".join(LINES)


@pytest.mark.parametrize("torn", TORN)
def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    path.write_bytes(torn)
    assert list(read_rows(path)) == list(JsonLines(path, may_be_torn=True)) == []
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_cutting_a_file_that_does_not_exist_makes_none(tmp_path):
    cut_torn_line(tmp_path / "a.jsonl")
    assert not (tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "said"), [(b'{"step": \n', "broken JSON"), (b"\xc3\n", "no UTF-8"), (b"[]\n", "not a list")]
)
def test_a_damaged_line_that_ends_in_a_newline_is_named_and_ends_the_table_of_runs_only(tmp_path, line, said):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(LINES[0] + line + LINES[1])
    with pytest.raises(InputError, match=rf"metrics\.jsonl:2: .*{said}"):
        list(read_rows(path))
    with pytest.raises(InputError, match=rf"metrics\.jsonl:2: .*{said}"):
        list(JsonLines(path, may_be_torn=True))
    with pytest.raises(InputError, match=rf"metrics\.jsonl:2: .*{said}"):
        JsonlLogger(path).cut(1)
    assert rows_of(path) == ROWS[:1]


@pytest.mark.parametrize("torn", [b"", *TORN[:2]])
def test_a_resumed_training_drops_the_rows_from_its_step_on_and_a_torn_one(tmp_path, torn):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.cut(0)
    for step in range(4):
        logger.log_metrics({"train/nats_per_token": 0.1 + step, "epoch": step}, step)
    lines = logger.path.read_bytes().splitlines(keepends=True)
    logger.path.write_bytes(b"".join(lines) + torn)
    logger.cut(2)
    assert logger.path.read_bytes() == b"".join(lines[:2])


def test_infinities_are_read_from_what_a_run_wrote_and_refused_in_the_files_of_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"loss": Infinity}\n')
    assert list(read_rows(path)) == load_jsonl(path) == [{"loss": float("inf")}]
    with pytest.raises(InputError, match=r"metrics\.jsonl:1: Infinity is no number of JSON"):
        JsonLines(path)[0]


def test_a_mark_of_byte_order_blank_lines_and_line_ends_of_windows_are_read_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\r\n{"a": 1}\r\n\r\n \n{"a": 2}\n{"a": 3}\n\n')
    rows = JsonLines(path)
    assert list(rows) == load_jsonl(path) == list(read_rows(path)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [rows.place(i) for i in (0, 1, 2, -1)] == [f"{path}:{number}" for number in (2, 5, 6, 6)]


def test_a_damaged_line_behind_blank_ones_is_named_by_its_own_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"a": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:4: broken JSON"):
        JsonLines(tmp_path / "a.jsonl")[1]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (r'{"a": "it is 3 \ud83d"}', {"a": "it is 3 \ufffd"}),
        (r'{"a": ["\udc00", {"\ud800": 1}]}', {"a": ["\ufffd", {"\ufffd": 1}]}),
        (r'{"a": "\ud83d\ude00"}', {"a": "\U0001f600"}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"a": [[-36893488147419103233]]}', {"a": [[-36893488147419103233]]}),
    ],
)
def test_every_reader_gives_whole_numbers_exactly_and_texts_that_can_be_encoded(tmp_path, line, row):
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    assert list(JsonLines(path)) == list(read_rows(path)) == load_jsonl(path) == [row]


@pytest.mark.parametrize("line", ['{"a": ' + "[" * 600 + "]" * 600 + "}", '{"a": ' + "[" * 100_000])
def test_a_line_that_nests_too_deep_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:1: nested deeper"):
        JsonLines(tmp_path / "a.jsonl")[0]


def test_a_damaged_artefact_says_how_it_is_made_again(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"right": tr')
    with pytest.raises(InputError, match=r"test\.jsonl:1: broken JSON .* remove it and repeat the command"):
        load_jsonl(tmp_path / "test.jsonl")


def test_a_folder_or_a_path_without_a_name_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match="a folder, where a file is expected"):
        JsonLines(tmp_path)
    with pytest.raises(InputError, match="a folder, where a file is expected"):
        JsonLines(Path())
    with pytest.raises(InputError, match="no such file"):
        JsonLines(tmp_path / ("x" * 5000))
