"""What a user's path holds is replaced only where this project wrote it and nobody changed it."""

import pytest

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.products import product


def write(path, kind="page", text="made"):
    with product(path, kind) as aside:
        aside.write_text(text)


def write_folder(path):
    with product(path, "student") as aside:
        aside.mkdir()
        (aside / "model").write_text("parameters")


def test_an_unchanged_product_of_the_same_kind_is_replaced(tmp_path):
    for text in ("one", "two", "three"):
        write(tmp_path / "page.html", text=text)
        assert (tmp_path / "page.html").read_text() == text
        write_folder(tmp_path / "student")
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["model"]


def changed_by_hand(path):
    write(path)
    path.write_text("made, and corrected")


def of_another_kind(path):
    write(path, kind="ledger")


def not_ours(path):
    path.write_text("years of work")


def a_folder(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")


def a_student_with_a_file_beside(path):
    write_folder(path)
    (path / "notes.txt").write_text("years of work")


def a_link(path):
    path.with_name("target").write_text("years of work")
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize(
    "made", [changed_by_hand, of_another_kind, not_ours, a_folder, a_student_with_a_file_beside, a_link]
)
@pytest.mark.parametrize("writes", [write, write_folder])
def test_anything_else_stays(tmp_path, made, writes):
    path = tmp_path / "out"
    made(path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="--out"):
        writes(path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_current_folder_and_those_around_it_stay_even_empty(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for path in (tmp_path / "a" / "b", tmp_path / "a"):
        with pytest.raises(InputError, match="current"):
            write_folder(path)


def test_an_empty_folder_and_an_empty_file_are_filled(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "page").touch()
    write_folder(tmp_path / "student")
    write(tmp_path / "page")


def test_a_failed_write_leaves_the_earlier_product_replaceable(tmp_path):
    path = tmp_path / "page"
    write(path, text="earlier")
    with pytest.raises(InputError, match="full"), product(path, "page") as aside:
        aside.write_text("half")
        raise InputError("the disk is full")
    assert path.read_text() == "earlier"
    write(path, text="later")
