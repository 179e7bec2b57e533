"""Whatever is wrong with a file that others wrote is one line with its path."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kpod_lightning.store import reading, records
from kpod_lightning.store.errors import InputError


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "broken JSON"),
        (b'{"a": 1}{', "broken JSON"),
        (b"\n\n{,}", "line 3: broken JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"-Infinity", "Infinity is no number"),
        (b"1e999", "beyond the range"),
        (b"9" * 10_000, "digits"),
        (b"[" * 100_000, "deeper than"),
        (b"[" * 300 + b"]" * 300, "deeper than"),
        (b'{"a": "\xe9"}', "no UTF-8 in line 1"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        reading.read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_byte_order_mark_is_dropped_and_half_a_pair_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a\\ud83d": ["\\ude00", "\\ud83d\\ude00", "\xc3\xa9"]}')
    assert reading.read_json(path) == {"a�": ["�", "😀", "é"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", ":1: broken YAML .a stands twice"),
        ("a:\n\t- 1\n", ":2: broken YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", ":1: broken YAML"),
        ("a: 1\n---\nb: 2\n", "broken YAML"),
        ("? [1, 2]\n: 3\n", "broken YAML"),
        ("[" * 5000, "deeper than"),
        ("a: &a [" + "*a, " * 300 + "]", "aliases"),
        ("a: \x00", "broken YAML"),
    ],
)
def test_yaml_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        reading.read_yaml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_that_is_merged_in_may_be_given_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\n", encoding="utf-8")
    assert reading.read_yaml(path)["mine"] == {"x": 1, "y": 3}


def test_paths_that_are_no_file_are_one_line(tmp_path: Path) -> None:
    loop, pipe, secret = tmp_path / "loop", tmp_path / "pipe", tmp_path / "missing"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path in (tmp_path, loop, pipe, secret, tmp_path / ("x" * 300), tmp_path / "a\0b", Path("/dev/zero")):
        with pytest.raises(InputError) as caught:
            reading.read_text(path)
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value) and len(str(caught.value)) < 400


def test_arrays_and_tensors_are_read_whole_or_refused(tmp_path: Path) -> None:
    arrays, tensors = tmp_path / "x.npz", tmp_path / "x.safetensors"
    np.savez(arrays, a=np.arange(1000))
    save_file({"a": np.arange(1000)}, tensors)
    assert reading.read_arrays(arrays)["a"].tolist() == list(range(1000))
    assert reading.read_tensors(tensors)["a"].tolist() == list(range(1000))
    for path, read in ((arrays, reading.read_arrays), (tensors, reading.read_tensors)):
        whole = path.read_bytes()
        for share in (0, 0.01, 0.5, 0.99):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(InputError, match=path.name):
                read(path)
    np.savez(arrays, a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        reading.read_arrays(arrays)


def test_a_field_of_the_wrong_type_is_one_line() -> None:
    for value in (None, 3, ["a"], {}, True, " "):
        with pytest.raises(InputError, match=r"^f:7: "):
            records.text_of({"x": value}, "x", "f:7")
    for wrong in (None, "x", 1e30, float("nan"), 1.5, True, -1, [1], "1" * 30):
        with pytest.raises(InputError, match="f:7: sample is a whole number from 0"):
            records.whole_number({"sample": wrong}, "sample", "f:7")
    assert [records.whole_number({"sample": good}, "sample", "f:7") for good in (3, 3.0, "3")] == [3, 3, 3]
    assert records.whole_number({}, "sample", "f:7", default=0) == 0
    assert records.id_of({"id": 12}, "id", "f:7") == "12"
    with pytest.raises(InputError, match=r"f:7: no field id; there are question"):
        records.id_of({"question": "?"}, "id", "f:7")
    assert records.optional_text({"x": None}, "x", "f:7") is None
    with pytest.raises(InputError, match="x is a text, not the list"):
        records.optional_text(json.loads('{"x": [1]}'), "x", "f:7")
