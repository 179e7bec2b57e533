"""Files that exist whole or not at all, and nothing else that is lost for them."""

import pytest

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import write_text, writing


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "precious.txt").write_text("text")
    with pytest.raises(InputError, match="a folder, where a file is to be written"):
        write_text(tmp_path / "d", "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "precious.txt"]


def test_a_folder_never_replaces_a_file(tmp_path):
    (tmp_path / "f").write_text("text")
    with pytest.raises(InputError, match="f: "), writing(tmp_path / "f") as aside:
        aside.mkdir()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text"]
