"""Kinds of teachers are found by name: those of this package, and those of other installed packages."""

import json
import subprocess
import sys

import pytest
from store.test_plugins import install

from kpod_lightning.config import SHIPPED_TEACHERS, TEACHERS, TeacherConfig, load_config
from kpod_lightning.store.errors import InputError
from kpod_lightning.teachers.order import load_teacher, order

ECHO = """
from decimal import Decimal
from kpod_lightning.teachers.requests import Reply

def write(work):
    while (request := work.take()) is not None:
        work.add(request, Reply(text=f"The answer is {request.problem.answer}."), [], Decimal(0)).result()
"""
FREE = ["teacher.prices.input=0", "teacher.prices.output=0"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_teacher_of_another_package_is_ordered_from_by_its_name(site, tmp_path):
    (site / "echo_teacher.py").write_text(ECHO)
    install(site, "echo", {"echo": "echo_teacher"}, group=TEACHERS)
    out = tmp_path / "samples.jsonl"
    order(load_config(None, ["teacher=echo:any", "data.num_train=3", "samples=2", *FREE]), out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 6 and all(row["correct"] and row["teacher"] == "echo:any" for row in rows)


def test_a_teacher_of_another_package_needs_its_prices(site, tmp_path):
    (site / "echo_teacher.py").write_text(ECHO)
    install(site, "echo", {"echo": "echo_teacher"}, group=TEACHERS)
    with pytest.raises(InputError, match=r"no price is known for echo:gpt-4\.1, .* teacher\.prices\.input="):
        order(load_config(None, ["teacher=echo:gpt-4.1", "data.num_train=3"]), tmp_path / "samples.jsonl")
    assert not (tmp_path / "samples.jsonl").exists()


def test_an_unknown_kind_is_refused_with_all_that_there_are(site):
    install(site, "echo", {"echo": "echo_teacher"}, group=TEACHERS)
    kinds = "openai:..., batch:..., local:..., vllm:..., recorded:..., echo:..."
    with pytest.raises(InputError, match=rf"^teacher=parrot:polly is none of {kinds.replace('.', '[.]')}$"):
        TeacherConfig(name="parrot:polly")


def test_a_package_cannot_replace_a_shipped_kind(site):
    install(site, "echo", {"openai": "echo_teacher"}, group=TEACHERS)
    with pytest.raises(InputError, match=r"entry point openai .* the package echo gives a name"):
        TeacherConfig(name="openai:model-a")


def test_an_entry_point_without_a_function_write_is_refused(site):
    (site / "mute_teacher.py").write_text("")
    install(site, "mute", {"mute": "mute_teacher"}, group=TEACHERS)
    with pytest.raises(InputError, match=r"teacher=mute:\.\.\.: .* write\(work\)"):
        load_teacher("mute")


@pytest.mark.parametrize("kind", SHIPPED_TEACHERS)
def test_every_shipped_kind_writes(kind):
    assert callable(load_teacher(kind).write)


@pytest.mark.parametrize("kind", ["local", "vllm", "recorded"])
def test_a_teacher_on_this_machine_loads_no_client_of_an_endpoint(kind):
    code = (
        "import sys\nfrom kpod_lightning.teachers.order import load_teacher\n"
        f"load_teacher({kind!r})\nprint(*sorted({{'openai', 'aiohttp', 'tenacity'}} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
