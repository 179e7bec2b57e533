import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpod_lightning.commands.status import rows_of
from kpod_lightning.runs.metrics import JsonlLogger
from kpod_lightning.store.errors import InputError
from kpod_lightning.store.json_lines import JsonLines, cut_torn_line, read_rows

ROWS = [{"step": 0, "text": "Größe"}, {"step": 1, "text": "a\u2028b"}, {"step": 2, "loss": float("inf")}]
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
    ("line", "said"), [(b'{"step": \n', "broken JSON"), (b"\xc3\n", "truncated or damaged"), (b"[]\n", "not list")]
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
